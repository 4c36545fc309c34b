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
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cf_lab_assets.audits.answers import Floats, Integers
from cf_lab_assets.audits.columns import as_numbers, as_words, read_columns, spelt
from cf_lab_assets.audits.declaration import Listed
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
OPTIONAL = RESERVED[1:]
MEMBER, SOURCE = "member", "source"
EVERY_QUERY = "all queries"
POOLED = (EVERY_QUERY,)
# Units of what stands for a score where the table has none.
SHARE_SELECTED, SHARE_RIGHT = "share selected", "share right"
# Texts of truth values, in small letters.
BINARY = {"0": 0.0, "0.0": 0.0, "false": 0.0, "1": 1.0, "1.0": 1.0, "true": 1.0}
# An attribute has few values; a column with more is an identifier or a measurement.
MAX_VALUES = 64
# Words of a column that a message names.
SHOWN_WORDS = 8
# What pandas calls its index where nobody named it.
UNNAMED = re.compile(r"\s*|__index_level_\d+__|Unnamed: \d+")

NO_SET, NO_VALUE, OTHER_VALUE, NO_QUERY, OTHER_QUERY, BAD_SCORE, BAD_ROLE, NO_ANSWER, DUPLICATE = (
    "set_id_is_missing",
    "attribute_value_is_missing",
    "attribute_value_is_not_declared",
    "query_is_missing",
    "query_is_not_declared",
    "score_is_not_a_finite_number",
    "role_is_unknown",
    "no_score_and_no_prediction",
    "duplicate_of_another_row",
)
# The third power of a larger one has no place in a float, and statistics need such powers.
LARGEST_SCORE, TOO_LARGE = 1e100, "score_is_too_large"


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
        set_ids: ids of the sets by their number.
        sets: number of each row's set.
        attributes: by name; a declaration's values in its order, whether they occur or not.
        queries: likewise; one word, `EVERY_QUERY`, where the table has no such column.
        one_by_one: whether a declaration lists the queries, or pools them; None without one.
        is_source: whether the row is of an original picture.
        score: NaN where the table has none.
        decided: 1 for the positive word, other numbers for other words, NaN for none.
        label: likewise.
        abstained: whether the prediction is a word of abstention.
        unanswerable: whether the label is.
        has: which of `score`, `prediction` and `label` the table has.
        selects: whether a prediction can be positive.
        predicted: words of the predictions.
        rejected: the other rows, with a column `reason`.
        delivered: how many rows the file has.
    """

    sha256: str
    set_ids: tuple[str, ...]
    sets: Integers
    attributes: Mapping[str, Column]
    queries: Column
    one_by_one: bool | None
    is_source: NDArray[np.bool_]
    score: Floats
    decided: Floats
    label: Floats
    abstained: NDArray[np.bool_]
    unanswerable: NDArray[np.bool_]
    has: frozenset[str]
    selects: bool
    predicted: tuple[str, ...]
    rejected: pa.Table
    delivered: int

    @property
    def reasons(self) -> dict[str, int]:
        """How many rows were rejected for each reason."""
        return dict(Counter(self.rejected["reason"].to_pylist()))


def read_table(
    path: Path,
    attributes: Sequence[str] = (),
    words: Words | None = None,
    listed: Listed | None = None,
) -> ScoreTable:
    """Read and check a table.

    Args:
        path: a `.csv` or `.parquet` file.
        attributes: names of the attribute columns; by default every column that is not one of
            `RESERVED`.
        words: meaning of predictions and labels that are words.
        listed: queries and values that a declaration lists; rows of others are rejected.

    Raises:
        AuditError: the file can't be read, lacks a column or what is declared or named of it,
            or has no usable row; the message says what to do.
    """
    data, listed = _read(path), listed or Listed()
    names = _attribute_names(path, data, attributes)
    _check_types(path, data, names)
    words = _spelt(data, words or Words())
    data = _plain(path, data, names)
    _check_listed(path, data, names, listed)
    _check_words(path, data, words)
    rejected = _reasons(data, names, listed)
    rejected = np.where(rejected == "", _duplicates(data, names, rejected == ""), rejected)
    good = rejected == ""
    if not good.any():
        raise AuditError(f"{path}: none of its {len(data)} rows can be used: {_most(rejected)}")
    kept = data.filter(good)
    if _is_source(kept).all():
        raise AuditError(
            f"{path}: every usable row has the role {SOURCE!r}; members of sets have {MEMBER!r}"
        )
    meanings = _meanings(kept, words)
    decided, abstained = _decisions(kept, PREDICTION, meanings, words)
    label, unanswerable = _decisions(kept, LABEL, meanings, words)
    sets = _coded(kept[SET_ID])
    return ScoreTable(
        hashlib.sha256(path.read_bytes()).hexdigest(),
        sets.words,
        sets.codes,
        {name: _attribute(path, kept, name, listed) for name in names},
        _queries(kept, listed),
        None if listed.occupations is None else listed.occupations != POOLED,
        _is_source(kept),
        _floats(kept, SCORE),
        decided,
        label,
        abstained,
        unanswerable,
        frozenset({SCORE, PREDICTION, LABEL} & set(kept.column_names)),
        words.positive is not None or _are_binary(meanings),
        tuple(sorted(_words(kept, PREDICTION))),
        _with_reason(data, rejected),
        len(data),
    )


def _read(path: Path) -> pa.Table:
    data = read_columns(path)
    if len(set(data.column_names)) < len(data.column_names):
        raise AuditError(f"{path}: two columns have the same name: {data.column_names}")
    if SET_ID not in data.column_names:
        raise AuditError(
            f"{path}: has no column {SET_ID!r}; name the counterfactual set of each row in one"
        )
    if not len(data):
        raise AuditError(f"{path}: has no rows")
    return data


def _attribute_names(path: Path, data: pa.Table, wanted: Sequence[str]) -> list[str]:
    names = list(wanted) or [name for name in data.column_names if name not in RESERVED]
    unnamed = [] if wanted else [name for name in names if UNNAMED.fullmatch(name)]
    if unnamed:
        raise AuditError(
            f"{path}: column {data.column_names.index(unnamed[0]) + 1} has no name of its own "
            f"({unnamed[0]!r}), like an index of pandas; write the table with to_csv(index=False) "
            "or to_parquet(index=False), or name the attribute columns with --attributes"
        )
    meant = [name for name in names if name in RESERVED]
    if meant:
        raise AuditError(
            f"{path}: column {meant[0]!r} has a meaning of its own and is no attribute; name "
            "others with --attributes"
        )
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


def _plain(path: Path, data: pa.Table, names: Sequence[str]) -> pa.Table:
    """The table with its scores as numbers and what else is used as words."""
    import pyarrow as pa

    for place, name in enumerate(data.column_names):
        if name not in RESERVED and name not in names:
            continue
        try:
            column = as_numbers(data[name]) if name == SCORE else as_words(data[name])
        except pa.ArrowException as error:
            holds = "no number" if name == SCORE else "no word"
            raise AuditError(
                f"{path}: column {name!r} holds what is {holds}: {error}; correct it, or leave "
                "the column out"
            ) from error
        data = data.set_column(place, name, column)
    # A column without any entry says as much as none.
    empty = [name for name in OPTIONAL if name in data.column_names and _null(data, name).all()]
    data = data.drop_columns(empty)
    if SCORE not in data.column_names and PREDICTION not in data.column_names:
        raise AuditError(
            f"{path}: has neither a column {SCORE!r} nor {PREDICTION!r} that holds anything"
        )
    return data


def _spelt(data: pa.Table, words: Words) -> Words:
    """Words that somebody gave, spelt like those of the predictions."""
    if PREDICTION not in data.column_names:
        return words
    kind = data.schema.field(PREDICTION).type
    return Words(
        None if words.positive is None else spelt(words.positive, kind),
        tuple(spelt(word, kind) for word in words.abstained),
    )


def _check_listed(path: Path, data: pa.Table, names: Sequence[str], listed: Listed) -> None:
    unknown = [name for name in listed.attributes or () if name not in names]
    if unknown:
        raise AuditError(
            f"{path}: the declaration lists the attributes {', '.join(unknown)}, and the "
            f"attribute columns are {', '.join(names)}"
        )
    for name, values in (listed.attributes or {}).items():
        held = _words(data, name)
        if not held & set(values):
            raise AuditError(
                f"{path}: column {name!r} holds none of the declared values {some(values)}; it "
                f"holds {some(held) or 'nothing'}"
            )
    if listed.occupations in (None, POOLED):
        return
    asked = _words(data, QUERY)
    unknown = [query for query in listed.occupations or () if query not in asked]
    if unknown:
        holds = f"the column {QUERY!r} holds {some(asked)}" if asked else "the table has none"
        raise AuditError(
            f"{path}: the declaration lists the queries (occupations) {some(unknown)}, and {holds}"
        )


def _check_words(path: Path, data: pa.Table, words: Words) -> None:
    predicted, labels = _words(data, PREDICTION), _words(data, LABEL)
    for option, word in [
        ("--positive", words.positive),
        *(("--abstained", word) for word in words.abstained),
    ]:
        if word is not None and word not in predicted | labels:
            raise AuditError(
                f"{path}: {option} names {word!r}, which is no prediction or label; the words "
                f"are {some(predicted | labels) or 'none'}"
            )
    fractions = [word for word in predicted if _is_fraction(word)]
    if fractions:
        raise AuditError(
            f"{path}: column {PREDICTION!r} holds {some(fractions)}, which are measurements and "
            f"no decisions; name the column {SCORE!r}"
        )
    answers, right = ({*found} - {*words.abstained} for found in (predicted, labels))
    alike = bool(answers & right) or (words.positive is None and _are_binary(answers | right))
    if answers and right and not alike:
        raise AuditError(
            f"{path}: no prediction is a label: predictions are {some(answers)}, labels "
            f"{some(right)}; give both in the same words"
        )


def _is_fraction(word: str) -> bool:
    try:
        number = float(word)
    except ValueError:
        return False
    return math.isfinite(number) and not number.is_integer()


def _are_binary(words: Iterable[str]) -> bool:
    return all(word.lower() in BINARY for word in words)


def _words(data: pa.Table, name: str) -> set[str]:
    return set(_coded(data[name]).words) if name in data.column_names else set()


def some(words: Iterable[str]) -> str:
    """The first of some words, quoted, and how many more there are."""
    known = sorted(words)
    more = f" and {len(known) - SHOWN_WORDS} more" if len(known) > SHOWN_WORDS else ""
    return ", ".join(map(repr, known[:SHOWN_WORDS])) + more


def _reasons(data: pa.Table, names: Sequence[str], listed: Listed) -> NDArray[Any]:
    """Why each row can't be used; an empty word where it can."""
    reason = np.full(len(data), "", dtype=object)

    def mark(rows: NDArray[np.bool_], why: str) -> None:
        reason[rows & (reason == "")] = why

    mark(_null(data, SET_ID), NO_SET)
    declared = listed.attributes or {}
    for name in names:
        mark(_null(data, name), NO_VALUE)
        mark(~_among(data, name, declared.get(name)), OTHER_VALUE)
    if QUERY in data.column_names:
        mark(_null(data, QUERY), NO_QUERY)
        mark(~_among(data, QUERY, _one_by_one(listed)), OTHER_QUERY)
    if ROLE in data.column_names:
        mark(~_among(data, ROLE, (MEMBER, SOURCE)), BAD_ROLE)
    answered = np.zeros(len(data), bool)
    if SCORE in data.column_names:
        score = _floats(data, SCORE)
        mark(~_null(data, SCORE) & ~np.isfinite(score), BAD_SCORE)
        mark(np.abs(score) > LARGEST_SCORE, TOO_LARGE)
        answered |= np.isfinite(score)
    if PREDICTION in data.column_names:
        answered |= ~_null(data, PREDICTION)
    mark(~answered, NO_ANSWER)
    return reason


def _among(data: pa.Table, name: str, words: Sequence[str] | None) -> NDArray[np.bool_]:
    """Whether each entry is one of some words; any is where there are none to be among."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if words is None:
        return np.ones(len(data), bool)
    found = pc.is_in(data[name], value_set=pa.array(words, pa.string()))
    return found.to_numpy().astype(bool)


def _one_by_one(listed: Listed) -> tuple[str, ...] | None:
    """Queries that a declaration lists one by one."""
    return None if listed.occupations == POOLED else listed.occupations


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


def _coded(column: Any, known: Sequence[str] | None = None) -> Column:
    """Words as codes, by default in sorted order; what is missing has the code -1."""
    import pyarrow as pa
    import pyarrow.compute as pc

    words = column.cast(pa.string())
    found = pc.unique(words).drop_null().sort() if known is None else pa.array(known, pa.string())
    found = found if isinstance(found, pa.Array) else found.combine_chunks()
    codes = pc.fill_null(pc.index_in(words, value_set=found), -1)
    return Column(codes.to_numpy().astype(np.int64), tuple(found.to_pylist()))


def _attribute(path: Path, data: pa.Table, name: str, listed: Listed) -> Column:
    column = _coded(data[name], (listed.attributes or {}).get(name))
    if len(column.words) > MAX_VALUES:
        raise AuditError(
            f"{path}: column {name!r} has {len(column.words)} values, more than {MAX_VALUES}; if "
            "it is no protected attribute, name those that are with --attributes"
        )
    return column


def _queries(data: pa.Table, listed: Listed) -> Column:
    if QUERY not in data.column_names:
        return _constant(len(data))
    return _coded(data[QUERY], _one_by_one(listed))


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
    if name not in data.column_names:
        return np.full(len(data), np.nan)
    return data[name].to_numpy().astype(np.float64)


def _meanings(data: pa.Table, words: Words) -> dict[str, float]:
    """The number of each word of predictions and labels: 1 for the positive one."""
    used = (_words(data, PREDICTION) | _words(data, LABEL)) - set(words.abstained)
    if words.positive is None and _are_binary(used):
        return {word: BINARY[word.lower()] for word in used}
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
