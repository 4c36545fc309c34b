"""Measurements against peers, each a module to run; no tests."""
