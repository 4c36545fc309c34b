"""What became of the questions, counted for each group: answers, refusals and failures apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cf_lab_assets.audits.parsing import PARSE_FAILURE, REFUSAL

if TYPE_CHECKING:
    import pyarrow as pa

GROUP = ("format", "question", "attribute", "value")
# The four are disjoint: their sum is the number of pictures.
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
