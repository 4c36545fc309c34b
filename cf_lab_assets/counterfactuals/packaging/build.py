"""Making a package: `packages/<dataset hash>/<identity>/` in the bucket, manifest last.

Signatures differ each time that they are made, so a package is told apart by what goes into it:
the dataset's content hash, the package's format, licence, publisher and signing certificate. One
that is there is not made again. Pictures that the newest package has signed already keep their
signatures. A run that was killed goes on after the last whole shard. A finished package that has
lost something since is left as it is, as a release may name its manifest's hash: another one is
made beside it, at `<identity>-2/`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals.dataset import dataset_prefix
from cf_lab_assets.counterfactuals.packaging import card, croissant, provenance
from cf_lab_assets.counterfactuals.packaging.facts import read_facts
from cf_lab_assets.counterfactuals.packaging.manifest import (
    CERTIFICATES,
    FORMAT,
    MANIFEST,
    NEWEST,
    File,
    Package,
    PackageError,
    described,
    latest_key,
    newest_package,
    package_prefix,
    read_package,
)
from cf_lab_assets.counterfactuals.packaging.reuse import SignedBefore
from cf_lab_assets.counterfactuals.packaging.rows import packaged, pair_features, set_features
from cf_lab_assets.counterfactuals.packaging.shards import (
    SHARD_BYTES,
    SPLIT,
    Shard,
    ShardWriter,
    plan_shards,
)
from cf_lab_resources import __version__

if TYPE_CHECKING:
    import pyarrow as pa

    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.publication import Publication

SETS = f"sets/{SPLIT}-00000-of-00001.parquet"

Report = Callable[[str], None]


def build_package(
    bucket: Bucket,
    dataset_hash: str,
    publication: Publication,
    report: Report = lambda line: None,
    shard_bytes: int = SHARD_BYTES,
) -> Package:
    """The package of a dataset; made, or finished, where it is not whole.

    Args:
        bucket: holds the dataset; the package goes there too.
        dataset_hash: which dataset.
        publication: licence, publisher and signing key.
        report: gets a line after each shard.
        shard_bytes: pictures a shard.

    Raises:
        PackageError: There is no such dataset.
        PictureDamaged: A picture is missing, or is not the one that the dataset names.
        SigningError: The key signs nothing that verifies.
    """
    prefix, found = _find(bucket, package_prefix(dataset_hash, publication))
    if found is None:
        found = _Build(bucket, dataset_hash, publication, prefix).run(report, shard_bytes)
    for key in (latest_key(dataset_hash), NEWEST):
        bucket.put_bytes(key, json.dumps({"prefix": prefix}).encode())
    return found


def _find(bucket: Bucket, first: str) -> tuple[str, Package | None]:
    """The package that is whole, else where it is to be made or finished."""
    prefix, number = first, 1
    while True:
        there = {info.key: info.size for info in bucket.list(prefix)}
        found = read_package(bucket, prefix)
        if found and _is_whole(found, there):
            return prefix, found
        unfinished = any(key.startswith(f"{prefix}/parts/") for key in there)
        if not there or (unfinished and f"{prefix}/{MANIFEST}" not in there):
            return prefix, None
        number += 1
        prefix = f"{first}-{number}"


def _is_whole(package: Package, there: Mapping[str, int]) -> bool:
    """Whether each file of the manifest is there in its size; verifying looks inside."""
    return all(
        there.get(f"{package.prefix}/{file['path']}") == file["bytes"]
        for file in package.manifest["files"]
    )


class _Build:
    """One package in the making."""

    def __init__(
        self, bucket: Bucket, dataset_hash: str, publication: Publication, prefix: str
    ) -> None:
        self._bucket = bucket
        self._publication = publication
        self._prefix = prefix
        self._dataset = json.loads(self._dataset_file(dataset_hash, "manifest.json"))
        self._pairs = _sorted_table(self._dataset_file(dataset_hash, "pairs.parquet"))
        self._sets = _sorted_table(self._dataset_file(dataset_hash, "sets.parquet"))
        self._features = {"pairs": pair_features(self._pairs), "sets": set_features(self._sets)}
        self._sheet = self._dataset_file(dataset_hash, "contact_sheet.png")
        self._form = provenance.form(self._dataset["models"].get("editor", {}))

    def run(self, report: Report, shard_bytes: int) -> Package:
        shards = plan_shards(self._pairs, self._dataset["images"], shard_bytes)
        files = self._write_shards(shards, report)
        with self._folder() as folder:
            files.append(self._write_sets(folder))
            files += self._write_papers(folder, files)
        manifest = {
            "format": FORMAT,
            "dataset": self._dataset["content_hash"],
            **self._publication.identity,
            "test_key": self._publication.key.is_test,
            "form": self._form,
            "lab_version": __version__,
            "pairs": self._dataset["pairs"],
            "sets": self._dataset["sets"],
            "shards": len(shards),
            "files": [asdict(file) for file in files],
        }
        data = json.dumps(manifest, indent=1).encode()
        self._bucket.put_bytes(f"{self._prefix}/{MANIFEST}", data)
        # Records of finished shards are of use to an unfinished package only.
        self._bucket.delete([self._part_key(shard) for shard in shards])
        return Package(self._prefix, manifest, hashlib.sha256(data).hexdigest(), new=True)

    def _write_shards(self, shards: list[Shard], report: Report) -> list[File]:
        writer = None
        files: list[File] = []
        for shard in shards:
            done = self._finished(shard)
            if done is None:
                writer = writer or self._writer()
                with self._folder() as folder:
                    done = [
                        self._put(folder, path) for path in writer.write(self._pairs, shard, folder)
                    ]
                record = {"rows": shard.rows, "files": [asdict(file) for file in done]}
                self._bucket.put_bytes(self._part_key(shard), json.dumps(record).encode())
            files += done
            report(
                f"shard {shard.index + 1} of {shard.count}: {shard.start + shard.rows} of "
                f"{self._pairs.num_rows} pictures signed"
                + (f", {writer.signed} of them anew" if writer else "")
            )
        return files

    def _writer(self) -> ShardWriter:
        from cf_lab_resources.credentials.pictures import PictureSigner

        key = self._publication.key
        before = SignedBefore(
            self._bucket, newest_package(self._bucket), key.fingerprint, self._form
        )
        return ShardWriter(
            self._bucket, PictureSigner(key), self._dataset, self._features["pairs"], before
        )

    def _part_key(self, shard: Shard) -> str:
        """Key of a finished shard's record; another cut into shards has other names."""
        name = f"{shard.index:05d}-of-{shard.count:05d}-from-{shard.start}"
        return f"{self._prefix}/parts/{name}.json"

    def _finished(self, shard: Shard) -> list[File] | None:
        key = self._part_key(shard)
        if not self._bucket.exists(key):
            return None
        record = json.loads(self._bucket.get_bytes(key))
        return [File(**file) for file in record["files"]] if record["rows"] == shard.rows else None

    def _write_sets(self, folder: Path) -> File:
        import pyarrow as pa
        import pyarrow.parquet as pq

        (folder / SETS).parent.mkdir(parents=True)
        rows = [packaged(row, {}) for row in self._sets.to_pylist(maps_as_pydicts="strict")]
        schema = self._features["sets"].arrow_schema
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / SETS, compression="zstd")
        return self._put(folder, SETS)

    def _write_papers(self, folder: Path, files: list[File]) -> list[File]:
        publication, features = self._publication, self._features
        facts = read_facts(self._bucket, self._dataset, self._pairs)
        made_on = datetime.now(UTC).date().isoformat()
        values = {"facts": facts, "publication": publication, "made_on": made_on}
        sizes = {
            config: sum(f.bytes for f in files if f.path.startswith(f"{place}/"))
            for config, place in (("pairs", "data"), ("sets", "sets"))
        }
        header = card.header(facts, publication, features, sizes)
        document = croissant.document(facts, publication, features, files, made_on)
        papers = {
            "README.md": card.dataset_card(header, example=self._example(), **values).encode(),
            "datasheet.md": card.datasheet(**values).encode(),
            "croissant.json": croissant.to_json(document),
            "contact_sheet.png": self._sheet,
            CERTIFICATES: publication.key.certificates.encode(),
        }
        for path, data in papers.items():
            (folder / path).write_bytes(data)
        return [self._put(folder, path) for path in papers]

    def _example(self) -> list[dict[str, Any]]:
        first = self._pairs.column("set_id")[0].as_py()
        rows = self._pairs.slice(0, 100).to_pylist(maps_as_pydicts="strict")
        return [row for row in rows if row["set_id"] == first]

    def _put(self, folder: Path, path: str) -> File:
        file = described(folder, path)
        self._bucket.put_file(f"{self._prefix}/{path}", folder / path)
        (folder / path).unlink()
        return file

    def _dataset_file(self, dataset_hash: str, name: str) -> bytes:
        from cf_lab_resources.bucket import BucketKeyError

        key = f"{dataset_prefix(dataset_hash)}/{name}"
        try:
            return self._bucket.get_bytes(key)
        except BucketKeyError as error:
            raise PackageError(
                f"{key} is not in the bucket; materialise counterfactuals/dataset first"
            ) from error

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        with TemporaryDirectory(prefix="cf_lab_package_") as name:
            yield Path(name)


def _sorted_table(data: bytes) -> pa.Table:
    """A dataset's table in the order of sets, so that a set's members are next to each other."""
    from cf_lab_assets.counterfactuals.tables import from_bytes

    table = from_bytes(data)
    keys = [name for name in ("set_id", "pair_id") if name in table.column_names]
    return table.sort_by([(name, "ascending") for name in keys])
