"""A backup into an empty bucket and an empty database.

Every byte is compared with its hash on the way. A restore that is killed leaves a marker in the
bucket; the same call then goes on where it stopped, and everything else refuses such a bucket.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cf_lab_assets.backups import copying
from cf_lab_assets.backups.catalog import (
    connect,
    named_pictures,
    relations,
    restore_catalog,
    row_counts,
)
from cf_lab_assets.backups.copying import Entry, Progress, Report
from cf_lab_assets.backups.manifest import (
    RESTORE_MARKER,
    Backup,
    BackupDamaged,
    BackupError,
    CatalogDump,
    check_history,
    choose_backup,
)
from cf_lab_resources.bucket import Bucket, BucketKeyError, parse_content_key
from cf_lab_resources.settings import checked_postgres_url, redact

_SHOWN = 5  # names in a message
_MAJOR = 10000  # server_version_num per major version


class RestoreRefused(BackupError):
    """The place to restore into is not empty, or too old; nothing was changed."""


class RestoreUnfinished(BackupError):
    """The restore stopped half-way; the message says how to go on."""


class RestoreInconsistent(BackupError):
    """All was restored as it was backed up, but released pictures are missing from it."""


@dataclass(frozen=True)
class RestoreResult:
    """What a restore did.

    Attributes:
        backup: The backup that is restored.
        history: Backups before it whose manifests were checked, None where that was left out.
        objects: In the bucket now.
        bytes: Of these.
        rows: In all tables.
        tables: In the database now.
        pictures: Named by released pairs, each of which is in the bucket.
        resumed: Whether an unfinished restore was continued.
        seconds: Duration.
    """

    backup: Backup
    history: int | None
    objects: int
    bytes: int
    rows: int
    tables: int
    pictures: int
    resumed: bool
    seconds: float


def restore(
    backup_url: str,
    into_postgres_url: str,
    into_bucket_url: str,
    at: str | datetime | None = None,
    *,
    history: bool = True,
    report: Report | None = None,
    threads: int = copying.THREADS,
) -> RestoreResult:
    """Restores catalog and bucket from the second place.

    Args:
        backup_url: The second place.
        into_postgres_url: An empty database.
        into_bucket_url: An empty bucket.
        at: Takes the newest backup of that time or before; None: the newest.
        history: Check the manifests of older backups too, which the restore itself does not need.
        report: Called with the progress.
        threads: Objects in flight.

    Raises:
        SettingsError: A URL is malformed.
        NoBackup: There is none, or none so old.
        BackupDamaged: An object of the backup is missing or has other bytes; names it.
        RestoreRefused: The target is not empty, or an older server than the dump's.
        RestoreUnfinished: It stopped half-way; the same call continues it.
        RestoreInconsistent: Released pictures were missing when the backup was made.
    """
    started = time.monotonic()
    checked_postgres_url("--into-postgres", into_postgres_url)
    place = copying.open_place("--from", backup_url, must_exist=True)
    bucket = copying.open_place("--into-bucket", into_bucket_url)
    copying.check_apart(place, bucket)
    backup = choose_backup(place, at)
    checked = check_history(place, backup) if history else None
    resumed = _is_resumed(bucket, backup)
    filled = _is_filled(into_postgres_url, backup.manifest.catalog, resumed)
    if not resumed:
        _check_empty(bucket)
    with _dump(place, backup.manifest.catalog) as dump:
        bucket.put_bytes(RESTORE_MARKER, backup.sha256.encode())
        with _says_how_to_go_on(bucket, into_postgres_url):
            pictures = _restore_objects(place, bucket, backup, resumed, report, threads)
            if not filled:
                restore_catalog(into_postgres_url, dump)
            tables = _check_rows(into_postgres_url, backup.manifest.catalog)
    bucket.delete([RESTORE_MARKER])
    named = _check_pictures(into_postgres_url, bucket, pictures)
    return RestoreResult(
        backup=backup,
        history=checked,
        objects=backup.manifest.objects.count,
        bytes=backup.manifest.objects.bytes,
        rows=sum(tables.values()),
        tables=len(tables),
        pictures=named,
        resumed=resumed,
        seconds=time.monotonic() - started,
    )


def _is_resumed(bucket: Bucket, backup: Backup) -> bool:
    try:
        marker = bucket.get_bytes(RESTORE_MARKER).decode(errors="replace")
    except BucketKeyError:
        return False
    if marker != backup.sha256:
        raise RestoreRefused(
            f"{bucket!r} holds an unfinished restore of another backup than {backup.key}: name "
            "that one with --at to finish it, or empty bucket and database and run this again."
        )
    return True


def _check_empty(bucket: Bucket) -> None:
    found = [info.key for info in itertools.islice(bucket.list(), _SHOWN)]
    if found:
        raise RestoreRefused(
            f"{bucket!r} is not empty: it holds {', '.join(found)} and maybe more. A restore "
            "never writes over anything: name an empty bucket with --into-bucket."
        )


def _is_filled(postgres_url: str, dump: CatalogDump, resumed: bool) -> bool:
    """Whether the unfinished restore had come to its end with the database."""
    with closing(connect(postgres_url)) as connection:
        version, found = connection.server_version, relations(connection)
        same = bool(resumed and found and row_counts(connection) == dump.tables)
    if version // _MAJOR < dump.server_version // _MAJOR:
        raise RestoreRefused(
            f"{redact(postgres_url)}: PostgreSQL {version // _MAJOR} is older than the "
            f"{dump.server_version // _MAJOR} that was backed up; restore into that or a newer "
            "one."
        )
    if found and not same:
        raise RestoreRefused(
            f"{redact(postgres_url)} is not empty: it holds {', '.join(found[:_SHOWN])}"
            f"{' and more' if len(found) > _SHOWN else ''}. A restore never writes over anything: "
            "name an empty database with --into-postgres."
        )
    return same


@contextmanager
def _dump(place: Bucket, dump: CatalogDump) -> Iterator[Path]:
    with (
        tempfile.TemporaryDirectory(prefix="cf_lab_") as folder,
        copying.fetched_intact(place, dump.key, dump.sha256, dump.bytes) as found,
    ):
        if isinstance(found.source, Path):
            yield found.source
        else:
            path = Path(folder) / "dump"
            path.write_bytes(found.source)
            yield path


@contextmanager
def _says_how_to_go_on(bucket: Bucket, postgres_url: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # The class stays where callers tell damage from the rest by it.
        kind = BackupDamaged if isinstance(error, BackupDamaged) else RestoreUnfinished
        raise kind(
            f"{error}\nThe restore is not finished: {bucket!r} is filled in part, and "
            f"{redact(postgres_url)} holds all of the catalog or nothing. Remove the cause and "
            "run the same command again, which continues; or empty both and choose another "
            "backup."
        ) from error


def _restore_objects(
    place: Bucket,
    bucket: Bucket,
    backup: Backup,
    resumed: bool,
    report: Report | None,
    threads: int,
) -> set[str]:
    """Copies all objects to their keys; returns the hashes of those that are pictures."""
    pictures: set[str] = set()
    done = copied_bytes = copied = 0

    def copy(entry: Entry) -> tuple[Entry, bool]:
        if resumed and _has(bucket, entry):
            return entry, False
        key = copying.data_key(entry.sha256)
        with copying.fetched_intact(place, key, entry.sha256, entry.size) as found:
            found.put(bucket, entry.key)
        return entry, True

    with copying.open_index(place, backup.manifest.objects) as entries:
        for entry, was_copied in copying.in_threads(copy, entries, threads):
            pictures.update(_picture(entry.key))
            done += 1
            copied += was_copied
            copied_bytes += entry.size * was_copied
            if report:
                report(Progress(done, backup.manifest.objects.count, copied, copied_bytes))
    return pictures


def _has(bucket: Bucket, entry: Entry) -> bool:
    try:
        with copying.fetched(bucket, entry.key, entry.size) as found:
            return found.sha256 == entry.sha256
    except BucketKeyError:
        return False


def _picture(key: str) -> list[str]:
    try:
        content = parse_content_key(key)
    except ValueError:
        return []
    return [content.sha256] if content.kind == "images" else []


def _check_rows(postgres_url: str, dump: CatalogDump) -> dict[str, int]:
    with closing(connect(postgres_url)) as connection:
        found = row_counts(connection)
    if found != dump.tables:
        names = sorted(t for t in found | dump.tables if found.get(t) != dump.tables.get(t))
        raise BackupError(
            f"{redact(postgres_url)}: {', '.join(names[:_SHOWN])} have not the rows that were "
            "backed up; somebody else writes to this database."
        )
    return found


def _check_pictures(postgres_url: str, bucket: Bucket, pictures: set[str]) -> int:
    missing, named = [], 0
    with closing(connect(postgres_url)) as connection:
        for sha256 in named_pictures(connection):
            named += 1
            if sha256 not in pictures:
                missing.append(sha256)
    if missing:
        raise RestoreInconsistent(
            f"Catalog and bucket are restored as they were backed up, but {len(missing)} of "
            f"{named} released pictures are not in {bucket!r} and were not when the backup was "
            f"made: {', '.join(missing[:_SHOWN])}. Withdraw the releases that show them, or look "
            "for an older backup with --at."
        )
    return named
