"""The bucket into the second place: what is new is copied, and a manifest ends the backup.

Objects under content keys are compared by key; all others may have changed under their key and
are read and hashed each time. A backup that is interrupted leaves bytes and no manifest, and the
next one finds them there.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from cf_lab_assets.backups import copying
from cf_lab_assets.backups.copying import Entry, Progress, Report
from cf_lab_assets.backups.manifest import (
    RESTORE_MARKER,
    Backup,
    BackupError,
    CatalogDump,
    manifest_keys,
    read_backup,
    write_manifest,
)
from cf_lab_resources.bucket import Bucket, BucketKeyError, ObjectInfo, parse_content_key


@dataclass(frozen=True)
class BackupResult:
    """What a backup did.

    Attributes:
        backup: As it is now in the second place.
        copied: Objects that the second place did not have.
        copied_bytes: Bytes of these.
        seconds: Duration, without that of the catalog's dump.
    """

    backup: Backup
    copied: int
    copied_bytes: int
    seconds: float


def back_up_bucket(
    bucket: Bucket,
    place: Bucket,
    catalog: CatalogDump,
    report: Report | None = None,
    threads: int = copying.THREADS,
) -> BackupResult:
    """Copies what is new in the bucket, then writes the manifest.

    The dump must be older than the call: objects are only added, and so the bucket has all that
    the dump names.

    Raises:
        BackupError: The two buckets overlap, a restore into the bucket is unfinished, or the
            bucket is empty where the last backup was not.
        BackupDamaged: The last manifest is damaged.
        BucketError: A store failed.
    """
    started = time.monotonic()
    copying.check_apart(bucket, place)
    if bucket.exists(RESTORE_MARKER):
        raise BackupError(
            f"{bucket!r} holds a restore that did not finish; finish or empty it before the next "
            "backup."
        )
    infos = list(bucket.list())
    if not infos:
        _check_may_be_empty(bucket, place)
    copier = _Copier(bucket, place)
    for done, _ in enumerate(copying.in_threads(copier.copy, infos, threads), start=1):
        if report:
            report(Progress(done, len(infos), copier.copied, copier.copied_bytes))
    index = copying.write_index(place, copier.entries, copier.present)
    damaged = tuple(sorted(copier.damaged))
    backup = write_manifest(place, catalog, index, damaged)
    return BackupResult(backup, copier.copied, copier.copied_bytes, time.monotonic() - started)


def _check_may_be_empty(bucket: Bucket, place: Bucket) -> None:
    keys = manifest_keys(place)
    if not keys:
        return
    count = read_backup(place, keys[-1]).manifest.objects.count
    if count:
        raise BackupError(
            f"{bucket!r} is empty, and the last backup has {count} objects of it: restore it, or, "
            "if it is meant to be empty, set CF_LAB_BACKUP to a new place."
        )


class _Copier:
    """Shared by the threads of one backup."""

    def __init__(self, bucket: Bucket, place: Bucket) -> None:
        self._bucket = bucket
        self._place = place
        self._lock = threading.Lock()
        self.present = copying.sizes_of(place)
        self.entries: list[Entry] = []
        self.damaged: list[str] = []
        self.copied = 0
        self.copied_bytes = 0

    def copy(self, info: ObjectInfo) -> None:
        expected = _expected_sha256(info.key)
        if expected and self.present.get(expected) == info.size:
            self.entries.append(Entry(info.key, expected, info.size))
            return
        try:
            with copying.fetched(self._bucket, info.key, info.size) as found:
                if expected and found.sha256 != expected:
                    self.damaged.append(info.key)
                    return
                if self._claim(found.sha256, found.size):
                    found.put(self._place, copying.data_key(found.sha256))
                self.entries.append(Entry(info.key, found.sha256, found.size))
        except BucketKeyError:
            return  # deleted since it was listed, so no longer part of the bucket

    def _claim(self, sha256: str, size: int) -> bool:
        """Whether this thread is the one that copies these bytes, which no place has yet."""
        with self._lock:
            if self.present.get(sha256) == size:
                return False
            self.present[sha256] = size
            self.copied += 1
            self.copied_bytes += size
            return True


def _expected_sha256(key: str) -> str | None:
    try:
        return parse_content_key(key).sha256
    except ValueError:
        return None
