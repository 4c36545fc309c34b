"""Rows by key on disk: looked up, and read in order, in flat memory however many there are.

A SQLite file that is thrown away with the folder that it lies in.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cf_lab_assets.counterfactuals.tables import ScratchError

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -4096; -- KiB; what is larger is on disk
CREATE TABLE rows (kind TEXT, key TEXT, row TEXT, PRIMARY KEY (kind, key)) WITHOUT ROWID;
"""


class Shelf:
    """JSON-compatible rows of several kinds, each under a key.

    Writing raises ScratchError where the disk has no room.
    """

    def __init__(self, path: Path) -> None:
        """Begin with no rows.

        Args:
            path: a file that is not there yet.
        """
        self._path = path
        with self._on_disk():
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.executescript(_SCHEMA)
            self._db.execute("BEGIN")

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def put(self, kind: str, key: str, row: Mapping[str, Any]) -> bool:
        """Keep a row; False, and the first one stays, where there is one under the key."""
        return self._write("INSERT OR IGNORE INTO rows VALUES (?, ?, ?)", kind, key, row) == 1

    def replace(self, kind: str, key: str, row: Mapping[str, Any]) -> None:
        """Keep a row in the place of the one under the key, if there is one."""
        self._write("REPLACE INTO rows VALUES (?, ?, ?)", kind, key, row)

    def _write(self, statement: str, kind: str, key: str, row: Mapping[str, Any]) -> int:
        with self._on_disk():
            return self._db.execute(statement, (kind, key, json.dumps(row))).rowcount

    @contextmanager
    def _on_disk(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise ScratchError(
                f"{self._path} can't be written: {error}; make room there and run again"
            ) from error

    def has(self, kind: str, key: str) -> bool:
        """Whether there is a row under a key."""
        found = self._db.execute("SELECT 1 FROM rows WHERE kind = ? AND key = ?", (kind, key))
        return found.fetchone() is not None

    def get(self, kind: str, key: str) -> dict[str, Any]:
        """The row under a key.

        Raises:
            KeyError: there is none.
        """
        found = self._db.execute(
            "SELECT row FROM rows WHERE kind = ? AND key = ?", (kind, key)
        ).fetchone()
        if found is None:
            raise KeyError((kind, key))
        row: dict[str, Any] = json.loads(found[0])
        return row

    def in_order(self, kind: str) -> Iterator[dict[str, Any]]:
        """All rows of a kind, in the order of their keys' code points."""
        for (row,) in self._db.execute("SELECT row FROM rows WHERE kind = ? ORDER BY key", (kind,)):
            yield json.loads(row)

    def clear(self, *kinds: str) -> None:
        """Forget all rows of some kinds."""
        for kind in kinds:
            self._db.execute("DELETE FROM rows WHERE kind = ?", (kind,))
