"""Schemas of the counterfactual tables, and reading and writing them, whole or as streams.

pyarrow is imported when a schema is asked for: the code location loads without it.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    import pyarrow as pa

    from cf_lab_resources.bucket import Bucket

TABLES = (
    "edit_plan",
    "refused_edits",
    "candidates",
    "pair_scores",
    "accepted_sets",
    "rejected_sets",
    "acceptance",
    "directions",
    "quotas",
)
# What each column holds; one of the same name means the same in every table.
MEANING = {
    "pair_id": "set_id and value",
    "set_id": "source_id and attribute",
    "source_id": "of the source's picture and caption",
    "edit_id": "of the source's edit, placebos and bases included",
    "batch": "source batch",
    "strategy": "of the editor that the plan is for",
    "kind": "counterfactual, placebo, or base of sets that are drawn from captions",
    "attribute": "what the set varies, joined by +; null for placebos and bases",
    "from_value": "the source's own value of what the set varies; null where nothing is edited",
    "value": "the member's value of the attribute",
    "values": "the member's values of all known attributes",
    "from_values": "the source's values of all known attributes",
    "to_values": "the values that are asked for",
    "is_placebo": "the member that shows the source's own value, rendered again like the others",
    "cell": "the source's values of what the target distribution is over; empty without one",
    "base_caption": "the source's caption with its own values named; members are made from it",
    "caption": "of the member",
    "reason": "code of why the set can't be made",
    "detail": "the same as a sentence",
    "drawn": "how many were drawn",
    "share": "of the cell in the target, of all attribute sets together",
    "offered": "sets of the cell that can be drawn",
    "quota": "accepted sets that are wanted of the cell",
    "shortfall": "accepted sets that are missing to the quota",
    "outcome": "met, or why not: no_sources, budget_spent, acceptance_too_low; open before drawing",
    "to_value": "the value that was asked for",
    "instruction": "what the editor was told; null where it drew from the caption alone",
    "explanation": "why the caption became this one",
    "image_key": "place of the picture in the bucket",
    "image_sha256": "hash of the picture's PNG",
    "source_image_key": "place of what scores compare with: the source's picture, or the base's",
    "source_image_sha256": "hash of its PNG",
    "source_caption": "as it was delivered",
    "occupation": "the source's, where its metadata name one",
    "draw": "number of the draw that was kept, or of this one",
    "noise_seed": "of the editor's initial noise",
    "engine": "hash of the record of what drew it: models, settings, device, versions (engines/)",
    "accepted": "whether both judges and CITS agree, or how many were accepted",
    "members": "the accepted candidate of each edit",
    "stage": "where it failed: plan, draw or scores",
    "sim_0": "cos of source picture (or base) and base caption",
    "sim_1": "cos of candidate and its caption",
    "sim_dir": "cos of the changes in picture and in caption; null for placebos and bases",
    "sim_img": "cos of source picture (or base) and candidate",
    "preservation": "SSIM to the source picture (or base) where least changed",
    "cits": "Counterfactual Image-Text Score, 0 to 1",
    "reasons": "why the candidate was not accepted",
}
# Columns in which no value comes twice.
UNIQUE = {
    "edit_plan": ("edit_id",),
    "candidates": (),
    "pair_scores": (),
    "accepted_sets": ("set_id",),
    "pairs": ("pair_id",),
}
# Rows of a Parquet row group, which is what a stream holds in memory as Python's objects: a few
# megabytes. Several streams are open at a time.
ROWS_AT_ONCE = 1024
# Bytes of a table that is read in memory and by one thread: threads and files of its own cost more.
SMALL_BYTES = 1 << 20


class ScratchError(LabError):
    """A table can't be written to this machine's disk, mostly for want of room."""


@contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Say of an error of this machine's disk which file it is of, and what to do.

    Raises:
        ScratchError: what the block writes there can't be written.
    """
    try:
        yield
    except OSError as error:
        raise ScratchError(
            f"{path} can't be written: {error}; make room there and run again"
        ) from error


def batch_key(batch: str, table: str) -> str:
    """Bucket key of one of a source batch's tables."""
    return f"counterfactuals/{batch}/{table}.parquet"


def schema(table: str) -> pa.Schema:
    """The schema of a table of `TABLES`, or of a dataset's "pairs" or "sets".

    Raises:
        KeyError: there is no such table.
    """
    import pyarrow as pa

    text, texts, number = pa.string(), pa.list_(pa.string()), pa.float32()
    whole = pa.int64()
    values = pa.map_(text, text)
    scores = dict.fromkeys(("sim_0", "sim_1", "sim_dir", "sim_img", "preservation", "cits"), number)
    member = pa.struct({"edit_id": text, "draw": pa.int32()})
    fields: dict[str, dict[str, pa.DataType]] = {
        "edit_plan": {
            "edit_id": text,
            "source_id": text,
            "strategy": text,
            "kind": text,
            "attribute": text,
            "cell": text,
            "from_values": values,
            "to_values": values,
            "base_caption": text,
            "caption": text,
            "instruction": text,
            "explanation": text,
        },
        "refused_edits": {"source_id": text, "attribute": text, "reason": text, "detail": text},
        "candidates": {
            "edit_id": text,
            "source_id": text,
            "draw": pa.int32(),
            "noise_seed": pa.int64(),
            "image_key": text,
            "image_sha256": text,
            "engine": text,
        },
        "pair_scores": {
            "edit_id": text,
            "source_id": text,
            "draw": pa.int32(),
            **scores,
            "accepted": pa.bool_(),
            "reasons": texts,
        },
        "accepted_sets": {
            "set_id": text,
            "source_id": text,
            "attribute": text,
            "from_value": text,
            "members": pa.list_(member),
        },
        "rejected_sets": {
            "set_id": text,
            "source_id": text,
            "attribute": text,
            "from_value": text,
            "stage": text,
            "reasons": texts,
        },
        "acceptance": {"attribute": text, "values": values, "drawn": whole, "accepted": whole},
        "directions": {
            "attribute": text,
            "from_value": text,
            "to_value": text,
            "drawn": whole,
            "accepted": whole,
        },
        "quotas": {
            "attribute": text,
            "cell": text,
            "share": pa.float64(),
            **dict.fromkeys(("offered", "quota", "drawn", "accepted", "shortfall"), whole),
            "outcome": text,
        },
        "pairs": {
            "pair_id": text,
            "set_id": text,
            "source_id": text,
            "batch": text,
            "attribute": text,
            "value": text,
            "values": values,
            "is_placebo": pa.bool_(),
            "caption": text,
            "instruction": text,
            "explanation": text,
            "image_key": text,
            "image_sha256": text,
            "source_image_key": text,
            "source_image_sha256": text,
            "source_caption": text,
            "occupation": text,
            **scores,
            "edit_id": text,
            "draw": pa.int32(),
            "noise_seed": pa.int64(),
            "engine": text,
        },
        "sets": {
            "set_id": text,
            "source_id": text,
            "batch": text,
            "attribute": text,
            "from_value": text,
            "member_values": texts,
            "cits_min": number,
        },
    }
    return pa.schema(list(fields[table].items()))


def to_bytes(table: pa.Table) -> bytes:
    """A table as a Parquet file in memory."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def from_bytes(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """A table, all of its columns or some, from a Parquet file in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # `pq.read_table` looks for a dataset's many files first, for some milliseconds.
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        chosen = None if columns is None else list(columns)
        return file.read(chosen, use_threads=len(data) > SMALL_BYTES)


def from_rows(table: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table with the schema of that name; other keys of a row are left out."""
    import pyarrow as pa

    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema(table))


def to_rows(table: pa.Table) -> list[dict[str, Any]]:
    """A table's rows as dictionaries; map columns become dictionaries too."""
    return list(table.to_pylist(maps_as_pydicts="strict"))


def write_rows(bucket: Bucket, batch: str, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one of a batch's tables, atomically."""
    bucket.put_bytes(batch_key(batch, table), to_bytes(from_rows(table, rows)))


def read_rows(bucket: Bucket, batch: str, table: str) -> list[dict[str, Any]]:
    """The rows of one of a batch's tables."""
    return to_rows(from_bytes(bucket.get_bytes(batch_key(batch, table))))


def stream_rows(
    bucket: Bucket, key: str, columns: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet object, one row group after the other in memory.

    Args:
        bucket: holds the object.
        key: where.
        columns: which; all of them.

    Raises:
        BucketKeyError: there is no such object.
        ScratchError: there is no room for it on this machine.
    """
    import pyarrow as pa

    if bucket.size(key) <= SMALL_BYTES:
        yield from _rows(_opened(pa.BufferReader(bucket.get_bytes(key))), columns)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        with on_disk(path):
            bucket.get_file(key, path)
        # An open file outlives its name, so that who stops reading midway leaves nothing behind.
        table = _opened(path)
    yield from _rows(table, columns)


def _opened(path: Any) -> Any:
    """A Parquet file to be read in batches."""
    import pyarrow.parquet as pq

    # With the default Arrow keeps all that it has read of a file until the file is closed.
    return pq.ParquetFile(path, pre_buffer=False)


def _rows(table: Any, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    with table:
        for batch in table.iter_batches(ROWS_AT_ONCE, columns=columns):
            yield from batch.to_pylist(maps_as_pydicts="strict")


class _Writer:
    """One table on its way to a file."""

    def __init__(self, table: str, path: Path) -> None:
        import pyarrow.parquet as pq

        self.table, self.path, self.rows = table, path, 0
        self._waiting: list[Mapping[str, Any]] = []
        with on_disk(path):
            self._file = pq.ParquetWriter(path, schema(table), compression="zstd")

    def add(self, row: Mapping[str, Any]) -> None:
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) >= ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        rows, self._waiting = self._waiting, []
        if rows:
            with on_disk(self.path):
                self._file.write_table(from_rows(self.table, rows))

    def close(self) -> None:
        """Write what is left; a second time does nothing."""
        self._flush()
        with on_disk(self.path):
            self._file.close()

    def leave(self) -> None:
        """Close the file, which is thrown away: why the block ended is what matters."""
        self._waiting = []
        with suppress(OSError):
            self._file.close()


class Staged:
    """A batch's tables that are written as rows come, and put into the bucket at the end."""

    def __init__(self, writers: Mapping[str, _Writer]) -> None:
        self._writers = writers

    def add(self, table: str, row: Mapping[str, Any]) -> None:
        """Add a row; keys that the table has no column for are left out."""
        self._writers[table].add(row)

    def count(self, table: str) -> int:
        """Rows of a table so far."""
        return self._writers[table].rows

    def differs(self, bucket: Bucket, batch: str, table: str) -> bool:
        """Whether the bucket holds other rows of this table, or no such table."""
        if not bucket.exists(batch_key(batch, table)):
            return True
        writer = self._writers[table]
        writer.close()
        old = writer.path.with_suffix(".old")
        bucket.get_file(batch_key(batch, table), old)
        with _opened(old) as before, _opened(writer.path) as now:
            pairs = zip_longest(before.iter_batches(ROWS_AT_ONCE), now.iter_batches(ROWS_AT_ONCE))
            return any(a is None or b is None or not a.equals(b) for a, b in pairs)

    def put(self, bucket: Bucket, batch: str, table: str) -> None:
        """Put a finished table into the bucket."""
        self.put_as(bucket, batch_key(batch, table), table)

    def put_as(self, bucket: Bucket, key: str, table: str) -> None:
        """Put a finished table under a key of the bucket."""
        writer = self._writers[table]
        writer.close()
        bucket.put_file(key, writer.path)

    def rows(self, table: str) -> Iterator[dict[str, Any]]:
        """The rows of a finished table as they will be read back."""
        self._writers[table].close()
        return _rows(_opened(self._writers[table].path))


@contextmanager
def staged(*tables: str) -> Iterator[Staged]:
    """Files for tables, gone when the block ends; what was not `put` never was."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as leaving:
        writers = {table: _Writer(table, Path(folder) / table) for table in tables}
        for writer in writers.values():
            leaving.callback(writer.leave)
        yield Staged(writers)
