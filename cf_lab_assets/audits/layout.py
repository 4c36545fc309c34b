"""A table's rows laid out for one attribute: matched rows by values, as scores or as decisions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cf_lab_assets.audits.answers import Answers, Floats, set_means
from cf_lab_assets.audits.decisions import Decisions
from cf_lab_assets.audits.table import MAX_VALUES, SCORE, Column, ScoreTable, combined

# Queries that are audited one by one where every member answers them all; more are pooled.
MAX_QUERIES = 32
ANSWERED = 0.95  # of all members and queries
# As many as an attribute may have: more have more contrasts than sets could tell apart.
MAX_INTERSECTION = MAX_VALUES


def answers_of(table: ScoreTable, names: Sequence[str], query_by_query: bool) -> Answers:
    """Scores of an attribute or, of several names, an intersection, by matched row.

    Args:
        table: the usable rows.
        names: the attributes that differ within a row.
        query_by_query: whether each query is a prompt of its own; otherwise a row holds one.
    """
    layout = _Layout(table, names, query_by_query)
    prompts = len(table.queries.words) if query_by_query else 1
    prompt = table.queries.codes if query_by_query else np.zeros_like(table.queries.codes)
    members = np.full((layout.rows, len(layout.values), prompts), np.nan)
    sources = np.full((layout.rows, prompts), np.nan)
    placebo = np.full(layout.rows, -1)
    score = scores_of(table)
    own, original = ~table.is_source, table.is_source
    members[layout.row[own], layout.value[own], prompt[own]] = score[own]
    sources[layout.row[original], prompt[original]] = score[original]
    placebo[layout.row[original]] = layout.value[original]
    within = {name: layout.spread(column) for name, column in layout.others.items()}
    return Answers("+".join(names), layout.values, layout.sets, members, placebo, sources, within)


def scores_of(table: ScoreTable) -> Floats:
    """The score of each row; without one whether it is selected, or else whether it is right."""
    if SCORE in table.has:
        return table.score
    decided = np.isfinite(table.decided)
    if table.selects:
        return np.where(decided, table.decided == 1, np.nan)
    return np.where(decided & np.isfinite(table.label), table.decided == table.label, np.nan)


def decisions_of(table: ScoreTable, names: Sequence[str]) -> Decisions:
    """Decisions of an attribute or an intersection by matched row, a query each."""
    layout = _Layout(table, names, query_by_query=False)
    shape = layout.rows, len(layout.values)
    own = np.flatnonzero(~table.is_source)
    cells = layout.row[own], layout.value[own]

    def laid_out(column: NDArray[Any], nothing: Any) -> NDArray[Any]:
        block = np.full(shape, nothing)
        block[cells] = column[own]
        return block

    decided = laid_out(table.decided, np.nan)
    return Decisions(
        "+".join(names),
        layout.values,
        layout.sets,
        decided,
        laid_out(table.abstained, False),
        laid_out(table.label, np.nan),
        laid_out(table.unanswerable, False),
        _placebo_flips(table, layout, decided),
        table.selects,
    )


def _placebo_flips(table: ScoreTable, layout: _Layout, decided: Floats) -> Floats:
    """Whether each placebo is decided other than its source picture, a share of each set."""
    rows = np.flatnonzero(table.is_source)
    again = decided[layout.row[rows], layout.value[rows]]
    original = table.decided[rows]
    both = np.isfinite(again) & np.isfinite(original)
    flips = (again != original)[both].astype(np.float64)[:, None]
    return set_means(flips, table.sets[rows][both])[1]


class _Layout:
    """Which row and which value each of a table's rows is of.

    Attributes:
        values: of the attribute; those of an intersection are joined by a comma.
        rows: how many matched rows there are.
        row: of each of the table's rows.
        value: of each of the table's rows.
        sets: of each matched row, numbered without gaps.
        others: the attributes that are the same within a row.
    """

    def __init__(self, table: ScoreTable, names: Sequence[str], query_by_query: bool) -> None:
        self.others = {
            name: column for name, column in table.attributes.items() if name not in names
        }
        varied = [table.attributes[name] for name in names]
        self.values = tuple(
            ", ".join(words) for words in itertools.product(*(one.words for one in varied))
        )
        self.value = np.zeros(len(table.sets), np.int64)
        for one in varied:
            self.value = self.value * len(one.words) + one.codes
        keys = [Column(table.sets, ("",) * (int(table.sets.max()) + 1)), *self.others.values()]
        if not query_by_query:
            keys.append(table.queries)
        _, first, self.row = np.unique(combined(keys), return_index=True, return_inverse=True)
        self._first = first
        self.rows = len(first)
        _, self.sets = np.unique(table.sets[first], return_inverse=True)

    def spread(self, column: Column) -> NDArray[np.object_]:
        """A column's word for each matched row."""
        return np.array(column.words, dtype=object)[column.codes[self._first]]


def query_by_query(table: ScoreTable) -> bool:
    """Whether each query is a prompt of its own.

    A declaration says so; without one it is where there are few queries and (nearly) all members
    answer every one of them.
    """
    if table.one_by_one is not None:
        return table.one_by_one
    queries = len(table.queries.words)
    if queries > MAX_QUERIES:
        return False
    members = combined(
        [Column(table.sets, ("",) * (int(table.sets.max()) + 1)), *table.attributes.values()]
    )
    cells = len(np.unique(members[~table.is_source])) * queries
    return bool((~table.is_source).sum() >= ANSWERED * cells)


def intersections(table: ScoreTable, names: Iterable[str]) -> list[list[str]]:
    """Each two of some attributes, but for those that have too many values together."""
    return [pair for pair in _pairs(names) if _size(table, pair) <= MAX_INTERSECTION]


def left_out(table: ScoreTable, names: Iterable[str]) -> list[list[str]]:
    """The others: each two that are not intersected."""
    return [pair for pair in _pairs(names) if _size(table, pair) > MAX_INTERSECTION]


def _pairs(names: Iterable[str]) -> list[list[str]]:
    return [list(pair) for pair in itertools.combinations(names, 2)]


def _size(table: ScoreTable, names: Sequence[str]) -> int:
    return math.prod(len(table.attributes[name].words) for name in names)


def compares_nothing(table: ScoreTable, name: str) -> bool:
    """Whether no two members of a set differ in this attribute and in nothing else."""
    layout = _Layout(table, [name], query_by_query=False)
    own = ~table.is_source
    cells = np.stack([layout.row[own], layout.value[own]])
    return len(np.unique(cells, axis=1).T) == len(np.unique(cells[0]))
