"""Trying a package with the libraries that it is for, as their users would."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals.packaging.croissant import quiet
from cf_lab_assets.counterfactuals.packaging.rows import IMAGE
from cf_lab_assets.counterfactuals.packaging.shards import SPLIT

if TYPE_CHECKING:
    from cf_lab_assets.counterfactuals.packaging.manifest import Package
    from cf_lab_resources.bucket import Bucket

# Records that each library reads and decodes in a trial; every row is verified elsewhere.
TRIED = 32

Loaded = dict[str, tuple[str, tuple[int, int]]]


@contextmanager
def trial_folder(bucket: Bucket, package: Package) -> Iterator[Path]:
    """A package's papers and its first shard as a folder: all shards have one form."""
    first = (f"{SPLIT}-00000-of-", f"{SPLIT}-000000.")
    with TemporaryDirectory(prefix="cf_lab_trial_") as name:
        for file in package.manifest["files"]:
            path = Path(file["path"])
            if path.parent == Path() or path.name.startswith(first):
                bucket.get_file(f"{package.prefix}/{path}", Path(name) / path)
        yield Path(name)


def with_datasets(folder: Path, cache: Path, limit: int = TRIED) -> Loaded:
    """Caption and size of picture by pair, as `datasets` reads them."""
    import datasets

    rows = datasets.load_dataset(
        str(folder), split=SPLIT, streaming=True, cache_dir=str(cache)
    ).take(limit)
    return {row["pair_id"]: (row["caption"], row[IMAGE].size) for row in rows}


def with_webdataset(folder: Path, limit: int = TRIED) -> Loaded:
    """Caption and size of picture by pair, as `webdataset` reads them."""
    import webdataset

    shards = sorted(str(path) for path in (folder / "shards").glob("*.tar"))
    samples = webdataset.WebDataset(shards, shardshuffle=False).decode("pil")
    return {
        sample["json"]["pair_id"]: (sample["txt"], sample["png"].size)
        for sample in itertools.islice(samples, limit)
    }


def with_mlcroissant(folder: Path, limit: int = TRIED) -> Loaded:
    """Caption and size of picture by pair, as `mlcroissant` reads them."""
    import mlcroissant

    with quiet():
        records = mlcroissant.Dataset(jsonld=folder / "croissant.json").records("pairs")
        return {
            _text(record, "pair_id"): (_text(record, "caption"), record[f"pairs/{IMAGE}"].size)
            for record in itertools.islice(records, limit)
        }


def _text(record: Mapping[str, Any], column: str) -> str:
    return bytes(record[f"pairs/{column}"]).decode()  # mlcroissant gives text as bytes


def try_all(folder: Path) -> dict[str, Loaded]:
    """What each library reads, by its name."""
    with TemporaryDirectory(prefix="cf_lab_cache_") as cache:
        return {
            "datasets": with_datasets(folder, Path(cache)),
            "webdataset": with_webdataset(folder),
            "mlcroissant": with_mlcroissant(folder),
        }
