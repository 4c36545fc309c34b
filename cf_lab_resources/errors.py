"""The tree of errors that people are meant to read.

Each message names the input, says what is wrong with it and what to do. Commands print such
an error as one line; assets turn it into a failure that is not retried, since a rerun with the
same input can't mend it.
"""

from __future__ import annotations


class LabError(Exception):
    """Base of every error that the lab raises on purpose."""
