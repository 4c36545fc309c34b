"""Retries told apart from refusals: which failed steps are tried again, and how often.

What is away for a moment, Postgres say, is tried again by the step. What was refused, bad input or
a gate that failed, is not, since the next try would read the same. Whole runs are started anew
only where their process was lost (`run_retries` of Dagster's instance), never for a failed step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from cf_lab_resources.errors import LabError, passes

# 2, 4, 8 and 16 seconds: longer than a server takes to start anew, short enough to wait for.
RETRIES = dg.RetryPolicy(max_retries=4, delay=2, backoff=dg.Backoff.EXPONENTIAL)


def failure(error: LabError, metadata: Mapping[str, Any] | None = None) -> dg.Failure:
    """The failure of a step, which is tried again only if the error passes by itself."""
    return dg.Failure(str(error), metadata=metadata, allow_retries=passes(error))


@contextmanager
def readable() -> Iterator[None]:
    """Turns the lab's own errors into failures of the step.

    Raises:
        dg.Failure: for a `LabError`.
    """
    try:
        yield
    except LabError as error:
        raise failure(error) from error
