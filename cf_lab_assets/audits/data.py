"""What a report says of its data: counts by cell, acceptance parity, and where it comes from.

A cell is an attribute and a value. Of the lab's own data a cell counts sets by what the source
picture shows; of a table it counts rows by what the member shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cf_lab_assets.audits.about import DataSource

if TYPE_CHECKING:
    import pyarrow as pa

    from cf_lab_assets.audits.table import ScoreTable

Cell = dict[str, Any]
UNKNOWN_SHARE = dict.fromkeys(("offered", "excluded", "share", "low", "high"))


def of_dataset(
    manifest: Mapping[str, Any], cells: Sequence[Mapping[str, Any]], counts: Mapping[str, Any]
) -> dict[str, Any]:
    """What a report says of a dataset of the lab.

    Args:
        manifest: of the dataset.
        cells: of `acceptance_cells`.
        counts: of `metrics.compute`.
    """
    return {
        "dataset_hash": manifest["content_hash"],
        "name": "counterfactual sets of this lab",
        "origin": "edited or generated from source batches by the models below, to audit models",
        "synthetic": True,
        "sets": manifest["sets"],
        "members": manifest["pairs"],
        "members_are": "pictures",
        "batches": manifest["batches"],
        "generator_and_filter_models": manifest["models"],
        "cells_count": "sets by what the source picture shows; sets are accepted whole",
        "cells": [dict(cell) for cell in cells],
        "unknown": dict.fromkeys(counts),
        "acceptance_parity": acceptance_parity(cells),
        "counts": counts,
        "rows": None,
    }


def of_table(table: ScoreTable, document: Mapping[str, Any], source: DataSource) -> dict[str, Any]:
    """What a report says of a table of scores.

    Args:
        table: as it was read.
        document: of `table_audit.audit_table`.
        source: what its owner says of it.
    """
    cells = table_cells(table)
    return {
        "dataset_hash": document["dataset_hash"],
        "name": source.name,
        "origin": source.origin,
        "synthetic": source.synthetic,
        "sets": len(np.unique(table.sets)),
        "members": len(table.sets),
        "members_are": "rows",
        "batches": {},
        "generator_and_filter_models": source.generator_and_filter_models,
        "cells_count": "rows by what the member shows",
        "cells": cells,
        "unknown": unknown_values(table),
        "acceptance_parity": acceptance_parity(cells),
        "counts": document["counts"],
        "rows": document["rows"],
    }


def acceptance_cells(
    sets: pa.Table, drawn: Iterable[pa.Table] | None, level: float = 0.95
) -> list[Cell]:
    """Offered and accepted sets by attribute and the source's own value.

    Acceptance is of whole sets, so within a set no value can fare better than another; source
    groups can.

    Args:
        sets: the dataset's sets.
        drawn: tables with source_id, attribute and from_value of all sets of its batches that
            were drawn, or None where they are not known; then what was offered is None, which
            is not 0.
        level: of the interval of the accepted share (Wilson 1927).
    """
    accepted = _tally(
        zip(sets["attribute"].to_pylist(), sets["from_value"].to_pylist(), strict=True)
    )
    offered = None if drawn is None else _tally(_offered(drawn))
    return [
        _cell(
            *key,
            accepted.get(key, 0),
            # A set can be accepted and not drawn only where the batch was drawn again since.
            None if offered is None else offered.get(key, 0),
            level,
        )
        for key in sorted({*accepted, *(offered or {})})
    ]


def table_cells(table: ScoreTable, level: float = 0.95) -> list[Cell]:
    """Delivered and used rows by attribute and value."""
    import pyarrow as pa

    cells = []
    for name, column in table.attributes.items():
        used = np.bincount(column.codes, minlength=len(column.words))
        words = table.rejected[name].cast(pa.string()).drop_null().to_pylist()
        rejected = _tally((name, word) for word in words)
        for value, count in zip(column.words, used.tolist(), strict=True):
            offered = count + rejected.pop((name, value), 0)
            cells.append(_cell(name, value, count, offered, level))
        # Values whose every row was rejected.
        cells += [_cell(*key, 0, offered, level) for key, offered in sorted(rejected.items())]
    return cells


def unknown_values(table: ScoreTable) -> dict[str, int]:
    """Rows of which a table doesn't say the value, by attribute."""
    return {name: int(table.rejected[name].null_count) for name in table.attributes}


def _cell(attribute: str, value: str, kept: int, total: int | None, level: float) -> Cell:
    from cf_lab_assets.audits.statistics import wilson_interval

    cell: Cell = {"attribute": attribute, "from_value": value, "accepted": kept}
    if total is None or total < kept:
        return cell | UNKNOWN_SHARE
    low, high = wilson_interval(kept, total, level)
    return cell | {
        "offered": total,
        "excluded": total - kept,
        "share": round(kept / total, 6) if total else None,
        "low": round(low, 6),
        "high": round(high, 6),
    }


def acceptance_parity(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By attribute, the least share accepted of any value over the greatest; None if unknown."""
    found: dict[str, Any] = {}
    for name in sorted({cell["attribute"] for cell in cells}):
        own = [cell for cell in cells if cell["attribute"] == name]
        if any(cell["share"] is None for cell in own):
            found[name] = None
            continue
        least, most = (pick(own, key=lambda cell: cell["share"]) for pick in (min, max))
        found[name] = {
            "least": least["from_value"],
            "most": most["from_value"],
            "ratio": round(least["share"] / most["share"], 6) if most["share"] else None,
        }
    return found


def _offered(drawn: Iterable[pa.Table]) -> set[tuple[str, str, str]]:
    columns = ("attribute", "from_value", "source_id")
    return {
        (row["attribute"], row["from_value"], row["source_id"])
        for table in drawn
        for row in table.select(columns).to_pylist()
    }


def _tally(items: Iterable[tuple[str, ...]]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for attribute, value, *_ in items:
        counts[attribute, value] = counts.get((attribute, value), 0) + 1
    return counts
