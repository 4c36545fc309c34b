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
# What a result's fields hold, with the type of their JSON.
COLUMNS = {
    "id": ("string", "the result's name, the same in every audit"),
    "family": ("string", "tests that are adjusted together; primary endpoints are one family"),
    "metric": ("string", "by which it was computed; see the report's definitions"),
    "format": ("string", "how the model was asked: association, forced_choice or open"),
    "unit": ("string", "of the estimate"),
    "attribute": ("string", "what the sets vary"),
    "value": ("string", "that the result is about; null where it compares values"),
    "from_value": ("string", "the effect is of changing this value"),
    "to_value": ("string", "into this one"),
    "within": ("object", "the stratum: values that are held fixed"),
    "prompts_plus": ("list<string>", "whose scores are added"),
    "prompts_minus": ("list<string>", "whose scores are taken off"),
    "endpoint": ("string", "name of the declared primary endpoint"),
    "n_sets": ("int", "counterfactual sets behind the number"),
    "placebo_sets": ("int", "sets behind the placebo floor"),
    "k": ("int", "places of a ranking that count"),
    "pool": ("int", "pictures that were ranked"),
    "in_top": ("float", "pictures of the value among the first K, ties shared"),
    "estimate": ("float", "in the unit; null where it is insufficient or undefined"),
    "ci_low": ("float", "lower end of the interval"),
    "ci_high": ("float", "upper end of the interval"),
    "ci_level": ("float", "of the interval"),
    "ci_method": ("string", "how the interval was computed"),
    "p": ("float", "of no effect"),
    "p_method": ("string", "how p was computed"),
    "q": ("float", "p adjusted over the family by Benjamini and Hochberg"),
    "family_size": ("int", "tests of the family"),
    "mde": ("float", "the least effect that as many sets would find"),
    "placebo_floor": ("float", "how much re-rendering alone moves the number"),
    "no_effect": ("float", "the number where there is no effect"),
    "limit": ("float", "that the declaration sets"),
    "against_limit": ("string", "where the interval lies against the limit"),
    "verdict": ("string", "found, not_found, insufficient, undefined or descriptive"),
    "reasons": ("list<string>", "why nothing was found"),
    "why": ("string", "why it is undefined"),
}
# One-sided confidence of the bound that serves as placebo floor.
FLOOR_LEVEL = 0.95
