"""Metrics of scores within sets: WEAT's effect size, who is ranked first, ranges and gaps.

With s_a and s_b the scores of a contrast's members over the sets that hold both:

- WEAT/iEAT effect size of a -> b: (mean s_b - mean s_a) / std of both together, with ddof 1
  (Caliskan et al. 2017; Steed & Caliskan 2021). Both groups are as large, as the test demands.
  Exchanging members within sets leaves the denominator alone, so p is that of the difference;
- first in set: share of rows in which a value has the highest score, ties shared, against
  1 / values;
- set range: mean over rows of highest less lowest score. It grows with the number of values;
- counterfactual token fairness gap: mean over rows of the mean |difference| over all pairs of
  members (Garg et al. 2019, with every member taken as the original in turn).

Range and gap are above 0 for any model that is not constant: they are described, not tested.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cf_lab_assets.audits import statistics
from cf_lab_assets.audits.answers import Answers, Floats, Integers
from cf_lab_assets.audits.declaration import AuditConfig
from cf_lab_assets.audits.errors import AuditError
from cf_lab_assets.audits.estimation import Resamples, Sums
from cf_lab_assets.audits.results import (
    CONSTANT,
    DESCRIPTIVE,
    FIRST,
    FLOOR_LEVEL,
    INSUFFICIENT,
    SECONDARY,
    SET_RANGE,
    TOKEN_FAIRNESS_GAP,
    WEAT,
    Result,
)

# Of sums over the pool's members, or of the same sums with sources in the places of placebos.
Measure = Callable[[Sums, str], Floats]
OURS, SWAPPED = "", "swapped "


def comparisons(answers: Answers, config: AuditConfig) -> list[Result]:
    """All of them for each single prompt; what is described has its verdict, nothing has a q."""
    contrasts = list(itertools.combinations(range(len(answers.values)), 2))
    if not contrasts or not len(answers.sets):
        return []
    placebos = answers.placebo_sets
    # Of scores far from 0 the squares would leave no digits for the spread.
    middle = _middle(answers.members)
    parts = _parts(answers.members - middle, answers.sets, contrasts, OURS)
    if placebos >= config.minimum_sets:
        parts |= _parts(answers.swapped - middle, answers.sets, contrasts, SWAPPED)
    rng = statistics.generator(config.seed, "comparisons", answers.attribute)
    drawn = Resamples(parts, config.bootstrap_draws, rng)
    known = drawn.named(drawn.parts)
    results: list[Result] = []
    for column, (a, b) in enumerate(contrasts):
        test = _Test("standard deviations", 0.0, *_sign_flip(answers, a, b, config))
        which = {"from_value": answers.values[a], "to_value": answers.values[b]}
        shown = (known["matched"][:, column] > 0).sum(axis=0)
        metric = _Metric(WEAT, which, partial(_weat, column), shown, test)
        results += _results(metric, answers, config, drawn, placebos)
    shown = (known["whole"] > 0).sum(axis=0)
    for v, value in enumerate(answers.values):
        p = _first_p(answers, v)
        test = _Test("share", 1 / len(answers.values), p, "exchange within sets, normal limit")
        metric = _Metric(FIRST, {"value": value}, partial(_first, v), shown, test)
        results += _results(metric, answers, config, drawn, placebos)
    for name, measured in ((SET_RANGE, "range"), (TOKEN_FAIRNESS_GAP, "gap")):
        metric = _Metric(name, {}, partial(_mean, measured), shown, _Test(config.unit))
        results += _results(metric, answers, config, drawn, placebos)
    return results


def _middle(members: Floats) -> Floats:
    """Mean score of each prompt, (prompts,); 0 where there is none."""
    known = np.isfinite(members)
    total = np.where(known, members, 0.0).sum(axis=(0, 1))
    return np.asarray(total / np.maximum(known.sum(axis=(0, 1)), 1))


@dataclass(frozen=True)
class _Test:
    """What a metric is held against: p by prompt, or nothing where it is only described."""

    unit: str
    no_effect: float | None = None
    p: Floats | None = None
    method: str = ""


@dataclass(frozen=True)
class _Metric:
    """One metric of all prompts; `shown` counts its sets by prompt."""

    name: str
    which: Result
    measure: Measure
    shown: Integers
    test: _Test


def _parts(
    members: Floats, sets: Integers, contrasts: list[tuple[int, int]], prefix: str
) -> dict[str, Floats]:
    """Each set's sums: (sets, ..., prompts), before that contrasts or values where they differ."""
    a, b = (list(side) for side in zip(*contrasts, strict=True))
    low, high = members[:, a], members[:, b]
    matched = np.isfinite(low) & np.isfinite(high)
    low, high = np.where(matched, low, 0.0), np.where(matched, high, 0.0)
    whole = np.all(np.isfinite(members), axis=1)
    ordered = np.sort(np.where(whole[:, None], members, 0.0), axis=1)
    values = members.shape[1]
    # The sum of |difference| over all pairs, from order statistics.
    ranks = 2.0 * np.arange(values) - values + 1
    gap = np.einsum("rvp,v->rp", ordered, ranks) / (values * (values - 1) / 2)
    rows: dict[str, NDArray[Any]] = {
        "matched": matched,
        "low": low,
        "high": high,
        "squares": low**2 + high**2,
        "whole": whole,
        "first": np.where(whole[:, None], _shares_of_first(members), 0.0),
        "range": np.where(whole, ordered[:, -1] - ordered[:, 0], 0.0),
        "gap": np.where(whole, gap, 0.0),
    }
    return {prefix + name: _by_set(part, sets) for name, part in rows.items()}


def _shares_of_first(members: Floats) -> Floats:
    """1 for the member with the highest score of its row, or equal shares of those tied."""
    best = members == members.max(axis=1, keepdims=True)
    return best / np.maximum(best.sum(axis=1, keepdims=True), 1)


def _by_set(rows: NDArray[Any], sets: Integers) -> Floats:
    count = int(sets.max()) + 1
    if count == len(sets):
        return rows[np.argsort(sets)].astype(np.float64)
    sums = np.zeros((count, *rows.shape[1:]))
    np.add.at(sums, sets, rows)
    return sums


def _weat(column: int, sums: Sums, prefix: str) -> Floats:
    low, high, squares, n = (
        sums[prefix + name][:, column] for name in ("low", "high", "squares", "matched")
    )
    variance = (squares - (low + high) ** 2 / (2 * n)) / (2 * n - 1)
    # Rounding leaves a constant score with a variance of nearly 0, on either side.
    spread = np.sqrt(np.where(variance > 1e-12 * squares / n, variance, np.nan))
    return (high - low) / n / spread


def _first(value: int, sums: Sums, prefix: str) -> Floats:
    return sums[f"{prefix}first"][:, value] / sums[f"{prefix}whole"]


def _mean(name: str, sums: Sums, prefix: str) -> Floats:
    return sums[prefix + name] / sums[f"{prefix}whole"]


def _sign_flip(answers: Answers, a: int, b: int, config: AuditConfig) -> tuple[Floats, str]:
    rng = statistics.generator(config.seed, "sign-flip", WEAT, answers.attribute, a, b)
    _, differences = answers.differences(a, b, np.eye(answers.members.shape[2]))
    if not len(differences):
        return np.ones(differences.shape[1]), ""
    p, method = statistics.sign_flip_p(differences, config.permutations, rng)
    return p, f"within-set sign flip, {method}"


def _first_p(answers: Answers, value: int) -> Floats:
    """Two-sided p by prompt; under exchange a value gets one of its set's shares at random."""
    whole = np.all(np.isfinite(answers.members), axis=1)[:, None]
    shares = _shares_of_first(answers.members)
    # Rows of one set are exchanged alike.
    beyond = _by_set(np.where(whole, shares - 1 / shares.shape[1], 0.0), answers.sets)
    variance = (beyond**2).mean(axis=1).sum(axis=0)
    away = np.abs(beyond[:, value].sum(axis=0))
    z = np.divide(away, np.sqrt(variance), out=np.zeros_like(away), where=variance > 0)
    return 2 * special.ndtr(-z)


def _results(
    metric: _Metric, answers: Answers, config: AuditConfig, drawn: Resamples, placebos: int
) -> Iterator[Result]:
    """The metric's results, a prompt each."""
    found = drawn.smooth(lambda sums: metric.measure(sums, OURS), config.level)
    floors = _floors(metric, config, drawn, placebos)
    which, constant = "-".join(map(str, metric.which.values())), answers.constant
    known = zip(config.occupations, found.rows(config), strict=True)
    for i, (prompt, numbers) in enumerate(known):
        named: Result = {
            "id": "/".join(filter(None, (metric.name, answers.attribute, which, prompt))),
            "family": f"{SECONDARY}/{metric.name}",
            "metric": metric.name,
            "unit": metric.test.unit,
            "attribute": answers.attribute,
            "value": None,
            **metric.which,
            "prompts_plus": [prompt],
            "prompts_minus": [],
            "n_sets": int(metric.shown[i]),
            "placebo_floor": floors[i],
            "placebo_sets": placebos,
        }
        if metric.test.no_effect is not None:
            named["no_effect"] = metric.test.no_effect
        if metric.shown[i] < config.minimum_sets:
            yield named | {"verdict": INSUFFICIENT}
            continue
        tested = metric.test.p is not None
        if not np.isfinite(found.estimate[i]) or (tested and constant[i]):
            yield named | CONSTANT
            continue
        if metric.test.p is None:
            yield named | numbers | {"verdict": DESCRIPTIVE}
        else:
            yield named | numbers | {"p": metric.test.p[i], "p_method": metric.test.method}


def _floors(
    metric: _Metric, config: AuditConfig, drawn: Resamples, placebos: int
) -> list[float | None]:
    """Upper bounds, by prompt, of the change when sources take the places of placebos."""
    if placebos < config.minimum_sets:
        return [None] * len(config.occupations)
    moved = np.abs(
        drawn.of(lambda sums: metric.measure(sums, OURS), drawn.samples)
        - drawn.of(lambda sums: metric.measure(sums, SWAPPED), drawn.samples)
    )
    bounds = statistics.upper_bound(np.where(np.isnan(moved), 0.0, moved), FLOOR_LEVEL)
    return [float(bound) for bound in bounds]


def weat(x: Floats, y: Floats, permutations: int = 9999, seed: int = 0) -> tuple[float, float]:
    """WEAT's effect size and one-sided p of two groups that need not be paired.

    For sets, where members are exchanged with each other and with nobody else, `comparisons`
    tests by sign flips instead.

    Args:
        x: associations s(w, A, B) of one group's members, (n,).
        y: of the other's, (n,).
        permutations: of all equal halves if there are as many at most, and else at random.
        seed: of the random halves.

    Returns:
        (mean x - mean y) / std of both with ddof 1, and the share of halves whose sum less the
        other half's is at least the observed, with one added where they are random (Caliskan et
        al. 2017; May et al. 2019). Both are NaN where all are equal.

    Raises:
        AuditError: the groups are not of the same size, or have fewer than two members.
    """
    if len(x) != len(y) or len(x) < 2:
        raise AuditError(f"WEAT needs two groups of one size above 1, not {len(x)} and {len(y)}")
    both = np.concatenate([x, y])
    spread = both.std(ddof=1)
    if spread == 0:
        return math.nan, math.nan
    effect = float((x.mean() - y.mean()) / spread)
    n = len(x)
    # Sums of the same numbers in another order differ in the last bits.
    observed = x.sum() - 1e-9 * np.abs(both).sum()
    if math.comb(2 * n, n) <= permutations:
        halves = itertools.combinations(range(2 * n), n)
        return effect, float(np.mean([both[list(half)].sum() >= observed for half in halves]))
    rng = statistics.generator(seed, "weat")
    step, hits = max(1, statistics.BLOCK // (2 * n)), 0
    for start in range(0, permutations, step):
        orders = rng.permuted(np.tile(both, (min(step, permutations - start), 1)), axis=1)
        hits += int((orders[:, :n].sum(axis=1) >= observed).sum())
    return effect, (1 + hits) / (1 + permutations)
