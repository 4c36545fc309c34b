"""Scorer agreement: do two scorers of different architecture see the same value?

Every candidate counts, accepted or not: on those that both scorers passed they agree by selection.
Cohen's kappa (1960) is (p_o - p_e) / (1 - p_e), with p_o the share seen alike and p_e the share
that two scorers with these shares of values would see alike by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cf_lab_assets.audits import statistics
from cf_lab_assets.audits.instrument.comparisons import DRAWS, LEVEL, SEED
from cf_lab_assets.audits.instrument.findings import (
    INSUFFICIENT,
    Finding,
    Limit,
    floor_verdict,
)
from cf_lab_assets.counterfactuals.parity import LEAST_COMPARED

Floats = NDArray[np.float64]

KAPPA_LIMIT = Limit(
    0.6,
    "Cohen's kappa",
    'Landis & Koch (1977): above 0.6 agreement is "substantial"; a convention',
    is_floor=True,
)


@dataclass(frozen=True)
class Agreement:
    """What both scorers made of one attribute.

    Attributes:
        attribute: of which.
        candidates: that both looked at.
        values: that either saw, in order.
        table: candidates by the classifier's value (row) and the encoder's (column).
        share: seen alike, with its interval.
        kappa: against its limit.
    """

    attribute: str
    candidates: int
    values: tuple[str, ...]
    table: list[list[int]]
    share: tuple[float, float, float]
    kappa: Finding


def agreement(attribute: str, counts: Mapping[tuple[int, str, str], int]) -> Agreement:
    """Agreement on one attribute, resampled by source.

    Args:
        attribute: of which.
        counts: candidates by their source, the classifier's value and the encoder's; not empty.
    """
    values = tuple(sorted({one for _, *seen in counts for one in seen}))
    place = {value: index for index, value in enumerate(values)}
    rows = {source: row for row, source in enumerate(sorted({source for source, *_ in counts}))}
    cells = np.zeros((len(rows), len(values), len(values)))
    for (source, first, second), count in counts.items():
        cells[rows[source], place[first], place[second]] += count
    flat = cells.reshape(len(rows), -1)
    rng = statistics.generator(SEED, "instrument/agreement", attribute)

    def both(weights: Floats) -> Floats:
        tables = (weights @ flat).reshape(-1, len(values), len(values))
        return np.stack([shares(tables), kappas(tables)], axis=1)

    samples = statistics.bootstrap(len(rows), DRAWS, rng, both)
    total = cells.sum(axis=0)
    share, kappa = float(shares(total[None])[0]), float(kappas(total[None])[0])
    low, high = statistics.percentile_interval(samples[:, :1], LEVEL)
    return Agreement(
        attribute,
        int(total.sum()),
        values,
        total.astype(int).tolist(),
        (share, float(low[0]), float(high[0])),
        _finding(attribute, len(rows), kappa, samples[:, 1]),
    )


def _finding(attribute: str, sources: int, kappa: float, samples: Floats) -> Finding:
    """Kappa against its limit; it has no value where both scorers see one value alone."""
    known = samples[np.isfinite(samples)]
    if not np.isfinite(kappa) or not len(known):
        return Finding("kappa", attribute, sources, None, None, None, KAPPA_LIMIT, INSUFFICIENT)
    lows, highs = statistics.percentile_interval(known[:, None], LEVEL)
    low, high = float(lows[0]), float(highs[0])
    verdict = floor_verdict(low, high, KAPPA_LIMIT.value)
    if sources < LEAST_COMPARED:
        verdict = INSUFFICIENT
    return Finding("kappa", attribute, sources, kappa, low, high, KAPPA_LIMIT, verdict)


def shares(tables: Floats) -> Floats:
    """Share on the diagonal of each table, (n, k, k)."""
    return np.asarray(np.trace(tables, axis1=1, axis2=2) / tables.sum(axis=(1, 2)))


def kappas(tables: Floats) -> Floats:
    """Cohen's kappa of each table, (n, k, k); NaN where chance alone explains all."""
    total = tables.sum(axis=(1, 2))
    chance = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1) / total**2
    room = 1 - chance
    alike = shares(tables) - chance
    return np.divide(alike, room, out=np.full_like(room, np.nan), where=room > 1e-12)
