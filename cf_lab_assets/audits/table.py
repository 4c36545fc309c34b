"""Anyone's scores: a CSV or Parquet table of set members, read, checked, and laid out in rows.

One row is one member of a counterfactual set under one query. What can't be used is rejected
with a reason and kept; an audit says how much that was.

| column | meaning |
|---|---|
| `set_id` | the counterfactual set, which is the unit of resampling |
| attribute columns | the value that the member shows; every column without another meaning |
| `score` | any finite number |
| `prediction` | 0 or 1, or words, of which `positive` names the one that counts as 1 |
| `label` | what would be right, in the words of `prediction` |
| `query` | the prompt or question |
| `role` | `member`, or `source` for the original picture that a member re-renders |
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cf_lab_assets.audits.answers import Floats, Integers
from cf_lab_assets.audits.errors import AuditError

if TYPE_CHECKING:
    import pyarrow as pa

SET_ID, SCORE, PREDICTION, LABEL, QUERY, ROLE = RESERVED = (
    "set_id",
    "score",
    "prediction",
    "label",
    "query",
    "role",
)
MEMBER, SOURCE = "member", "source"
EVERY_QUERY = "all queries"
# Units of what stands for a score where the table has none.
SHARE_SELECTED, SHARE_RIGHT = "share selected", "share right"
BINARY = {"0": 0.0, "0.0": 0.0, "false": 0.0, "1": 1.0, "1.0": 1.0, "true": 1.0}
# An attribute has few values; a column with more is an identifier or a measurement.
MAX_VALUES = 64

NO_SET, NO_VALUE, BAD_SCORE, BAD_ROLE, NO_ANSWER, DUPLICATE = (
    "set_id_is_missing",
    "attribute_value_is_missing",
    "score_is_not_a_finite_number",
    "role_is_unknown",
    "no_score_and_no_prediction",
    "duplicate_of_another_row",
)


@dataclass(frozen=True)
class Words:
    """What the words of `prediction` and `label` mean.

    Attributes:
        positive: the word that counts as selected, 1; None where predictions are 0 and 1.
        abstained: words of a model that declines to answer.
    """

    positive: str | None = None
    abstained: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column of words as numbers: `codes` index into `words`."""

    codes: Integers
    words: tuple[str, ...]


@dataclass(frozen=True)
class ScoreTable:
    """The usable rows of a table, in columns.

    Attributes:
        sha256: of the file.
        sets: number of each row's set.
        attributes: by name.
        queries: one word, `EVERY_QUERY`, where the table has no such column.
        is_source: whether the row is of an original picture.
        score: NaN where the table has none.
        decided: 1 for the positive word, other numbers for other words, NaN for none.
        label: likewise.
        abstained: whether the prediction is a word of abstention.
        unanswerable: whether the label is.
        has: which of `score`, `prediction` and `label` the table has.
        selects: whether a prediction can be positive.
        rejected: the other rows, with a column `reason`.
        delivered: how many rows the file has.
    """

    sha256: str
    sets: Integers
    attributes: Mapping[str, Column]
    queries: Column
    is_source: NDArray[np.bool_]
    score: Floats
    decided: Floats
    label: Floats
    abstained: NDArray[np.bool_]
    unanswerable: NDArray[np.bool_]
    has: frozenset[str]
    selects: bool
    rejected: pa.Table
    delivered: int

    @property
    def reasons(self) -> dict[str, int]:
        """How many rows were rejected for each reason."""
        return dict(Counter(self.rejected["reason"].to_pylist()))


def read_table(
    path: Path, attributes: Sequence[str] = (), words: Words | None = None
) -> ScoreTable:
    """Read and check a table.

    Args:
        path: a `.csv` or `.parquet` file.
        attributes: names of the attribute columns; by default every column that is not one of
            `RESERVED`.
        words: meaning of predictions and labels that are words.

    Raises:
        AuditError: the file can't be read, lacks a column, or has no usable row; the message
            says what to do.
    """
    data = _read(path)
    names = _attribute_names(path, data, attributes)
    _check_types(path, data, names)
    rejected = _reasons(data, names)
    rejected = np.where(rejected == "", _duplicates(data, names, rejected == ""), rejected)
    good = rejected == ""
    if not good.any():
        raise AuditError(f"{path}: none of its {len(data)} rows can be used: {_most(rejected)}")
    kept = data.filter(good)
    if _is_source(kept).all():
        raise AuditError(
            f"{path}: every usable row has the role {SOURCE!r}; members of sets have {MEMBER!r}"
        )
    words = words or Words()
    meanings = _meanings(kept, words)
    decided, abstained = _decisions(kept, PREDICTION, meanings, words)
    label, unanswerable = _decisions(kept, LABEL, meanings, words)
    sets = _coded(kept[SET_ID]).codes
    return ScoreTable(
        hashlib.sha256(path.read_bytes()).hexdigest(),
        sets,
        {name: _attribute(path, kept, name) for name in names},
        _coded(kept[QUERY]) if QUERY in kept.column_names else _constant(len(kept)),
        _is_source(kept),
        _floats(kept, SCORE),
        decided,
        label,
        abstained,
        unanswerable,
        frozenset({SCORE, PREDICTION, LABEL} & set(kept.column_names)),
        words.positive is not None or meanings == BINARY,
        _with_reason(data, rejected),
        len(data),
    )


def _read(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".parquet":
            data = pq.read_table(path)
        elif path.suffix == ".csv":
            data = csv.read_csv(path, convert_options=csv.ConvertOptions(strings_can_be_null=True))
        else:
            raise AuditError(f"{path}: give a .csv or a .parquet file")
    except (OSError, pa.ArrowException) as error:
        raise AuditError(f"{path}: can't be read as {path.suffix[1:]}: {error}") from error
    if len(set(data.column_names)) < len(data.column_names):
        raise AuditError(f"{path}: two columns have the same name: {data.column_names}")
    if SET_ID not in data.column_names:
        raise AuditError(
            f"{path}: has no column {SET_ID!r}; name the counterfactual set of each row in one"
        )
    if SCORE not in data.column_names and PREDICTION not in data.column_names:
        raise AuditError(f"{path}: has neither a column {SCORE!r} nor {PREDICTION!r}")
    if not len(data):
        raise AuditError(f"{path}: has no rows")
    return data


def _attribute_names(path: Path, data: pa.Table, wanted: Sequence[str]) -> list[str]:
    names = list(wanted) or [name for name in data.column_names if name not in RESERVED]
    missing = [name for name in names if name not in data.column_names]
    if missing or not names:
        raise AuditError(
            f"{path}: has no attribute column {', '.join(missing)}".rstrip()
            + f"; its columns are {', '.join(data.column_names)}"
        )
    return names


def _check_types(path: Path, data: pa.Table, names: Sequence[str]) -> None:
    import pyarrow as pa

    for name in [*names, *(name for name in RESERVED if name in data.column_names)]:
        kind = data.schema.field(name).type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind):
            raise AuditError(
                f"{path}: column {name!r} holds {kind}, not words or numbers; leave it out, or "
                "name the attribute columns with --attributes"
            )


def _reasons(data: pa.Table, names: Sequence[str]) -> NDArray[Any]:
    """Why each row can't be used; an empty word where it can."""
    reason = np.full(len(data), "", dtype=object)

    def mark(rows: NDArray[np.bool_], why: str) -> None:
        reason[rows & (reason == "")] = why

    mark(_null(data, SET_ID), NO_SET)
    for name in names:
        mark(_null(data, name), NO_VALUE)
    if ROLE in data.column_names:
        import pyarrow as pa
        import pyarrow.compute as pc

        known = pc.is_in(data[ROLE].cast(pa.string()), value_set=pa.array([MEMBER, SOURCE]))
        mark(~known.to_numpy(zero_copy_only=False), BAD_ROLE)
    answered = np.zeros(len(data), bool)
    if SCORE in data.column_names:
        score = _floats(data, SCORE)
        mark(~_null(data, SCORE) & ~np.isfinite(score), BAD_SCORE)
        answered |= np.isfinite(score)
    if PREDICTION in data.column_names:
        answered |= ~_null(data, PREDICTION)
    mark(~answered, NO_ANSWER)
    return reason


def _duplicates(data: pa.Table, names: Sequence[str], usable: NDArray[np.bool_]) -> NDArray[Any]:
    """Rows of which there are two for one member and query: none of them is believed."""
    columns = [SET_ID, *names, *(name for name in (QUERY, ROLE) if name in data.column_names)]
    keys = combined([_coded(data[name]) for name in columns])
    _, index, counts = np.unique(keys[usable], return_inverse=True, return_counts=True)
    found = np.full(len(data), "", dtype=object)
    found[np.flatnonzero(usable)[counts[index] > 1]] = DUPLICATE
    return found


def combined(columns: Sequence[Column]) -> Integers:
    """One number for each combination of words."""
    keys = np.zeros(len(columns[0].codes), np.int64)
    for column in columns:
        keys = keys * (len(column.words) + 1) + column.codes
        if keys.size and keys.max() > 1 << 40:
            keys = np.unique(keys, return_inverse=True)[1].astype(np.int64)
    return keys


def _coded(column: Any) -> Column:
    """Words in sorted order; what is missing has the code -1."""
    import pyarrow as pa
    import pyarrow.compute as pc

    words = column.cast(pa.string())
    known = pc.unique(words).drop_null().sort()
    known = known if isinstance(known, pa.Array) else known.combine_chunks()
    codes = pc.fill_null(pc.index_in(words, value_set=known), -1)
    return Column(codes.to_numpy().astype(np.int64), tuple(known.to_pylist()))


def _attribute(path: Path, data: pa.Table, name: str) -> Column:
    column = _coded(data[name])
    if len(column.words) > MAX_VALUES:
        raise AuditError(
            f"{path}: column {name!r} has {len(column.words)} values, more than {MAX_VALUES}; if "
            "it is no protected attribute, name those that are with --attributes"
        )
    return column


def _constant(rows: int) -> Column:
    return Column(np.zeros(rows, np.int64), (EVERY_QUERY,))


def _null(data: pa.Table, name: str) -> NDArray[np.bool_]:
    return data[name].is_null().to_numpy()


def _is_source(data: pa.Table) -> NDArray[np.bool_]:
    import pyarrow.compute as pc

    if ROLE not in data.column_names:
        return np.zeros(len(data), bool)
    return pc.equal(data[ROLE], SOURCE).to_numpy(zero_copy_only=False).astype(bool)


def _floats(data: pa.Table, name: str) -> Floats:
    import pyarrow as pa

    if name not in data.column_names:
        return np.full(len(data), np.nan)
    try:
        return data[name].cast(pa.float64()).to_numpy().astype(np.float64)
    except pa.ArrowInvalid as error:
        raise AuditError(f"column {name!r} holds what is no number: {error}") from error


def _meanings(data: pa.Table, words: Words) -> dict[str, float]:
    """The number of each word of predictions and labels: 1 for the positive one."""
    used: set[str] = set()
    for name in (PREDICTION, LABEL):
        if name in data.column_names:
            used |= set(_coded(data[name]).words)
    used -= set(words.abstained)
    if words.positive is None and used <= set(BINARY):
        return dict(BINARY)
    others = sorted(used - {words.positive})
    named = {} if words.positive is None else {words.positive: 1.0}
    return named | {word: float(2 + place) for place, word in enumerate(others)}


def _decisions(
    data: pa.Table, name: str, meanings: Mapping[str, float], words: Words
) -> tuple[Floats, NDArray[np.bool_]]:
    """Words as numbers, NaN for none; and which are abstentions."""
    if name not in data.column_names:
        return np.full(len(data), np.nan), np.zeros(len(data), bool)
    column = _coded(data[name])
    # The code -1 of what is missing takes the last entry.
    numbers = np.array([*(meanings.get(word, np.nan) for word in column.words), np.nan])
    declined = np.array([*(word in words.abstained for word in column.words), False])
    return numbers[column.codes], declined[column.codes]


def _most(reasons: NDArray[Any]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in Counter(reasons).most_common())


def _with_reason(data: pa.Table, reasons: NDArray[Any]) -> pa.Table:
    import pyarrow as pa

    bad = reasons != ""
    return data.filter(bad).append_column("reason", pa.array(list(reasons[bad]), pa.string()))
