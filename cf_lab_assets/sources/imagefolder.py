"""The metadata of an ImageFolder, row by row: `metadata.csv`, `.jsonl` or `.parquet`.

Columns `file_name` and `text` are required, all others are passed on as strings. Files are
read as a stream. A row that can't be read is yielded as rejected and the next one is read; only
what spoils the whole file raises. Rows are counted from 1, the CSV header and blank lines not
among them.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_assets.sources.captions import is_utf8, printable
from cf_lab_assets.sources.refusals import DeliveryRefused, Rejected

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME, TEXT = "file_name", "text"
REQUIRED = (FILE_NAME, TEXT)

MAX_LINE_BYTES = 16 * 1024 * 1024  # a line without end would be read into memory whole
MAX_COLUMNS = 1000  # remembered of JSON, where each line may bring new ones
PARQUET_ROWS = 256


@dataclass(frozen=True)
class Row:
    """A row as delivered; bytes that were not UTF-8 are in it as lone surrogates."""

    number: int
    file_name: str
    text: str
    columns: dict[str, str]


def read_metadata(path: Path, name: str) -> Iterator[Row | Rejected]:
    """Reads the rows of a metadata file.

    Args:
        path: Where it lies, under whatever name.
        name: One of `METADATA_FILES`; its suffix is its format.

    Raises:
        DeliveryRefused: `unreadable_metadata` or `missing_column`.
    """
    readers = {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}
    return readers[Path(name).suffix](path, name)


def _unreadable(name: str, why: str) -> DeliveryRefused:
    return DeliveryRefused("unreadable_metadata", f"{name} {why}")


def _check_columns(name: str, columns: Sequence[str]) -> None:
    for column in REQUIRED:
        if column not in columns:
            found = ", ".join(repr(printable(c, 40)) for c in columns[:20]) or "none"
            raise DeliveryRefused(
                "missing_column",
                f"{name} has no column `{column}`; its columns are {found}. Name the column of "
                f"pictures `{FILE_NAME}` and that of captions `{TEXT}`",
            )
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise _unreadable(name, f"has the column {twice[0]!r} twice; rename one of them")


def _lines(path: Path, name: str) -> Iterator[bytes]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise _unreadable(name, f"can't be read: {error.strerror}") from error
    with file:
        head = file.read(4)
        if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in head:
            raise _unreadable(name, "is not UTF-8 (it looks like UTF-16); save it as UTF-8")
        file.seek(3 if head.startswith(b"\xef\xbb\xbf") else 0)
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise _unreadable(
                    name, f"has more than {MAX_LINE_BYTES:,} bytes in line {number}; is it text?"
                )
            yield line


def _malformed(number: int, detail: str, file_name: object = None, text: object = None) -> Rejected:
    return Rejected(
        number,
        file_name if isinstance(file_name, str) else None,
        "malformed_row",
        detail,
        text if isinstance(text, str) else None,
    )


def _csv_rows(path: Path, name: str) -> Iterator[Row | Rejected]:
    # Bytes that are not UTF-8 travel as surrogates, so that one bad row does not end the file.
    lines = (line.decode("utf-8", "surrogateescape") for line in _lines(path, name))
    reader = csv.reader(lines, strict=True)
    header = _csv_header(reader, name)
    number = 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number += 1
            yield _malformed(number, f"line {reader.line_num} is not valid CSV: {error}")
            continue
        if not cells:
            continue
        number += 1
        values = dict(zip(header, cells, strict=False))
        file_name, text = values.pop(FILE_NAME, ""), values.pop(TEXT, "")
        if len(cells) != len(header):
            yield _malformed(
                number,
                f"{len(cells)} fields where the header has {len(header)}; put fields with commas "
                "in double quotes",
                file_name,
                text,
            )
        else:
            yield Row(number, file_name, text, values)


def _csv_header(reader: Iterator[list[str]], name: str) -> list[str]:
    try:
        cells = next(reader, None)
    except csv.Error as error:
        raise _unreadable(name, f"is not valid CSV: {error}") from error
    if cells is None:
        raise _unreadable(name, "is empty; its first line must name the columns")
    if not all(is_utf8(cell) for cell in cells):
        raise _unreadable(name, "is not UTF-8 in its first line; save it as UTF-8")
    # pandas writes its index as a column without a name.
    header = [cell.strip() or f"column_{i}" for i, cell in enumerate(cells, start=1)]
    _check_columns(name, header)
    return header


def _json_rows(path: Path, name: str) -> Iterator[Row | Rejected]:
    number = 0
    columns: dict[str, None] = {}
    for line in _lines(path, name):
        if not line.strip():
            continue
        number += 1
        yield _json_row(number, line.decode("utf-8", "surrogateescape"), columns)
    if 0 < len(columns) < MAX_COLUMNS:  # what no line names is a mistake in the file, not in rows
        _check_columns(name, list(columns))


def _json_row(number: int, line: str, columns: dict[str, None]) -> Row | Rejected:
    try:
        values = json.loads(line)
    except RecursionError:
        return _malformed(number, "the JSON is nested too deeply")
    except ValueError as error:
        return _malformed(number, f"not valid JSON: {error}")
    if not isinstance(values, dict):
        return _malformed(number, "a line must be one JSON object, in braces")
    if len(columns) < MAX_COLUMNS:
        columns.update(dict.fromkeys(values))
    file_name, text = values.pop(FILE_NAME, None), values.pop(TEXT, None)
    for column, value in ((FILE_NAME, file_name), (TEXT, text)):
        if value is not None and not isinstance(value, str):
            return _malformed(number, f"`{column}` must be a string", file_name, text)
    return Row(number, file_name or "", text or "", _texts(values.items()))


def _parquet_rows(path: Path, name: str) -> Iterator[Row | Rejected]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _check_columns(name, list(file.schema_arrow.names))
            number = 0
            for batch in file.iter_batches(batch_size=PARQUET_ROWS):
                columns = {
                    n: _cells(c) for n, c in zip(batch.schema.names, batch.columns, strict=True)
                }
                for cells in zip(*columns.values(), strict=True):
                    number += 1
                    yield _parquet_row(number, dict(zip(columns, cells, strict=True)))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(name, f"can't be read as Parquet: {error}") from error


def _parquet_row(number: int, values: dict[str, Any]) -> Row | Rejected:
    file_name, text = values.pop(FILE_NAME), values.pop(TEXT)
    for column, value in ((FILE_NAME, file_name), (TEXT, text)):
        if value is not None and not isinstance(value, str):
            return _malformed(number, f"`{column}` must be a string", file_name, text)
    return Row(number, file_name or "", text or "", _texts(values.items()))


def _cells(column: pa.Array) -> list[Any]:
    """Python values; strings by way of bytes, since pyarrow does not check what it reads."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        values = column.cast(pa.large_binary()).to_pylist()
        return [v if v is None else v.decode("utf-8", "surrogateescape") for v in values]
    cells: list[Any] = column.to_pylist()
    return cells


def _texts(items: Iterable[tuple[str, Any]]) -> dict[str, str]:
    return {name: text for name, value in items if (text := _text(value)) is not None}


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):
        return None  # how pandas writes an empty cell
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, bool | int | float | list | dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return str(value)  # dates and decimals
