"""Tests of `cf_lab_resources`."""
