"""Schemas of the counterfactual tables, and reading and writing them whole.

pyarrow is imported when a schema is asked for: the code location loads without it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
)


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
    values = pa.map_(text, text)
    scores = dict.fromkeys(("sim_0", "sim_1", "sim_dir", "sim_img", "preservation", "cits"), number)
    member = pa.struct({"edit_id": text, "draw": pa.int32()})
    fields: dict[str, dict[str, pa.DataType]] = {
        "edit_plan": {
            "edit_id": text,
            "source_id": text,
            "kind": text,
            "attribute": text,
            "from_values": values,
            "to_values": values,
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
            "members": pa.list_(member),
        },
        "rejected_sets": {
            "set_id": text,
            "source_id": text,
            "attribute": text,
            "stage": text,
            "reasons": texts,
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


def from_bytes(data: bytes) -> pa.Table:
    """A table from a Parquet file in memory."""
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(data))


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
