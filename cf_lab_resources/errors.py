"""The tree of errors that people are meant to read.

Each message names the input, says what is wrong with it and what to do. Commands print such
an error as one line; assets turn it into a failure of their step, which is retried only if the
error passes by itself: with the same input a rerun would be refused again.
"""

from __future__ import annotations


class LabError(Exception):
    """Base of every error that the lab raises on purpose.

    Attributes:
        passing: whether the same is likely to succeed a while later, as where a server is away.
    """

    passing = False


def passes(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, passes by itself."""
    while error is not None:
        if isinstance(error, LabError) and error.passing:
            return True
        error = error.__cause__
    return False
