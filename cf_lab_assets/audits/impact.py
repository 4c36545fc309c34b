"""Impact ratios by category, in the form that bias audits of hiring tools report them.

A category is a value of an attribute, or of an intersection of two. Its rate is the selection rate
of its decisions, or its scoring rate: the share of its scores above the median of all scores of the
same query (6 RCNY 5-300). The impact ratio is the rate over the greatest rate of any category. The
tables are for comparison: see `wording.IMPACT_RATIOS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cf_lab_assets.audits.answers import Answers, Floats, Integers
from cf_lab_assets.audits.layout import answers_of, decisions_of, intersections, query_by_query
from cf_lab_assets.audits.table import EVERY_QUERY, PREDICTION, SCORE, ScoreTable

Row = dict[str, Any]
SELECTION, SCORING = "selection_rate", "scoring_rate"
# Under this share of all a bias audit may leave a category out of its ratios; here it is marked.
SMALL_SHARE = 0.02
COLUMNS = (
    "model",
    "basis",
    "query",
    "attribute",
    "category",
    "n",
    "rate",
    "impact_ratio",
    "below_2_percent",
    "unknown",
)


def of_table(table: ScoreTable) -> list[Row]:
    """Rows of `COLUMNS` but the model, for each attribute and each intersection of two."""
    names = [name for name, column in table.attributes.items() if len(column.words) > 1]
    groups = [[name] for name in names]
    groups += intersections(table, names)
    rows = []
    for group in groups:
        unknown = _unknown(table, group)
        if PREDICTION in table.has and table.selects:
            made = decisions_of(table, group)
            hits, shown = (made.decided == 1).sum(axis=0), np.isfinite(made.decided).sum(axis=0)
            found = _rows(SELECTION, EVERY_QUERY, made.attribute, made.values, hits, shown)
            rows += [row | {"unknown": unknown} for row in found]
        if SCORE in table.has:
            one_by_one = query_by_query(table)
            queries = table.queries.words if one_by_one else (EVERY_QUERY,)
            found = of_answers(answers_of(table, group, one_by_one), queries)
            rows += [row | {"unknown": unknown} for row in found]
    return rows


def of_answers(answers: Answers, queries: Sequence[str]) -> list[Row]:
    """Scoring rates of one attribute's values, for each query."""
    rows = []
    for place, query in enumerate(queries):
        scores = answers.members[:, :, place]
        known = np.isfinite(scores)
        if not known.any():
            continue
        above = known & (scores > np.median(scores[known]))
        hits, shown = above.sum(axis=0), known.sum(axis=0)
        rows += _rows(SCORING, query, answers.attribute, answers.values, hits, shown)
    return rows


def of_responses(answers: Mapping[str, Answers], queries: Sequence[str]) -> list[Row]:
    """Scoring rates of an audited model's responses; every value of a member is known."""
    rows = [row for one in answers.values() for row in of_answers(one, queries)]
    return [row | {"unknown": 0} for row in rows]


def _rows(
    basis: str,
    query: str,
    attribute: str,
    values: Sequence[str],
    hits: Integers,
    shown: Integers,
) -> list[Row]:
    rates: Floats = np.divide(hits, shown, out=np.full(len(shown), np.nan), where=shown > 0)
    greatest = np.nanmax(rates) if (shown > 0).any() else np.nan
    return [
        {
            "basis": basis,
            "query": query,
            "attribute": attribute,
            "category": value,
            "n": int(n),
            "rate": None if n == 0 else round(float(rate), 6),
            "impact_ratio": None
            if n == 0 or not greatest > 0
            else round(float(rate / greatest), 6),
            "below_2_percent": bool(n < SMALL_SHARE * shown.sum()),
        }
        for value, n, rate in zip(values, shown, rates, strict=True)
    ]


def _unknown(table: ScoreTable, names: Sequence[str]) -> int:
    """Rows of which some value of the category is missing."""
    missing = [table.rejected[name].is_null().to_numpy() for name in names]
    return int(np.any(missing, axis=0).sum())
