"""The procedural portrait world and the small models that are trained on it."""
