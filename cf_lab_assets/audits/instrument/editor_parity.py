"""Editor parity: are edits alike whoever the source shows, and in both directions?

The editor is measured on the first draw of each edit, before any filter has chosen. What it is
measured by, with the limit of the gap between groups or between opposite directions, is in
`MEASURES`. Placebos are listed as what they are: they show what mere re-rendering does.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cf_lab_assets.audits.instrument import comparisons
from cf_lab_assets.audits.instrument.comparisons import Cell, Compared
from cf_lab_assets.audits.instrument.findings import Limit
from cf_lab_assets.audits.instrument.reading import FirstDraw, Readings, as_floats
from cf_lab_assets.counterfactuals.attribute_sets import JOIN
from cf_lab_assets.counterfactuals.parity import LEAST_COMPARED
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
    readings: Readings, realism: Floats, drift: Floats, least: int = LEAST_COMPARED
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
