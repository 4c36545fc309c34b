"""Processes are killed here; what is left must be whole."""
