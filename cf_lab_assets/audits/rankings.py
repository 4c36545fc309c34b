"""Rankings: who comes up first, by Skew@K (Geyik et al. 2019, definition 2).

Skew@K of a value is ln(its share among the K pictures nearest to a prompt / its share of the
pool); MaxSkew and MinSkew are its extremes over values. Policies: see `metrics`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from cf_lab_assets.audits import statistics
from cf_lab_assets.audits.answers import Answers, Floats, Integers
from cf_lab_assets.audits.declaration import AuditConfig
from cf_lab_assets.audits.results import (
    FLOOR_LEVEL,
    INSUFFICIENT,
    MAX_SKEW,
    MIN_SKEW,
    SECONDARY,
    SKEW,
    Result,
)

# Relabellings are drawn from a table of all orders of the values up to this many of them.
TABULATED_VALUES = 6
TABLE_ROWS = 4096


@dataclass(frozen=True)
class Ranking:
    """A pool in descending order of score.

    Attributes:
        sets: which set each ranked member belongs to.
        values: which value it shows.
        first: rank at which the group of members tied with it begins.
        last: rank at which that group ends, inclusive.
    """

    sets: Integers
    values: Integers
    first: Integers
    last: Integers


def rank(scores: Floats) -> Ranking:
    """Rank a pool of complete sets, (sets, values), by score, highest first."""
    flat = scores.ravel()
    order = np.argsort(-flat, kind="stable")
    ordered = flat[order]
    new = np.r_[True, ordered[1:] != ordered[:-1]]
    group = np.cumsum(new) - 1
    begins = np.flatnonzero(new)
    ends = np.r_[begins[1:], len(flat)] - 1
    width = scores.shape[1]
    return Ranking(order // width, order % width, begins[group], ends[group])


def top_places(ranking: Ranking, weights: Floats, k: int) -> Floats:
    """How many of the top K places each ranked member holds, tied members sharing equally.

    Args:
        ranking: of the pool.
        weights: how often each set is in the pool, (b, sets).
        k: how many places there are.

    Returns:
        (b, members of the head of the ranking); members further down hold none.
    """
    members = len(ranking.sets)
    head = min(members, int(k + 8 * math.sqrt(k * (ranking.values.max() + 1)) + 32))
    while True:
        head = int(ranking.last[head - 1]) + 1
        held = weights[:, ranking.sets[:head]]
        through = np.cumsum(held, axis=1)
        if head == members or (through[:, -1] >= k).all():
            break
        head = min(members, 2 * head)
    first, last = ranking.first[:head], ranking.last[:head]
    if (first == last).all():
        return np.minimum(through, k) - np.minimum(through - held, k)
    before = np.concatenate([np.zeros((len(held), 1)), through], axis=1)[:, first]
    tied = through[:, last] - before
    share = np.divide(k - before, tied, out=np.zeros_like(tied), where=tied > 0)
    return held * np.clip(share, 0, 1)


def top_counts(ranking: Ranking, weights: Floats, k: int, values: int) -> Floats:
    """Places among the top K held by each value, (b, values); rows sum to K."""
    places = top_places(ranking, weights, k)
    shown = np.eye(values)[ranking.values[: places.shape[1]]]
    return places @ shown


def skew_of(counts: Floats, k: int) -> Floats:
    """Skew@K of each value, given that all have the same share of the pool: (b, values)."""
    with np.errstate(divide="ignore"):
        return np.log(counts / k * counts.shape[-1])


def statistics_of(counts: Floats, k: int) -> Floats:
    """MaxSkew, MinSkew and the Skew of each value: (b, 2 + values)."""
    each = skew_of(counts, k)
    return np.column_stack([each.max(axis=1), each.min(axis=1), each])


def relabelled_counts(
    ranking: Ranking, k: int, sets: int, values: int, draws: int, rng: np.random.Generator
) -> Floats:
    """Places in the top K by value when values are exchanged at random within each set.

    Sets that hold the same places differ in nothing here, so what the exchange makes of all of
    them together is one multinomial draw: the cost does not grow with the number of sets.

    Returns:
        (draws, values).
    """
    places = top_places(ranking, np.ones((1, sets)), k)[0]
    held = np.zeros((sets, values))
    held[ranking.sets[: len(places)], ranking.values[: len(places)]] = places
    orders = _orders(values, rng)
    counts = np.zeros((draws, values))
    for pattern, number in zip(*np.unique(held, axis=0, return_counts=True), strict=True):
        outcomes, ways = np.unique(pattern[orders], axis=0, return_counts=True)
        counts += rng.multinomial(number, ways / ways.sum(), size=draws) @ outcomes
    return counts


def _orders(values: int, rng: np.random.Generator) -> Integers:
    """All orders of the values, or a random table of them where they are too many."""
    if values <= TABULATED_VALUES:
        return np.array(list(itertools.permutations(range(values))))
    return rng.permuted(np.tile(np.arange(values), (TABLE_ROWS, 1)), axis=1)


def skews(answers: Answers, config: AuditConfig) -> list[Result]:
    """MaxSkew, MinSkew and Skew of each value at K for each prompt."""
    complete = answers.complete
    sets, values = len(complete.set_ids), len(answers.values)
    pool = sets * values
    k = config.top(pool)
    shared = {
        "attribute": answers.attribute,
        "unit": "ln ratio",
        "n_sets": sets,
        "k": k,
        "pool": pool,
    }
    if sets < config.minimum_sets:
        return [
            {**shared, **named, "verdict": INSUFFICIENT}
            for prompt in config.occupations
            for named in _named(answers, prompt)
        ]
    pools = complete.members, complete.swapped
    rankings = [
        [rank(scores[:, :, column]) for column in range(len(config.occupations))]
        for scores in pools
    ]
    numbers = _ranking_numbers(rankings, k, sets, values, config, answers.attribute)
    placebos = len(complete.placebo_differences())
    names = [named for prompt in config.occupations for named in _named(answers, prompt)]
    results = []
    for named, number in zip(names, numbers, strict=True):
        if placebos < config.minimum_sets:
            number["placebo_floor"] = None
        results.append({**shared, **named, **number, "placebo_sets": placebos})
    return results


def _named(answers: Answers, prompt: str) -> list[Result]:
    """Identity of the results of one prompt, in the order of `statistics_of`."""
    statistics_named = [(MAX_SKEW, None), (MIN_SKEW, None)]
    return [
        {
            "id": "/".join(filter(None, (metric, answers.attribute, value, prompt))),
            "family": f"{SECONDARY}/{metric}",
            "metric": metric,
            "value": value,
            "prompts_plus": [prompt],
            "prompts_minus": [],
        }
        for metric, value in [*statistics_named, *((SKEW, value) for value in answers.values)]
    ]


def _ranking_numbers(
    rankings: Sequence[Sequence[Ranking]],
    k: int,
    sets: int,
    values: int,
    config: AuditConfig,
    attribute: str,
) -> list[Result]:
    """Numbers of every prompt in turn, each in the order of `statistics_of`.

    Args:
        rankings: of the members by prompt, and of the same with sources for placebos.
        k: places.
        sets: complete sets.
        values: of the attribute.
        config: the declaration.
        attribute: names the random streams.
    """
    members, swapped = rankings
    counts = np.array([top_counts(one, np.ones((1, sets)), k, values)[0] for one in members])
    estimate = statistics_of(counts, k).ravel()

    def resample(weights: Floats) -> Floats:
        ours, theirs = (
            np.column_stack([statistics_of(top_counts(r, weights, k, values), k) for r in ranked])
            for ranked in (members, swapped)
        )
        with np.errstate(invalid="ignore"):
            moved = np.abs(ours - theirs)
        # Excluded from both pools: the exchange changed nothing.
        return np.column_stack([ours, np.where(np.isnan(moved), 0.0, moved)])

    rng = statistics.generator(config.seed, "ranking", attribute)
    both = statistics.bootstrap(sets, config.bootstrap_draws, rng, resample)
    low, high = statistics.percentile_interval(both[:, : len(estimate)], config.level)
    # Resampled maxima lie higher than the estimate, at worst all of them.
    low, high = np.minimum(low, estimate), np.maximum(high, estimate)
    floor = statistics.upper_bound(both[:, len(estimate) :], FLOOR_LEVEL)
    rng = statistics.generator(config.seed, "relabel", attribute)
    nulls = [
        statistics_of(relabelled_counts(one, k, sets, values, config.permutations, rng), k)
        for one in members
    ]
    middle = np.concatenate([np.quantile(null, 0.5, axis=0, method="lower") for null in nulls])
    width = 2 + values
    p = np.concatenate(
        [ranking_p(estimate[i * width :][:width], null) for i, null in enumerate(nulls)]
    )
    mde = np.concatenate([_ranking_mde(null, config) for null in nulls])
    return [
        {
            "estimate": estimate[i],
            "ci_low": low[i],
            "ci_high": high[i],
            "ci_level": config.level,
            "ci_method": "cluster bootstrap over sets, percentile, extended to the estimate",
            "p": p[i],
            "p_method": "within-set exchange of values, monte-carlo",
            "mde": mde[i],
            "placebo_floor": floor[i],
            "no_effect": middle[i],
            "in_top": counts[i // width, i % width - 2] if i % width >= 2 else None,
        }
        for i in range(len(estimate))
    ]


def ranking_p(estimate: Floats, null: Floats) -> Floats:
    """One-sided for MaxSkew (high) and MinSkew (low), two-sided for each value's Skew."""
    slack = 1e-9
    high = (1 + (null >= estimate - slack).sum(axis=0)) / (1 + len(null))
    low = (1 + (null <= estimate + slack).sum(axis=0)) / (1 + len(null))
    both = np.minimum(1.0, 2 * np.minimum(high, low))
    return np.concatenate([high[:1], low[1:2], both[2:]])


def _ranking_mde(null: Floats, config: AuditConfig) -> Floats:
    """Distance from the null's median that is found with the declared power.

    A normal approximation with the permutation null's spread; NaN where that is infinite.
    """
    one_sided = special.ndtri(1 - config.alpha) + special.ndtri(config.power)
    two_sided = special.ndtri(1 - config.alpha / 2) + special.ndtri(config.power)
    factors = np.full(null.shape[1], two_sided)
    factors[:2] = one_sided
    with np.errstate(invalid="ignore"):
        return factors * null.std(axis=0, ddof=1)
