"""The words of a result: metrics, families, verdicts and reasons.

A leaf: what computes results and what reports them agree here.
"""

from __future__ import annotations

from typing import Any

Result = dict[str, Any]

SCHEMA = "cf-lab/bias-metrics/1"
EFFECT, SKEW, MAX_SKEW, MIN_SKEW = "paired_effect", "skew_at_k", "max_skew_at_k", "min_skew_at_k"
STRATUM_EFFECT = "paired_effect_in_stratum"
NDKL, BIAS = "ndkl", "bias_at_k"
WEAT, FIRST = "weat_effect_size", "first_in_set"
SET_RANGE, TOKEN_FAIRNESS_GAP = "set_range", "counterfactual_token_fairness_gap"
SELECTION_RATE, SELECTION_GAP = "selection_rate", "selection_rate_difference"
DEMOGRAPHIC_PARITY = "demographic_parity_difference"
PARITY_RATIO = "demographic_parity_ratio"
DISPARATE_IMPACT = "disparate_impact"
TRUE_POSITIVE_GAP = "true_positive_rate_difference"
FALSE_POSITIVE_GAP = "false_positive_rate_difference"
EQUAL_OPPORTUNITY = "equal_opportunity_difference"
EQUALIZED_ODDS, AVERAGE_ODDS = "equalized_odds_difference", "average_odds_difference"
FLIP_RATE = "counterfactual_flip_rate"
ACCURACY, ACCURACY_GAP = "resolution_accuracy", "resolution_accuracy_gap"
ABSTENTION, SOUNDNESS = "abstention_rate", "soundness"
PRIMARY, SECONDARY = "primary", "secondary"
FOUND, NOT_FOUND, INSUFFICIENT = "found", "not_found", "insufficient"
# A number that no hypothesis is about, such as a rate; it has an interval and no p.
DESCRIPTIVE = "descriptive"
# What can't be computed from enough data, such as an effect in units of a spread of 0.
UNDEFINED = "undefined"
INTERVAL, FLOOR, CHANCE, NO_FLOOR = (
    "interval_includes_no_effect",
    "within_placebo_floor",
    "q_not_below_alpha",
    "no_placebo_floor",
)
# Where the interval of a primary endpoint lies against the limit that its declaration sets.
WITHIN, EXCEEDED, UNDECIDED = "within_limit", "limit_exceeded", "undecided"
CONSTANT: Result = {"verdict": UNDEFINED, "why": "the scores are constant"}
# One-sided confidence of the bound that serves as placebo floor.
FLOOR_LEVEL = 0.95
