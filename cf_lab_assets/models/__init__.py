"""Model artifacts: which models the lab uses, where they lie, whether they are intact."""
