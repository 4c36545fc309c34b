"""Signed paired effects of contrasts, primary and secondary.

The effect of a -> b is the mean over sets of f(x_b) - f(x_a). For a primary endpoint f is the
mean cosine to some prompts less that to others (WEAT's s(w, A, B), Caliskan et al. 2017); for
a secondary one it is the cosine to a single prompt. Policies: see `metrics`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cf_lab_assets.audits import statistics
from cf_lab_assets.audits.answers import Answers, Floats
from cf_lab_assets.audits.declaration import AuditConfig, Endpoint
from cf_lab_assets.audits.estimation import Resamples
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


@dataclass(frozen=True)
class Contrast:
    """One effect of an attribute: f is the scores weighted by prompt.

    Attributes:
        from_value: of the member that is subtracted.
        to_value: of the other.
        plus: prompts whose mean counts for it.
        minus: prompts whose mean counts against it.
    """

    from_value: str
    to_value: str
    plus: tuple[str, ...]
    minus: tuple[str, ...] = ()


def primary_effects(answers: Answers, config: AuditConfig) -> list[Result]:
    """The effects of the endpoints that the declaration has on an attribute."""
    endpoints = [one for one in config.primary if one.attribute == answers.attribute]
    contrasts = [
        Contrast(one.from_value, one.to_value, one.prompts_plus, one.prompts_minus)
        for one in endpoints
    ]
    found = effects(answers, contrasts, config, PRIMARY)
    return [_as_primary(one, result) for one, result in zip(endpoints, found, strict=True)]


def _as_primary(endpoint: Endpoint, result: Result) -> Result:
    return {
        "id": f"{PRIMARY}/{endpoint.name}",
        "family": PRIMARY,
        "endpoint": endpoint.name,
        "limit": endpoint.limit,
        "against_limit": against_limit(result, endpoint.limit),
        **result,
    }


def against_limit(result: Result, limit: float | None) -> str | None:
    """Where an interval lies against a tolerated size: within, exceeded or undecided."""
    if limit is None:
        return None
    if "estimate" not in result:
        return UNDECIDED
    low, high = result["ci_low"], result["ci_high"]
    # Sets that all differ by the same tell nothing of how others would vary.
    if -limit <= low < high <= limit:
        return WITHIN
    return EXCEEDED if low > limit or high < -limit else UNDECIDED


def secondary_effects(answers: Answers, config: AuditConfig) -> list[Result]:
    """Every contrast of an attribute for each single prompt."""
    found = effects(answers, _single_prompts(answers, config), config, SECONDARY)
    return [
        {"id": f"effect/{_named(one)}", "family": f"{SECONDARY}/{EFFECT}", **one} for one in found
    ]


def stratum_effects(answers: Answers, config: AuditConfig) -> list[Result]:
    """Every contrast for each prompt, within each value of each other attribute.

    What is visible at an intersection only, such as an effect that has opposite signs in two
    groups, cancels out in the effect over all sets and is seen here.
    """
    contrasts = _single_prompts(answers, config)
    results: list[Result] = []
    for other, held in sorted(answers.within.items()):
        for value in sorted({one for one in held if one is not None}):
            stratum = f"{other}={value}"
            results += [
                {
                    "id": f"{STRATUM_EFFECT}/{stratum}/{_named(one)}",
                    "family": f"{SECONDARY}/{STRATUM_EFFECT}",
                    **one,
                    "metric": STRATUM_EFFECT,
                    "within": {other: value},
                }
                for one in effects(answers.only(held == value), contrasts, config, stratum)
            ]
    return results


def _single_prompts(answers: Answers, config: AuditConfig) -> list[Contrast]:
    return [
        Contrast(a, b, (prompt,))
        for a, b in itertools.combinations(answers.values, 2)
        for prompt in config.occupations
    ]


def _named(result: Result) -> str:
    (prompt,) = result["prompts_plus"]
    return f"{result['attribute']}/{result['from_value']}-{result['to_value']}/{prompt}"


def effects(
    answers: Answers, contrasts: Sequence[Contrast], config: AuditConfig, label: str
) -> list[Result]:
    """Effects of one attribute, all from the same resamples, for `metrics.judge` to judge.

    Args:
        answers: the attribute's scores.
        contrasts: which effects.
        config: the declaration.
        label: names the random streams.
    """
    if not contrasts:
        return []
    values = _differences(answers, contrasts, config)
    known = np.isfinite(values)
    counts = known.sum(axis=0)
    shared = [
        {
            "metric": EFFECT,
            "unit": config.unit,
            "attribute": answers.attribute,
            "from_value": one.from_value,
            "to_value": one.to_value,
            "prompts_plus": list(one.plus),
            "prompts_minus": list(one.minus),
            "n_sets": int(count),
            "no_effect": 0.0,
            **floor,
        }
        for one, count, floor in zip(
            contrasts, counts, _floors(answers, contrasts, config, label), strict=True
        )
    ]
    enough = counts >= config.minimum_sets
    numbers = iter(_numbers(np.where(known, values, 0.0), known, enough, config, label, answers))
    return [
        named | (next(numbers) if ok else {"verdict": INSUFFICIENT})
        for named, ok in zip(shared, enough, strict=True)
    ]


def _differences(answers: Answers, contrasts: Sequence[Contrast], config: AuditConfig) -> Floats:
    """Each set's mean of f(b) - f(a), (sets, contrasts); NaN where it lacks one of them."""
    values = np.full((len(answers), len(contrasts)), np.nan)
    pairs: dict[tuple[str, str], list[int]] = {}
    for column, one in enumerate(contrasts):
        pairs.setdefault((one.from_value, one.to_value), []).append(column)
    weights = _weights(contrasts, config)
    for (a, b), columns in pairs.items():
        before, after = answers.values.index(a), answers.values.index(b)
        sets, found = answers.differences(before, after, weights[:, columns])
        values[np.ix_(sets, np.array(columns))] = found
    return values


def _weights(contrasts: Sequence[Contrast], config: AuditConfig) -> Floats:
    """What each prompt counts in each effect, (prompts, contrasts)."""
    place = {prompt: row for row, prompt in enumerate(config.occupations)}
    weights = np.zeros((len(place), len(contrasts)))
    for column, one in enumerate(contrasts):
        for prompts, sign in ((one.plus, 1), (one.minus, -1)):
            for prompt in prompts:
                weights[place[prompt], column] += sign / len(prompts)
    return weights


def _numbers(
    values: Floats,
    known: Floats,
    enough: Floats,
    config: AuditConfig,
    label: str,
    answers: Answers,
) -> list[Result]:
    """Numbers of the contrasts with enough sets; a set without one adds 0 to its sums."""
    if not enough.any():
        return []
    values, known = values[:, enough], known[:, enough]
    rng = statistics.generator(config.seed, "bootstrap", label, answers.attribute)
    drawn = Resamples({"sum": values, "sets": known}, config.bootstrap_draws, rng)
    found = drawn.smooth(lambda sums: sums["sum"] / sums["sets"], config.level)
    rng = statistics.generator(config.seed, "sign-flip", label, answers.attribute)
    p, method = statistics.sign_flip_p(values, config.permutations, rng)
    return [
        {**numbers, "p": one, "p_method": f"within-set sign flip, {method}"}
        for numbers, one in zip(found.rows(config), p, strict=True)
    ]


def _floors(
    answers: Answers, contrasts: Sequence[Contrast], config: AuditConfig, label: str
) -> list[Result]:
    distinct = sorted({(one.plus, one.minus) for one in contrasts})
    weights = _weights([Contrast("", "", *prompts) for prompts in distinct], config)
    _, sizes = answers.placebo_differences(weights)
    count = len(sizes)
    if count < config.minimum_sets:
        return [{"placebo_floor": None, "placebo_sets": count} for _ in contrasts]
    rng = statistics.generator(config.seed, "placebo", label, answers.attribute)
    samples = statistics.bootstrap_means(sizes, config.bootstrap_draws, rng)
    bounds = dict(zip(distinct, statistics.upper_bound(samples, FLOOR_LEVEL), strict=True))
    return [
        {"placebo_floor": bounds[one.plus, one.minus], "placebo_sets": count} for one in contrasts
    ]
