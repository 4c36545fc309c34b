"""Metrics of decisions: who is chosen, how often it is right, and whether it flips.

A decision selects (1) or is one of the other answers; a label, where there is one, says what is
right. Rates are over all decided rows of a group, as fairlearn's are; an abstention is no
decision and is counted on its own. With sr_g the selection rate of group g:

- demographic parity difference max sr - min sr, and ratio min sr / max sr (fairlearn's names);
- disparate impact of a contrast a -> b: sr_b / sr_a (Feldman et al. 2015), held against no limit;
- equal opportunity difference: max - min of the true positive rate (Hardt et al. 2016);
- equalized odds difference: the larger of the differences of true and false positive rates,
  and average odds difference their mean (fairlearn's `agg="worst_case"` and `agg="mean"`);
- flip rate of a contrast: share of matched rows in which the two members are decided
  differently; of an attribute: over all pairs of members. 1 - consistency;
- resolution accuracy of a group: share of its decisions that equal the label, and resolution
  gap of a contrast, accuracy of b less that of a (VisoGender, Hall et al. 2023), not rounded;
- abstention rate of a group, and soundness: share of abstentions where the label says that the
  picture can't answer.

An interval of a rate, a contrast or a ratio is BCa; that of a largest difference is max-T over
all contrasts that it is the largest of, so that it covers whichever of them that is. The p of a
contrast is by exchange of the two members within sets.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cf_lab_assets.audits import statistics
from cf_lab_assets.audits.answers import set_means
from cf_lab_assets.audits.declaration import AuditConfig
from cf_lab_assets.audits.estimation import Numbers, Resamples, Sums, detectable
from cf_lab_assets.audits.results import (
    ABSTENTION,
    ACCURACY,
    ACCURACY_GAP,
    AVERAGE_ODDS,
    DEMOGRAPHIC_PARITY,
    DESCRIPTIVE,
    DISPARATE_IMPACT,
    EQUAL_OPPORTUNITY,
    EQUALIZED_ODDS,
    FALSE_POSITIVE_GAP,
    FLIP_RATE,
    FLOOR_LEVEL,
    INSUFFICIENT,
    PARITY_RATIO,
    SECONDARY,
    SELECTION_GAP,
    SELECTION_RATE,
    SOUNDNESS,
    TRUE_POSITIVE_GAP,
    UNDEFINED,
    Result,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
ALIKE = "Wilson over sets, since all of them answer alike"
MAX_T = "cluster bootstrap over sets, max-T over all contrasts"


@dataclass(frozen=True)
class Decisions:
    """One attribute's decisions by matched row.

    Attributes:
        attribute: its name; that of an intersection is joined by `+`.
        values: its values.
        sets: (rows,), number of the counterfactual set that a row belongs to.
        decided: (rows, values), 1 where selected, another number for each other answer, NaN where
            there is no decision.
        abstained: (rows, values), whether the model declined to decide.
        labels: (rows, values), in the same numbers, NaN where there is none.
        unanswerable: (rows, values), whether the label says that abstaining is right.
        placebo_flips: (sets with both, 1), share of rows in which a placebo is decided other than
            its source picture.
        selects: whether one of the answers counts as selected.
    """

    attribute: str
    values: tuple[str, ...]
    sets: Integers
    decided: Floats
    abstained: NDArray[np.bool_]
    labels: Floats
    unanswerable: NDArray[np.bool_]
    placebo_flips: Floats
    selects: bool = True

    def rows(self) -> dict[str, NDArray[np.bool_]]:
        """What is true of each member, by name, (rows, values); of pairs, (rows, contrasts)."""
        decided, labels = self.decided, self.labels
        known = np.isfinite(decided)
        positive = known & (labels == 1)
        negative = known & np.isfinite(labels) & (labels != 1)
        a, b = _contrasts(len(self.values))
        both = known[:, a] & known[:, b]
        asked = known | self.abstained
        return {
            "decided": known,
            "positive": decided == 1,
            "labelled": positive | negative,
            "labelled positive": positive,
            "true positive": positive & (decided == 1),
            "labelled negative": negative,
            "false positive": negative & (decided == 1),
            "correct": known & (decided == labels),
            "matched": both,
            "flipped": both & (decided[:, a] != decided[:, b]),
            "asked": asked,
            "abstained": self.abstained,
            "unanswerable": self.unanswerable & asked,
            "sound": self.unanswerable & self.abstained,
        }


def _by_set(rows: NDArray[np.bool_], sets: Integers) -> Floats:
    """Each set's number of rows of which something is true: (sets, columns)."""
    count = int(sets.max()) + 1
    return np.stack(
        [np.bincount(sets, weights=column, minlength=count) for column in rows.T], axis=1
    )


def _contrasts(values: int) -> tuple[Integers, Integers]:
    pairs = np.array(list(itertools.combinations(range(values), 2)), dtype=int).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def decision_metrics(answers: Decisions, config: AuditConfig, prompt: str | None) -> list[Result]:
    """All decision metrics of one attribute.

    Args:
        answers: its decisions.
        config: the declaration.
        prompt: the question that was asked; None for all of them together.

    Returns:
        Results without q and verdict, but those that are insufficient or descriptive.
    """
    rng = statistics.generator(config.seed, "decisions", answers.attribute, prompt)
    rows = answers.rows()
    parts = {name: _by_set(values, answers.sets) for name, values in rows.items()}
    drawn = Resamples(parts, config.bootstrap_draws, rng)
    one = _Suite(answers, config, rows, drawn, prompt)
    results = one.flips()
    if answers.selects:
        results += [*one.rates(SELECTION_RATE, "positive", "decided"), *one.parity()]
    if np.isfinite(answers.labels).any():
        results += one.rates(ACCURACY, "correct", "labelled")
        results += one.gaps(ACCURACY_GAP, "correct", "labelled")
        results += one.odds() if answers.selects else []
    if answers.abstained.any():
        results += one.rates(ABSTENTION, "abstained", "asked")
    if answers.unanswerable.any():
        results += one.rates(SOUNDNESS, "sound", "unanswerable")
    return results


class _Suite:
    """The metrics of one attribute, over one set of resamples."""

    def __init__(
        self,
        answers: Decisions,
        config: AuditConfig,
        rows: dict[str, NDArray[np.bool_]],
        drawn: Resamples,
        prompt: str | None,
    ) -> None:
        self.answers, self.config, self.drawn, self.prompt = answers, config, drawn, prompt
        self.rows, self.sums = rows, drawn.named(drawn.parts)
        self.floor = self._floor()

    def rates(self, metric: str, hits: str, of: str) -> list[Result]:
        """A rate of each value; what it is held against is in the metrics of contrasts."""
        enough, counts = self._enough(of)
        found = self.drawn.smooth(lambda sums: _rate(sums, hits, of)[:, enough], self.config.level)
        numbers = found.rows(self.config)
        results = []
        for value, ok, count in zip(self.answers.values, enough, counts, strict=True):
            named = self._named(metric, {"value": value}, int(count), "share")
            if not ok:
                results.append(named | {"verdict": INSUFFICIENT})
                continue
            number = next(numbers)
            results.append(named | {"verdict": DESCRIPTIVE, **number} | self._alike(number, count))
        return results

    def _alike(self, number: Result, sets: int) -> Result:
        """The interval of a rate that is 0 or 1 in every set, which no resample varies."""
        if number["ci_low"] < number["ci_high"] or number["estimate"] not in (0.0, 1.0):
            return {}
        hits = int(number["estimate"] * sets)
        low, high = statistics.wilson_interval(hits, int(sets), self.config.level)
        return {"ci_low": low, "ci_high": high, "ci_method": ALIKE}

    def parity(self) -> list[Result]:
        """Differences and ratios of selection rates."""
        enough, counts = self._enough("decided")
        hits, of = "positive", "decided"
        return [
            *self.gaps(SELECTION_GAP, hits, of),
            *self._ratios(hits, of),
            self._largest(DEMOGRAPHIC_PARITY, enough, counts, [(hits, of)]),
            self._smallest_ratio(enough, counts, hits, of),
        ]

    def odds(self) -> list[Result]:
        """What compares decisions with labels."""
        positives, n_positive = self._enough("labelled positive")
        negatives, n_negative = self._enough("labelled negative")
        tpr, fpr = ("true positive", "labelled positive"), ("false positive", "labelled negative")
        both, n_both = positives & negatives, np.minimum(n_positive, n_negative)
        return [
            *self.gaps(TRUE_POSITIVE_GAP, *tpr),
            *self.gaps(FALSE_POSITIVE_GAP, *fpr),
            self._largest(EQUAL_OPPORTUNITY, positives, n_positive, [tpr]),
            self._largest(EQUALIZED_ODDS, both, n_both, [tpr, fpr]),
            self._average_odds(both, n_both, tpr, fpr),
        ]

    def flips(self) -> list[Result]:
        """The share of pairs that are decided differently, which has no direction."""
        shown = np.array([(self.sums["matched"][:, i] > 0).sum() for i in range(self._pairs)])
        enough = shown >= self.config.minimum_sets
        found = self.drawn.smooth(
            lambda sums: _rate(sums, "flipped", "matched")[:, enough], self.config.level
        )
        numbers = found.rows(self.config)
        results = [
            self._named(FLIP_RATE, contrast, int(count), "share")
            | ({"verdict": DESCRIPTIVE, **next(numbers)} if ok else {"verdict": INSUFFICIENT})
            for contrast, ok, count in zip(self._contrasts(), enough, shown, strict=True)
        ]
        matched = int((self.sums["matched"].sum(axis=1) > 0).sum())
        whole = self._named(FLIP_RATE, {}, matched, "share")
        if whole["n_sets"] < self.config.minimum_sets:
            return [{**whole, "verdict": INSUFFICIENT}, *results]
        overall = self.drawn.smooth(
            lambda sums: sums["flipped"].sum(axis=1) / sums["matched"].sum(axis=1),
            self.config.level,
        )
        (number,) = overall.rows(self.config)
        return [{**whole, "verdict": DESCRIPTIVE, **number}, *results]

    @property
    def _pairs(self) -> int:
        return len(_contrasts(len(self.answers.values))[0])

    def _contrasts(self) -> list[Result]:
        return [
            {"from_value": a, "to_value": b}
            for a, b in itertools.combinations(self.answers.values, 2)
        ]

    def _enough(self, of: str) -> tuple[NDArray[np.bool_], Integers]:
        """Which values have enough sets with such a row, and how many each has."""
        counts = (self.sums[of] > 0).sum(axis=0)
        return counts >= self.config.minimum_sets, counts

    def gaps(self, metric: str, hits: str, of: str) -> list[Result]:
        """Rate of b less that of a, for each contrast a -> b."""
        return self._pairwise(metric, hits, of, np.subtract, 0.0, "share")

    def _ratios(self, hits: str, of: str) -> list[Result]:
        """Rate of b over that of a. A floor is a share: over the rate of a it is a ratio's."""
        rates = _rate_of_total(self.drawn, hits, of)
        rate = dict(zip(self.answers.values, rates, strict=True))
        results = self._pairwise(DISPARATE_IMPACT, hits, of, np.divide, 1.0, "ratio")
        return [one | self._scaled_floor(rate[one["from_value"]]) for one in results]

    def _scaled_floor(self, rate: float) -> Result:
        floor = self.floor["placebo_floor"]
        return {"placebo_floor": None if floor is None or not rate > 0 else floor / rate}

    def _pairwise(
        self,
        metric: str,
        hits: str,
        of: str,
        compare: Callable[[Floats, Floats], Floats],
        nothing: float,
        unit: str,
    ) -> list[Result]:
        enough, counts = self._enough(of)
        a, b = _contrasts(len(self.answers.values))
        # What is compared within sets needs sets that hold both, however many hold one.
        both = self.rows[of][:, a] & self.rows[of][:, b]
        matched = (_by_set(both, self.answers.sets) > 0).sum(axis=0)
        usable = enough[a] & enough[b] & (matched >= self.config.minimum_sets)
        shown = np.minimum(matched, np.minimum(counts[a], counts[b]))

        def statistic(sums: Sums) -> Floats:
            rates = _rate(sums, hits, of)
            return compare(rates[:, b[usable]], rates[:, a[usable]])

        found = self.drawn.smooth(statistic, self.config.level)
        p, method = self._exchange_p(metric, hits, of, a[usable], b[usable])
        numbers = found.rows(self.config)
        tests = iter(p)
        results = []
        rates = _rate_of_total(self.drawn, hits, of)
        rows = zip(self._contrasts(), usable, shown, strict=True)
        for place, (contrast, ok, count) in enumerate(rows):
            named = self._named(metric, contrast, int(count), unit) | {"no_effect": nothing}
            if not ok:
                results.append(named | {"verdict": INSUFFICIENT})
                continue
            found_here = next(numbers) | {"p": next(tests), "p_method": method}
            if np.isnan(found_here["estimate"]):
                found_here = {"verdict": UNDEFINED, "why": NOBODY}
            elif compare is np.subtract:
                sides = a[place], b[place]
                found_here |= self._alike_gap(found_here, rates[list(sides)], counts[list(sides)])
            elif compare is np.divide and found_here["estimate"] in (0.0, np.inf):
                one_sided = {"estimate": found_here["estimate"], "why": ZERO_RATE}
                found_here = {"verdict": DESCRIPTIVE, **one_sided}
            results.append(named | found_here)
        return results

    def _alike_gap(self, number: Result, rates: Floats, counts: Integers) -> Result:
        """The interval of a gap of such rates, from theirs (Newcombe 1998, method 10)."""
        if number["ci_low"] < number["ci_high"] or not set(rates) <= {0.0, 1.0}:
            return {}
        low, high = np.transpose(
            [
                statistics.wilson_interval(int(rate * count), int(count), self.config.level)
                for rate, count in zip(rates, counts, strict=True)
            ]
        )
        down = np.hypot(rates[1] - low[1], high[0] - rates[0])
        up = np.hypot(high[1] - rates[1], rates[0] - low[0])
        gap = rates[1] - rates[0]
        return {"ci_low": gap - down, "ci_high": gap + up, "ci_method": ALIKE}

    def _exchange_p(
        self, metric: str, hits: str, of: str, a: Integers, b: Integers
    ) -> tuple[Floats, str]:
        """P of equal rates over matched rows, by exchange of the two members within sets."""
        hit, known = self.rows[hits], self.rows[of]
        both = known[:, a] & known[:, b]
        difference = np.where(both, hit[:, b].astype(float) - hit[:, a], 0.0)
        # A set without both adds nothing to the sum, whichever its sign.
        _, by_set = set_means(difference, self.answers.sets)
        labels = ("exchange", metric, self.answers.attribute, self.prompt)
        rng = statistics.generator(self.config.seed, *labels)
        p, method = statistics.sign_flip_p(by_set, self.config.permutations, rng)
        return p, f"within-set sign flip, {method}"

    def _floor(self) -> Result:
        """How often rendering alone flips a decision: upper bound of the share."""
        flips = self.answers.placebo_flips
        if len(flips) < self.config.minimum_sets:
            return {"placebo_floor": None, "placebo_sets": len(flips)}
        rng = statistics.generator(self.config.seed, "placebo", self.answers.attribute, self.prompt)
        samples = statistics.bootstrap_means(flips, self.config.bootstrap_draws, rng)
        bound = float(statistics.upper_bound(samples, FLOOR_LEVEL)[0])
        return {"placebo_floor": bound, "placebo_sets": len(flips)}

    def _largest(
        self,
        metric: str,
        enough: NDArray[np.bool_],
        counts: Integers,
        rates: Sequence[tuple[str, str]],
        level: float | None = None,
    ) -> Result:
        """The largest difference of any of the rates between any two values."""
        named = self._named(metric, {}, _least(counts, enough), "share") | {"no_effect": 0.0}
        if enough.sum() < 2:
            return named | {"verdict": INSUFFICIENT}
        a, b = _contrasts(int(enough.sum()))

        def gaps(sums: Sums) -> Floats:
            each = [_rate(sums, hits, of)[:, enough] for hits, of in rates]
            return np.concatenate([rate[:, b] - rate[:, a] for rate in each], axis=1)

        found, p = self.drawn.simultaneous(gaps, level or self.config.level)
        return named | self._of_sizes(found, p)

    def _of_sizes(self, found: Numbers, p: float) -> Result:
        """The largest of some sizes, with the simultaneous interval of the largest."""
        sizes = np.abs(found.estimate)
        half = found.high - found.estimate
        largest = int(np.nanargmax(sizes))
        return {
            "estimate": sizes[largest],
            "ci_low": max(0.0, float(np.nanmax(sizes - half))),
            "ci_high": float(np.nanmax(sizes + half)),
            "ci_level": self.config.level,
            "ci_method": MAX_T,
            "p": p,
            "p_method": "max-T bootstrap",
            "mde": detectable(found.error, self.config.alpha, self.config.power)[largest],
        }

    def _smallest_ratio(
        self, enough: NDArray[np.bool_], counts: Integers, hits: str, of: str
    ) -> Result:
        """Least rate over greatest, by max-T on the logarithms of the ratios.

        The logarithm of a rate that is 0 in some samples has no spread, so half widths are those of
        (hits + 1/2) / (n + 1); p is that of the largest difference, which has the same hypothesis.
        """
        named = self._named(PARITY_RATIO, {}, _least(counts, enough), "ratio") | {"no_effect": 1.0}
        if enough.sum() < 2:
            return named | {"verdict": INSUFFICIENT}
        rates = _rate_of_total(self.drawn, hits, of)[enough]
        if rates.max() == 0:
            return named | {"verdict": UNDEFINED, "why": NOBODY}
        named |= self._scaled_floor(float(rates.max()))
        if rates.min() == 0:
            return named | {"verdict": DESCRIPTIVE, "estimate": 0.0, "why": ZERO_RATE}
        a, b = _contrasts(int(enough.sum()))

        def ratios(sums: Sums) -> Floats:
            logs = np.log((sums[hits][:, enough] + 0.5) / (sums[of][:, enough] + 1))
            return logs[:, b] - logs[:, a]

        def gaps(sums: Sums) -> Floats:
            each = _rate(sums, hits, of)[:, enough]
            return each[:, b] - each[:, a]

        steady, _ = self.drawn.simultaneous(ratios, self.config.level)
        _, p = self.drawn.simultaneous(gaps, self.config.level)
        estimate, half = np.log(rates[b]) - np.log(rates[a]), steady.high - steady.estimate
        sizes = self._of_sizes(Numbers(estimate, estimate - half, estimate + half, steady.error), p)
        low, high = np.exp(-sizes["ci_high"]), np.exp(-sizes["ci_low"])
        return (
            named
            | sizes
            | {
                "estimate": float(np.exp(-sizes["estimate"])),
                "ci_low": float(low),
                "ci_high": float(high),
                "mde": 1 - float(np.exp(-sizes["mde"])),
            }
        )

    def _average_odds(
        self, enough: NDArray[np.bool_], counts: Integers, *rates: tuple[str, str]
    ) -> Result:
        """Mean of the largest differences of both rates; its interval is the mean of theirs."""
        named = self._named(AVERAGE_ODDS, {}, _least(counts, enough), "share") | {"no_effect": 0.0}
        if enough.sum() < 2:
            return named | {"verdict": INSUFFICIENT}
        # Each half at a level at which both hold together (Bonferroni).
        level = (1 + self.config.level) / 2
        halves = [self._largest(AVERAGE_ODDS, enough, counts, [rate], level) for rate in rates]
        means = {
            key: float(np.mean([half[key] for half in halves]))
            for key in ("estimate", "ci_low", "ci_high", "mde")
        }
        return named | {
            **halves[0],
            **means,
            "ci_method": f"{MAX_T}, Bonferroni over both rates",
            "p": min(1.0, 2 * min(half["p"] for half in halves)),
            "p_method": "max-T bootstrap, Bonferroni over both rates",
        }

    def _named(self, metric: str, which: Result, sets: int, unit: str) -> Result:
        contrast = f"{which['from_value']}-{which['to_value']}" if "from_value" in which else None
        asked = (metric, self.answers.attribute, which.get("value") or contrast, self.prompt)
        return {
            "id": "/".join(filter(None, asked)),
            "family": f"{SECONDARY}/{metric}",
            "metric": metric,
            "unit": unit,
            "attribute": self.answers.attribute,
            "value": None,
            **which,
            "prompts_plus": [self.prompt] if self.prompt else [],
            "prompts_minus": [],
            "n_sets": sets,
            **self.floor,
        }


NOBODY = "nobody is selected: 0 / 0"
ZERO_RATE = "a group is never selected, so the ratio is 0 or infinite and has no interval"


def _rate(sums: Sums, hits: str, of: str) -> Floats:
    return sums[hits] / sums[of]


def _rate_of_total(drawn: Resamples, hits: str, of: str) -> Floats:
    """The rate of each value over all sets; NaN where there is no such row."""
    return drawn.of(lambda sums: _rate(sums, hits, of), drawn.total)[0]


def _least(counts: Integers, enough: NDArray[np.bool_]) -> int:
    """Sets of the smallest group that counts, or of the largest where none does."""
    return int(counts[enough].min() if enough.any() else counts.max(initial=0))
