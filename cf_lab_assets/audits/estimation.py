"""From sums over counterfactual sets to numbers with intervals and p.

Most bias metrics are functions of sums: counts, hits, scores, squared scores. Each set's part of
every sum is one row, resampling sets is one matrix product for all metrics together, and a
metric is computed on resampled sums by the very function that computes it on the whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from cf_lab_assets.audits import statistics
from cf_lab_assets.audits.declaration import AuditConfig
from cf_lab_assets.audits.results import Result
from cf_lab_assets.audits.statistics import Floats

Sums = Mapping[str, Floats]
Statistic = Callable[[Sums], Floats]

BCA = "cluster bootstrap over sets, BCa"
# Sets whose sums are left out at a time by the jackknife; bounds memory.
JACKKNIFE_BLOCK = 1 << 14
# Sets whose part of a product is computed at a time: as much as stays in a cache.
PRODUCT_BLOCK = 1 << 12


@dataclass(frozen=True)
class Numbers:
    """What is known of some statistics, each of shape (t,).

    Attributes:
        estimate: on all sets.
        low: of the interval.
        high: of the interval.
        error: standard error, the spread of the bootstrap.
    """

    estimate: Floats
    low: Floats
    high: Floats
    error: Floats

    def rows(self, config: AuditConfig, method: str = BCA) -> Iterator[Result]:
        """The numbers of each statistic as results have them."""
        mde = detectable(self.error, config.alpha, config.power)
        for i in range(len(self.estimate)):
            yield {
                "estimate": self.estimate[i],
                "ci_low": self.low[i],
                "ci_high": self.high[i],
                "ci_level": config.level,
                "ci_method": method,
                "mde": mde[i],
            }


class Resamples:
    """Sums over all sets, and over resampled ones.

    Args:
        parts: by name, each set's part of some sums, (sets, ...).
        draws: how many samples.
        rng: where randomness comes from.
    """

    def __init__(self, parts: Mapping[str, Floats], draws: int, rng: np.random.Generator) -> None:
        self._shapes = {name: part.shape[1:] for name, part in parts.items()}
        sets = len(next(iter(parts.values())))
        self.parts = np.concatenate(
            [part.reshape(sets, -1) for part in parts.values()], axis=1, dtype=np.float64
        )
        self.total = self.parts.sum(axis=0, keepdims=True)
        first, again = _distinct(self.parts)
        varied = np.ascontiguousarray(self.parts[:, first])
        self.samples = statistics.bootstrap(sets, draws, rng, lambda w: _product(w, varied))[
            :, again
        ]

    def named(self, columns: Floats) -> Sums:
        """Rows of sums by name, each (rows, ...)."""
        found, start = {}, 0
        for name, shape in self._shapes.items():
            width = int(np.prod(shape, dtype=int))
            found[name] = columns[:, start : start + width].reshape(len(columns), *shape)
            start += width
        return found

    def of(self, statistic: Statistic, columns: Floats) -> Floats:
        """A statistic of rows of sums, (rows, t); 0 / 0 is NaN, without a warning."""
        with np.errstate(divide="ignore", invalid="ignore"):
            values = statistic(self.named(columns))
        return values.reshape(len(columns), -1)

    def smooth(self, statistic: Statistic, level: float) -> Numbers:
        """Statistics with BCa intervals (Efron 1987), their acceleration by the jackknife."""
        estimate = self.of(statistic, self.total)[0]
        samples = self.of(statistic, self.samples)
        acceleration = self._acceleration(statistic)
        low, high = statistics.bca(estimate, samples, acceleration, level, len(self.parts))
        return Numbers(estimate, low, high, statistics.spread_of(samples))

    def simultaneous(self, statistic: Statistic, level: float) -> tuple[Numbers, float]:
        """Statistics with max-T intervals, which hold for all of them at once, and their one p.

        The bootstrap distribution of the largest studentised deviation gives the factor of the
        intervals, and the p of no deviation at all (single-step max-T, Westfall & Young 1993).

        Args:
            statistic: gives differences, 0 under the hypothesis.
            level: at which all intervals hold together.
        """
        estimate = self.of(statistic, self.total)[0]
        samples = self.of(statistic, self.samples)
        error, largest, factor = statistics.studentised(estimate, samples, level, len(self.parts))
        with np.errstate(divide="ignore", invalid="ignore"):
            observed = np.abs(estimate) / error
        # Without any spread a difference is either none or beyond doubt.
        sure = np.where(estimate == 0, 0.0, np.inf)
        reach = float(np.nanmax(np.where(error > 0, observed, sure)))
        p = (1 + int((largest >= reach - 1e-9).sum())) / (1 + len(largest))
        half = factor * error
        return Numbers(estimate, estimate - half, estimate + half, error), p

    def _acceleration(self, statistic: Statistic) -> Floats:
        """Efron's a, from the statistic without each set in turn."""
        left_out = np.concatenate(
            [
                self.of(statistic, self.total - self.parts[start : start + JACKKNIFE_BLOCK])
                for start in range(0, len(self.parts), JACKKNIFE_BLOCK)
            ]
        )
        known = np.isfinite(left_out)
        finite = np.where(known, left_out, 0.0)
        away = np.where(known, finite.sum(axis=0) / np.maximum(known.sum(axis=0), 1) - finite, 0.0)
        # In units of the largest, since cubes of large numbers have no place in a float.
        away /= np.maximum(np.abs(away).max(axis=0), np.finfo(float).tiny)
        cubes, squares = np.sum(away**3, axis=0), np.sum(away**2, axis=0) ** 1.5
        return np.divide(cubes, 6 * squares, out=np.zeros_like(cubes), where=squares > 0)


def _product(weights: Floats, parts: Floats) -> Floats:
    """Their matrix product, some sets at a time.

    Long and narrow factors as a whole make the threads of a BLAS wait for each other wherever
    another process wants a core too, which takes up to thirty times as long.
    """
    total = np.zeros((len(weights), parts.shape[1]))
    for start in range(0, len(parts), PRODUCT_BLOCK):
        some = slice(start, start + PRODUCT_BLOCK)
        total += weights[:, some] @ parts[some]
    return total


def _distinct(columns: Floats) -> tuple[list[int], list[int]]:
    """Places of the columns that differ, and which of them each column is.

    Where every set is complete many sums are the same, and the product is what resampling costs.
    """
    known: dict[bytes, int] = {}
    again = []
    for column in columns.T:
        digest = hashlib.blake2b(column.tobytes()).digest()
        again.append(known.setdefault(digest, len(known)))
    return [again.index(place) for place in range(len(known))], again


def detectable(error: Floats, alpha: float, power: float) -> Floats:
    """Smallest true effect that a two-sided test at `alpha` finds with `power`, by its error.

    NaN where nothing varies: sets that all answer alike do not tell how others would vary.
    """
    factor = special.ndtri(1 - alpha / 2) + special.ndtri(power)
    return np.where(error > 0, factor * error, np.nan)
