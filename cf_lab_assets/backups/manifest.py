"""What one backup is, and the list of them in the second place.

A manifest is small: it names the dump of the catalog, and an index with key, hash and size of
every object of the bucket. It names its predecessor by hash, so that a manifest that was changed
or taken out of the row is noticed, and its own name holds the start of its own hash. Copying
bytes belongs to the siblings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from cf_lab_resources.bucket import Bucket

MANIFESTS = "manifests"
RESTORE_MARKER = "restore-unfinished.json"  # in a bucket that is being restored

_STAMP = r"\d{8}T\d{6}\.\d{6}Z"
_MANIFEST_KEY = re.compile(rf"{MANIFESTS}/(?P<stamp>{_STAMP})-(?P<sha12>[0-9a-f]{{12}})\.json")


class BackupError(LabError):
    """A backup or restore cannot be done; the message says why and what to do."""


class BackupDamaged(BackupError):
    """Something in the second place is missing or not what was written; names the object."""


class NoBackup(BackupError, LookupError):
    """The second place has no backup, or none so old."""


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CatalogDump(_Wire):
    """One dump of the catalog's database.

    Attributes:
        key: Of the dump, in pg_dump's custom format.
        sha256: Of the dump.
        bytes: Of the dump.
        created_at: When the snapshot was taken.
        server_version: Of the dumped server, as `server_version_num` has it (180004).
        tables: Rows of each table, `schema.table`, in the snapshot of the dump.
    """

    key: str
    sha256: str
    bytes: int
    created_at: AwareDatetime
    server_version: int
    tables: dict[str, int]


class ObjectIndex(_Wire):
    """Where the list of the bucket's objects is, and what it sums up to.

    Attributes:
        sha256: Of the list, which is an object of the second place like any other.
        size: Of the list in bytes.
        count: Objects in the list.
        bytes: Of all objects together.
    """

    sha256: str
    size: int
    count: int
    bytes: int


class Link(_Wire):
    """Key and hash of another manifest."""

    key: str
    sha256: str


class Manifest(_Wire):
    """The content of one manifest.

    Attributes:
        format: Of this file.
        created_at: The backup's time; its key has it too.
        previous: The manifest before this one, None for the first.
        catalog: The dump that belongs to this backup.
        objects: The bucket's objects.
        damaged: Keys that are left out, since the bucket's object had not the bytes that its
            content key says.
    """

    format: Literal[1] = 1
    created_at: AwareDatetime
    previous: Link | None
    catalog: CatalogDump
    objects: ObjectIndex
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backup:
    """A manifest as it was found in the second place."""

    key: str
    sha256: str
    manifest: Manifest

    @property
    def created_at(self) -> datetime:
        """When it was made."""
        return self.manifest.created_at


@dataclass(frozen=True)
class ListedBackup:
    """A line of the list of backups: the backup, or what is wrong with its manifest."""

    key: str
    created_at: datetime
    backup: Backup | None
    problem: str | None


def stamp(moment: datetime) -> str:
    """A time as keys have it, in UTC, so that keys sort by time; `parse_time` reads it back."""
    return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def parse_time(text: str) -> datetime:
    """A time in ISO 8601 or as keys have it; UTC where it names no zone.

    Raises:
        BackupError: It is no such time.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BackupError(
            f"{text!r} is not a time; write it like 2026-01-31T12:00:00Z, or as "
            "`cf-lab backup list` shows it."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def write_manifest(
    place: Bucket, catalog: CatalogDump, objects: ObjectIndex, damaged: tuple[str, ...]
) -> Backup:
    """Commits a backup, of which everything else must be in the second place already.

    Raises:
        BackupDamaged: The manifest before it can't be read.
    """
    keys = manifest_keys(place)
    before = read_backup(place, keys[-1]) if keys else None
    now = datetime.now(UTC)
    if before:  # a clock that was set back must not put the newest backup among the old ones
        now = max(now, before.created_at + timedelta(microseconds=1))
    manifest = Manifest(
        created_at=now,
        previous=Link(key=before.key, sha256=before.sha256) if before else None,
        catalog=catalog,
        objects=objects,
        damaged=damaged,
    )
    data = manifest.model_dump_json(indent=1).encode()
    sha256 = hashlib.sha256(data).hexdigest()
    key = f"{MANIFESTS}/{stamp(now)}-{sha256[:12]}.json"
    if not place.create(key, data):
        raise BackupError(f"{place.url(key)} is there already; run the backup again.")
    return Backup(key, sha256, manifest)


def manifest_keys(place: Bucket) -> list[str]:
    """Keys of all manifests, oldest first."""
    found = (info.key for info in place.list(MANIFESTS))
    return sorted(key for key in found if _MANIFEST_KEY.fullmatch(key))


def read_backup(place: Bucket, key: str) -> Backup:
    """Reads one manifest and compares it with its name.

    Raises:
        BackupDamaged: It is not what was written, or not there.
    """
    from cf_lab_resources.bucket import BucketKeyError

    match = _MANIFEST_KEY.fullmatch(key)
    if not match:
        raise BackupDamaged(f"{key!r} is not the key of a manifest.")
    try:
        data = place.get_bytes(key)
    except BucketKeyError as error:
        raise BackupDamaged(f"{place.url(key)} is missing.") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256[:12] != match["sha12"]:
        raise BackupDamaged(
            f"{place.url(key)} is damaged: its name says {match['sha12']}, its bytes hash to "
            f"{sha256[:12]}. Restore an older backup with --at, or put back this file."
        )
    try:
        return Backup(key, sha256, Manifest.model_validate_json(data))
    except ValidationError as error:
        raise BackupDamaged(
            f"{place.url(key)} is not a manifest that this version of the lab reads: {error}"
        ) from error


def list_backups(place: Bucket) -> list[ListedBackup]:
    """All backups, newest first; one with a damaged manifest is listed with its problem."""

    def listed(key: str) -> ListedBackup:
        try:
            backup = read_backup(place, key)
        except BackupDamaged as error:
            return ListedBackup(key, _time_of(key), None, str(error))
        return ListedBackup(key, backup.created_at, backup, None)

    return [listed(key) for key in reversed(manifest_keys(place))]


def earlier(place: Bucket, most: int = 100) -> list[Backup]:
    """The newest backups whose manifests can be read, oldest first.

    Args:
        place: the second place.
        most: how many are read.
    """
    found = []
    for key in manifest_keys(place)[-most:]:
        with suppress(BackupDamaged):
            found.append(read_backup(place, key))
    return found


def choose_backup(place: Bucket, at: str | datetime | None = None) -> Backup:
    """The newest backup, or the newest that was made at that time or before.

    Raises:
        NoBackup: There is none.
        BackupDamaged: Its manifest is not what was written.
        BackupError: `at` is not a time.
    """
    keys = manifest_keys(place)
    if not keys:
        raise NoBackup(
            f"{place!r} holds no finished backup; check the address, or make a backup first."
        )
    if at is None:
        return read_backup(place, keys[-1])
    moment = parse_time(at) if isinstance(at, str) else at
    fitting = [key for key in keys if _time_of(key) <= moment]
    if not fitting:
        raise NoBackup(
            f"{place!r} has no backup of {moment.isoformat()} or before; the oldest is of "
            f"{_time_of(keys[0]).isoformat()}."
        )
    return read_backup(place, fitting[-1])


def check_history(place: Bucket, backup: Backup) -> int:
    """Follows the row of manifests back from one, and returns how many there are before it.

    Old backups may have been deleted from the start of the row, not out of its middle.

    Raises:
        BackupDamaged: A manifest is missing, or not the one that its successor names.
    """
    return sum(1 for _ in _ancestors(place, backup))


def _ancestors(place: Bucket, backup: Backup) -> Iterator[Backup]:
    keys = manifest_keys(place)
    present = set(keys)
    link = backup.manifest.previous
    while link and (link.key in present or keys[0] < link.key):
        before = read_backup(place, link.key)
        if before.sha256 != link.sha256:
            raise BackupDamaged(
                f"{place.url(link.key)} is not the manifest that its successor names: somebody "
                "changed it. Restore an older backup with --at."
            )
        yield before
        link = before.manifest.previous


def _time_of(key: str) -> datetime:
    match = _MANIFEST_KEY.fullmatch(key)
    if not match:
        raise ValueError(f"not the key of a manifest: {key!r}")
    return parse_time(match["stamp"])
