"""Loads a whole release by COPY in one transaction, without getting in readers' way.

The release's partitions are made as tables of their own, filled, and attached at the end:
`CREATE TABLE ... PARTITION OF` would lock the parent against readers for as long as the COPY
takes, attaching does not. Until the commit nobody sees anything; a killed load leaves nothing.
Rows go in PostgreSQL's binary COPY format, which needs no escaping, a batch at a time.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psycopg2 import errors, sql

from cf_lab_resources.catalog.connections import CatalogError
from cf_lab_resources.catalog.ids import is_release_id

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection
    from psycopg2.extensions import cursor as Cursor

Batches = Iterable[Iterable["Record"]]

COLUMNS = ("release_id", "id", "set_id", "image_sha256", "record")
# "Documentation: COPY, File Formats, Binary Format": signature, flags, length of the extension.
_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TRAILER = struct.pack(">h", -1)
_LENGTH = struct.Struct(">i").pack
_READ_BYTES = 1 << 18
TABLES = ("release_pairs", "release_sets")
DROP_LOCK_SECONDS = 5
_LOAD_LOCK = "cf_lab load "


@dataclass(frozen=True)
class Record:
    """A pair or set as it is looked up.

    Attributes:
        id: The pair's or set's id.
        set_id: The set that it belongs to; a set's own id.
        image_sha256: The pair's picture; of a set, the source's.
        body: The JSON that is sent, byte for byte.
    """

    id: str
    set_id: str
    image_sha256: str
    body: bytes


@dataclass(frozen=True)
class NewRelease:
    """What is known of a release before its records are loaded.

    Attributes:
        release_id: "r" and 12 digits of the content hash.
        content_hash: Of everything that the release is made of.
        dataset_hash: Of its dataset.
        report_key: Bucket key of its HTML report; None where there is none.
        manifest: JSON-compatible.
    """

    release_id: str
    content_hash: str
    dataset_hash: str
    report_key: str | None
    manifest: dict[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        if not is_release_id(self.release_id):
            raise ValueError(f"not a release id: {self.release_id!r}")


@dataclass(frozen=True)
class Loaded:
    """What a load did: whether the release is new, and how many rows it wrote."""

    new: bool
    pairs: int = 0
    sets: int = 0


def load(connection: Connection, release: NewRelease, pairs: Batches, sets: Batches) -> Loaded:
    """Writes the release's records and its candidate row, unless it is there already.

    Args:
        connection: not in autocommit mode; the caller commits.
        release: the release.
        pairs: batches of pair records, consumed while they are sent.
        sets: batches of set records.

    Raises:
        CatalogError: The id is taken by other content, or two records have the same id.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
            (_LOAD_LOCK + release.release_id,),
        )
        cursor.execute(
            "SELECT content_hash, dropped_at FROM releases WHERE release_id = %s",
            (release.release_id,),
        )
        row = cursor.fetchone()
        if row is not None:
            _check_same(release, row[0])
            if row[1] is None:
                return Loaded(new=False)
        # Attaching locks the parent until the commit: always in this order, so no two deadlock.
        counts = [
            _load_partition(cursor, table, release.release_id, batches)
            for table, batches in zip(TABLES, (pairs, sets), strict=True)
        ]
        if row is None:
            _insert_release(cursor, release)
        else:
            cursor.execute(
                "UPDATE releases SET dropped_at = NULL WHERE release_id = %s", (release.release_id,)
            )
        _record_staged(cursor, release, *counts)
    return Loaded(True, *counts)


def _check_same(release: NewRelease, content_hash: str) -> None:
    if content_hash != release.content_hash:
        raise CatalogError(
            f"release {release.release_id} is in the catalog with content {content_hash[:16]}..., "
            f"not {release.content_hash[:16]}...; two contents share the first 12 digits, so "
            "change any setting of the dataset and stage again"
        )


def _load_partition(cursor: Cursor, table: str, release_id: str, batches: Batches) -> int:
    parent, partition = sql.Identifier(table), sql.Identifier(f"{table}_{release_id}")
    # The constraint tells Postgres that it need not scan the rows when the table is attached.
    cursor.execute(
        sql.SQL(
            "CREATE TABLE {partition} (LIKE {parent} INCLUDING ALL EXCLUDING INDEXES,"
            " CONSTRAINT of_release CHECK (release_id = {release_id}))"
        ).format(partition=partition, parent=parent, release_id=sql.Literal(release_id))
    )
    stream = _CopyStream(release_id, batches)
    copy = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT binary, FREEZE)").format(
        partition, sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    )
    try:
        cursor.copy_expert(copy, stream, size=_READ_BYTES)
    except Exception:
        if stream.error is not None:
            raise stream.error from None  # psycopg2 would show it as a cancelled query
        raise
    try:
        cursor.execute(
            sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES IN ({})").format(
                parent, partition, sql.Literal(release_id)
            )
        )
    except errors.UniqueViolation as error:
        raise CatalogError(
            f"release {release_id} has two {table.removeprefix('release_')} with the same id: "
            f"{error.diag.message_detail}; make the dataset anew"
        ) from error
    cursor.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT of_release").format(partition))
    return stream.rows


def drop(cursor: Cursor, release_id: str) -> None:
    """Drops a release's partitions and notes when.

    Taking a partition off locks its parent against readers for a moment. Who can't get the lock
    soon gives up rather than hold up the readers that queue behind it.
    """
    cursor.execute(f"SET LOCAL lock_timeout = '{DROP_LOCK_SECONDS}s'")
    for table in TABLES:
        partition = sql.Identifier(f"{table}_{release_id}")
        cursor.execute(
            sql.SQL("ALTER TABLE {} DETACH PARTITION {}").format(sql.Identifier(table), partition)
        )
        cursor.execute(sql.SQL("DROP TABLE {}").format(partition))
    cursor.execute("UPDATE releases SET dropped_at = now() WHERE release_id = %s", (release_id,))


def _insert_release(cursor: Cursor, release: NewRelease) -> None:
    cursor.execute(
        "INSERT INTO releases (release_id, content_hash, dataset_hash, state, report_key, manifest)"
        " VALUES (%s, %s, %s, 'candidate', %s, %s)",
        (
            release.release_id,
            release.content_hash,
            release.dataset_hash,
            release.report_key,
            json.dumps(release.manifest),
        ),
    )


def _record_staged(cursor: Cursor, release: NewRelease, pairs: int, sets: int) -> None:
    cursor.execute(
        "INSERT INTO release_events (release_id, event, detail) VALUES (%s, 'staged', %s)",
        (release.release_id, json.dumps({"pairs": pairs, "sets": sets})),
    )


def encoded(release_id: str, batches: Batches) -> Iterator[bytes]:
    """Records in PostgreSQL's binary COPY format, a piece for each batch."""
    named = release_id.encode()
    head = struct.pack(">h", len(COLUMNS)) + _LENGTH(len(named)) + named
    yield _HEADER
    for batch in batches:
        pieces: list[bytes] = []
        for record in batch:
            pieces.append(head)
            for text in (record.id, record.set_id, record.image_sha256):
                value = text.encode()
                pieces += (_LENGTH(len(value)), value)
            pieces += (_LENGTH(len(record.body)), record.body)
        yield b"".join(pieces)
    yield _TRAILER


class _CopyStream:
    """A file for psycopg2 to read, made of batches of records as they come."""

    def __init__(self, release_id: str, batches: Batches) -> None:
        self._chunks = encoded(release_id, self._counted(batches))
        self._chunk, self._read = b"", 0
        self.rows = 0
        self.error: Exception | None = None

    def readline(self, size: int = -1, /) -> bytes:
        raise NotImplementedError("psycopg2 reads binary data by size")

    def read(self, size: int = _READ_BYTES, /) -> bytes:
        """At most `size` bytes of one chunk; none at the end."""
        try:
            while self._read == len(self._chunk):
                self._chunk, self._read = next(self._chunks), 0
        except StopIteration:
            return b""
        except Exception as error:
            self.error = error
            raise
        data = self._chunk[self._read : self._read + size]
        self._read += len(data)
        return data

    def _counted(self, batches: Batches) -> Iterator[list[Record]]:
        for batch in batches:
            found = list(batch)
            self.rows += len(found)
            yield found
