"""The auditor audited: oracle models with planted effects, on the structure of a real dataset.

An oracle answers in place of a model, with scores whose truth is known. The sets, their values,
placebos and strata are the dataset's own; many audits are simulated at once, as the prompts of
one, and go through the very functions that audit a model.

Oracles, with a scene of its own for each set, noise of standard deviation 1 for each member, and
`RENDERING` of that between a placebo and its source:

null: nothing is planted.
shift: the second value of each attribute scores higher, by multiples of the detectable effect.
intersection: an effect that has opposite signs in two strata and cancels out over all.
variance: one value's scores vary three times as much, about the same mean.
ranking: the places of the top K are dealt out in a fixed pattern, so that Skew@K and NDKL are known
    by counting.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special, stats

from cf_lab_assets.audits import metrics, rankings, statistics
from cf_lab_assets.audits.answers import Answers, Floats, Integers, held_fixed
from cf_lab_assets.audits.declaration import AuditConfig
from cf_lab_assets.audits.effects import Contrast, effects
from cf_lab_assets.audits.errors import AuditError
from cf_lab_assets.audits.results import FOUND, MAX_SKEW, NDKL, Result

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = "cf-lab/audit-calibration/1"
PAIR_COLUMNS = ["set_id", "attribute", "value", "values", "is_placebo"]
NULL, SHIFT, INTERSECTION, VARIANCE, RANKING = ORACLES = (
    "null",
    "shift",
    "intersection",
    "variance",
    "ranking",
)
# A sample of the sets is enough to try the statistics on, and bounds the time.
MOST_SETS = 2000
RENDERING = 0.1
POWER_AT = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # multiples of the minimum detectable effect
SPREAD = 3.0  # of the value that varies more
# One release in a thousand may fail by chance in each quantity, not one in a hundred.
BAND = 0.999
# Of intervals at the 95 % level. They may be off by what the bootstrap's approximation costs.
COVERAGE_SLACK = 0.02
FOUND_AT_TWICE_MDE = 0.99
# Of numbers that are known by counting.
EXACT = 1e-9


QUANTITY_COLUMNS = {
    "oracle": ("string", f"what was planted: {', '.join(ORACLES)}"),
    "attribute": ("string", "that was varied"),
    "name": ("string", "what was measured of the auditor"),
    "measured": ("float", "null where the dataset is too small to measure it"),
    "low": ("float", "least that passes"),
    "high": ("float", "most that passes"),
    "audits": ("int", "how many were simulated"),
    "sets": ("int", "that each was over"),
    "passed": ("bool", "whether it lies within its limits, or can't be measured"),
}


@dataclass(frozen=True)
class Quantity:
    """One thing that was measured of the auditor.

    Attributes:
        oracle: one of `ORACLES`.
        attribute: what was varied.
        name: what was measured.
        measured: its value; None where the dataset is too small to measure it.
        low: least that passes.
        high: most that passes.
        audits: how many were simulated.
        sets: that each was over.
    """

    oracle: str
    attribute: str
    name: str
    measured: float | None
    low: float
    high: float
    audits: int
    sets: int

    @property
    def passed(self) -> bool:
        """Whether it lies within its limits; what can't be measured does not fail."""
        return self.measured is None or self.low <= self.measured <= self.high


def skeletons(pairs: pa.Table, config: AuditConfig) -> dict[str, Answers]:
    """A dataset's sets by attribute, without scores: values, placebos and strata.

    Raises:
        AuditError: it has no set of any declared attribute.
    """
    rows = pairs.select(PAIR_COLUMNS).to_pylist()
    found = {}
    for attribute, values in config.attributes.items():
        members: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            if row["attribute"] == attribute and row["value"] in values:
                members.setdefault(row["set_id"], []).append(row)
        if members:
            found[attribute] = _skeleton(attribute, values, members, config.seed)
    if not found:
        raise AuditError("the dataset has no set of any declared attribute to calibrate on")
    return found


def _skeleton(
    attribute: str, values: Sequence[str], members: Mapping[str, list[Any]], seed: int
) -> Answers:
    names = sorted(members)
    if len(names) > MOST_SETS:
        rng = statistics.generator(seed, "calibration sets", attribute)
        names = sorted(rng.choice(names, MOST_SETS, replace=False).tolist())
    there = np.full((len(names), len(values), 1), np.nan)
    placebo = np.full(len(names), -1)
    shared: list[Any] = []
    for row, name in enumerate(names):
        for member in members[name]:
            column = values.index(member["value"])
            there[row, column] = 0.0
            if member["is_placebo"]:
                placebo[row] = column
        shared.append(members[name][0]["values"])
    within = held_fixed(shared, attribute)
    count = len(names)
    return Answers(
        attribute, tuple(values), np.arange(count), there, placebo, np.zeros((count, 1)), within
    )


def calibrate(
    skeleton: Mapping[str, Answers], config: AuditConfig, audits: int = 1000, ranked: int = 200
) -> dict[str, Any]:
    """Audit oracles, and say whether the auditor measures what was planted.

    Args:
        skeleton: of `skeletons`.
        config: the declaration, whose attributes, level, alpha and draws are calibrated.
        audits: how many are simulated of each oracle.
        ranked: of them, how many rankings are tested; each costs as much as all effects.

    Returns:
        JSON-ready: `quantities`, `power`, and whether all `passed`.
    """
    config = config.model_copy(
        update={
            "occupations": tuple(f"audit {i}" for i in range(audits)),
            "primary": (),
            # Sets that were drawn from captions have no placebo, and can be calibrated on too.
            "placebo": "optional",
        }
    )
    quantities: list[Quantity] = []
    power: list[dict[str, Any]] = []
    for attribute, sets in skeleton.items():
        if len(sets.values) < 2 or len(sets.complete) < config.minimum_sets:
            quantities.append(_unmeasured(NULL, attribute, audits, len(sets.complete)))
            continue
        trial = _Trial(sets, config)
        quantities += [*trial.null(NULL), *trial.null(VARIANCE, SPREAD), *trial.strata()]
        curve, shifted = trial.power()
        power += curve
        quantities += [*shifted, *trial.ranking(ranked)]
    return {
        "schema": SCHEMA,
        "audits": audits,
        "alpha": config.alpha,
        "level": config.level,
        "quantities": [{**asdict(one), "passed": one.passed} for one in quantities],
        "power": power,
        "measured": sum(one.measured is not None for one in quantities),
        "passed": all(one.passed for one in quantities),
    }


def _unmeasured(oracle: str, attribute: str, audits: int, sets: int) -> Quantity:
    return Quantity(oracle, attribute, "too few sets", None, 0.0, 1.0, audits, sets)


class _Trial:
    """Simulated audits of one attribute."""

    def __init__(self, sets: Answers, config: AuditConfig) -> None:
        self.sets, self.config = sets, config
        self.audits = len(config.occupations)
        self.pairs = list(itertools.combinations(range(len(sets.values)), 2))
        # Two members' noise, over the sets that hold both.
        both = np.isfinite(sets.members[:, 0, 0]) & np.isfinite(sets.members[:, 1, 0])
        self.unit = self._detectable(int(both.sum()))

    def _detectable(self, sets: int) -> float:
        factor = special.ndtri(1 - self.config.alpha / 2) + special.ndtri(self.config.power)
        return float(factor * math.sqrt(2 / max(sets, 1)))

    def _answers(self, label: str, planted: Floats | float = 0.0, spread: float = 1.0) -> Answers:
        """Scores of all audits; `planted` is added, of shape (rows, values, 1) or a number."""
        sets = self.sets
        rng = statistics.generator(self.config.seed, "calibration", sets.attribute, label)
        rows, values = sets.members.shape[:2]
        scene = rng.normal(0, 2, (rows, 1, self.audits))
        noise = rng.normal(0, 1, (rows, values, self.audits))
        noise[:, 1] *= spread
        members = sets.members + scene + noise + planted
        again = members[np.arange(rows), sets.placebo]
        sources = again + RENDERING * rng.normal(0, 1, again.shape)
        return Answers(
            sets.attribute, sets.values, sets.sets, members, sets.placebo, sources, sets.within
        )

    def _effects(
        self, answers: Answers, label: str, pairs: Sequence[tuple[int, int]]
    ) -> list[list[Result]]:
        """Each audit's effects of some contrasts, judged as one family."""
        contrasts = [
            Contrast(answers.values[a], answers.values[b], (audit,))
            for audit in self.config.occupations
            for a, b in pairs
        ]
        found = effects(answers, contrasts, self.config, f"calibration {label}")
        for one in found:
            one["family"] = one["prompts_plus"][0]
        metrics.judge(found, self.config)
        width = len(pairs)
        return [found[i : i + width] for i in range(0, len(found), width)]

    def _quantity(
        self, oracle: str, name: str, measured: float, low: float, high: float
    ) -> Quantity:
        sets = len(self.sets)
        attribute = self.sets.attribute
        numbers = float(measured), float(low), float(high)
        return Quantity(oracle, attribute, name, *numbers, self.audits, sets)

    def null(self, oracle: str, spread: float = 1.0) -> Iterator[Quantity]:
        """How often something is found where there is nothing, and how often intervals hold 0."""
        found = self._effects(self._answers(oracle, spread=spread), oracle, self.pairs)
        alpha = self.config.alpha
        low, high = stats.binom.interval(BAND, self.audits, alpha)
        first = [audit[0] for audit in found]
        hits = np.mean([one["p"] < alpha for one in first])
        rates = low / self.audits, high / self.audits
        yield self._quantity(oracle, "false positive rate of one test", float(hits), *rates)
        any_found = np.mean([any(one["q"] < alpha for one in audit) for audit in found])
        yield self._quantity(
            oracle, "share of audits with any false discovery", float(any_found), 0.0, rates[1]
        )
        yield self._coverage(oracle, first, 0.0)

    def _coverage(self, oracle: str, results: Sequence[Result], truth: float) -> Quantity:
        held = np.mean([one["ci_low"] <= truth <= one["ci_high"] for one in results])
        low, high = self.config.level - COVERAGE_SLACK, self.config.level + COVERAGE_SLACK
        return self._quantity(oracle, "coverage of intervals", float(held), low, min(high, 1.0))

    def _shifted(self, multiple: float) -> tuple[list[Result], float]:
        """The first contrast of each audit with the second value shifted; and the shift."""
        shift = multiple * self.unit
        planted = np.zeros((1, len(self.sets.values), 1))
        planted[:, 1] = shift
        label = f"{SHIFT} {multiple}"
        found = self._effects(self._answers(label, planted), label, self.pairs[:1])
        return [audit[0] for audit in found], shift

    def power(self) -> tuple[list[dict[str, Any]], list[Quantity]]:
        """How often an effect is found, by its size; and whether its size is recovered."""
        curve: list[dict[str, Any]] = []
        quantities: list[Quantity] = []
        for multiple in POWER_AT:
            results, shift = self._shifted(multiple)
            curve.append(
                {
                    "attribute": self.sets.attribute,
                    "multiple_of_mde": multiple,
                    "effect": shift,
                    "estimate": float(np.mean([one["estimate"] for one in results])),
                    "found": float(np.mean([one["p"] < self.config.alpha for one in results])),
                    "sets": len(self.sets),
                }
            )
            if multiple == 1.0:
                quantities = [self._bias(results, shift), self._coverage(SHIFT, results, shift)]
        return curve, [*quantities, self._monotone([one["found"] for one in curve])]

    def _bias(self, results: Sequence[Result], shift: float) -> Quantity:
        estimates = np.array([one["estimate"] for one in results])
        error = estimates.std(ddof=1) / math.sqrt(len(estimates))
        most = float(special.ndtri(0.5 + BAND / 2))
        off = float((estimates.mean() - shift) / error)
        return self._quantity(SHIFT, "bias of the estimate in standard errors", off, -most, most)

    def _monotone(self, found: Sequence[float]) -> Quantity:
        """The largest fall of the power curve from one size to the next; chance allows little."""
        fall = max(before - after for before, after in itertools.pairwise(found))
        # Two shares of as many audits, at worst one half each.
        chance = float(special.ndtri(BAND)) * math.sqrt(0.5 / self.audits)
        return self._quantity(SHIFT, "largest fall of the power curve", max(fall, 0.0), 0.0, chance)

    def strata(self) -> Iterator[Quantity]:
        """Whether an effect that cancels out over all sets is found in every stratum."""
        for other, held in sorted(self.sets.within.items()):
            values = sorted({one for one in held if one is not None})
            parts = [held == value for value in values]
            enough = [part for part in parts if part.sum() >= self.config.minimum_sets]
            if len(enough) < 2:
                sets = max((int(part.sum()) for part in parts), default=0)
                yield _unmeasured(
                    INTERSECTION, f"{self.sets.attribute} by {other}", self.audits, sets
                )
                continue
            yield self._found_in_all(other, enough)

    def _found_in_all(self, other: str, parts: Sequence[Any]) -> Quantity:
        planted = np.zeros((*self.sets.members.shape[:2], 1))
        for sign, part in zip(itertools.cycle((1, -1)), parts, strict=False):
            planted[part, 1] = sign * 2 * self._detectable(int(part.sum()))
        label = f"{INTERSECTION} {other}"
        answers = self._answers(label, planted)
        by_part = [
            [
                audit[0]["verdict"] == FOUND
                for audit in self._effects(answers.only(part), label, self.pairs[:1])
            ]
            for part in parts
        ]
        share = float(np.mean(np.all(by_part, axis=0)))
        attribute = f"{self.sets.attribute} by {other}"
        least = min(int(part.sum()) for part in parts)
        return Quantity(
            INTERSECTION,
            attribute,
            "found in every stratum at twice the MDE",
            share,
            FOUND_AT_TWICE_MDE,
            1.0,
            self.audits,
            least,
        )

    def ranking(self, tested: int) -> Iterator[Quantity]:
        """Whether Skew@K and NDKL of a dealt ranking are those that counting gives, and found."""
        complete = self.sets.complete
        rows, values = len(complete.sets), len(complete.values)
        k = self.config.top(rows * values)
        rng = statistics.generator(self.config.seed, RANKING, self.sets.attribute)
        dealt = _dealt(k, values)
        expected = _by_counting(dealt, values)
        off = 0.0
        for _ in range(self.audits):
            ranking = rankings.rank(_deal(dealt, rows, values, rng))
            counted = rankings.measured(ranking, np.ones((1, rows)), k, values)[0]
            ours = np.r_[counted[: 2 + values], counted[-1]]
            off = max(off, float(np.abs(ours - expected).max()))
        yield self._quantity(RANKING, "largest error of Skew and NDKL", off, 0.0, EXACT)
        noise = self._answers(RANKING).complete.members
        p = [self._ranking_p(noise[:, :, audit], k, rng) for audit in range(tested)]
        # Counts are whole numbers, so p may be conservative; it must not be the other way.
        most = float(stats.binom.ppf(0.5 + BAND / 2, tested, self.config.alpha)) / tested
        for metric, ones in zip((MAX_SKEW, NDKL), zip(*p, strict=True), strict=True):
            hits = float(np.mean([one < self.config.alpha for one in ones]))
            name = f"false positive rate of {metric}"
            yield Quantity(RANKING, complete.attribute, name, hits, 0.0, most, tested, rows)

    def _ranking_p(self, scores: Floats, k: int, rng: np.random.Generator) -> tuple[float, float]:
        """The p of MaxSkew and NDKL, as an audit computes them."""
        ranking, (rows, values) = rankings.rank(scores), scores.shape
        estimate = rankings.measured(ranking, np.ones((1, rows)), k, values)[0]
        found = rankings.against_chance(ranking, estimate, k, rows, values, self.config, rng)
        return found[0]["p"], found[-1]["p"]


def _dealt(k: int, values: int) -> Integers:
    """Who holds each of K places: the first value four times as often as each other one."""
    block = [0, *range(1, values), 0, 0, 0]
    return np.resize(np.array(block), k)


def _deal(dealt: Integers, rows: int, values: int, rng: np.random.Generator) -> Floats:
    """Scores of a pool whose first K places are held as dealt, in random rows."""
    scores = rng.random((rows, values))
    order = rng.permutation(rows)
    used = np.zeros(values, dtype=int)
    for place, value in enumerate(dealt):
        scores[order[used[value]], value] = 2.0 + len(dealt) - place
        used[value] += 1
    return scores


def _by_counting(dealt: Integers, values: int) -> Floats:
    """MaxSkew, MinSkew, each Skew, and NDKL, from their definitions alone."""
    k = len(dealt)
    share = [np.mean(dealt == value) for value in range(values)]
    skews = [math.log(one * values) if one else -math.inf for one in share]
    total = scale = 0.0
    for i in range(1, k + 1):
        parts = [float(np.mean(dealt[:i] == value)) for value in range(values)]
        total += sum(part * math.log(part * values) for part in parts if part) / math.log2(i + 1)
        scale += 1 / math.log2(i + 1)
    return np.array([max(skews), min(skews), *skews, total / scale])
