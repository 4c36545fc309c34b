"""The numbers that a package's papers state, all read from the dataset and its batches."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals import tables
from cf_lab_assets.counterfactuals.acceptance import is_change
from cf_lab_assets.counterfactuals.packaging.provenance import CREATED, action_of

if TYPE_CHECKING:
    import pyarrow as pa

    from cf_lab_resources.bucket import Bucket

COLUMNS = (
    "attribute",
    "value",
    "is_placebo",
    "cits",
    "source_id",
    "instruction",
    "image_sha256",
    "source_image_sha256",
)
SIZE_CATEGORIES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)


@dataclass(frozen=True)
class Cell:
    """Pairs that show one value of the attribute that their set varies."""

    attribute: str
    value: str
    pairs: int
    placebos: int


@dataclass(frozen=True)
class Acceptance:
    """How many sets of an attribute were accepted, of those that were planned or refused."""

    attribute: str
    accepted: int
    rejected: int

    @property
    def rate(self) -> float:
        """Share of accepted sets."""
        return self.accepted / (self.accepted + self.rejected)


@dataclass(frozen=True)
class Facts:
    """What is known of a dataset.

    Attributes:
        content_hash: the dataset's.
        pairs: members of all sets.
        sets: counterfactual sets.
        sources: source pairs that have a set.
        from_captions: pairs whose picture was drawn from its caption alone.
        batches: content hash of each source batch.
        cells: in the order of attribute and value.
        acceptance: by attribute; empty where the batches' tables are gone.
        cits_median: of the counterfactuals, placebos left out; None where there are none.
        cits_min: likewise.
        models: name, hash and family by role.
        settings: of editor and generation, by batch.
    """

    content_hash: str
    pairs: int
    sets: int
    sources: int
    from_captions: int
    batches: Mapping[str, str]
    cells: Sequence[Cell]
    acceptance: Sequence[Acceptance]
    cits_median: float | None
    cits_min: float | None
    models: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]

    @property
    def starter(self) -> bool:
        """Whether the starter world's editor drew the pictures."""
        from cf_lab_assets.models.artifacts import EDITOR

        return self.models.get("editor", {}).get("name") == EDITOR

    @property
    def size_category(self) -> str:
        """The hub's word for so many rows."""
        return next((name for limit, name in SIZE_CATEGORIES if self.pairs < limit), "n>10M")


def read_facts(bucket: Bucket, manifest: Mapping[str, Any], pairs: pa.Table) -> Facts:
    """The facts of a dataset.

    Args:
        bucket: holds the tables of its batches.
        manifest: the dataset's.
        pairs: the dataset's.
    """
    rows = pairs.select(COLUMNS).to_pylist()
    counts: Counter[tuple[str, str]] = Counter()
    placebos: Counter[tuple[str, str]] = Counter()
    for row in rows:
        counts[row["attribute"], row["value"]] += 1
        placebos[row["attribute"], row["value"]] += bool(row["is_placebo"])
    cits = [row["cits"] for row in rows if is_change(row) and row["cits"] is not None]
    return Facts(
        content_hash=manifest["content_hash"],
        pairs=manifest["pairs"],
        sets=manifest["sets"],
        sources=len({row["source_id"] for row in rows}),
        from_captions=sum(action_of(row) == CREATED for row in rows),
        batches=manifest["batches"],
        cells=[Cell(*cell, count, placebos[cell]) for cell, count in sorted(counts.items())],
        acceptance=_acceptance(bucket, list(manifest["batches"])),
        cits_median=statistics.median(cits) if cits else None,
        cits_min=min(cits, default=None),
        models=manifest["models"],
        settings=manifest["config"]["settings"],
    )


def _acceptance(bucket: Bucket, batches: Sequence[str]) -> list[Acceptance]:
    from cf_lab_resources.bucket import BucketKeyError

    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for batch in batches:
        for table in ("accepted_sets", "rejected_sets"):
            try:
                data = bucket.get_bytes(tables.batch_key(batch, table))
            except BucketKeyError:
                return []  # a part of the counts would be a wrong rate
            for attribute in tables.from_bytes(data, ["attribute"])["attribute"].to_pylist():
                counts[attribute][table] += 1
    return [
        Acceptance(attribute, found["accepted_sets"], found["rejected_sets"])
        for attribute, found in sorted(counts.items())
    ]
