"""Rankings: who comes up first, by Skew@K, NDKL and Bias@K.

Skew@K of a value is ln(its share among the K pictures nearest to a prompt / its share of the
pool); MaxSkew and MinSkew are its extremes over values (Geyik et al. 2019, definitions 2 to 4).
NDKL is the discounted mean over i = 1..K of the divergence KL(D_top-i || D_pool) in nats, with
the weights 1 / log2(i + 1) scaled to sum to 1 (their definition 5). Bias@K of a contrast a -> b
is (n_b - n_a) / (n_a + n_b) among the K (Wang et al. 2021). Policies: see `metrics`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cf_lab_assets.audits import statistics
from cf_lab_assets.audits.answers import Answers, Floats, Integers
from cf_lab_assets.audits.declaration import AuditConfig
from cf_lab_assets.audits.results import (
    BIAS,
    CONSTANT,
    FLOOR_LEVEL,
    INSUFFICIENT,
    MAX_SKEW,
    MIN_SKEW,
    NDKL,
    SECONDARY,
    SKEW,
    UNDEFINED,
    Result,
)

# Relabellings are drawn from a table of all orders of the values up to this many of them.
TABULATED_VALUES = 6
TABLE_ROWS = 4096
# NDKL needs the whole order of the first K for each relabelling, which costs K times as much as
# their counts; this many bound its p below at a thousandth.
NDKL_PERMUTATIONS = 999
PERCENTILE = "cluster bootstrap over sets, percentile, extended to the estimate"
MAX_T = "cluster bootstrap over sets, max-T over all values' shares of the top K"


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


def rank(scores: Floats, sets: Integers | None = None) -> Ranking:
    """Rank a pool of complete rows, (rows, values), by score, highest first.

    Args:
        scores: of the members.
        sets: which set each row belongs to; each to its own by default.
    """
    if sets is None:
        sets = np.arange(len(scores))
    flat = scores.ravel()
    order = np.argsort(-flat, kind="stable")
    ordered = flat[order]
    new = np.r_[True, ordered[1:] != ordered[:-1]]
    group = np.cumsum(new) - 1
    begins = np.flatnonzero(new)
    ends = np.r_[begins[1:], len(flat)] - 1
    width = scores.shape[1]
    return Ranking(sets[order // width], order % width, begins[group], ends[group])


def top_places(ranking: Ranking, weights: Floats, k: int) -> Floats:
    """How many of the top K places each ranked member holds, tied members sharing equally.

    Args:
        ranking: of the pool.
        weights: how often each set is in the pool, (b, sets).
        k: how many places there are.

    Returns:
        (b, members of the head of the ranking); members further down hold none.
    """
    held = _held(ranking, weights, k)
    head = held.shape[1]
    through = np.cumsum(held, axis=1)
    first, last = ranking.first[:head], ranking.last[:head]
    if (first == last).all():
        return np.minimum(through, k) - np.minimum(through - held, k)
    before = np.concatenate([np.zeros((len(held), 1)), through], axis=1)[:, first]
    tied = through[:, last] - before
    share = np.divide(k - before, tied, out=np.zeros_like(tied), where=tied > 0)
    return held * np.clip(share, 0, 1)


def _held(ranking: Ranking, weights: Floats, k: int) -> Floats:
    """How often each member of the ranking's head is in the pool; the head fills K places."""
    members = len(ranking.sets)
    head = min(members, int(k + 8 * math.sqrt(k * (ranking.values.max() + 1)) + 32))
    while True:
        head = int(ranking.last[head - 1]) + 1
        held = weights[:, ranking.sets[:head]]
        if head == members or (held.sum(axis=1) >= k).all():
            return held
        head = min(members, 2 * head)


def prefix_counts(ranking: Ranking, weights: Floats, k: int, values: int) -> Floats:
    """Places among the first i held by each value, i = 1..K: (b, k, values).

    Args:
        ranking: of the pool.
        weights: how often each set is in the pool, (b, sets).
        k: how many places there are.
        values: of the attribute.
    """
    held = _held(ranking, weights, k)
    shown = np.eye(values, dtype=np.float32)[ranking.values[: held.shape[1]]]
    return _shared(ranking, held.astype(np.float32)[:, :, None] * shown, k)


def _shared(ranking: Ranking, held: NDArray[Any], k: int) -> Floats:
    """Running counts at each of K places from what each member holds, (b, head, values).

    Within a group of tied members, or of copies of one, the places go to its values in
    proportion, so counts run along a line from the group's beginning to its end.
    """
    ends = np.flatnonzero(ranking.last[: held.shape[1]] == np.arange(held.shape[1]))
    # Whole numbers, which single precision holds as well.
    at_ends = np.cumsum(held, axis=1)[:, ends]
    draws, groups, _ = at_ends.shape
    at_ends = np.concatenate([np.zeros_like(at_ends[:, :1]), at_ends], axis=1)
    through = at_ends.sum(axis=2, dtype=np.float64)
    # A resample may hold fewer than K members; its last places then stay at what it holds.
    places = np.minimum(np.arange(1, k + 1), through[:, -1:])
    # One search over all draws: each is moved out of the reach of the one before it.
    moved = np.arange(draws)[:, None] * (through.max() + 1.0)
    found = np.searchsorted((through + moved).ravel(), (places + moved - 1e-9).ravel())
    group = found.reshape(draws, k) - np.arange(draws)[:, None] * (groups + 1)
    rows = np.arange(draws)[:, None]
    begins, ended = through[rows, group - 1], through[rows, group]
    part = ((places - begins) / (ended - begins))[:, :, None]
    return at_ends[rows, group - 1] * (1 - part) + at_ends[rows, group] * part


def ndkl(prefixes: Floats, desired: Floats | None = None) -> Floats:
    """Normalised discounted KL divergence, in nats (Geyik et al. 2019, definition 5).

    Args:
        prefixes: of `prefix_counts`, (b, k, values).
        desired: distribution over values, above 0; all alike by default.

    Returns:
        (b,), at least 0. An alternating ranking does not have 0 either: compare with the mean
        under exchange.
    """
    _, k, values = prefixes.shape
    desired = np.full(values, 1 / values) if desired is None else desired
    share = prefixes / prefixes.sum(axis=2, keepdims=True)
    discount = 1 / np.log2(np.arange(2, k + 2))
    return special.rel_entr(share, desired).sum(axis=2) @ discount / discount.sum()


def top_counts(ranking: Ranking, weights: Floats, k: int, values: int) -> Floats:
    """Places among the top K held by each value, (b, values); rows sum to K."""
    places = top_places(ranking, weights, k)
    shown = np.eye(values)[ranking.values[: places.shape[1]]]
    return places @ shown


def skew_of(counts: Floats) -> Floats:
    """Skew@K of each value from its places among the first K, (b, values).

    All values have the same share of the pool. K is the sum of their places.
    """
    share = counts / counts.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        return np.log(share * counts.shape[-1])


def statistics_of(counts: Floats) -> Floats:
    """MaxSkew, MinSkew, the Skew of each value, and Bias of each contrast, in this order.

    Args:
        counts: places among the top K by value, (b, values).
    """
    each = skew_of(counts)
    contrasts = [
        bias_of(counts[:, a], counts[:, b])
        for a, b in itertools.combinations(range(counts.shape[1]), 2)
    ]
    return np.column_stack([each.max(axis=1), each.min(axis=1), each, *contrasts])


def bias_of(before: Floats, after: Floats) -> Floats:
    """Bias@K from the places of two values; NaN where neither has any."""
    total = before + after
    return np.divide(after - before, total, out=np.full_like(total, np.nan), where=total > 0)


def relabelled_counts(
    ranking: Ranking, k: int, sets: int, values: int, draws: int, rng: np.random.Generator
) -> Floats:
    """Places in the top K by value when values are exchanged at random within each set.

    Rows of one set are exchanged alike, since what makes them alike is no chance. Sets that hold
    the same places differ in nothing here, so what the exchange makes of all of them together is
    one multinomial draw: the cost does not grow with the number of sets.

    Returns:
        (draws, values).
    """
    places = top_places(ranking, np.ones((1, sets)), k)[0]
    inside, row = np.unique(ranking.sets[: len(places)], return_inverse=True)
    held = np.zeros((len(inside), values))
    np.add.at(held, (row, ranking.values[: len(places)]), places)
    held.sort(axis=1)  # which value held what is what the exchange forgets
    orders = _orders(values, rng)
    counts = np.zeros((draws, values))
    for pattern, number in zip(*np.unique(held, axis=0, return_counts=True), strict=True):
        outcomes, ways = np.unique(pattern[orders], axis=0, return_counts=True)
        counts += rng.multinomial(number, ways / ways.sum(), size=draws) @ outcomes
    return counts


def relabelled_prefixes(
    ranking: Ranking, k: int, sets: int, values: int, draws: int, rng: np.random.Generator
) -> Iterator[Floats]:
    """As `relabelled_counts`, for each of the first i places: blocks of (some draws, k, values)."""
    head = _held(ranking, np.ones((1, sets)), k).shape[1]
    rows, index = np.unique(ranking.sets[:head], return_inverse=True)
    step = max(1, statistics.BLOCK // (head * values))
    for start in range(0, draws, step):
        some = min(step, draws - start)
        orders = rng.permuted(np.tile(np.arange(values), (some * len(rows), 1)), axis=1)
        labels = orders.reshape(some, len(rows), values)[:, index, ranking.values[:head]]
        yield _shared(ranking, np.eye(values, dtype=np.float32)[labels], k)


def _orders(values: int, rng: np.random.Generator) -> Integers:
    """All orders of the values, or a random table of them where they are too many."""
    if values <= TABULATED_VALUES:
        return np.array(list(itertools.permutations(range(values))))
    return rng.permuted(np.tile(np.arange(values), (TABLE_ROWS, 1)), axis=1)


def skews(answers: Answers, config: AuditConfig) -> list[Result]:
    """MaxSkew, MinSkew, Skew of each value, Bias of each contrast and NDKL, for each prompt."""
    complete = answers.complete
    pool = len(complete.sets) * len(answers.values)
    k = config.top(pool)
    shared = {"attribute": answers.attribute, "n_sets": len(complete), "k": k, "pool": pool}
    names = [named for prompt in config.occupations for named in _named(answers, prompt)]
    if k > pool:
        why = f"K is {k} and the pool holds {pool}"
        return [{**shared, **named, "verdict": UNDEFINED, "why": why} for named in names]
    if len(complete) < config.minimum_sets or k < 1 or len(answers.values) < 2:
        return [{**shared, **named, "verdict": INSUFFICIENT} for named in names]
    shared["placebo_sets"] = complete.placebo_sets
    numbers = _ranking_numbers(complete, k, config)
    constant = [
        prompt for prompt, same in zip(config.occupations, complete.constant, strict=True) if same
    ]
    return [
        {**shared, **named, **(CONSTANT if named["prompts_plus"][0] in constant else number)}
        for named, number in zip(names, numbers, strict=True)
    ]


def _named(answers: Answers, prompt: str) -> list[Result]:
    """Identity of the results of one prompt: the columns of `statistics_of`, then NDKL."""
    columns: list[Result] = [
        {"metric": MAX_SKEW, "value": None},
        {"metric": MIN_SKEW, "value": None},
        *({"metric": SKEW, "value": value} for value in answers.values),
        *(
            {"metric": BIAS, "value": None, "from_value": a, "to_value": b}
            for a, b in itertools.combinations(answers.values, 2)
        ),
        {"metric": NDKL, "value": None},
    ]
    units = {BIAS: "share", NDKL: "nats"}
    return [
        {
            "id": "/".join(filter(None, (one["metric"], answers.attribute, _which(one), prompt))),
            "family": f"{SECONDARY}/{one['metric']}",
            "unit": units.get(one["metric"], "ln ratio"),
            **one,
            "prompts_plus": [prompt],
            "prompts_minus": [],
        }
        for one in columns
    ]


def _which(named: Result) -> str | None:
    contrast = f"{named['from_value']}-{named['to_value']}" if "from_value" in named else None
    return named["value"] or contrast


def _ranking_numbers(answers: Answers, k: int, config: AuditConfig) -> list[Result]:
    """Numbers of every prompt in turn, each in the order of `_named`."""
    (_, values, prompts), sets = answers.members.shape, len(answers)
    with_floor = answers.placebo_sets >= config.minimum_sets
    members, swapped = (
        [rank(scores[:, :, column], answers.sets) for column in range(prompts)]
        for scores in (answers.members, answers.swapped if with_floor else answers.members)
    )

    def measure(rankings: Sequence[Ranking], weights: Floats) -> Floats:
        return np.column_stack([measured(one, weights, k, values) for one in rankings])

    def resample(weights: Floats) -> Floats:
        ours = measure(members, weights)
        if not with_floor:
            return ours
        theirs = measure(swapped, weights)
        with np.errstate(invalid="ignore"):
            moved = np.abs(ours - theirs)
        # Excluded from both pools: the exchange changed nothing.
        return np.column_stack([ours, np.where(np.isnan(moved), 0.0, moved)])

    estimate = measure(members, np.ones((1, sets)))[0]
    rng = statistics.generator(config.seed, "ranking", answers.attribute)
    both = statistics.bootstrap(sets, config.bootstrap_draws, rng, resample)
    ours, moved = both[:, : len(estimate)], both[:, len(estimate) :]
    floor = statistics.upper_bound(moved, FLOOR_LEVEL) if with_floor else [None] * len(estimate)
    low, high = statistics.percentile_interval(np.where(np.isnan(ours), 0.0, ours), config.level)
    width = len(estimate) // prompts
    for start in range(0, len(estimate), width):
        ends = slice(start, start + 2)
        each = slice(start + 2, start + 2 + values)
        low[ends], high[ends] = extremes(estimate[each], ours[:, each], config.level, sets)
    # A resample is less even than the pool it is from, so that its divergence lies higher.
    low, high = np.fmin(low, estimate), np.fmax(high, estimate)
    rng = statistics.generator(config.seed, "relabel", answers.attribute)
    counts = [top_counts(one, np.ones((1, sets)), k, values)[0] for one in members]
    results: list[Result] = []
    for prompt, one in enumerate(members):
        part = slice(prompt * width, (prompt + 1) * width)
        against = against_chance(one, estimate[part], k, sets, values, config, rng)
        for column, number in enumerate(against):
            i = part.start + column
            results.append(
                {
                    "estimate": estimate[i],
                    "ci_low": low[i],
                    "ci_high": high[i],
                    "ci_level": config.level,
                    "ci_method": MAX_T if column < 2 else PERCENTILE,
                    **number,
                    "p_method": "within-set exchange of values, monte-carlo",
                    "placebo_floor": floor[i],
                    "in_top": counts[prompt][column - 2] if 2 <= column < 2 + values else None,
                }
            )
    return results


def extremes(
    skews: Floats, samples: Floats, level: float, sets: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Lower and then upper ends of the intervals of MaxSkew and MinSkew.

    A resampled maximum lies above the true one wherever values are close, so that its own
    quantiles don't cover it. Max-T intervals of all values' shares of the top K do, together, and
    the greatest share lies between the greatest of their lower and of their upper ends.

    Args:
        skews: of each value, (values,).
        samples: of the same on resampled sets, (draws, values).
        level: of the intervals.
        sets: how many there are.
    """
    # On the scale on which the spread of a share does not follow its size.
    angle, drawn = (np.arcsin(np.sqrt(np.exp(one) / len(skews))) for one in (skews, samples))
    half = statistics.simultaneous_half(angle, drawn, level, sets)
    with np.errstate(divide="ignore"):
        below, above = (
            np.log(np.sin(np.clip(end, 0.0, np.pi / 2)) ** 2 * len(skews))
            for end in (angle - half, angle + half)
        )
    return (below.max(), below.min()), (above.max(), above.min())


def measured(ranking: Ranking, weights: Floats, k: int, values: int) -> Floats:
    """Columns of `statistics_of`, then NDKL, of each resample: (b, columns)."""
    prefixes = prefix_counts(ranking, weights, k, values)
    return np.column_stack([statistics_of(prefixes[:, -1]), ndkl(prefixes)])


def against_chance(
    ranking: Ranking,
    estimate: Floats,
    k: int,
    sets: int,
    values: int,
    config: AuditConfig,
    rng: np.random.Generator,
) -> list[Result]:
    """p, value of no effect and MDE of each column, NDKL's last, under exchange of values."""
    counts = relabelled_counts(ranking, k, sets, values, config.permutations, rng)
    null = statistics_of(counts)
    null = np.where(np.isnan(null), 0.0, null)
    draws = min(config.permutations, NDKL_PERMUTATIONS)
    orders = relabelled_prefixes(ranking, k, sets, values, draws, rng)
    divergences = np.concatenate([ndkl(block) for block in orders])[:, None]
    p = ranking_p(estimate[:-1], null)
    p = np.append(p, (1 + (divergences >= estimate[-1] - 1e-9).sum()) / (1 + draws))
    middle = np.append(np.quantile(null, 0.5, axis=0, method="lower"), divergences.mean())
    spread = np.append(_spread_of(null), divergences.std(ddof=1))
    # MaxSkew, MinSkew and NDKL are tested on one side. A normal approximation.
    one_sided = special.ndtri(1 - config.alpha) + special.ndtri(config.power)
    factors = np.full(len(p), special.ndtri(1 - config.alpha / 2) + special.ndtri(config.power))
    factors[[0, 1, -1]] = one_sided
    return [
        {"p": one, "no_effect": nothing, "mde": mde}
        for one, nothing, mde in zip(p, middle, factors * spread, strict=True)
    ]


def _spread_of(null: Floats) -> Floats:
    """NaN where a value can be absent from the top K, whose Skew is infinite."""
    with np.errstate(invalid="ignore"):
        return null.std(axis=0, ddof=1)


def ranking_p(estimate: Floats, null: Floats) -> Floats:
    """One-sided for MaxSkew (high) and MinSkew (low), two-sided for all after them.

    Ties count against the finding, and one is added to both counts (Phipson & Smyth 2010). A
    statistic that is undefined can't be told from chance: its p is 1.
    """
    slack = 1e-9
    high = (1 + (null >= estimate - slack).sum(axis=0)) / (1 + len(null))
    low = (1 + (null <= estimate + slack).sum(axis=0)) / (1 + len(null))
    both = np.minimum(1.0, 2 * np.minimum(high, low))
    p = np.concatenate([high[:1], low[1:2], both[2:]])
    return np.where(np.isnan(estimate), 1.0, p)
