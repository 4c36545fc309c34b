"""What became of the questions, counted for each group: answers, refusals and failures apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cf_lab_assets.audits.parsing import PARSE_FAILURE, REFUSAL

if TYPE_CHECKING:
    import pyarrow as pa

GROUP = ("format", "question", "attribute", "value")
# The four are disjoint: their sum is the number of pictures.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
COUNTED = ("answered", REFUSAL, PARSE_FAILURE, "missing")


def outcomes(responses: pa.Table) -> list[dict[str, Any]]:
    """Counts for each format, question and attribute value; source pictures have no value.

    Args:
        responses: as `association.respond` wrote them.

    Returns:
        `GROUP`'s columns, `pictures`, and `COUNTED`: pictures with an answer (of association one
        score at least, of a forced choice also a tie), those whose open answer is a refusal or
        could not be read, and those on which the model failed.
    """
    counts: dict[tuple[str, ...], dict[str, int]] = {}
    for row in _pictures(responses):
        group = tuple(str(row[name] or "") for name in GROUP)
        one = counts.setdefault(group, dict.fromkeys(("pictures", *COUNTED), 0))
        one["pictures"] += 1
        one[_outcome(row)] += 1
    return [{**dict(zip(GROUP, group, strict=True)), **counts[group]} for group in sorted(counts)]


def quantiles(responses: pa.Table) -> dict[str, list[tuple[str, list[float]]]]:
    """Where scores lie, by format: for each attribute's value five quantiles.

    Args:
        responses: as `association.respond` wrote them.

    Returns:
        By format, label and the quantiles `QUANTILES`; formats and values without scores are left
        out.
    """
    import numpy as np
    import pyarrow.compute as pc

    scored = responses.filter(
        pc.and_(pc.is_valid(responses["score"]), pc.is_valid(responses["value"]))
    )
    keys = ["format", "attribute", "value"]
    found: dict[str, list[tuple[str, list[float]]]] = {}
    for row in (
        scored.group_by(keys)
        .aggregate([("score", "list")])
        .sort_by([(key, "ascending") for key in keys])
        .to_pylist()
    ):
        numbers = np.quantile(np.array(row["score_list"]), QUANTILES)
        label = f"{row['attribute']}: {row['value']}"
        found.setdefault(row["format"], []).append((label, numbers.tolist()))
    return found


def _outcome(row: dict[str, Any]) -> str:
    if row["answers_sum"] == 0:
        return "missing"
    return row["outcome"] if row["outcome"] in (REFUSAL, PARSE_FAILURE) else "answered"


def _pictures(responses: pa.Table) -> list[dict[str, Any]]:
    """A row for each picture, format and question; of the latter an open one has one outcome."""
    import pyarrow as pa
    import pyarrow.compute as pc

    answered = pc.is_null(responses["failure"]).cast(pa.int64())
    keys = [*GROUP, "role", "pair_id", "outcome"]
    grouped = responses.append_column("answers", answered).group_by(keys)
    rows: list[dict[str, Any]] = grouped.aggregate([("answers", "sum")]).to_pylist()
    return rows
