"""Means of cells of edits, and the gaps between cells, resampled by source.

The edits of a source share its picture, so that the source is the unit of resampling. Gaps of one
measure have simultaneous intervals (the max-T bootstrap: Romano & Wolf 2005; Westfall & Young
1993), as the largest of many gaps is the one that is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cf_lab_assets.audits import statistics
from cf_lab_assets.audits.instrument.findings import Finding, Limit, gap_verdict

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

LEVEL = 0.95
DRAWS = 2000
SEED = 20261
ROUNDING = 1e-9


@dataclass(frozen=True)
class Cell:
    """Rows that are looked at together.

    Attributes:
        attribute: what the edits vary.
        name: which of them these are, such as "gender woman" or "young to old".
        rows: (n,), whether each row is one of them.
    """

    attribute: str
    name: str
    rows: Flags


@dataclass(frozen=True)
class Mean:
    """A cell's mean with its cluster-bootstrap interval.

    Attributes:
        attribute, name: the cell's.
        n: rows that were measured.
        sources: that these are of.
        estimate, low, high: None where nothing was measured, or no interval is to be had.
    """

    attribute: str
    name: str
    n: int
    sources: int
    estimate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Compared:
    """All cells of one measure, and the gaps between pairs of them."""

    cells: list[Mean]
    gaps: list[Finding]


def compare(
    measure: str,
    values: Floats,
    sources: Integers,
    cells: Sequence[Cell],
    pairs: Sequence[tuple[int, int]],
    limit: Limit,
    least: int,
) -> Compared:
    """Means of cells, and the differences of pairs of them.

    Args:
        measure: what the values are, and the label of the random numbers.
        values: (n,), NaN where a row could not be measured.
        sources: (n,), number of each row's source, from 0.
        cells: of rows; they may overlap.
        pairs: indices of the cells that are compared, the first less the second.
        limit: of each gap.
        least: sources that each side of a gap must have, else it is insufficient.
    """
    known = np.isfinite(values)
    flags = np.array([cell.rows & known for cell in cells], dtype=bool)
    flags = flags.reshape(len(cells), len(values))
    sums, counts = _by_source(np.where(known, values, 0.0), sources, flags)
    with np.errstate(invalid="ignore"):
        means = sums.sum(axis=0) / counts.sum(axis=0)
    samples = _samples(sums, counts, f"instrument/{measure}")
    found = _means(cells, counts, means, samples)
    return Compared(found, _gaps(measure, found, means, samples, pairs, limit, least))


def _means(cells: Sequence[Cell], counts: Floats, means: Floats, samples: Floats) -> list[Mean]:
    rows, sources = counts.sum(axis=0).astype(int), (counts > 0).sum(axis=0)
    lows, highs = _percentiles(samples)
    return [
        Mean(
            cell.attribute,
            cell.name,
            int(rows[index]),
            int(sources[index]),
            float(means[index]) if sources[index] else None,
            float(lows[index]) if sources[index] > 1 else None,
            float(highs[index]) if sources[index] > 1 else None,
        )
        for index, cell in enumerate(cells)
    ]


def _by_source(values: Floats, sources: Integers, flags: Flags) -> tuple[Floats, Floats]:
    """Sum and number of the values of each source in each cell, both (sources, cells)."""
    total = int(sources.max()) + 1 if len(sources) else 0
    sums, counts = np.zeros((2, total, len(flags)))
    for column, rows in enumerate(flags):
        own = sources[rows]
        counts[:, column] = np.bincount(own, minlength=total)
        sums[:, column] = np.bincount(own, values[rows], minlength=total)
    return sums, counts


def _samples(sums: Floats, counts: Floats, label: str) -> Floats:
    """Bootstrap means, (draws, cells); NaN where a sample has nothing of a cell."""
    if not len(sums):
        return np.full((1, sums.shape[1]), np.nan)

    def means(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            return (weights @ sums) / (weights @ counts)

    return statistics.bootstrap(len(sums), DRAWS, statistics.generator(SEED, label), means)


def _percentiles(samples: Floats) -> tuple[Floats, Floats]:
    """Percentile interval of each column, samples without a value left aside."""
    tail = (1 - LEVEL) / 2
    lows, highs = np.full((2, samples.shape[1]), np.nan)
    for column in np.flatnonzero(np.isfinite(samples).any(axis=0)):
        own = samples[np.isfinite(samples[:, column]), column]
        lows[column] = np.quantile(own, tail, method="lower")
        highs[column] = np.quantile(own, 1 - tail, method="higher")
    return lows, highs


def _gaps(
    measure: str,
    cells: Sequence[Mean],
    means: Floats,
    samples: Floats,
    pairs: Sequence[tuple[int, int]],
    limit: Limit,
    least: int,
) -> list[Finding]:
    first = [one for one, _ in pairs]
    second = [other for _, other in pairs]
    gaps, drawn = means[first] - means[second], samples[:, first] - samples[:, second]
    sizes = [min(cells[one].sources, cells[other].sources) for one, other in pairs]
    judged = np.array([size >= least for size in sizes], dtype=bool)
    halves = np.full(len(gaps), np.nan)
    halves[judged] = simultaneous_halves(gaps[judged], drawn[:, judged])
    findings = []
    for index, (one, other) in enumerate(pairs):
        gap = float(gaps[index]) if np.isfinite(gaps[index]) else None
        low = high = None
        if gap is not None and np.isfinite(halves[index]):
            low, high = gap - float(halves[index]), gap + float(halves[index])
        subject = f"{cells[one].attribute}: {cells[one].name} less {cells[other].name}"
        verdict = gap_verdict(gap, low, high, limit.value)
        findings.append(Finding(measure, subject, sizes[index], gap, low, high, limit, verdict))
    return findings


def simultaneous_halves(estimates: Floats, samples: Floats) -> Floats:
    """Half widths of intervals that all true values lie in together, at `LEVEL` (max-T).

    Args:
        estimates: (t,).
        samples: bootstrap samples of them, (draws, t); NaN where one could not be computed.
    """
    if not len(estimates):
        return np.empty(0)
    off, errors = np.abs(samples - estimates), np.nanstd(samples, axis=0)
    # What varies by rounding alone, as the gap of two shares of one, adds nothing to the maximum.
    scaled = np.divide(off, errors, out=np.zeros_like(off), where=errors > ROUNDING)
    widest = np.nanmax(scaled, axis=1)
    return np.asarray(np.quantile(widest, LEVEL, method="higher") * errors)
