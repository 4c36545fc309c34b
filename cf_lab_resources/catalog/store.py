"""The catalog's queries and changes of state.

Postgres is the only judge of which release is current: the cache has a copy of the pointer that
may be late. A release is immutable once loaded, so a reader who asks for the current id once and
uses it for all that follows never sees a mixture, however many are published meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from psycopg2 import sql

from cf_lab_resources.catalog import following, loading
from cf_lab_resources.catalog.connections import (
    CatalogError,
    CatalogUnavailable,
    Database,
    connect,
    translated,
)
from cf_lab_resources.catalog.ids import Kind
from cf_lab_resources.catalog.loading import Batches, Loaded, NewRelease
from cf_lab_resources.catalog.migration import migrate

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection
    from psycopg2.extensions import cursor as Cursor

__all__ = ["Catalog", "CatalogError", "CatalogUnavailable", "open_catalog"]

POOL_SIZE = 4  # more is slower: 4.2k lookups/s with 4 connections, 3.5k with 10
ITERATION_ROWS = 1000
_TABLES: dict[Kind, str] = {"pair": "release_pairs", "set": "release_sets"}
_RELEASE = (
    "SELECT release_id, content_hash, dataset_hash, state, created_at, published_at, report_key,"
    " manifest, dropped_at FROM releases"
)
_WAIVER = "waiver_id, gate, person, reason, granted_at, until, revoked_at"
_FLIP_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('cf_lab flip', 0))"
_PUBLISH_LOCK = "SELECT pg_advisory_lock(hashtextextended('cf_lab publish', 0))"


@dataclass(frozen=True)
class Release:
    """A row of the releases' table.

    Attributes:
        release_id: "r" and 12 digits of the content hash.
        content_hash: Of everything that the release is made of.
        dataset_hash: Of its dataset.
        state: candidate, current, superseded or withdrawn.
        created_at: When it was staged.
        published_at: When it last became current; None for a candidate.
        report_key: Bucket key of its HTML report.
        manifest: What it is made of.
        dropped_at: When its records were dropped to make room; None where they are there.
    """

    release_id: str
    content_hash: str
    dataset_hash: str
    state: str
    created_at: datetime
    published_at: datetime | None
    report_key: str | None
    manifest: dict[str, Any] = field(repr=False)
    dropped_at: datetime | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened to a release."""

    release_id: str
    event: str
    at: datetime
    detail: dict[str, Any]


@dataclass(frozen=True)
class Flip:
    """What a change of the current release did.

    Attributes:
        release_id: Current now.
        previous: Current before; None where there was none.
        changed: False where it was current already.
    """

    release_id: str
    previous: str | None
    changed: bool


@dataclass(frozen=True)
class Waiver:
    """A person's word that a release may be published although a gate fails.

    Attributes:
        waiver_id: Number by which it is revoked.
        gate: Name of the gate.
        person: Who answers for it.
        reason: Why.
        granted_at: When it was given.
        until: The last day, UTC, on which it counts.
        revoked_at: When it was taken back; None where it was not.
    """

    waiver_id: int
    gate: str
    person: str
    reason: str
    granted_at: datetime
    until: date
    revoked_at: datetime | None

    def counts_on(self, day: date) -> bool:
        """Whether it is neither over on that day nor revoked."""
        return self.revoked_at is None and day <= self.until


class Catalog(Database):
    """The releases and their records in Postgres; safe to share among threads.

    Made by `open_catalog`; nothing is contacted before the first call. Every method raises
    `CatalogUnavailable` where Postgres does not answer.
    """

    def migrate(self, revision: str = "head") -> str | None:
        """Brings the schema to a revision; see `migration.migrate`."""
        return migrate(self._url, revision)

    def ping(self) -> None:
        """Returns if Postgres answers and the tables are there; raises otherwise."""
        self._rows("SELECT 1 FROM releases LIMIT 1")

    def current_id(self) -> str | None:
        """Id of the current release; None where nothing is published."""
        rows = self._rows(following.CURRENT)
        return rows[0][0] if rows else None

    def follow(self, seconds: float) -> Iterator[str | None]:
        """Id of the current release now, and after each change; see `following.follow`."""
        return following.follow(self._url, seconds)

    def current_release(self) -> Release | None:
        """The current release; None where nothing is published."""
        return self._release(" WHERE state = 'current'")

    def get_release(self, release_id: str) -> Release | None:
        """A release by its id; None where there is none."""
        return self._release(" WHERE release_id = %s", release_id)

    def list_releases(self, limit: int = 1000, states: Sequence[str] = ()) -> list[Release]:
        """Releases, newest first; only those in one of the states, where any is given."""
        rows = self._rows(
            _RELEASE + " WHERE %s = '{}' OR state = ANY(%s)"
            " ORDER BY coalesce(published_at, created_at) DESC, release_id LIMIT %s",
            (list(states), list(states), limit),
        )
        return [Release(*row) for row in rows]

    def events(self, release_id: str | None = None) -> list[Event]:
        """What happened, oldest first; to one release where an id is given."""
        rows = self._rows(
            "SELECT release_id, event, at, detail FROM release_events"
            " WHERE %s IS NULL OR release_id = %s ORDER BY event_id",
            (release_id, release_id),
        )
        return [Event(*row) for row in rows]

    def event_counts(self) -> dict[str, int]:
        """How many events of each kind there are, of all releases."""
        rows = self._rows("SELECT event, count(*) FROM release_events GROUP BY event")
        return {str(event): int(count) for event, count in rows}

    def load(self, release: NewRelease, pairs: Batches, sets: Batches) -> Loaded:
        """Loads a release as a candidate in one transaction; see `loading.load`."""

        def work(connection: Connection) -> Loaded:
            return loading.load(connection, release, pairs, sets)

        return self._in_transaction(work)

    def pair(self, release_id: str, pair_id: str) -> bytes | None:
        """A pair's record; None where the release has no such pair."""
        return self.pairs(release_id, [pair_id])[0]

    def pairs(self, release_id: str, pair_ids: Sequence[str]) -> list[bytes | None]:
        """Records of pairs: as many as ids, in their order, None for those not in the release."""
        return self.records("pair", release_id, pair_ids)

    def set(self, release_id: str, set_id: str) -> bytes | None:
        """A set's record; None where the release has no such set."""
        return self.records("set", release_id, [set_id])[0]

    def records(self, kind: Kind, release_id: str, ids: Sequence[str]) -> list[bytes | None]:
        """Records of pairs or of sets: as many as ids, in their order, None for missing ones."""
        rows = self._rows(
            f"SELECT id, record FROM {_TABLES[kind]} WHERE release_id = %s AND id = ANY(%s)",
            (release_id, list(ids)),
        )
        found = {row[0]: bytes(row[1]) for row in rows}
        return [found.get(id_) for id_ in ids]

    def first_pair_id(self, release_id: str) -> str | None:
        """The first of a release's pairs in the order of ids, for examples; None without any."""
        rows = self._rows("SELECT min(id) FROM release_pairs WHERE release_id = %s", (release_id,))
        return rows[0][0] if rows else None

    def has_image(self, release_id: str, sha256: str) -> bool:
        """Whether a pair of the release, or the source of a set, has this picture."""
        return bool(
            self._rows(
                "SELECT 1 FROM release_pairs WHERE release_id = %(release)s AND"
                " image_sha256 = %(sha256)s UNION ALL SELECT 1 FROM release_sets"
                " WHERE release_id = %(release)s AND image_sha256 = %(sha256)s LIMIT 1",
                {"release": release_id, "sha256": sha256},
            )
        )

    def counts(self, release_id: str) -> dict[Kind, int]:
        """How many records of each kind the release has."""
        return {
            kind: int(
                self._rows(f"SELECT count(*) FROM {table} WHERE release_id = %s", (release_id,))[0][
                    0
                ]
            )
            for kind, table in _TABLES.items()
        }

    def iterate(self, kind: Kind, release_id: str) -> Iterator[list[tuple[str, bytes]]]:
        """All (id, record) of a release in batches, by a server-side cursor: memory stays flat."""
        query = sql.SQL("SELECT id, record FROM {} WHERE release_id = %s").format(
            sql.Identifier(_TABLES[kind])
        )
        with (
            translated(self._url),
            closing(connect(self._url)) as connection,
            connection.cursor("cf_lab_iterate") as cursor,
        ):
            cursor.execute(query, (release_id,))
            while rows := cursor.fetchmany(ITERATION_ROWS):
                yield [(row[0], bytes(row[1])) for row in rows]

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """One publisher at a time, in all processes, for the length of the block.

        The lock dies with its connection, so a killed publisher leaves none behind.
        """
        with translated(self._url), closing(connect(self._url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(_PUBLISH_LOCK)
            yield

    def publish(self, release_id: str) -> Flip:
        """Makes a candidate or superseded release current, and the current one superseded.

        Raises:
            CatalogError: There is no such release, or it was withdrawn.
        """

        def work(connection: Connection) -> Flip:
            with connection.cursor() as cursor:
                cursor.execute(_FLIP_LOCK)
                state, previous = _state(cursor, release_id), _current(cursor)
                if state == "current":
                    return Flip(release_id, previous, changed=False)
                _check_records(cursor, release_id)
                if state == "withdrawn":
                    raise CatalogError(
                        f"release {release_id} was withdrawn and is not published again; make a "
                        f"new one, or, if it shall come back, roll back to {release_id} by name"
                    )
                _flip(cursor, release_id, "published", previous, "superseded")
                return Flip(release_id, previous, changed=True)

        return self._in_transaction(work)

    def roll_back(self, to: str | None = None, of: str | None = None, reason: str = "") -> Flip:
        """Withdraws the current release and makes an earlier one current again.

        Args:
            to: which one; the last superseded one where none is named.
            of: the release to withdraw; where another one is current, nothing is done.
            reason: kept with the event.

        Raises:
            CatalogError: There is nothing to roll back to, or the named release can't be it.
        """

        def work(connection: Connection) -> Flip:
            with connection.cursor() as cursor:
                cursor.execute(_FLIP_LOCK)
                previous = _current(cursor)
                if previous is not None and of not in (None, previous):
                    return Flip(previous, previous, changed=False)
                target = to or _last_superseded(cursor)
                state = _state(cursor, target)
                if state == "current":
                    return Flip(target, previous, changed=False)
                if state == "candidate":
                    raise CatalogError(
                        f"release {target} was never current; only the gates' way leads there: "
                        "materialise releases/current"
                    )
                _check_records(cursor, target)
                _flip(cursor, target, "rolled_back_to", previous, "withdrawn", reason)
                return Flip(target, previous, changed=True)

        return self._in_transaction(work)

    def drop_records(self, release_id: str) -> bool:
        """Drops a release's partitions; its row, manifest and events stay.

        Returns:
            False where they were dropped before.

        Raises:
            CatalogError: There is no such release, it is current, or readers hold its table for
                longer than `DROP_LOCK_SECONDS`.
        """

        def work(connection: Connection) -> bool:
            with connection.cursor() as cursor:
                cursor.execute(_FLIP_LOCK)
                if _state(cursor, release_id) == "current":
                    raise CatalogError(f"release {release_id} is current; its records are kept")
                if _is_dropped(cursor, release_id):
                    return False
                loading.drop(cursor, release_id)
                _record(cursor, release_id, "dropped", {})
                return True

        return self._in_transaction(work)

    def grant_waiver(self, gate: str, person: str, reason: str, until: date) -> Waiver:
        """Keeps a waiver, and gives it with its number."""

        def work(connection: Connection) -> Waiver:
            with connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO gate_waivers (gate, person, reason, until) VALUES (%s, %s, %s, %s)"
                    f" RETURNING {_WAIVER}",
                    (gate, person, reason, until),
                )
                (row,) = cursor.fetchall()
                return Waiver(*row)

        return self._in_transaction(work)

    def revoke_waiver(self, waiver_id: int) -> Waiver:
        """Takes a waiver back; the row stays. One that was taken back before keeps its time.

        Raises:
            CatalogError: There is no such waiver.
        """

        def work(connection: Connection) -> Waiver:
            with connection.cursor() as cursor:
                cursor.execute(
                    "UPDATE gate_waivers SET revoked_at = coalesce(revoked_at, clock_timestamp())"
                    f" WHERE waiver_id = %s RETURNING {_WAIVER}",
                    (waiver_id,),
                )
                row = cursor.fetchone()
            if row is None:
                raise CatalogError(f"there is no waiver {waiver_id}; see `cf-lab release waivers`")
            return Waiver(*row)

        return self._in_transaction(work)

    def waivers(self) -> list[Waiver]:
        """All waivers ever given, oldest first."""
        rows = self._rows(f"SELECT {_WAIVER} FROM gate_waivers ORDER BY waiver_id")
        return [Waiver(*row) for row in rows]

    def _release(self, where: str, *params: str) -> Release | None:
        rows = self._rows(_RELEASE + where, params)
        return Release(*rows[0]) if rows else None


def open_catalog(url: str, pool_size: int = POOL_SIZE, statement_seconds: float = 0.0) -> Catalog:
    """The catalog at a libpq URL; nothing is contacted yet.

    Args:
        url: such as `postgresql://user:password@host:5432/cf_lab`.
        pool_size: connections for lookups, at most.
        statement_seconds: after which a lookup is given up; 0 is never.
    """
    return Catalog(url, pool_size, statement_seconds)


def _state(cursor: Cursor, release_id: str) -> str:
    cursor.execute("SELECT state FROM releases WHERE release_id = %s FOR UPDATE", (release_id,))
    row = cursor.fetchone()
    if row is None:
        raise CatalogError(
            f"there is no release {release_id!r} in the catalog; stage it first by "
            "materialising releases/candidate"
        )
    return str(row[0])


def _is_dropped(cursor: Cursor, release_id: str) -> bool:
    cursor.execute(
        "SELECT dropped_at IS NOT NULL FROM releases WHERE release_id = %s", (release_id,)
    )
    (row,) = cursor.fetchall()
    return bool(row[0])


def _check_records(cursor: Cursor, release_id: str) -> None:
    if _is_dropped(cursor, release_id):
        raise CatalogError(
            f"the records of release {release_id} were dropped to make room; stage its dataset "
            "again by materialising releases/candidate, or name another release"
        )


def _current(cursor: Cursor) -> str | None:
    cursor.execute("SELECT release_id FROM releases WHERE state = 'current' FOR UPDATE")
    row = cursor.fetchone()
    return str(row[0]) if row else None


def _last_superseded(cursor: Cursor) -> str:
    cursor.execute(
        "SELECT release_id FROM releases WHERE state = 'superseded' AND dropped_at IS NULL"
        " ORDER BY published_at DESC, release_id LIMIT 1"
    )
    row = cursor.fetchone()
    if row is None:
        raise CatalogError(
            "there is nothing to roll back to: no release was superseded; name a withdrawn one "
            "if it shall come back, or publish a new one"
        )
    return str(row[0])


def _flip(
    cursor: Cursor,
    release_id: str,
    event: str,
    previous: str | None,
    previous_state: str,
    reason: str = "",
) -> None:
    why = {"reason": reason} if reason else {}
    if previous is not None:
        cursor.execute(
            "UPDATE releases SET state = %s WHERE release_id = %s", (previous_state, previous)
        )
        _record(cursor, previous, previous_state, {"by": release_id, **why})
    cursor.execute(
        "UPDATE releases SET state = 'current', published_at = clock_timestamp()"
        " WHERE release_id = %s",
        (release_id,),
    )
    _record(cursor, release_id, event, {"previous": previous, **why})
    following.tell(cursor)


def _record(cursor: Cursor, release_id: str, event: str, detail: dict[str, Any]) -> None:
    cursor.execute(
        "INSERT INTO release_events (release_id, event, detail) VALUES (%s, %s, %s)",
        (release_id, event, json.dumps(detail)),
    )
