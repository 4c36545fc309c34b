"""Tests of the packaged dataset."""
