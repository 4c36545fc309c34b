"""Pictures that an earlier package has signed already, so that a refresh signs only the new ones.

A signed picture is passed on where its pixels, its source's and all that its credentials claim are
the same, and where the earlier package was signed with the same certificate and in the same form
(see `provenance.form`). Its signature is then as good as a new one, only older. Nothing is taken on
trust: the earlier shard must be the one that its manifest names, and the bytes those of the hashes
in the row; the package's own check verifies every signature afterwards, whoever made it when.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals.packaging import provenance
from cf_lab_assets.counterfactuals.packaging.rows import IMAGE, SIGNED_SHA256, SOURCE_IMAGE
from cf_lab_resources.credentials.pictures import without_credentials

if TYPE_CHECKING:
    from cf_lab_assets.counterfactuals.packaging.manifest import Package
    from cf_lab_resources.bucket import Bucket

Row = Mapping[str, Any]
Pictures = tuple[bytes, bytes | None]

_PARQUET = re.compile(r"data/[^/]+\.parquet")


class SignedBefore:
    """An earlier package's pictures, looked up in the order of sets and pairs.

    One shard of it is in memory at a time.
    """

    def __init__(self, bucket: Bucket, package: Package | None, signer: str, form: str) -> None:
        """Takes the package, whose pictures are all passed over where it does not fit.

        Args:
            bucket: holds the package.
            package: None where there is none.
            signer: fingerprint of the certificate in use.
            form: of the credentials, from `provenance.form`.
        """
        fits = package and (package.manifest["signer"], package.manifest.get("form")) == (
            signer,
            form,
        )
        self._rows = _rows(bucket, package) if package and fits else iter(())
        self._next = next(self._rows, None)

    def find(self, row: Row) -> Pictures | None:
        """A pair's signed picture and its source's, None where it is to be signed.

        Args:
            row: of the dataset's pairs; none that comes before one that was asked for earlier.
        """
        while self._next is not None and _place(self._next) < _place(row):
            self._next = next(self._rows, None)
        if self._next is None or _place(self._next) != _place(row):
            return None
        return _intact(self._next, row)


def _place(row: Row) -> tuple[str, str]:
    return row["set_id"], row["pair_id"]


def _rows(bucket: Bucket, package: Package) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from cf_lab_assets.counterfactuals.packaging.shards import GROUP_ROWS
    from cf_lab_resources.bucket import BucketKeyError

    listed = {file["path"]: file["sha256"] for file in package.manifest["files"]}
    for path in sorted(filter(_PARQUET.fullmatch, listed)):
        try:
            data = bucket.get_bytes(f"{package.prefix}/{path}")
        except BucketKeyError:
            continue
        if hashlib.sha256(data).hexdigest() == listed[path]:
            with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
                for batch in file.iter_batches(batch_size=GROUP_ROWS):
                    yield from batch.to_pylist()


def _intact(before: Row, row: Row) -> Pictures | None:
    """The earlier row's pictures, if they are those of the row with the same claims."""
    if provenance.credentials(before, {}) != provenance.credentials(row, {}):
        return None
    signed = before[IMAGE]["bytes"]
    source = before[SOURCE_IMAGE] and before[SOURCE_IMAGE]["bytes"]
    wanted = [(signed, before[SIGNED_SHA256]), (without_credentials(signed), row["image_sha256"])]
    if provenance.action_of(row) == provenance.EDITED:
        wanted.append((source or b"", row["source_image_sha256"]))
    same = all(hashlib.sha256(data).hexdigest() == digest for data, digest in wanted)
    return (signed, source) if same else None
