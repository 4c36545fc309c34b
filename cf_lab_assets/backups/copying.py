"""Objects from one bucket to another, many at a time, in memory that does not grow with them.

Memory holds a few small objects per thread; larger ones go through a temporary file. The list of
a backup's objects is written and read here too.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar, cast
from urllib.parse import unquote, urlsplit

from cf_lab_assets.backups.manifest import BackupDamaged, BackupError, ObjectIndex
from cf_lab_resources.bucket import Bucket, BucketKeyError, content_key, open_bucket
from cf_lab_resources.settings import checked_bucket_url

if TYPE_CHECKING:
    from cf_lab_assets.backups.manifest import Backup

Item = TypeVar("Item")
Result = TypeVar("Result")

KIND = "data"  # of all objects in the second place, which has them by their hash alone
THREADS = 8  # waiting for a store, not for a processor
SMALL_BYTES = 8 * 2**20  # pictures and tables; above it are models and deliveries
_WINDOW = 4  # submitted items per thread, so that a slow one does not idle the others


@dataclass(frozen=True)
class Progress:
    """How far a backup or restore is.

    Attributes:
        done: Objects that are through, copied or not.
        total: Objects in all.
        copied: Objects whose bytes were copied.
        copied_bytes: Bytes of these.
    """

    done: int
    total: int
    copied: int
    copied_bytes: int


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Entry:
    """One object of the bucket in a backup."""

    key: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Fetched:
    """Bytes of an object here, in memory or in a file."""

    sha256: str
    size: int
    source: bytes | Path

    def put(self, bucket: Bucket, key: str) -> None:
        """Writes them to a bucket."""
        if isinstance(self.source, Path):
            bucket.put_file(key, self.source)
        else:
            bucket.put_bytes(key, self.source)


def data_key(sha256: str) -> str:
    """Where bytes with this hash are in the second place."""
    return content_key(KIND, sha256, "")


def open_place(name: str, url: str, *, must_exist: bool = False) -> Bucket:
    """Opens the bucket behind a URL that a person gave.

    Args:
        name: What the URL is, for the message.
        url: `file:///folder` or `s3://bucket/prefix`.
        must_exist: Refuse a folder that is not there, instead of making it.

    Raises:
        SettingsError: The URL is malformed.
        BackupError: There is no such folder.
    """
    parts = urlsplit(checked_bucket_url(name, url, ("file", "s3")))
    if must_exist and parts.scheme == "file" and not Path(unquote(parts.path)).is_dir():
        raise BackupError(f"{name}: there is no folder {unquote(parts.path)}; check the address.")
    return open_bucket(url)


def check_apart(one: Bucket, other: Bucket) -> None:
    """Refuses two buckets of which one lies within the other.

    Raises:
        BackupError: They overlap.
    """
    first, second = (bucket.url("x").removesuffix("x") for bucket in (one, other))
    if "memory://" in (first, second):  # each of these is a store of its own
        return
    if first.startswith(second) or second.startswith(first):
        raise BackupError(
            f"{one!r} and {other!r} overlap; a backup needs a place of its own: set "
            "CF_LAB_BACKUP to another folder or S3 bucket."
        )


@contextmanager
def fetched(bucket: Bucket, key: str, size: int) -> Iterator[Fetched]:
    """The bytes of an object and their hash; `size` decides whether they go to memory.

    Raises:
        BucketKeyError: There is no such object.
    """
    if size <= SMALL_BYTES:
        data = bucket.get_bytes(key)
        yield Fetched(hashlib.sha256(data).hexdigest(), len(data), data)
        return
    with tempfile.TemporaryDirectory(prefix="cf_lab_") as folder:
        path = Path(folder) / "object"
        bucket.get_file(key, path)
        yield from_file(path)


@contextmanager
def fetched_intact(place: Bucket, key: str, sha256: str, size: int) -> Iterator[Fetched]:
    """The same, of an object in the second place whose hash is known.

    Raises:
        BackupDamaged: It is missing or has other bytes.
    """
    try:
        with fetched(place, key, size) as found:
            if found.sha256 != sha256:
                raise BackupDamaged(
                    f"{place.url(key)} is damaged: its bytes hash to {found.sha256} and not to "
                    f"{sha256}. Where the original still exists, delete this object and back up "
                    "again; otherwise restore another backup with --at."
                )
            yield found
    except BucketKeyError as error:
        raise BackupDamaged(
            f"{place.url(key)} is missing. Where the original still exists, back up again; "
            "otherwise restore another backup with --at."
        ) from error


def from_file(path: Path) -> Fetched:
    """A file's bytes by their hash."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Fetched(digest, path.stat().st_size, path)


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int = THREADS
) -> Iterator[Result]:
    """Results of `work` on each item, as they come; `items` is read no faster than that.

    The first error ends it: what has begun is finished, the rest is left.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="cf-lab-copy")
    pending: set[Future[Result]] = set()
    try:
        for item in items:
            pending.add(pool.submit(work, item))
            if len(pending) >= threads * _WINDOW:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from [future.result() for future in done]
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from [future.result() for future in done]
    finally:
        pool.shutdown(cancel_futures=True)


def write_index(place: Bucket, entries: list[Entry], present: dict[str, int]) -> ObjectIndex:
    """Stores the list of a backup's objects, sorted by key, unless the place has the same."""
    with tempfile.TemporaryDirectory(prefix="cf_lab_") as folder:
        path = Path(folder) / "index"
        # No time and no name in the header: the same list gives the same hash.
        with path.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
            for entry in sorted(entries, key=lambda entry: entry.key):
                line = json.dumps([entry.key, entry.sha256, entry.size], ensure_ascii=False)
                file.write(line.encode() + b"\n")
        index = from_file(path)
        if present.get(index.sha256) != index.size:
            index.put(place, data_key(index.sha256))
    total = sum(entry.size for entry in entries)
    return ObjectIndex(sha256=index.sha256, size=index.size, count=len(entries), bytes=total)


@contextmanager
def open_index(place: Bucket, index: ObjectIndex) -> Iterator[Iterator[Entry]]:
    """The objects of a backup, one after the other.

    Raises:
        BackupDamaged: The list is missing or damaged.
    """
    with fetched_intact(place, data_key(index.sha256), index.sha256, index.size) as found:
        if isinstance(found.source, Path):
            with gzip.open(found.source, "rb") as file:
                yield _entries(cast("IO[bytes]", file))
        else:
            yield _entries(gzip.decompress(found.source).splitlines())


def _entries(lines: Iterable[bytes]) -> Iterator[Entry]:
    for line in lines:
        yield Entry(*json.loads(line))


def sizes_of(place: Bucket) -> dict[str, int]:
    """Hash and size of all bytes in the second place."""
    found = place.list(f"objects/{KIND}")
    return {info.key.rpartition("/")[2]: info.size for info in found}


def problems(place: Bucket, backup: Backup, most: int = 20) -> list[str]:
    """What a finished backup lacks: missing objects, wrong sizes, a dump with other bytes.

    The hashes of all objects are left to `restore`; sizes come with the listing and cost
    nothing.
    """
    found: list[str] = [
        f"{key} was left out: damaged in the bucket" for key in backup.manifest.damaged[:most]
    ]
    dump = backup.manifest.catalog
    present = sizes_of(place)
    try:
        with fetched_intact(place, dump.key, dump.sha256, dump.bytes):
            pass
    except BackupDamaged as error:
        found.append(str(error))
    try:
        with open_index(place, backup.manifest.objects) as entries:
            for entry in entries:
                size = present.get(entry.sha256)
                if size != entry.size and len(found) < most:
                    state = "is missing" if size is None else f"has {size} bytes"
                    found.append(f"{place.url(data_key(entry.sha256))} ({entry.key}) {state}")
    except BackupDamaged as error:
        found.append(str(error))
    return found
