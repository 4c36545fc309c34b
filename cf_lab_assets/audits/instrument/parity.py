"""Parity of editor and filter: are they alike whoever the source shows, and both ways?

The editor is measured on the first draw of each edit, before any filter has chosen. What it is
measured by, with the limit of the largest gap between groups or between opposite directions, is in
`MEASURES`. Placebos are listed as what they are: they show what mere re-rendering does.

The filter is measured on whole sets, as it accepts whole sets.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cf_lab_assets.audits import statistics
from cf_lab_assets.audits.instrument import comparisons
from cf_lab_assets.audits.instrument.comparisons import Cell, Compared
from cf_lab_assets.audits.instrument.findings import (
    FAILS,
    HOLDS,
    INSUFFICIENT,
    Finding,
    Limit,
    number,
)
from cf_lab_assets.audits.instrument.reading import (
    OCCUPATION,
    FirstDraw,
    OfferedSet,
    Readings,
    as_floats,
)
from cf_lab_assets.counterfactuals import parity
from cf_lab_assets.counterfactuals.attribute_sets import JOIN
from cf_lab_assets.counterfactuals.plan import PLACEBO

Floats = NDArray[np.float64]

SUCCESS, OVER_EDIT, PRESERVATION = "edit_success", "over_edit", "preservation"
REALISM, DRIFT = "realism", "skin_tone_drift"
# Edits of these change the skin's lightness on purpose.
OF_SKIN = frozenset({"skin_tone", "race", "ethnicity"})
# A third of what an audit of three open editors found between source groups, rounded: 72 to 75 in
# a hundred pictures were lightened in two groups and 44 in another (arXiv 2602.16149).
_SHARE = "the lab's choice: a third of the gap that arXiv 2602.16149 found between source groups"
MEASURES = {
    SUCCESS: Limit(0.1, "share of edits that both scorers see", _SHARE),
    OVER_EDIT: Limit(0.1, "share of edits in which a scorer sees another change too", _SHARE),
    PRESERVATION: Limit(
        0.05,
        "SSIM where least changed",
        "the lab's choice: in the starter calibration it moves the CITS of a borderline pair by "
        "0.08 at most",
    ),
    REALISM: Limit(
        0.5,
        "standard deviations of the sources' local statistics",
        "Cohen (1988): a medium difference",
    ),
    DRIFT: Limit(
        2.3,
        "CIELAB L*, positive is lighter",
        "a just noticeable difference (Mahy, Van Eycken & Oosterlinck 1994)",
    ),
}


def editor_parity(
    readings: Readings, realism: Floats, drift: Floats, least: int = parity.LEAST_COMPARED
) -> dict[str, Compared]:
    """Every measure of `MEASURES` by source group and direction.

    Args:
        readings: their `edits` are measured.
        realism: strangeness that each edit adds to its source's, (edits,); NaN where not measured.
        drift: shift of the skin's L*, likewise.
        least: sources that each side of a gap must have.
    """
    edits = readings.edits
    sources = np.array([edit.source for edit in edits], dtype=np.int64)
    values = {
        SUCCESS: as_floats(edit.success for edit in edits),
        OVER_EDIT: as_floats(edit.over_edit for edit in edits),
        PRESERVATION: as_floats(edit.preservation for edit in edits),
        REALISM: realism,
        DRIFT: drift,
    }
    found = {}
    for name, limit in MEASURES.items():
        cells, pairs = _cells(edits, name)
        found[name] = comparisons.compare(name, values[name], sources, cells, pairs, limit, least)
    return found


def applies(measure: str, attribute: str) -> bool:
    """Whether a measure has a meaning for edits of an attribute.

    A placebo has nothing to succeed in, and edits of skin change its lightness on purpose.
    """
    if measure == SUCCESS:
        return attribute != PLACEBO
    return measure != DRIFT or OF_SKIN.isdisjoint(attribute.split(JOIN))


def _cells(edits: Sequence[FirstDraw], measure: str) -> tuple[list[Cell], list[tuple[int, int]]]:
    """Cells by source group and by direction that a measure applies to, and which are compared.

    Groups of one attribute are compared with each other, and directions with their opposites.
    """
    groups: dict[tuple[str, str], dict[str, list[int]]] = {}
    directions: dict[tuple[str, str, str], list[int]] = {}
    for index, edit in enumerate(edits):
        if not applies(measure, edit.attribute):
            continue
        for attribute, value in edit.values.items():
            group = groups.setdefault((edit.attribute, attribute), {})
            group.setdefault(value, []).append(index)
        if edit.start is not None and edit.end is not None:
            directions.setdefault((edit.attribute, edit.start, edit.end), []).append(index)
    cells: list[Cell] = []
    pairs: list[tuple[int, int]] = []
    for (varied, attribute), group in sorted(groups.items()):
        first = len(cells)
        for value, rows in sorted(group.items()):
            cells.append(Cell(varied, f"{attribute} {value}", _flags(rows, len(edits))))
        pairs += itertools.combinations(range(first, len(cells)), 2)
    place: dict[tuple[str, str, str], int] = {}
    for (varied, start, end), rows in sorted(directions.items()):
        place[varied, start, end] = len(cells)
        if (varied, end, start) in place:
            pairs.append((place[varied, end, start], len(cells)))
        cells.append(Cell(varied, f"{start} to {end}", _flags(rows, len(edits))))
    return cells, pairs


def _flags(rows: Sequence[int], count: int) -> NDArray[np.bool_]:
    flags = np.zeros(count, dtype=bool)
    flags[list(rows)] = True
    return flags


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
    members: dict[tuple[str, str], list[int]] = {}
    for index, one in enumerate(sets):
        named = dict(one.values)
        if one.occupation is not None:
            named[OCCUPATION] = one.occupation
        for name, value in named.items():
            members.setdefault((one.attribute, f"{name} {value}"), []).append(index)
    drawn = np.array([one.drawn for one in sets], dtype=bool)
    accepted = np.array([one.accepted for one in sets], dtype=bool)
    cells = [
        _cell_row(key, len(rows), int(drawn[rows].sum()), int(accepted[rows].sum()))
        for key, rows in sorted(members.items())
    ]
    judged = {
        f"{row['attribute']}: {row['cell']}": members[row["attribute"], row["cell"]]
        for row in cells
        if row["drawn"] >= enough
    }
    least, most, ratio = _least_to_most(sets, judged)
    rows = [
        {"attribute": one.attribute, "values": one.values, "drawn": 1, "accepted": one.accepted}
        for one in sets
        if one.drawn
    ]
    return FilterParity(
        cells,
        [_finding(one) for one in parity.source_groups(rows)],
        least,
        most,
        ratio,
        [
            f"{row['attribute']}: {row['cell']} (0 of {row['offered']})"
            for row in cells
            if not row["accepted"]
        ],
    )


def _cell_row(key: tuple[str, str], offered: int, drawn: int, accepted: int) -> dict[str, Any]:
    low, high = statistics.wilson_interval(accepted, drawn, comparisons.LEVEL)
    return {
        "attribute": key[0],
        "cell": key[1],
        "offered": offered,
        "refused": offered - drawn,
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
    rng = statistics.generator(comparisons.SEED, "instrument/filter")
    samples = statistics.bootstrap(sources, comparisons.DRAWS, rng, ratios)
    low, high = statistics.percentile_interval(samples, comparisons.LEVEL)
    ratio = (float(rates.min() / rates.max()), number(low[0]), number(high[0]))
    return names[int(rates.argmin())], names[int(rates.argmax())], ratio


RATIO_LIMIT = Limit(
    parity.RATIO_LIMIT,
    "lower acceptance rate to the higher",
    "the four-fifths rule (29 CFR 1607.4 D), used as a convention",
    is_floor=True,
)
_VERDICTS = {parity.EQUAL: HOLDS, parity.UNEQUAL: FAILS, parity.INSUFFICIENT: INSUFFICIENT}


def _finding(one: parity.Comparison) -> Finding:
    """A comparison in the form of the others; its interval is the gap's, so none of the ratio."""
    subject = f"{one.attribute}: {one.first} and {one.second}"
    verdict = _VERDICTS[one.verdict]
    return Finding(
        "acceptance", subject, min(one.drawn), one.ratio, None, None, RATIO_LIMIT, verdict
    )
