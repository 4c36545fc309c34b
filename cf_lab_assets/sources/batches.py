"""Source batches as they are stored: names, keys, manifest, tables, and what is still whole.

A batch is there when its manifest is: that is written last and once. What a batch holds never
changes under its name.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cf_lab_assets.sources.refusals import BatchBroken, DeliveryRefused, Rejected
from cf_lab_assets.sources.rows import MASK_KEY

if TYPE_CHECKING:
    import pyarrow as pa

    from cf_lab_resources.bucket import Bucket

FORMAT = "cf-lab-source-batch"
FORMAT_VERSION = 3

HASHED_PICTURES = 64  # read in full by `inspect`; of all others only the presence is asked for
PICTURES_AT_ONCE = 1024
REQUESTS_AT_ONCE = 16  # an object store answers in some ten milliseconds, so ask side by side

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def check_batch_name(name: str) -> str:
    """Returns the name if it may be a partition key, a folder and a part of an object key.

    Raises:
        DeliveryRefused: `bad_batch_name`; the message suggests a name that may.
    """
    if _NAME.fullmatch(name):
        return name
    suggestion = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:63] or "batch-1"
    raise DeliveryRefused(
        "bad_batch_name",
        f"{name[:80]!r} is no name for a batch: 1 to 63 of a-z, 0-9, - and _, a letter or digit "
        f"first; name it for example {suggestion!r}",
    )


def pairs_key(manifest: Manifest) -> str:
    """Where the table of a batch's pairs is.

    Tables are called by their hash, so that of two ingests of one name at once, the later can't
    write over what the earlier has committed.
    """
    return f"sources/{manifest.batch}/pairs-{manifest.pairs_sha256[:16]}.parquet"


def stored_pairs_key(bucket: Bucket, batch: str) -> str:
    """Where the table of a stored batch's pairs is.

    Raises:
        DeliveryRefused: `not_delivered`; there is no such batch.
        BatchBroken: Its manifest can't be read.
    """
    manifest = read_manifest(bucket, batch)
    if manifest is None:
        raise not_delivered(batch)
    return pairs_key(manifest)


def manifest_key(batch: str) -> str:
    """Where a batch's manifest is."""
    return f"sources/{batch}/manifest.json"


def image_key(sha256: str) -> str:
    """Where a picture is, by the hash of its normalised PNG."""
    from cf_lab_resources.decoders import picture_key

    return picture_key(sha256)


def quarantine_key(manifest: Manifest) -> str:
    """Where the rows are that were not taken, by the hash of their table."""
    return f"quarantine/{manifest.batch}/rows-{manifest.quarantine_sha256[:16]}.parquet"


@dataclass(frozen=True)
class SourcePair:
    """A picture with its caption, as it came in and was normalised.

    A pair of a caption set has no picture: all that is said of one is None.
    """

    source_id: str
    batch: str
    file_name: str
    image_key: str | None
    image_sha256: str | None
    width: int | None
    height: int | None
    caption: str
    attributes: dict[str, str]
    extra: dict[str, str]
    near_duplicate_of: str | None = None


def source_id(image_sha256: str | None, caption: str, mask: str | None = None) -> str:
    """The name of a pair, the same in whatever batch it comes; with another mask it is another."""
    text = f"{image_sha256 or ''}\n{caption}" + (f"\n{mask}" if mask else "")
    return "s" + hashlib.sha256(text.encode()).hexdigest()[:15]


PAIRS_MEANING = {
    "source_id": "s and 15 digits of the hash of picture and caption",
    "batch": "the delivery that it came with",
    "file_name": "path of the picture in the delivery, or the file that holds the row",
    "image_key": "where the normalised picture is in the bucket; null in a caption set",
    "image_sha256": "hash of the normalised picture",
    "width": "of the normalised picture, in pixels",
    "height": "of the normalised picture, in pixels",
    "caption": "in composed Unicode, white space made single spaces",
    "attributes": "known attributes of the person that the delivery states",
    "extra": "every other column that was not empty, as strings",
    "near_duplicate_of": "the first pair whose picture is another one but looks the same",
}


def pairs_schema() -> pa.Schema:
    """Columns of the table of pairs; those of the picture are null where there is none."""
    import pyarrow as pa

    texts = pa.map_(pa.string(), pa.string())
    return pa.schema(
        [
            ("source_id", pa.string()),
            ("batch", pa.string()),
            ("file_name", pa.string()),
            ("image_key", pa.string()),
            ("image_sha256", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("caption", pa.string()),
            ("attributes", texts),
            ("extra", texts),
            ("near_duplicate_of", pa.string()),
        ]
    )


def quarantine_schema() -> pa.Schema:
    """Columns of the quarantine's table; `row` is null for stray files."""
    import pyarrow as pa

    return pa.schema(
        [
            ("batch", pa.string()),
            ("file_name", pa.string()),
            ("row", pa.int64()),
            ("reason", pa.string()),
            ("detail", pa.string()),
            ("caption", pa.string()),
        ]
    )


@dataclass(frozen=True)
class Manifest:
    """What is stored of a batch.

    Attributes:
        batch: Its name.
        content_hash: Of rows and pictures, whatever their order; no times or places in it.
        rows: Pairs that were taken.
        images: Different pictures among them; 0 of a caption set.
        near_duplicates: Pairs whose picture is not the same as an earlier one, but looks it.
        quarantined: Rows that were not taken.
        quarantined_by_reason: The same by reason code.
        stray_files: Pictures in the delivery that no row names; in quarantine too.
        attribute_values: How many pairs have which value of which attribute.
        kind: Which kind of delivery it was.
        delivery: Fingerprint of the delivery's file names and sizes.
        pairs_sha256: Hash of the table of pairs.
        quarantine_sha256: Hash of the table of rows that were not taken.
    """

    batch: str
    content_hash: str
    rows: int
    images: int
    near_duplicates: int
    quarantined: int
    stray_files: int
    kind: str
    delivery: str
    pairs_sha256: str
    quarantine_sha256: str = ""
    quarantined_by_reason: dict[str, int] = field(default_factory=dict)
    attribute_values: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def quarantine_share(self) -> float:
        """Quarantined rows of all rows."""
        return self.quarantined / max(1, self.rows + self.quarantined)

    def to_json(self) -> bytes:
        """Canonical JSON."""
        document = {"format": FORMAT, "version": FORMAT_VERSION, **asdict(self)}
        return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """The inverse of `to_json`.

        Raises:
            ValueError: It is not a manifest of this version.
        """
        document = json.loads(data)
        if not isinstance(document, dict):
            raise ValueError("a manifest is a JSON object")
        kind = (document.pop("format", None), document.pop("version", None))
        if kind != (FORMAT, FORMAT_VERSION):
            raise ValueError(f"format and version are {kind}, not {(FORMAT, FORMAT_VERSION)}")
        try:
            return cls(**document)
        except TypeError as error:
            raise ValueError(str(error)) from error


def read_manifest(bucket: Bucket, batch: str) -> Manifest | None:
    """The manifest of a batch, or None where no such batch is stored.

    Raises:
        BatchBroken: There is one that can't be read.
        BucketError: The store failed, which is not the same as there being none.
    """
    from cf_lab_resources.bucket import BucketKeyError

    key = manifest_key(check_batch_name(batch))
    try:
        data = bucket.get_bytes(key)
    except BucketKeyError:
        return None
    try:
        return Manifest.from_json(data)
    except ValueError as error:
        raise _broken(batch, f"{bucket.url(key)} can't be read: {error}") from error


def stored_batches(bucket: Bucket) -> list[str]:
    """Names of all batches that are stored whole."""
    names = (o.key.split("/") for o in bucket.list("sources"))
    return sorted(parts[1] for parts in names if len(parts) == 3 and parts[2] == "manifest.json")


def read_pairs(bucket: Bucket, batch: str) -> Iterator[SourcePair]:
    """The pairs of a stored batch, in the order of the delivery.

    Raises:
        DeliveryRefused: `not_delivered`; there is no such batch.
        BatchBroken: Its table is missing or another one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    manifest = read_manifest(bucket, batch)
    if manifest is None:
        raise not_delivered(batch)
    table = pq.ParquetFile(pa.BufferReader(_pairs_bytes(bucket, manifest)), pre_buffer=False)
    for rows in table.iter_batches(batch_size=1024):
        for row in rows.to_pylist():
            row["attributes"], row["extra"] = dict(row["attributes"]), dict(row["extra"])
            yield SourcePair(**row)


def read_quarantine(bucket: Bucket, batch: str) -> list[Rejected]:
    """What was not taken of a batch; empty where there is no such batch or table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from cf_lab_resources.bucket import BucketKeyError

    manifest = read_manifest(bucket, batch)
    if manifest is None:
        return []
    try:
        data = bucket.get_bytes(quarantine_key(manifest))
    except BucketKeyError:
        return []
    rows = pq.read_table(pa.BufferReader(data)).to_pylist()
    return [Rejected(**{k: v for k, v in row.items() if k != "batch"}) for row in rows]


@dataclass(frozen=True)
class Inspection:
    """What was found of a stored batch's pictures; keys of those that are not right."""

    pictures: int
    hashed: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Nothing is missing or damaged."""
        return not self.missing and not self.damaged


def inspect(bucket: Bucket, manifest: Manifest, hashed: int = HASHED_PICTURES) -> Inspection:
    """Asks for every picture of a batch, and hashes some, spread evenly over all.

    Raises:
        BatchBroken: The table of pairs itself is missing or another one.
        BucketError: The store failed.
    """
    wanted = _pictures(read_pairs(bucket, manifest.batch))
    step = max(1, -(-manifest.images // hashed))
    missing, damaged = [], []
    pictures = sampled = 0
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        while chunk := list(itertools.islice(wanted, PICTURES_AT_ONCE)):
            there = list(pool.map(bucket.exists, (key for key, _ in chunk)))
            missing += [key for (key, _), found in zip(chunk, there, strict=True) if not found]
            sample = [
                picture
                for number, (picture, found) in enumerate(zip(chunk, there, strict=True), pictures)
                if found and number % step == 0
            ]
            hashes = pool.map(lambda picture: _sha256(bucket.get_bytes(picture[0])), sample)
            damaged += [
                key for (key, sha256), found in zip(sample, hashes, strict=True) if found != sha256
            ]
            pictures, sampled = pictures + len(chunk), sampled + len(sample)
    return Inspection(pictures, sampled, tuple(sorted(missing)), tuple(sorted(damaged)))


def _pictures(pairs: Iterable[SourcePair]) -> Iterator[tuple[str, str]]:
    """Key and hash of each picture once, and of each mask."""
    seen: set[bytes] = set()  # 16 bytes of each
    for key in (key for pair in pairs for key in (pair.image_key, pair.extra.get(MASK_KEY))):
        if key:
            sha256 = PurePosixPath(key).stem
            mark = bytes.fromhex(sha256[:32])
            if mark not in seen:
                seen.add(mark)
                yield key, sha256


def is_whole(bucket: Bucket, manifest: Manifest) -> bool:
    """Whether everything that a manifest stands for is there; hashes every picture."""
    try:
        return inspect(bucket, manifest, hashed=max(1, manifest.rows)).whole
    except BatchBroken:
        return False


def not_delivered(batch: str) -> DeliveryRefused:
    """The error of a batch that is nowhere."""
    return DeliveryRefused(
        "not_delivered",
        f"batch {batch!r} is not stored, and nothing lies in incoming/{batch}; ingest a delivery "
        "under this name or put it there",
    )


def content_hash(row_hashes: Iterable[bytes]) -> str:
    """The hash of a batch from those of its rows, given in order of the hash."""
    digest = hashlib.sha256(f"{FORMAT} {FORMAT_VERSION}\n".encode())
    for row_hash in row_hashes:
        digest.update(row_hash)
    return digest.hexdigest()


def row_hash(pair: SourcePair) -> bytes:
    """What of a pair makes the content of its batch; the batch's name is not in it."""
    parts: list[str | Mapping[str, str] | None] = [
        pair.file_name,
        pair.image_sha256,
        pair.caption,
        pair.attributes,
        pair.extra,
    ]
    return hashlib.sha256(_encode_row(parts).encode()).digest()


_encode_row = json.JSONEncoder(sort_keys=True).encode


class TableWriter:
    """Writes rows to a Parquet file in groups, so that memory stays flat."""

    ROWS_PER_GROUP = 1024

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Adds one row; maps are given as dicts."""
        self._rows.append(
            {k: list(v.items()) if isinstance(v, dict) else v for k, v in row.items()}
        )
        if len(self._rows) >= self.ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []

    def close(self) -> None:
        """Writes what is left; the file is complete after this."""
        try:
            self._flush()
        finally:
            self._writer.close()


def _pairs_bytes(bucket: Bucket, manifest: Manifest) -> bytes:
    from cf_lab_resources.bucket import BucketKeyError

    key = pairs_key(manifest)
    try:
        data = bucket.get_bytes(key)
    except BucketKeyError as error:
        raise _broken(manifest.batch, f"{bucket.url(key)} is missing") from error
    if _sha256(data) != manifest.pairs_sha256:
        raise _broken(manifest.batch, f"{bucket.url(key)} is not the table that its manifest names")
    return data


def _broken(batch: str, why: str) -> BatchBroken:
    return BatchBroken(
        "batch_broken",
        f"batch {batch!r} is damaged: {why}; ingest the same delivery again, which repairs it, or "
        "restore the bucket from backup",
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
