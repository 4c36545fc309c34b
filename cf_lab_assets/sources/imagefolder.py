"""ImageFolders: pictures as files, and `metadata.csv`, `.jsonl` or `.parquet` that names them.

Columns `file_name` and `text` are required, all others are passed on as strings; `mask_file_name`
names a picture of the same size that is white where an inpainting editor may change it. Files are
read as a stream. A row that can't be read is yielded as rejected and the next one is read; only
what spoils the whole file raises. The CSV header and blank lines are not counted as rows.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from cf_lab_assets.sources import tables
from cf_lab_assets.sources.captions import is_utf8, printable
from cf_lab_assets.sources.refusals import DeliveryRefused, Rejected
from cf_lab_assets.sources.rows import (
    TEXT,
    Kind,
    Row,
    Rows,
    lines,
    malformed,
    parse_object,
    texts,
    unreadable,
)

if TYPE_CHECKING:
    from cf_lab_assets.sources.deliveries import Delivery
    from cf_lab_resources.images import Limits

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"
REQUIRED = (FILE_NAME, TEXT)

MAX_COLUMNS = 1000  # remembered of JSON, where each line may bring new ones


def _row_files(names: Sequence[str]) -> list[str]:
    return sorted(name for name in names if name in METADATA_FILES)


def _rows(delivery: Delivery, files: Sequence[str], limits: Limits) -> Rows:
    (name,) = files
    with delivery.open(name) as file:
        yield from read_metadata(file, name)


KIND = Kind(
    name="ImageFolder",
    form=f"pictures, and at the top one of {', '.join(METADATA_FILES)} with `file_name` and `text`",
    pictures="files",
    row_files=_row_files,
    rows=_rows,
)


def read_metadata(file: BinaryIO, name: str) -> Rows:
    """Reads the rows of a metadata file.

    Args:
        file: Its bytes; Parquet must be seekable.
        name: One of `METADATA_FILES`; its suffix is its format.

    Raises:
        DeliveryRefused: `unreadable_metadata` or `missing_column`.
    """
    readers = {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}
    return readers[PurePosixPath(name).suffix](file, name)


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
        raise unreadable(name, f"has the column {twice[0]!r} twice; rename one of them")


def _csv_rows(file: BinaryIO, name: str) -> Rows:
    # Bytes that are not UTF-8 travel as surrogates, so that one bad row does not end the file.
    decoded = (line.decode("utf-8", "surrogateescape") for line in lines(file, name))
    reader = csv.reader(decoded, strict=True)
    header = _csv_header(reader, name)
    number = 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number += 1
            yield malformed(number, f"line {reader.line_num} is not valid CSV: {error}")
            continue
        if not cells:
            continue
        number += 1
        values = dict(zip(header, cells, strict=False))
        file_name, text = values.pop(FILE_NAME, ""), values.pop(TEXT, "")
        if len(cells) != len(header):
            yield malformed(
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
        raise unreadable(name, f"is not valid CSV: {error}") from error
    if cells is None:
        raise unreadable(name, "is empty; its first line must name the columns")
    if not all(is_utf8(cell) for cell in cells):
        raise unreadable(name, "is not UTF-8 in its first line; save it as UTF-8")
    # pandas writes its index as a column without a name.
    header = [cell.strip() or f"column_{i}" for i, cell in enumerate(cells, start=1)]
    _check_columns(name, header)
    return header


def _json_rows(file: BinaryIO, name: str) -> Rows:
    number = 0
    columns: dict[str, None] = {}
    for line in lines(file, name):
        if not line.strip():
            continue
        number += 1
        yield _json_row(number, line.decode("utf-8", "surrogateescape"), columns)
    if 0 < len(columns) < MAX_COLUMNS:  # what no line names is a mistake in the file, not in rows
        _check_columns(name, list(columns))


def _json_row(number: int, line: str, columns: dict[str, None]) -> Row | Rejected:
    values = parse_object(line)
    if isinstance(values, str):
        return malformed(number, values)
    if len(columns) < MAX_COLUMNS:
        columns.update(dict.fromkeys(values))
    return _row(number, values)


def _row(number: int, values: dict[str, Any]) -> Row | Rejected:
    file_name, text = values.pop(FILE_NAME, None), values.pop(TEXT, None)
    for column, value in ((FILE_NAME, file_name), (TEXT, text)):
        if value is not None and not isinstance(value, str):
            return malformed(number, f"`{column}` must be a string", file_name, text)
    return Row(number, file_name or "", text or "", texts(values))


def _parquet_rows(file: BinaryIO, name: str) -> Rows:
    rows = tables.parquet_rows(file, name, lambda schema: _check_columns(name, schema.names))
    for number, values in enumerate(rows, start=1):
        yield _row(number, values)
