"""The words of a result: metrics, families, verdicts and reasons.

A leaf: what computes results and what reports them agree here.
"""

from __future__ import annotations

from typing import Any

Result = dict[str, Any]

SCHEMA = "cf-lab/bias-metrics/1"
EFFECT, SKEW, MAX_SKEW, MIN_SKEW = "paired_effect", "skew_at_k", "max_skew_at_k", "min_skew_at_k"
PRIMARY, SECONDARY = "primary", "secondary"
FOUND, NOT_FOUND, INSUFFICIENT = "found", "not_found", "insufficient"
INTERVAL, FLOOR, CHANCE, NO_FLOOR = (
    "interval_includes_no_effect",
    "within_placebo_floor",
    "q_not_below_alpha",
    "no_placebo_floor",
)
# One-sided confidence of the bound that serves as placebo floor.
FLOOR_LEVEL = 0.95
