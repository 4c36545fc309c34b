"""Filter parity: are sets accepted alike whoever the source shows, and is anybody lost?

The filter accepts whole sets, so that within a set no value can fare better than another; source
groups and occupations can. Which rates are unequal is decided by `counterfactuals.parity`, over all
batches of a dataset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cf_lab_assets.audits import statistics
from cf_lab_assets.audits.instrument.comparisons import DRAWS, LEVEL, SEED
from cf_lab_assets.audits.instrument.findings import (
    FAILS,
    HOLDS,
    INSUFFICIENT,
    Finding,
    Limit,
    number,
)
from cf_lab_assets.audits.instrument.reading import OCCUPATION, OfferedSet
from cf_lab_assets.counterfactuals import parity

Floats = NDArray[np.float64]

RATIO_LIMIT = Limit(
    parity.RATIO_LIMIT,
    "lower acceptance rate to the higher",
    "the four-fifths rule (29 CFR 1607.4 D), used as a convention",
    is_floor=True,
)
_VERDICTS = {parity.EQUAL: HOLDS, parity.UNEQUAL: FAILS, parity.INSUFFICIENT: INSUFFICIENT}


@dataclass(frozen=True)
class FilterParity:
    """What became of offered sets.

    Attributes:
        cells: rows with attribute, cell, offered, refused, drawn, accepted, share, low, high.
        comparisons: of source groups, as findings about the ratio of their acceptance.
        least, most: the cells that are accepted least and most, of those with enough sets; None
            where fewer than two have.
        ratio: acceptance of the least accepted cell to the most, with its interval; likewise.
        lost: cells that were offered and of which nothing was accepted, as sentences.
    """

    cells: list[dict[str, Any]]
    comparisons: list[Finding]
    least: str | None
    most: str | None
    ratio: tuple[float, float | None, float | None] | None
    lost: list[str]


def filter_parity(sets: Sequence[OfferedSet], enough: int = parity.LEAST_COMPARED) -> FilterParity:
    """Acceptance by what sets vary and their source's values and occupation.

    Args:
        sets: all that were planned, also those that never came to be drawn.
        enough: drawn sets of a cell whose acceptance enters the ratio.
    """
    members = _members(sets)
    cells = [_cell_row(key, [sets[row] for row in rows]) for key, rows in sorted(members.items())]
    judged = {
        f"{row['attribute']}: {row['cell']}": members[row["attribute"], row["cell"]]
        for row in cells
        if row["drawn"] >= enough
    }
    drawn = [
        {"attribute": one.attribute, "values": one.values, "drawn": 1, "accepted": one.accepted}
        for one in sets
        if one.drawn
    ]
    comparisons = [_finding(one) for one in parity.source_groups(drawn)]
    lost = [
        f"{row['attribute']}: {row['cell']} (0 of {row['offered']})"
        for row in cells
        if not row["accepted"]
    ]
    return FilterParity(cells, comparisons, *_least_to_most(sets, judged), lost)


def _members(sets: Sequence[OfferedSet]) -> dict[tuple[str, str], list[int]]:
    """Indices of the sets of each cell, by what they vary and the cell's name."""
    members: dict[tuple[str, str], list[int]] = {}
    for index, one in enumerate(sets):
        named = dict(one.values)
        if one.occupation is not None:
            named[OCCUPATION] = one.occupation
        for name, value in named.items():
            members.setdefault((one.attribute, f"{name} {value}"), []).append(index)
    return members


def _cell_row(key: tuple[str, str], sets: Sequence[OfferedSet]) -> dict[str, Any]:
    drawn, accepted = sum(one.drawn for one in sets), sum(one.accepted for one in sets)
    low, high = statistics.wilson_interval(accepted, drawn, LEVEL)
    return {
        "attribute": key[0],
        "cell": key[1],
        "offered": len(sets),
        "refused": len(sets) - drawn,
        "drawn": drawn,
        "accepted": accepted,
        "share": number(accepted / drawn) if drawn else None,
        "low": number(low) if drawn else None,
        "high": number(high) if drawn else None,
    }


def _least_to_most(
    sets: Sequence[OfferedSet], judged: Mapping[str, list[int]]
) -> tuple[str | None, str | None, tuple[float, float | None, float | None] | None]:
    """The least and the most accepted cell, and their ratio, resampled by source.

    Each sample has its own least and most accepted cell, as the headline has.
    """
    if len(judged) < 2:
        return None, None, None
    names = list(judged)
    sources = 1 + max(one.source for one in sets)
    drawn, accepted = np.zeros((2, sources, len(names)))
    for column, rows in enumerate(judged.values()):
        for index in rows:
            drawn[sets[index].source, column] += sets[index].drawn
            accepted[sets[index].source, column] += sets[index].accepted

    def ratios(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = (weights @ accepted) / (weights @ drawn)
            least, most = np.nanmin(shares, axis=1), np.nanmax(shares, axis=1)
            return np.asarray((least / most)[:, None])

    rates = accepted.sum(axis=0) / drawn.sum(axis=0)
    if not rates.max():
        return None, None, None
    rng = statistics.generator(SEED, "instrument/filter")
    samples = statistics.bootstrap(sources, DRAWS, rng, ratios)
    low, high = statistics.percentile_interval(samples, LEVEL)
    ratio = (float(rates.min() / rates.max()), number(low[0]), number(high[0]))
    return names[int(rates.argmin())], names[int(rates.argmax())], ratio


def _finding(one: parity.Comparison) -> Finding:
    """A comparison in the form of the others; its interval is the gap's, so none of the ratio."""
    subject = f"{one.attribute}: {one.first} and {one.second}"
    verdict = _VERDICTS[one.verdict]
    return Finding(
        "acceptance", subject, min(one.drawn), one.ratio, None, None, RATIO_LIMIT, verdict
    )
