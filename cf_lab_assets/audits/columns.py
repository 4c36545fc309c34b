"""Columns of a table's file: words as they stand there, and numbers.

Nothing is guessed from what a CSV column looks like: `01` and `1` are two words, and so are `NA`
and the name of a region. Parquet knows its types; a whole number or truth value is its plain text.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_assets.audits.errors import AuditError

if TYPE_CHECKING:
    import pyarrow as pa

# Up to here every whole float is a whole number, and has one text.
EXACT = 2.0**53


def read_columns(path: Path) -> pa.Table:
    """All columns of a `.csv`, as words, or a `.parquet` file, of its own types.

    Raises:
        AuditError: the file can't be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix not in (".csv", ".parquet"):
        raise AuditError(f"{path}: give a .csv or a .parquet file")
    try:
        return _read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise AuditError(f"{path}: can't be read as {path.suffix[1:]}: {error}") from error


def _read_csv(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv as csv

    with csv.open_csv(path) as opened:
        names = opened.schema.names
    options = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
    )
    return csv.read_csv(path, convert_options=options)


def as_words(column: Any) -> Any:
    """A column's plain texts; an empty one is missing, and so is what is no number among floats.

    Raises:
        pa.ArrowException: the column's type has no text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _decoded(column)
    words = column.cast(pa.string())
    if pa.types.is_floating(column.type):
        numbers = column.cast(pa.float64())
        whole = pc.and_(pc.equal(numbers, pc.trunc(numbers)), pc.less_equal(pc.abs(numbers), EXACT))
        texts = pc.if_else(whole, numbers, None).cast(pa.int64()).cast(pa.string())
        words = pc.if_else(pc.is_nan(numbers), None, pc.coalesce(texts, words))
    return pc.if_else(pc.equal(words, ""), None, words)


def as_numbers(column: Any) -> Any:
    """A column's numbers; the usual words for a missing one (`NA`, `null`, ...) are missing.

    Raises:
        pa.ArrowException: some other word is no number, or the column's type has none.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as csv

    column = _decoded(column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.utf8_trim_whitespace(column)
        missing = pa.array(csv.ConvertOptions().null_values, column.type)
        column = pc.if_else(pc.is_in(column, value_set=missing), None, column)
    numbers = column.cast(pa.float64())
    return pc.if_else(pc.is_nan(numbers), None, numbers)


def spelt(word: str, kind: pa.DataType) -> str:
    """A word that somebody gave as `as_words` spells it for a column of this type."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_boolean(kind):
        return word.lower()
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        return word
    try:
        text = as_words(pa.chunked_array([pa.array([float(word)])]))[0].as_py()
    except ValueError:
        return word
    return word if text is None else str(text)


def _decoded(column: Any) -> Any:
    import pyarrow as pa

    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
