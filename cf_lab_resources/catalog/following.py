"""Following the pointer: who is told by Postgres of each change needn't ask at each request."""

from __future__ import annotations

import selectors
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from cf_lab_resources.catalog.connections import connect, translated

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

CHANNEL = "cf_lab_current"
CURRENT = "SELECT release_id FROM releases WHERE state = 'current'"
STATEMENT_SECONDS = 5.0


def tell(cursor: Cursor) -> None:
    """Tells all followers of a change, once this transaction is committed."""
    cursor.execute(f"NOTIFY {CHANNEL}")


def follow(url: str, seconds: float) -> Iterator[str | None]:
    """The id of the current release, without an end: now, after each change, and now and then.

    Args:
        url: libpq URL. Through a pooler that hands out connections by transaction no
            notification comes, and a change is seen after `seconds`.
        seconds: after which Postgres is asked although it has told nothing.

    Yields:
        The id; None where nothing is published.

    Raises:
        CatalogError: There are no tables yet.
        CatalogUnavailable: Postgres does not answer; follow anew.
    """
    with translated(url), closing(connect(url, STATEMENT_SECONDS)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor, selectors.DefaultSelector() as told:
            told.register(connection, selectors.EVENT_READ)
            cursor.execute(f"LISTEN {CHANNEL}")
            while True:
                cursor.execute(CURRENT)
                row = cursor.fetchone()
                yield str(row[0]) if row else None
                told.select(seconds)
                connection.poll()
                connection.notifies.clear()
