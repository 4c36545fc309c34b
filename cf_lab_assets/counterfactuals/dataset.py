"""The dataset: accepted sets of all source batches as one content-addressed whole.

`datasets/<content hash>/` holds ``pairs.parquet`` (one row a member of a set),
``sets.parquet``, ``contact_sheet.png`` and, written last, ``manifest.json``. The content hash
covers rows, pictures and configuration and no time, so the same inputs give the same dataset.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals import tables
from cf_lab_assets.counterfactuals.attribute_sets import value_of
from cf_lab_assets.counterfactuals.contact_sheet import Cell, contact_sheet, png_bytes
from cf_lab_assets.sources.batches import manifest_key, stored_pairs_key
from cf_lab_resources.engine.pictures import decode
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    import pyarrow as pa

    from cf_lab_resources.bucket import Bucket

LATEST = "datasets/latest.json"
SHEET_SOURCES = 8


class NothingAccepted(LabError):
    """No batch has an accepted set, so there is no dataset to make."""


class MixedModels(LabError):
    """Batches of one dataset were made with different models."""


@dataclass(frozen=True)
class Dataset:
    """A dataset's tables and manifest."""

    content_hash: str
    pairs: pa.Table
    sets: pa.Table
    manifest: dict[str, Any]


def dataset_prefix(content_hash: str) -> str:
    """Bucket prefix of a dataset."""
    return f"datasets/{content_hash}"


def dataset_content_hash(pairs: pa.Table, sets: pa.Table, config: Mapping[str, Any]) -> str:
    """SHA-256 over all rows of both tables, the pictures' hashes in them, and configuration.

    What drew a picture is not in it: the same pictures are the same dataset, whoever drew them.

    Args:
        pairs: the dataset's pairs, in any order.
        sets: the dataset's sets, in any order.
        config: JSON-compatible.
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for table, key in ((pairs, "pair_id"), (sets, "set_id")):
        for row in sorted(tables.to_rows(table), key=lambda row: str(row[key])):
            content = {column: value for column, value in row.items() if column != "engine"}
            digest.update(b"\n" + json.dumps(content, sort_keys=True, default=float).encode())
    return digest.hexdigest()


def batch_rows(bucket: Bucket, batch: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A batch's accepted sets as rows of pairs and of sets."""
    sources = {
        row["source_id"]: row for row in tables.stream_rows(bucket, stored_pairs_key(bucket, batch))
    }
    edits = {row["edit_id"]: row for row in tables.read_rows(bucket, batch, "edit_plan")}
    drawn: dict[tuple[str, int], dict[str, Any]] = {}
    for table in ("candidates", "pair_scores"):
        for row in tables.read_rows(bucket, batch, table):
            drawn.setdefault((row["edit_id"], row["draw"]), {}).update(row)
    pairs: list[dict[str, Any]] = []
    sets: list[dict[str, Any]] = []
    for accepted in tables.read_rows(bucket, batch, "accepted_sets"):
        source = sources[accepted["source_id"]]
        members = [
            _pair(accepted, source, edits[m["edit_id"]], drawn[m["edit_id"], m["draw"]])
            for m in accepted["members"]
        ]
        pairs += members
        sets.append(
            {
                **{name: accepted[name] for name in ("set_id", "source_id", "attribute")},
                "batch": batch,
                "from_value": next(pair["value"] for pair in members if pair["is_placebo"]),
                "member_values": sorted(pair["value"] for pair in members),
                "cits_min": min(pair["cits"] for pair in members),
            }
        )
    return pairs, sets


def _pair(
    accepted: Mapping[str, Any],
    source: Mapping[str, Any],
    edit: Mapping[str, Any],
    drawn: Mapping[str, Any],
) -> dict[str, Any]:
    value = value_of(edit["to_values"], accepted["attribute"])
    return {
        **drawn,
        **{name: accepted[name] for name in ("set_id", "source_id", "attribute")},
        **{name: edit[name] for name in ("caption", "instruction", "explanation")},
        "pair_id": f"{accepted['set_id']}-{value}",
        "batch": source["batch"],
        "value": value,
        "values": edit["to_values"],
        "is_placebo": edit["attribute"] is None,
        "source_image_key": source["image_key"],
        "source_image_sha256": source["image_sha256"],
        "source_caption": source["caption"],
        "occupation": (source["extra"] or {}).get("occupation"),
    }


def finished_batches(bucket: Bucket) -> list[str]:
    """Source batches whose sets have been accepted or rejected, in order of name."""
    keys = (info.key for info in bucket.list("counterfactuals/"))
    return sorted(key.split("/")[1] for key in keys if key.endswith("/accepted_sets.parquet"))


def build_dataset(bucket: Bucket, batches: Sequence[str]) -> Dataset:
    """Put the batches' accepted sets together and write the dataset to the bucket.

    Args:
        bucket: holds the batches' tables; the dataset goes there too.
        batches: which source batches; the first to bring a source pair keeps it.

    Raises:
        NothingAccepted: no batch has an accepted set.
        MixedModels: the batches were made with different models.
    """
    pair_rows: list[dict[str, Any]] = []
    set_rows: list[dict[str, Any]] = []
    manifests, made_with = {}, {}
    known: set[str] = set()
    for batch in batches:
        pairs, sets = batch_rows(bucket, batch)
        # A source pair that came in two batches is one source: its sets count once.
        pair_rows += [row for row in pairs if row["set_id"] not in known]
        set_rows += [row for row in sets if row["set_id"] not in known]
        known.update(row["set_id"] for row in sets)
        manifests[batch] = json.loads(bucket.get_bytes(manifest_key(batch)))["content_hash"]
        made_with[batch] = read_made_with(bucket, batch)
    if not set_rows:
        raise NothingAccepted(
            f"none of the batches {list(batches)} has an accepted set; see the reasons in "
            "counterfactuals/<batch>/rejected_sets.parquet"
        )
    pairs_table = tables.from_rows("pairs", sorted(pair_rows, key=lambda row: row["pair_id"]))
    sets_table = tables.from_rows("sets", sorted(set_rows, key=lambda row: row["set_id"]))
    models = _one_choice_of_models(made_with)
    settings = {batch: made["settings"] for batch, made in made_with.items()}
    hashed_config = {"models": models, "settings": settings, "batches": manifests}
    content_hash = dataset_content_hash(pairs_table, sets_table, hashed_config)
    sizes = _picture_sizes(bucket, pair_rows)
    manifest = {
        "content_hash": content_hash,
        "pairs": len(pair_rows),
        "sets": len(set_rows),
        "batches": manifests,
        "models": models,
        "images": sizes,
        "config": hashed_config,
    }
    dataset = Dataset(content_hash, pairs_table, sets_table, manifest)
    _write(bucket, dataset)
    return dataset


def made_with_key(batch: str) -> str:
    """Bucket key of the record of what a batch's candidates were made with."""
    return f"counterfactuals/{batch}/made_with.json"


def write_made_with(
    bucket: Bucket, batch: str, models: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Record the models and settings behind a batch's candidates and scores."""
    record = {"models": dict(models), "settings": dict(settings)}
    bucket.put_bytes(made_with_key(batch), json.dumps(record, sort_keys=True).encode())


def read_made_with(bucket: Bucket, batch: str) -> dict[str, Any]:
    """Models and settings behind a batch's candidates and scores."""
    loaded: dict[str, Any] = json.loads(bucket.get_bytes(made_with_key(batch)))
    return loaded


def _one_choice_of_models(made_with: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = made_with
    models: dict[str, Any] = made_with[first]["models"]
    for batch in others:
        if made_with[batch]["models"] != models:
            raise MixedModels(
                f"batches {first!r} and {batch!r} were made with different models; "
                "make the older one again with `cf-lab run`"
            )
    return models


def _picture_sizes(bucket: Bucket, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    keys = {row["image_sha256"]: row["image_key"] for row in rows}
    keys |= {row["source_image_sha256"]: row["source_image_key"] for row in rows}
    return {digest: len(bucket.get_content(key)) for digest, key in sorted(keys.items())}


def _write(bucket: Bucket, dataset: Dataset) -> None:
    prefix = dataset_prefix(dataset.content_hash)
    bucket.put_bytes(f"{prefix}/pairs.parquet", tables.to_bytes(dataset.pairs))
    bucket.put_bytes(f"{prefix}/sets.parquet", tables.to_bytes(dataset.sets))
    bucket.put_bytes(f"{prefix}/contact_sheet.png", png_bytes(dataset_sheet(bucket, dataset)))
    bucket.put_bytes(f"{prefix}/manifest.json", json.dumps(dataset.manifest, indent=1).encode())
    bucket.put_bytes(LATEST, json.dumps({"content_hash": dataset.content_hash}).encode())


def latest_hash(bucket: Bucket) -> str | None:
    """Content hash of the newest dataset, or None where none was made."""
    if not bucket.exists(LATEST):
        return None
    return str(json.loads(bucket.get_bytes(LATEST))["content_hash"])


def sheet_rows(bucket: Bucket, pairs: Sequence[Mapping[str, Any]]) -> Iterator[list[Cell]]:
    """Contact-sheet rows of the sources that have most sets, at most `SHEET_SOURCES` of them."""
    by_source: dict[str, list[Mapping[str, Any]]] = {}
    for pair in pairs:
        by_source.setdefault(pair["source_id"], []).append(pair)
    fullest = sorted(by_source.values(), key=lambda rows: (-len(rows), rows[0]["source_id"]))
    for rows in fullest[:SHEET_SOURCES]:
        placebo = next(row for row in rows if row["is_placebo"])
        yield [
            Cell(decode(bucket.get_bytes(placebo["source_image_key"])), "source"),
            Cell(decode(bucket.get_bytes(placebo["image_key"])), "placebo"),
            *(
                Cell(decode(bucket.get_bytes(row["image_key"])), row["value"])
                for row in rows
                if not row["is_placebo"]
            ),
        ]


def dataset_sheet(bucket: Bucket, dataset: Dataset) -> Any:
    """The dataset's contact sheet as a picture."""
    pairs = tables.to_rows(dataset.pairs)
    title = f"{dataset.sets.num_rows} counterfactual sets, {dataset.pairs.num_rows} pairs"
    return contact_sheet(sheet_rows(bucket, pairs), title)


def candidate_rows(
    bucket: Bucket,
    pictures: Mapping[tuple[str, str], str],
    edits: Sequence[Mapping[str, Any]],
    limit: int,
) -> Iterator[list[Cell]]:
    """Contact-sheet rows of a batch's candidates.

    Args:
        bucket: holds the pictures.
        pictures: bucket keys by (source id, edit id), and by (source id, "source").
        edits: rows of the edit plan.
        limit: how many sources.
    """
    by_source: dict[str, list[Mapping[str, Any]]] = {}
    for edit in edits:
        by_source.setdefault(edit["source_id"], []).append(edit)
    for source_id, planned in list(by_source.items())[:limit]:
        cells = [Cell(decode(bucket.get_bytes(pictures[source_id, "source"])), "source")]
        for edit in planned:
            label = (
                value_of(edit["to_values"], edit["attribute"]) if edit["attribute"] else "placebo"
            )
            picture = decode(bucket.get_bytes(pictures[source_id, edit["edit_id"]]))
            cells.append(Cell(picture, label))
        yield cells
