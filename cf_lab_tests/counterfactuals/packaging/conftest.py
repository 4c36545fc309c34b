"""A dataset with hostile captions, packaged in several shards and exported."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cf_lab_assets.counterfactuals.packaging.build import build_package
from cf_lab_assets.counterfactuals.packaging.export import export_package
from cf_lab_resources.bucket import Bucket, open_bucket
from cf_lab_tests.releases.sample import Rows, publication, write_dataset

HOSTILE = (
    'quotes " and \' and """\n---\nlicense: stolen\n',
    "a | cell | more\r\n# heading\n\n```python\nprint(1)\n```",
    "<script>alert(1)</script> <img src=x onerror=alert(1)> &amp;",
    "![x](javascript:alert(1)) [link](https://evil.invalid) **bold** `code` $x$",
    "{{ 7 * 7 }} {% raw %} }} \\ ",
    "\u202egnp.exe caf\u00e9 \u0645\u0631\u062d\u0628\u0627 \u4f60\u597d \x00\x07",
    "- a: !!python/object/apply:os.system ['true']\n? : * & %",
)
# Two sets a shard: each picture of the sample counts as 1 byte, and its credentials as 4096.
SHARD_BYTES = 5 * 4100


def spoil(pairs: Rows, sets: Rows) -> None:
    """Hostile texts in every column that takes text from outside."""
    for number, row in enumerate(pairs):
        text = HOSTILE[number % len(HOSTILE)]
        row["caption"] = f"{text} ({row['value']}, {number})"
        row["source_caption"] = row["instruction"] = row["explanation"] = text
        row["occupation"] = text


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return open_bucket((tmp_path / "bucket").as_uri())


@pytest.fixture(scope="session")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Bucket, dataset hash, package and its folder; nobody may change them."""
    root = tmp_path_factory.mktemp("packaged")
    bucket = open_bucket((root / "bucket").as_uri())
    dataset_hash = write_dataset(bucket, spoil=spoil, report=False, package=False)
    package = build_package(bucket, dataset_hash, publication(), shard_bytes=SHARD_BYTES)
    export_package(bucket, package, root / "exported")
    yield SimpleNamespace(
        bucket=bucket, dataset_hash=dataset_hash, package=package, folder=root / "exported"
    )
    shutil.rmtree(root)


@pytest.fixture
def folder(packaged: Any, tmp_path: Path) -> Path:
    """A copy of the exported package, to be damaged."""
    return Path(shutil.copytree(packaged.folder, tmp_path / "exported"))
