"""Tables with the pictures in them: Parquet files, and folders of `datasets`.

The picture is a struct of `bytes` and `path`, as the Image feature of Hugging Face datasets is
stored, or a plain binary column; the caption is in `text` or `caption`. Class labels become their
names. A folder that `save_to_disk` wrote is read by what its `state.json` names, and the name of
a split is kept as a column.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from cf_lab_assets.sources.captions import printable
from cf_lab_assets.sources.refusals import DeliveryRefused, Rejected
from cf_lab_assets.sources.rows import (
    CAPTION,
    TEXT,
    Kind,
    Row,
    Rows,
    malformed,
    parse_object,
    rejected,
    take_caption,
    texts,
    unreadable,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from cf_lab_assets.sources.deliveries import Delivery
    from cf_lab_resources.images import Limits

IMAGE, SPLIT = "image", "split"
STATE = "state.json"
MAX_STATE_BYTES = 1024 * 1024
ROWS_AT_ONCE = 64  # with pictures in them, of which each may have megabytes
PIECE_BYTES = 1024 * 1024  # of a column chunk; pyarrow reads whole chunks unless told otherwise

# As the hub and `datasets` name the files of a split: train-00000-of-00012.parquet
_SPLIT = re.compile(r"(?P<split>[A-Za-z0-9_.]+)-\d{5}-of-\d{5}")

Values = Iterator[dict[str, Any]]


def _saved_folders(names: Sequence[str]) -> list[str]:
    found = (PurePosixPath(name) for name in names if PurePosixPath(name).name == STATE)
    return sorted(str(path) for path in found if len(path.parts) <= 2)


def _saved_rows(delivery: Delivery, files: Sequence[str], limits: Limits) -> Rows:
    numbers = itertools.count(1)
    for state in files:
        folder = PurePosixPath(state).parent
        split = folder.name or None
        for name in _saved_files(delivery, state):
            path = str(folder / name)
            with delivery.open(path) as file:
                yield from _numbered(numbers, _arrow_table(file, path), path, split)


def _saved_files(delivery: Delivery, state: str) -> list[str]:
    with delivery.open(state) as file:
        values = parse_object(file.read(MAX_STATE_BYTES))
    if isinstance(values, str):
        raise unreadable(state, f"can't be read: {values}")
    listed = values.get("_data_files")
    names = [entry.get("filename") for entry in listed or () if isinstance(entry, dict)]
    known = {name for name, _ in delivery.files()}
    folder = PurePosixPath(state).parent
    missing = [name for name in names if str(folder / str(name)) not in known]
    if not names or missing:
        why = f"names {missing[0]!r}, which is not there" if missing else "names no data files"
        raise unreadable(state, f"{why}; save the dataset again by `save_to_disk`")
    return [str(name) for name in names]


def _parquet_files(names: Sequence[str]) -> list[str]:
    return sorted(
        name
        for name in names
        if name.endswith(".parquet") and PurePosixPath(name).name != "metadata.parquet"
    )


def _parquet_file_rows(delivery: Delivery, files: Sequence[str], limits: Limits) -> Rows:
    numbers = itertools.count(1)
    for name in files:
        match = _SPLIT.match(PurePosixPath(name).name)
        with delivery.open(name) as file:
            yield from _numbered(
                numbers, _parquet_table(file, name), name, match["split"] if match else None
            )


SAVED = Kind(
    name="Hugging Face dataset",
    form="a folder written by `save_to_disk`, or one of its splits, with an image column and "
    "`text` or `caption`",
    pictures="rows",
    row_files=_saved_folders,
    rows=_saved_rows,
)
PARQUET = Kind(
    name="Parquet",
    form="*.parquet files, such as data/*.parquet of a Hugging Face dataset, with an image column "
    "and `text` or `caption`",
    pictures="rows",
    row_files=_parquet_files,
    rows=_parquet_file_rows,
)


def parquet_rows(file: BinaryIO, name: str, check: Callable[[pa.Schema], object]) -> Values:
    """The rows of a Parquet file as dicts; `check` is called with its schema first.

    Raises:
        DeliveryRefused: `unreadable_metadata`.
    """
    return _values(_parquet_table(file, name), name, check)


@contextmanager
def _reading(name: str, form: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise unreadable(name, f"can't be read as {form}: {error}") from error


def _parquet_table(file: BinaryIO, name: str) -> Iterator[pa.Schema | pa.RecordBatch]:
    """The schema, then the rows in batches."""
    import pyarrow.parquet as pq

    with (
        _reading(name, "Parquet"),
        pq.ParquetFile(file, pre_buffer=False, buffer_size=PIECE_BYTES) as table,
    ):
        yield table.schema_arrow
        yield from table.iter_batches(batch_size=ROWS_AT_ONCE)


def _arrow_table(file: BinaryIO, name: str) -> Iterator[pa.Schema | pa.RecordBatch]:
    """The same of an Arrow stream, whose buffers are validated, as pyarrow trusts them."""
    import pyarrow as pa

    with _reading(name, "an Arrow stream"), pa.ipc.open_stream(file) as table:
        yield table.schema
        for batch in table:
            batch.validate(full=True)
            for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                yield batch.slice(start, ROWS_AT_ONCE)


def _values(
    table: Iterator[pa.Schema | pa.RecordBatch], name: str, check: Callable[[pa.Schema], object]
) -> Values:
    schema = next(table)
    check(schema)
    labels = _class_labels(schema)
    with _reading(name, "a table"):
        for batch in table:
            columns = {n: _cells(c) for n, c in zip(schema.names, batch.columns, strict=True)}
            for column, names in labels.items():
                columns[column] = [_label(names, value) for value in columns[column]]
            for cells in zip(*columns.values(), strict=True):
                yield dict(zip(columns, cells, strict=True))


def _class_labels(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of class labels by column, as `datasets` notes them in a schema."""
    described: Any = parse_object((schema.metadata or {}).get(b"huggingface", b"{}"))
    try:
        return {
            name: list(feature["names"])
            for name, feature in described["info"]["features"].items()
            if feature.get("_type") == "ClassLabel" and name in schema.names
        }
    except (AttributeError, KeyError, TypeError):
        return {}


def _label(names: Sequence[str], value: object) -> object:
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _numbered(
    numbers: Iterator[int],
    table: Iterator[pa.Schema | pa.RecordBatch],
    name: str,
    split: str | None,
) -> Rows:
    image = ""

    def check(schema: pa.Schema) -> None:
        nonlocal image
        image = _image_column(schema, name)

    for place, values in enumerate(_values(table, name, check), start=1):
        if split:
            values.setdefault(SPLIT, split)
        yield _row(next(numbers), f"{name}/{place}", values, image)


def _image_column(schema: pa.Schema, name: str) -> str:
    found = [field.name for field in schema if _may_hold_pictures(field.type)]
    said = ", ".join(f"{printable(field.name, 40)!r}" for field in list(schema)[:20]) or "none"
    if IMAGE in found:
        found = [IMAGE]
    if len(found) != 1:
        raise DeliveryRefused(
            "missing_column",
            f"{name} has {len(found)} columns that may hold pictures, and none is called "
            f"`{IMAGE}`; its columns are {said}. Name the column of encoded pictures `{IMAGE}` (a "
            "struct of `bytes` and `path`, or binary)",
        )
    if TEXT not in schema.names and CAPTION not in schema.names:
        raise DeliveryRefused(
            "missing_column",
            f"{name} has neither `{TEXT}` nor `{CAPTION}`; its columns are {said}. Name the column "
            f"of captions `{TEXT}`",
        )
    return found[0]


def _may_hold_pictures(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _may_hold_pictures(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _row(number: int, place: str, values: dict[str, Any], image: str) -> Row | Rejected:
    picture, caption = values.pop(image), take_caption(values)
    if caption is not None and not isinstance(caption, str):
        return malformed(number, f"`{TEXT}` or `{CAPTION}` must be a string", place)
    if isinstance(picture, dict):
        path, picture = picture.get("path"), picture.get("bytes")
        if path and isinstance(path, str):  # the folders are of the deliverer's machine
            values.setdefault(f"{image}_path", PurePosixPath(path.replace("\\", "/")).name)
    if not isinstance(picture, bytes):
        detail = f"`{image}` holds no bytes of a picture; embed the pictures in the table"
        return rejected(number, "missing_picture", detail, place, caption)
    return Row(number, place, caption or "", texts(values), picture)


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
