"""The dataset: accepted sets of all source batches as one content-addressed whole.

`datasets/<content hash>/` holds ``pairs.parquet`` (one row a member of a set),
``sets.parquet``, ``contact_sheet.png`` and, written last, ``manifest.json``. The content hash
covers rows, pictures and configuration and no time, so the same inputs give the same dataset,
whether it is put together from nothing or from the newest one and the batches that are new.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals import tables
from cf_lab_assets.counterfactuals.acceptance import base_id, by_source
from cf_lab_assets.counterfactuals.attribute_sets import value_of
from cf_lab_assets.counterfactuals.carried import Origin, carry_over, tags, write_origins
from cf_lab_assets.counterfactuals.contact_sheet import Cell, contact_sheet, png_bytes
from cf_lab_assets.counterfactuals.plan import PLACEBO
from cf_lab_assets.counterfactuals.shelf import Shelf
from cf_lab_assets.sources.batches import manifest_key, stored_pairs_key
from cf_lab_resources.engine.pictures import decode
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

    from cf_lab_resources.bucket import Bucket

LATEST = "datasets/latest.json"
IDENTITY = ("set_id", "source_id", "attribute")
SHEET_SOURCES = 8
# What a pair tells of its source.
SOURCE_COLUMNS = ("source_id", "batch", "image_key", "image_sha256", "caption", "extra")


class NothingAccepted(LabError):
    """No batch has an accepted set, so there is no dataset to make."""


class MixedModels(LabError):
    """Batches of one dataset were made with different models."""


@dataclass(frozen=True)
class Dataset:
    """What was made.

    Attributes:
        content_hash: names it.
        manifest: its counts, batches, models and settings; in the bucket with the size in bytes of
            each picture by its hash, as ``images``.
        by_value: pairs by attribute and value.
        sheet: the contact sheet.
    """

    content_hash: str
    manifest: dict[str, Any]
    by_value: Mapping[tuple[str, str], int]
    sheet: Image.Image


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
    in_order = (
        sorted(tables.to_rows(table), key=lambda row: str(row[key]))
        for table, key in ((pairs, "pair_id"), (sets, "set_id"))
    )
    return _content_hash(itertools.chain(*in_order), config)


def _content_hash(rows: Iterable[Mapping[str, Any]], config: Mapping[str, Any]) -> str:
    """Of the rows of pairs, then those of sets, each in the order of their ids."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for row in rows:
        content = {column: value for column, value in row.items() if column != "engine"}
        digest.update(b"\n" + json.dumps(content, sort_keys=True, default=float).encode())
    return digest.hexdigest()


def shelve_batch(bucket: Bucket, batch: str, shelf: Shelf) -> set[str]:
    """Put a batch's accepted sets on a shelf as rows of kinds ``pairs`` and ``sets``, by id.

    A source pair that came in an earlier batch too is one source: its sets count once.

    Returns:
        The batches that had put some of its sets there before.
    """
    others = set()
    for row in tables.stream_rows(bucket, stored_pairs_key(bucket, batch), SOURCE_COLUMNS):
        shelf.put("source", row["source_id"], row)
    for row in tables.stream_rows(bucket, tables.batch_key(batch, "edit_plan")):
        shelf.put("edit", row["edit_id"], row)
    both = (
        tables.stream_rows(bucket, tables.batch_key(batch, table))
        for table in ("candidates", "pair_scores")
    )
    for drawn, scored in zip(*both, strict=True):
        row = {**drawn, **scored}
        if row["accepted"] or row["edit_id"] == base_id(row["source_id"]):
            shelf.put("drawn", f"{row['edit_id']}/{row['draw']}", row)
    for accepted in tables.stream_rows(bucket, tables.batch_key(batch, "accepted_sets")):
        source = shelf.get("source", accepted["source_id"])
        base = f"{base_id(source['source_id'])}/{accepted['members'][0]['draw']}"
        before = shelf.get("drawn", base) if shelf.has("drawn", base) else source
        pairs = [
            _pair(
                accepted,
                source,
                before,
                shelf.get("edit", member["edit_id"]),
                shelf.get("drawn", f"{member['edit_id']}/{member['draw']}"),
            )
            for member in accepted["members"]
        ]
        if shelf.put("sets", accepted["set_id"], _set(accepted, batch, pairs)):
            for pair in pairs:
                shelf.put("pairs", pair["pair_id"], pair)
        else:
            others.add(shelf.get("sets", accepted["set_id"])["batch"])
    shelf.clear("source", "edit", "drawn")
    return others


def _shelve(bucket: Bucket, batches: Sequence[str], shelf: Shelf) -> dict[str, Origin]:
    """Put all batches' accepted sets on a shelf; what the dataset was made from."""
    present = {batch: tag for batch, tag in tags(bucket).items() if batch in set(batches)}
    origins = carry_over(bucket, latest_hash(bucket), present, shelf, _content_hash)
    for number, batch in enumerate(batches):
        if batch in origins:
            continue
        others = shelve_batch(bucket, batch, shelf)
        if others & origins.keys() & set(batches[number:]):
            # It comes before one that has kept its sets so far: all is put together in order.
            shelf.clear("pairs", "sets")
            for one in batches:
                shelve_batch(bucket, one, shelf)
            break
    return {
        batch: origins.get(batch) or _origin(bucket, batch, present[batch]) for batch in batches
    }


def _origin(bucket: Bucket, batch: str, tag: str) -> Origin:
    source = json.loads(bucket.get_bytes(manifest_key(batch)))
    return Origin(tag, source["content_hash"], read_made_with(bucket, batch))


def _set(
    accepted: Mapping[str, Any], batch: str, pairs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    return {
        **{name: accepted[name] for name in IDENTITY},
        "batch": batch,
        "from_value": accepted["from_value"],
        "member_values": sorted(pair["value"] for pair in pairs),
        "cits_min": min(pair["cits"] for pair in pairs),
    }


def _pair(
    accepted: Mapping[str, Any],
    source: Mapping[str, Any],
    base: Mapping[str, Any],
    edit: Mapping[str, Any],
    drawn: Mapping[str, Any],
) -> dict[str, Any]:
    """A row of pairs; `base` is what scores compare with, the source or a candidate."""
    value = value_of(edit["to_values"], accepted["attribute"])
    return {
        **drawn,
        **{name: accepted[name] for name in IDENTITY},
        **{name: edit[name] for name in ("caption", "instruction", "explanation")},
        "pair_id": f"{accepted['set_id']}-{value}",
        "batch": source["batch"],
        "value": value,
        "values": edit["to_values"],
        "is_placebo": edit["kind"] == PLACEBO,
        "source_image_key": base["image_key"],
        "source_image_sha256": base["image_sha256"],
        "source_caption": source["caption"],
        "occupation": (source["extra"] or {}).get("occupation"),
    }


def finished_batches(bucket: Bucket) -> list[str]:
    """Source batches whose sets have been accepted or rejected, in order of name."""
    return sorted(accepted_tables(bucket))


def accepted_tables(bucket: Bucket, batch: str | None = None) -> dict[str, str]:
    """By source batch, one or all, a tag of its table of accepted sets.

    The tag changes when the object is written anew.
    """
    prefix = f"counterfactuals/{batch}" if batch else "counterfactuals"
    tables = (info for info in bucket.list(prefix) if info.key.endswith("/accepted_sets.parquet"))
    return {info.key.split("/")[1]: str(info.etag) for info in tables}


def build_dataset(bucket: Bucket, batches: Sequence[str]) -> Dataset:
    """Put the batches' accepted sets together and write the dataset to the bucket.

    Args:
        bucket: holds the batches' tables; the dataset goes there too.
        batches: which source batches; the first to bring a source pair keeps it.

    Raises:
        NothingAccepted: no batch has an accepted set.
        MixedModels: the batches were made with different models.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Shelf(Path(folder) / "rows")) as shelf,
        tables.staged("pairs", "sets") as staged,
    ):
        origins = _shelve(bucket, batches, shelf)
        manifests = {batch: one.content_hash for batch, one in origins.items()}
        made_with = {batch: one.made_with for batch, one in origins.items()}
        for table in ("pairs", "sets"):
            for row in shelf.in_order(table):
                staged.add(table, row)
        if not staged.count("sets"):
            raise NothingAccepted(
                f"none of the batches {list(batches)} has an accepted set; see the reasons in "
                "counterfactuals/<batch>/rejected_sets.parquet"
            )
        models = _one_choice_of_models(made_with)
        settings = {batch: made["settings"] for batch, made in made_with.items()}
        hashed_config = {"models": models, "settings": settings, "batches": manifests}
        rows = itertools.chain(staged.rows("pairs"), staged.rows("sets"))
        content_hash = _content_hash(rows, hashed_config)
        manifest = {
            "content_hash": content_hash,
            "pairs": staged.count("pairs"),
            "sets": staged.count("sets"),
            "batches": manifests,
            "models": models,
            "config": hashed_config,
        }
        shelve_pictures(bucket, staged.rows("pairs"), shelf)
        made = Dataset(
            content_hash,
            manifest,
            Counter((row["attribute"], row["value"]) for row in staged.rows("pairs")),
            _sheet(bucket, staged),
        )
        listed = Path(folder) / "manifest.json"
        with tables.on_disk(listed), listed.open("w") as file:
            file.writelines(_manifest_parts(manifest, shelf.in_order("images")))
        write_origins(bucket, content_hash, origins)
        _write(bucket, made, staged, listed)
    return made


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


def shelve_pictures(bucket: Bucket, pairs: Iterable[Mapping[str, Any]], shelf: Shelf) -> None:
    """Put hash and size of each picture on a shelf; each is read, and none that is damaged passes.

    Raises:
        ContentDamaged: a picture's bytes are not those that its hash names.
    """
    for row in pairs:
        for role in ("", "source_"):
            digest = row[f"{role}image_sha256"]
            if not shelf.has("images", digest):
                size = len(bucket.get_content(row[f"{role}image_key"]))
                shelf.put("images", digest, {"sha256": digest, "bytes": size})


def _manifest_parts(
    manifest: Mapping[str, Any], images: Iterable[Mapping[str, Any]]
) -> Iterator[str]:
    """The manifest's JSON piece by piece, as its list of pictures grows with the dataset."""
    yield json.dumps(manifest, indent=1).removesuffix("\n}") + ',\n "images": {'
    for number, image in enumerate(images):
        yield f"{',' if number else ''}\n  {json.dumps(image['sha256'])}: {image['bytes']}"
    yield "\n }\n}"


def _write(bucket: Bucket, made: Dataset, staged: tables.Staged, manifest: Path) -> None:
    prefix = dataset_prefix(made.content_hash)
    for table in ("pairs", "sets"):
        staged.put_as(bucket, f"{prefix}/{table}.parquet", table)
    bucket.put_bytes(f"{prefix}/contact_sheet.png", png_bytes(made.sheet))
    bucket.put_file(f"{prefix}/manifest.json", manifest)
    bucket.put_bytes(LATEST, json.dumps({"content_hash": made.content_hash}).encode())


def latest_hash(bucket: Bucket) -> str | None:
    """Content hash of the newest dataset, or None where none was made."""
    if not bucket.exists(LATEST):
        return None
    return str(json.loads(bucket.get_bytes(LATEST))["content_hash"])


def _sheet(bucket: Bucket, staged: tables.Staged) -> Image.Image:
    title = f"{staged.count('sets')} counterfactual sets, {staged.count('pairs')} pairs"
    return contact_sheet(sheet_rows(bucket, staged.rows("pairs")), title)


def sheet_rows(bucket: Bucket, pairs: Iterable[Mapping[str, Any]]) -> Iterator[list[Cell]]:
    """Contact-sheet rows of the sources that have most sets, at most `SHEET_SOURCES` of them.

    Args:
        bucket: holds the pictures.
        pairs: those of a source side by side.
    """
    sources = (list(rows) for _, rows in itertools.groupby(pairs, key=lambda p: p["source_id"]))
    for rows in heapq.nsmallest(
        SHEET_SOURCES, sources, key=lambda rows: (-len(rows), rows[0]["source_id"])
    ):
        edited = rows[0]["instruction"] is not None
        first = rows[0]["source_image_key"]
        # All sets of an edited source have the same placebo; a base is in each set that has it.
        shown = dict.fromkeys(
            [
                (first, "source" if edited else "base"),
                *((row["image_key"], "placebo") for row in rows if row["is_placebo"]),
                *((row["image_key"], row["value"]) for row in rows if not row["is_placebo"]),
            ]
        )
        yield [Cell(decode(bucket.get_bytes(key)), label) for key, label in shown]


def candidate_rows(
    bucket: Bucket,
    pictures: Mapping[tuple[str, str], str],
    edits: Sequence[Mapping[str, Any]],
    limit: int,
) -> Iterator[list[Cell]]:
    """Contact-sheet rows of a batch's candidates.

    Args:
        bucket: holds the pictures.
        pictures: bucket keys by (source id, edit id), and by (source id, "source") where it counts.
        edits: rows of the edit plan.
        limit: how many sources.
    """
    for source_id, planned in itertools.islice(by_source(edits).items(), limit):
        source = pictures.get((source_id, "source"))
        cells = [Cell(decode(bucket.get_bytes(source)), "source")] if source else []
        for edit in planned:
            varied = edit["attribute"]
            label = value_of(edit["to_values"], varied) if varied else edit["kind"]
            picture = decode(bucket.get_bytes(pictures[source_id, edit["edit_id"]]))
            cells.append(Cell(picture, label))
        yield cells
