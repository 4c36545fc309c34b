"""Shards: whole counterfactual sets as Parquet and as WebDataset tar, with signed pictures.

Both hold the same bytes of each picture. One row group of pictures is in memory at a time.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals.packaging import provenance
from cf_lab_assets.counterfactuals.packaging.rows import (
    IMAGE,
    SIGNED_SHA256,
    SOURCE_IMAGE,
    packaged,
)
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from cf_lab_assets.counterfactuals.packaging.reuse import Pictures, SignedBefore
    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.credentials.pictures import PictureSigner

# Bytes of pictures a shard. The hub asks for files under 500 MB and WebDataset's readers like at
# least 100 MB; a verifier holds one shard in memory.
SHARD_BYTES = 128 * 2**20
# Rows a row group, the hub's own number for pictures: its viewer reads one group for a page.
GROUP_ROWS = 100
CREDENTIALS_BYTES = 4096  # what signing adds to a picture, about
SPLIT = "test"  # the pictures measure models; see provenance.TRAINING_MINING


class PictureDamaged(LabError):
    """A picture in the bucket is not the one that the dataset names."""


@dataclass(frozen=True)
class Shard:
    """Rows of one shard.

    Attributes:
        index: from 0.
        count: how many shards there are.
        start: first row in the table of pairs sorted by set.
        rows: how many rows.
    """

    index: int
    count: int
    start: int
    rows: int

    @property
    def parquet(self) -> str:
        """Path of the Parquet file in the package, as the hub names it."""
        return f"data/{SPLIT}-{self.index:05d}-of-{self.count:05d}.parquet"

    @property
    def tar(self) -> str:
        """Path of the WebDataset shard in the package."""
        return f"shards/{SPLIT}-{self.index:06d}.tar"

    @property
    def sidecar(self) -> str:
        """Path of the provenance records in the package."""
        return f"provenance/{SPLIT}-{self.index:05d}-of-{self.count:05d}.jsonl"


def plan_shards(
    pairs: pa.Table, sizes: Mapping[str, int], shard_bytes: int = SHARD_BYTES
) -> list[Shard]:
    """Cut pairs into shards of whole sets; a set that is larger has a shard of its own.

    Args:
        pairs: sorted by set.
        sizes: bytes of each picture by its hash.
        shard_bytes: pictures a shard.
    """
    columns = [pairs.column(name).to_pylist() for name in ("set_id", "image_sha256")]
    starts, filled, at = [0], 0, 0
    for _, group in itertools.groupby(zip(*columns, strict=True), key=lambda pair: pair[0]):
        weights = [sizes[digest] + CREDENTIALS_BYTES for _, digest in group]
        if filled and filled + sum(weights) > shard_bytes:
            starts.append(at)
            filled = 0
        filled += sum(weights)
        at += len(weights)
    ends = [*starts[1:], at]
    return [
        Shard(index, len(starts), start, end - start)
        for index, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


class ShardWriter:
    """Writes the shards of one dataset into a folder."""

    def __init__(
        self,
        bucket: Bucket,
        signer: PictureSigner,
        manifest: Mapping[str, Any],
        features: datasets.Features,
        before: SignedBefore,
    ) -> None:
        """Takes what all shards share.

        Args:
            bucket: holds the pictures.
            signer: signs them.
            manifest: the dataset's.
            features: of a pair, from `rows.pair_features`.
            before: what need not be signed again.

        Attributes:
            signed: how many pictures were signed, and not passed on as they were.
        """
        self.signed = 0
        self._before = before
        self._bucket = bucket
        self._signer = signer
        self._manifest = manifest
        self._features = features
        self._editor: Mapping[str, Any] = manifest["models"].get("editor", {})

    def write(self, pairs: pa.Table, shard: Shard, folder: Path) -> list[str]:
        """Write a shard's three files, and return their paths in the package.

        Raises:
            PictureDamaged: A picture is missing, or is not the one that the dataset names.
            SigningError: A picture can't be signed.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq
        import webdataset

        paths = [shard.parquet, shard.tar, shard.sidecar]
        for path in paths:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
        schema = self._features.arrow_schema
        with (
            pq.ParquetWriter(folder / shard.parquet, schema, compression="zstd") as parquet,
            (folder / shard.tar).open("wb") as tar_file,
            # PAX, as ids may be longer than the 100 bytes of USTAR; no time, so that the same
            # pictures give the same bytes.
            webdataset.TarWriter(tar_file, mtime=0, user="", group="", format="PAX_FORMAT") as tar,
            (folder / shard.sidecar).open("w", encoding="utf-8") as sidecar,
        ):
            for start in range(shard.start, shard.start + shard.rows, GROUP_ROWS):
                length = min(GROUP_ROWS, shard.start + shard.rows - start)
                plain = pairs.slice(start, length).to_pylist(maps_as_pydicts="strict")
                rows = [self._signed(row) for row in plain]
                parquet.write_table(pa.Table.from_pylist(rows, schema=schema))
                for row, source in zip(rows, plain, strict=True):
                    tar.write(sample(row))
                    record = provenance.sidecar(
                        source, self._manifest, shard.parquet, row[SIGNED_SHA256]
                    )
                    sidecar.write(json.dumps(record, ensure_ascii=False) + "\n")
        return paths

    def _signed(self, row: Mapping[str, Any]) -> dict[str, Any]:
        signed, source = self._before.find(row) or self._sign(row)
        whole = packaged(row, {IMAGE: signed, SOURCE_IMAGE: source})
        return {**whole, SIGNED_SHA256: hashlib.sha256(signed).hexdigest()}

    def _sign(self, row: Mapping[str, Any]) -> Pictures:
        self.signed += 1
        picture = self._picture(row, "image")
        edited = provenance.action_of(row) == provenance.EDITED
        source = self._picture(row, "source_image") if edited else None
        signed = self._signer.sign(
            picture,
            source,
            provenance.source_title(row),
            provenance.credentials(row, self._editor),
        )
        return signed, source

    def _picture(self, row: Mapping[str, Any], column: str) -> bytes:
        from cf_lab_resources.bucket import BucketKeyError

        key, digest = row[f"{column}_key"], row[f"{column}_sha256"]
        try:
            data = self._bucket.get_bytes(key)
        except BucketKeyError as error:
            raise PictureDamaged(
                f"{column} of {row['pair_id']}: {error}; restore the bucket from a backup"
            ) from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise PictureDamaged(
                f"{column} of {row['pair_id']}: {key} is not the picture with SHA-256 {digest}; "
                "restore it from a backup"
            )
        return data


def sample_key(pair_id: str) -> str:
    """A pair's key in a tar: WebDataset takes what follows the first dot as the extension."""
    return pair_id.replace(".", "%2E")


def sample(row: Mapping[str, Any]) -> dict[str, Any]:
    """A packaged row as a WebDataset sample: picture, caption, and the other columns as JSON."""
    others = {
        name: provenance.number(value) if isinstance(value, float) else value
        for name, value in row.items()
        if name not in (IMAGE, SOURCE_IMAGE)
    }
    return {
        "__key__": sample_key(row["pair_id"]),
        "png": row[IMAGE]["bytes"],
        "txt": row["caption"],
        "json": others,
    }
