"""Signed paired effects of contrasts, primary and secondary.

The effect of a -> b is the mean over sets of f(x_b) - f(x_a). For a primary endpoint f is the
mean cosine to some prompts less that to others (WEAT's s(w, A, B), Caliskan et al. 2017); for
a secondary one it is the cosine to a single prompt. Policies: see `metrics`.
"""

from __future__ import annotations

import itertools

import numpy as np

from cf_lab_assets.audits import statistics
from cf_lab_assets.audits.answers import Answers, Floats
from cf_lab_assets.audits.declaration import AuditConfig, Endpoint
from cf_lab_assets.audits.results import (
    EFFECT,
    EXCEEDED,
    FLOOR_LEVEL,
    INSUFFICIENT,
    PRIMARY,
    SECONDARY,
    STRATUM_EFFECT,
    UNDECIDED,
    WITHIN,
    Result,
)


def primary_effect(answers: Answers, endpoint: Endpoint, config: AuditConfig) -> Result:
    """The effect that an endpoint declares."""
    weights = np.zeros((len(config.occupations), 1))
    for prompts, sign in ((endpoint.prompts_plus, 1), (endpoint.prompts_minus, -1)):
        for prompt in prompts:
            weights[config.occupations.index(prompt)] += sign / len(prompts)
    label = f"primary/{endpoint.name}"
    floors = _effect_floors(answers, weights, config, label)
    (result,) = _effects(
        answers, endpoint.from_value, endpoint.to_value, weights, floors, config, label
    )
    return {
        "id": label,
        "family": PRIMARY,
        "endpoint": endpoint.name,
        "limit": endpoint.limit,
        "against_limit": against_limit(result, endpoint.limit),
        "prompts_plus": list(endpoint.prompts_plus),
        "prompts_minus": list(endpoint.prompts_minus),
        **result,
    }


def against_limit(result: Result, limit: float | None) -> str | None:
    """Where an interval lies against a tolerated size: within, exceeded or undecided."""
    if limit is None:
        return None
    if "estimate" not in result:
        return UNDECIDED
    low, high = result["ci_low"], result["ci_high"]
    if -limit <= low and high <= limit:
        return WITHIN
    return EXCEEDED if low > limit or high < -limit else UNDECIDED


def secondary_effects(answers: Answers, config: AuditConfig, stratum: str = "") -> list[Result]:
    """Every contrast of an attribute for each single prompt; `stratum` names a part of the sets."""
    results = []
    weights = np.eye(len(config.occupations))
    floors = _effect_floors(answers, weights, config, answers.attribute + stratum)
    for from_value, to_value in itertools.combinations(answers.values, 2):
        label = f"{answers.attribute}/{from_value}-{to_value}"
        stream = label + stratum
        found = _effects(answers, from_value, to_value, weights, floors, config, stream)
        results += [
            {
                "id": f"effect/{label}/{prompt}",
                "family": f"{SECONDARY}/{EFFECT}",
                "prompts_plus": [prompt],
                "prompts_minus": [],
                **result,
            }
            for prompt, result in zip(config.occupations, found, strict=True)
        ]
    return results


def stratum_effects(answers: Answers, config: AuditConfig) -> list[Result]:
    """Every contrast for each prompt, within each value of each other attribute.

    What is visible at an intersection only, such as an effect that has opposite signs in two
    groups, cancels out in the effect over all sets and is seen here.
    """
    results: list[Result] = []
    for other, held in sorted(answers.within.items()):
        for value in sorted({one for one in held if one is not None}):
            part = answers.only(held == value)
            stratum = f"{other}={value}"
            for one in secondary_effects(part, config, stratum):
                results.append(
                    {
                        **one,
                        "id": f"{STRATUM_EFFECT}/{stratum}/{one['id'].removeprefix('effect/')}",
                        "family": f"{SECONDARY}/{STRATUM_EFFECT}",
                        "metric": STRATUM_EFFECT,
                        "within": {other: value},
                    }
                )
    return results


def _effects(
    answers: Answers,
    from_value: str,
    to_value: str,
    weights: Floats,
    floors: list[Result],
    config: AuditConfig,
    label: str,
) -> list[Result]:
    """The effects of one contrast for each column of prompt weights, (prompts, t)."""
    before, after = (answers.values.index(value) for value in (from_value, to_value))
    values = answers.differences(before, after, weights)
    shared = {
        "metric": EFFECT,
        "unit": config.unit,
        "attribute": answers.attribute,
        "from_value": from_value,
        "to_value": to_value,
        "n_sets": len(values),
        "no_effect": 0.0,
    }
    if len(values) < config.minimum_sets:
        return [{**shared, **floor, "verdict": INSUFFICIENT} for floor in floors]
    rng = statistics.generator(config.seed, "bootstrap", label)
    samples = statistics.bootstrap_means(values, config.bootstrap_draws, rng)
    low, high = statistics.bca_interval(values, samples, config.level)
    rng = statistics.generator(config.seed, "sign-flip", label)
    p, method = statistics.sign_flip_p(values, config.permutations, rng)
    mde = statistics.minimum_detectable_effect(values, config.alpha, config.power)
    return [
        {
            **shared,
            "estimate": values[:, column].mean(),
            "ci_low": low[column],
            "ci_high": high[column],
            "ci_level": config.level,
            "ci_method": "cluster bootstrap over sets, BCa",
            "p": p[column],
            "p_method": f"within-set sign flip, {method}",
            "mde": mde[column],
            **floor,
        }
        for column, floor in enumerate(floors)
    ]


def _effect_floors(
    answers: Answers, weights: Floats, config: AuditConfig, label: str
) -> list[Result]:
    differences = answers.placebo_differences(weights)
    count = len(differences)
    if count < config.minimum_sets:
        return [{"placebo_floor": None, "placebo_sets": count} for _ in range(weights.shape[1])]
    rng = statistics.generator(config.seed, "placebo", label)
    samples = statistics.bootstrap_means(differences, config.bootstrap_draws, rng)
    bounds = statistics.upper_bound(samples, FLOOR_LEVEL)
    return [{"placebo_floor": bound, "placebo_sets": count} for bound in bounds]
