"""Measurements against peers, side by side: `python -m cf_lab_tests.benchmarks.NAME`."""
