"""Tests, by the package that they mirror."""
