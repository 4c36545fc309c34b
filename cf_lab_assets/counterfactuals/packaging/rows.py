"""Rows of a package: the dataset's columns with pictures in place of bucket keys.

The columns follow the dataset's tables, whatever these hold; only what other libraries can't read
is put differently: a map of attributes becomes a struct with one field for each attribute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals import tables

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

IMAGE, SOURCE_IMAGE = "image", "source_image"
SIGNED_SHA256 = "signed_sha256"
FIRST = (IMAGE, "caption", SOURCE_IMAGE, "source_caption")


def map_keys(table: pa.Table) -> dict[str, list[str]]:
    """The keys that each map column of a table has, in alphabetical order."""
    import pyarrow as pa

    found = {}
    for field in table.schema:
        if pa.types.is_map(field.type):
            keys: set[str] = set()
            for chunk in table.column(field.name).chunks:
                keys.update(chunk.keys.unique().to_pylist())
            found[field.name] = sorted(keys)
    return found


def described() -> dict[str, tuple[str, str]]:
    """Types and meanings of a package's columns of pairs; a map's keys differ by dataset."""
    kept = {
        field.name: (str(field.type).replace("map<", "struct of <"), tables.MEANING[field.name])
        for field in tables.schema("pairs")
        if not field.name.endswith("_key")
    }
    found = {
        **kept,
        IMAGE: ("image", "the member, with its provenance signed into it"),
        SOURCE_IMAGE: ("image", "the source's picture, or the base's"),
        SIGNED_SHA256: ("string", "hash of the member's signed file"),
    }
    return {name: found[name] for name in [*FIRST, *(one for one in found if one not in FIRST)]}


def pair_features(pairs: pa.Table) -> datasets.Features:
    """Hugging Face features of a package's pairs: pictures and captions first."""
    import datasets

    columns = {
        **_features(pairs),
        IMAGE: datasets.Image(),
        SOURCE_IMAGE: datasets.Image(),
        SIGNED_SHA256: datasets.Value("string"),
    }
    ordered = [*FIRST, *(name for name in columns if name not in FIRST)]
    return datasets.Features({name: columns[name] for name in ordered})


def set_features(sets: pa.Table) -> datasets.Features:
    """Hugging Face features of a package's sets."""
    import datasets

    return datasets.Features(_features(sets))


def _features(table: pa.Table) -> dict[str, Any]:
    import datasets
    import pyarrow as pa

    keys = map_keys(table)
    schema = pa.schema(
        [
            (field.name, _plain_type(field.type, keys.get(field.name, [])))
            for field in table.schema
            if not field.name.endswith("_key")
        ]
    )
    return dict(datasets.Features.from_arrow_schema(schema))


def _plain_type(kind: pa.DataType, keys: list[str]) -> pa.DataType:
    import pyarrow as pa

    return pa.struct([(key, kind.item_type) for key in keys]) if pa.types.is_map(kind) else kind


def packaged(row: Mapping[str, Any], pictures: Mapping[str, bytes | None]) -> dict[str, Any]:
    """A dataset's row as the package has it.

    Args:
        row: of pairs or sets, maps as dictionaries.
        pictures: PNG bytes by column, None where a row has none; no columns for sets.
    """
    kept = {name: value for name, value in row.items() if not name.endswith("_key")}
    images = {
        name: png and {"bytes": png, "path": f"{row['pair_id']}.{name}.png"}
        for name, png in pictures.items()
    }
    return {**kept, **images}
