"""Tests, laid out like the two packages they are about."""
