"""A small pool of psycopg2 connections, what all queries share, and psycopg2's errors translated.

psycopg2's own pool raises when it is exhausted; this one waits, since more than a handful of
connections only makes lookups slower.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psycopg2
from psycopg2 import errors

from cf_lab_resources.errors import LabError
from cf_lab_resources.settings import redact

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

T = TypeVar("T")

CONNECT_SECONDS = 5


class CatalogError(LabError):
    """The catalog refused; the message says what and why."""


class CatalogUnavailable(CatalogError):
    """Postgres can't be reached, or went away; trying again later may help."""

    passing = True


def connect(url: str, statement_seconds: float = 0.0) -> Connection:
    """A connection that notices within seconds when its server's machine is gone.

    Args:
        url: libpq URL.
        statement_seconds: after which Postgres cancels a statement; 0 is never.
    """
    return psycopg2.connect(
        url,
        connect_timeout=CONNECT_SECONDS,
        application_name="cf_lab",
        keepalives_idle=30,
        tcp_user_timeout=10_000,
        options=f"-c statement_timeout={int(statement_seconds * 1000)}",
    )


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turns psycopg2's errors into the catalog's."""
    try:
        yield
    except (errors.UndefinedTable, errors.UndefinedColumn) as error:
        raise CatalogError(
            f"the catalog at {redact(url)} lacks tables of this version; migrate it to head first "
            "(staging a candidate does it too)"
        ) from error
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        raise CatalogUnavailable(
            f"the catalog at {redact(url)} does not answer: {_first_line(error)}; check that "
            "Postgres runs and that CF_LAB_POSTGRES_URL is right"
        ) from error
    except psycopg2.Error as error:
        raise CatalogError(f"the catalog at {redact(url)} refused: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class Pool:
    """At most `size` connections, opened when first needed and kept in autocommit mode."""

    def __init__(self, url: str, size: int, statement_seconds: float) -> None:
        self._url = url
        self._statement_seconds = statement_seconds
        self._slots = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[Connection] = []

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection for the block; waits for one where all are taken."""
        with self._slots:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = connect(self._url, self._statement_seconds)
                connection.autocommit = True
            try:
                yield connection
            except psycopg2.Error:
                if connection.closed:
                    self.close()  # the idle ones went down with the same server
                raise
            finally:
                if connection.closed or not self._reset(connection):
                    connection.close()
                else:
                    with self._lock:
                        self._idle.append(connection)

    def close(self) -> None:
        """Closes what is idle; the pool may be used again."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @staticmethod
    def _reset(connection: Connection) -> bool:
        try:
            if not connection.autocommit:
                connection.rollback()
                connection.autocommit = True
        except psycopg2.Error:
            return False
        return True


class Database:
    """What asks Postgres; safe to share among threads.

    Nothing is contacted before the first call. Every method raises `CatalogUnavailable` where
    Postgres does not answer.

    Args:
        url: libpq URL, such as `postgresql://user:password@host:5432/cf_lab`.
        pool_size: connections for queries, at most.
        statement_seconds: after which a query is given up; 0 is never.
    """

    def __init__(self, url: str, pool_size: int = 1, statement_seconds: float = 0.0) -> None:
        self._url = url
        self._pool = Pool(url, pool_size, statement_seconds)

    def close(self) -> None:
        """Closes the idle connections."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, query: str, params: Any = ()) -> list[tuple[Any, ...]]:
        try:
            return self._rows_once(query, params)
        except CatalogUnavailable:
            # Of a server that was started anew the pool's connections are dead; that shows at
            # the next use only. What is wrong with a new one is truly wrong.
            self._pool.close()
            return self._rows_once(query, params)

    def _rows_once(self, query: str, params: Any) -> list[tuple[Any, ...]]:
        with (
            translated(self._url),
            self._pool.connection() as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(query, params)
            return cursor.fetchall()

    def _in_transaction(self, work: Callable[[Connection], T]) -> T:
        # A connection of its own: these are rare, may take minutes, and have no time limit.
        with translated(self._url), closing(connect(self._url)) as connection, connection:
            return work(connection)
