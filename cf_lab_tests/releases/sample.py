"""A small synthetic dataset with its report in a bucket: no model is needed for it."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from cf_lab_assets.counterfactuals import tables
from cf_lab_assets.counterfactuals.dataset import dataset_content_hash
from cf_lab_assets.counterfactuals.packaging.build import build_package
from cf_lab_assets.counterfactuals.packaging.manifest import Package
from cf_lab_resources.bucket import Bucket
from cf_lab_resources.credentials.home_key import home_test_key
from cf_lab_resources.publication import Publication

Rows = list[dict[str, Any]]

VALUES = {"gender": ("woman", "man"), "age": ("young", "middle-aged", "old")}
OWN = {"gender": "woman", "age": "old"}


def png(seed: str) -> bytes:
    """A picture of 8 x 8 pixels in a colour of its own."""
    digest = hashlib.sha256(seed.encode()).digest()
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (digest[0], digest[1], digest[2])).save(buffer, "PNG")
    return buffer.getvalue()


@functools.cache
def publication() -> Publication:
    """One test key for all packages of a test process."""
    with TemporaryDirectory() as folder:
        return Publication(home_test_key(Path(folder) / "signing"), None, None)


def write_package(bucket: Bucket, dataset_hash: str) -> Package:
    """Packages a dataset as the lab's asset does."""
    return build_package(bucket, dataset_hash, publication())


def sample_rows(bucket: Bucket, sources: int = 4, cits: float = 0.8) -> tuple[Rows, Rows]:
    """Rows of pairs and sets of some sources; their pictures are put into the bucket."""
    pairs: Rows = []
    sets: Rows = []
    for number in range(sources):
        source_id = f"s{number:015x}"
        source_key = bucket.put_content("images", png(source_id), ".png")
        for attribute, values in VALUES.items():
            set_id = f"{source_id}-{attribute}"
            for value in values:
                placebo = value == OWN[attribute]
                key = bucket.put_content("images", png(f"{set_id}-{value}"), ".png")
                pairs.append(
                    {
                        "pair_id": f"{set_id}-{value}",
                        "set_id": set_id,
                        "source_id": source_id,
                        "batch": "tiny",
                        "attribute": attribute,
                        "value": value,
                        "values": {**OWN, attribute: value},
                        "is_placebo": placebo,
                        "caption": f'a "{value}" person, caf\u00e9 {number}',
                        "instruction": f"make the person {value}",
                        "explanation": f"{OWN[attribute]} to {value}",
                        "image_key": key,
                        "image_sha256": hashlib.sha256(bucket.get_bytes(key)).hexdigest(),
                        "source_image_key": source_key,
                        "source_image_sha256": hashlib.sha256(
                            bucket.get_bytes(source_key)
                        ).hexdigest(),
                        "source_caption": f"a person {number}",
                        "occupation": "nurse" if number % 2 else None,
                        "sim_0": 0.31,
                        "sim_1": 0.3,
                        "sim_dir": None if placebo else 0.42,
                        "sim_img": 0.9,
                        "preservation": 0.95,
                        "cits": cits,
                        "edit_id": f"{set_id}-{value}",
                        "draw": 0,
                        "noise_seed": number,
                    }
                )
            sets.append(
                {
                    "set_id": set_id,
                    "source_id": source_id,
                    "batch": "tiny",
                    "attribute": attribute,
                    "from_value": OWN[attribute],
                    "member_values": sorted(values),
                    "cits_min": cits,
                }
            )
    return sorted(pairs, key=lambda row: str(row["pair_id"])), sorted(
        sets, key=lambda row: str(row["set_id"])
    )


def write_dataset(
    bucket: Bucket,
    sources: int = 4,
    cits: float = 0.8,
    spoil: Callable[[Rows, Rows], None] = lambda pairs, sets: None,
    report: bool = True,
    package: bool = True,
) -> str:
    """Writes dataset, package and report as the lab's assets do, and returns the dataset's hash.

    Args:
        bucket: where to.
        sources: how many source pairs; two sets and five pairs each.
        cits: of every pair.
        spoil: changes the rows before they are written.
        report: whether to write a report too.
        package: whether to write a package too.
    """
    pairs, sets = sample_rows(bucket, sources, cits)
    spoil(pairs, sets)
    pairs_table, sets_table = tables.from_rows("pairs", pairs), tables.from_rows("sets", sets)
    config = {"models": {}, "settings": {"steps": 1}, "batches": {"tiny": "b" * 64}}
    content_hash = dataset_content_hash(pairs_table, sets_table, config)
    images = {row["image_sha256"]: 1 for row in pairs}
    images |= {row["source_image_sha256"]: 1 for row in pairs}
    manifest = {
        "content_hash": content_hash,
        "pairs": len(pairs),
        "sets": len(sets),
        "batches": config["batches"],
        "models": {},
        "images": images,
        "config": config,
    }
    prefix = f"datasets/{content_hash}"
    bucket.put_bytes(f"{prefix}/pairs.parquet", tables.to_bytes(pairs_table))
    bucket.put_bytes(f"{prefix}/sets.parquet", tables.to_bytes(sets_table))
    bucket.put_bytes(f"{prefix}/contact_sheet.png", png("sheet"))
    bucket.put_bytes(f"{prefix}/manifest.json", json.dumps(manifest).encode())
    bucket.put_bytes("datasets/latest.json", json.dumps({"content_hash": content_hash}).encode())
    if package:
        write_package(bucket, content_hash)
    if report:
        write_report(bucket, content_hash)
    return content_hash


QUANTITY = {
    "oracle": "null",
    "attribute": "gender",
    "name": "false positive rate of one test",
    "measured": 0.05,
    "passed": True,
}


def write_report(bucket: Bucket, dataset_hash: str, named: str | None = None) -> None:
    """Writes both forms of a report on a dataset, or on another that is named in it."""
    named = named or dataset_hash
    page = f"<!DOCTYPE html>\n<html><body>dataset <code>{named[:12]}</code></body></html>\n"
    found = {"measured": 1, "audits": 1000, "quantities": [QUANTITY]}
    body = {"data": {"dataset_hash": named}, "results": {}, "calibration": {"found": found}}
    document = {"report_id": "b0", "body": body}
    prefix = f"audits/{dataset_hash}/report/report"
    bucket.put_bytes(f"{prefix}.html", page.encode())
    bucket.put_bytes(f"{prefix}.json", json.dumps(document).encode())
