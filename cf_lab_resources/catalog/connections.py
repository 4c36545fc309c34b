"""A small pool of psycopg2 connections, and the translation of psycopg2's errors.

psycopg2's own pool raises when it is exhausted; this one waits, since more than a handful of
connections only makes lookups slower.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import errors

from cf_lab_resources.errors import LabError
from cf_lab_resources.settings import redact

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

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
