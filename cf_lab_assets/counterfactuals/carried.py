"""Batches whose rows the newest dataset holds already, so that only new ones are put together.

Beside each dataset lies `made_from.json`: of each batch what the dataset takes from it besides its
rows, and a tag of the objects that its rows were made from. Rows are carried over where every batch
of the newest dataset is still there with the same tag, and the newest dataset's rows have the hash
that names it. The dataset is then the same as one that is put together from nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals import tables
from cf_lab_resources.bucket import BucketKeyError

if TYPE_CHECKING:
    from cf_lab_assets.counterfactuals.shelf import Shelf
    from cf_lab_resources.bucket import Bucket

ContentHash = Callable[[Iterable[Mapping[str, Any]], Mapping[str, Any]], str]

_TABLES = ("edit_plan", "candidates", "pair_scores", "accepted_sets")
_OBJECTS = {
    "sources": {"manifest.json"},
    "counterfactuals": {"made_with.json", *(f"{table}.parquet" for table in _TABLES)},
}


@dataclass(frozen=True)
class Origin:
    """What a dataset takes from a batch.

    Attributes:
        tag: changes whenever an object that the batch's rows are made from is written anew.
        content_hash: of the source batch.
        made_with: models and settings.
    """

    tag: str
    content_hash: str
    made_with: dict[str, Any]


def origins_key(content_hash: str) -> str:
    """Bucket key of what a dataset was made from."""
    return f"datasets/{content_hash}/made_from.json"


def write_origins(bucket: Bucket, content_hash: str, origins: Mapping[str, Origin]) -> None:
    """Record what a dataset was made from, by batch."""
    document = {batch: asdict(one) for batch, one in origins.items()}
    bucket.put_bytes(origins_key(content_hash), json.dumps(document, sort_keys=True).encode())


def tags(bucket: Bucket) -> dict[str, str]:
    """The tag of every batch of which anything is there, by two listings."""
    found: dict[str, list[str]] = defaultdict(list)
    for folder, names in _OBJECTS.items():
        for info in bucket.list(folder):
            _, batch, *rest = info.key.split("/")
            if len(rest) == 1 and rest[0] in names:
                found[batch].append(f"{info.key} {info.size} {info.etag}")
    return {
        batch: hashlib.sha256("\n".join(sorted(objects)).encode()).hexdigest()
        for batch, objects in found.items()
    }


def carry_over(
    bucket: Bucket,
    newest: str | None,
    present: Mapping[str, str],
    shelf: Shelf,
    content_hash: ContentHash,
) -> dict[str, Origin]:
    """Put the newest dataset's rows on a shelf, kinds ``pairs`` and ``sets``.

    Args:
        bucket: holds the newest dataset.
        newest: its content hash; None where there is none.
        present: of the batches that go into the next dataset, the tags.
        shelf: is left as it was where nothing is carried over.
        content_hash: of rows and configuration.

    Returns:
        The batches whose rows are on the shelf; none where any has changed or is gone, as what
        another batch lost to it is not on record.
    """
    if newest is None:
        return {}
    try:
        read = json.loads(bucket.get_bytes(origins_key(newest)))
        origins = {batch: Origin(**one) for batch, one in read.items()}
        if any(present.get(batch) != one.tag for batch, one in origins.items()):
            return {}
        config = json.loads(bucket.get_bytes(f"datasets/{newest}/manifest.json"))["config"]
        if content_hash(_shelved(bucket, newest, shelf), config) == newest:
            return origins
    except (BucketKeyError, ValueError, LookupError, TypeError, OSError):
        pass  # gone or damaged: the dataset is put together from nothing
    shelf.clear("pairs", "sets")
    return {}


def _shelved(bucket: Bucket, newest: str, shelf: Shelf) -> Iterable[Mapping[str, Any]]:
    """The dataset's rows, each put on the shelf as it is read."""
    for table, key in (("pairs", "pair_id"), ("sets", "set_id")):
        for row in tables.stream_rows(bucket, f"datasets/{newest}/{table}.parquet"):
            shelf.put(table, row[key], row)
            yield row
