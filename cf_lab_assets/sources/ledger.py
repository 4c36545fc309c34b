"""What an ingest remembers of the rows that it has seen, on disk, so that memory stays flat.

A SQLite file in the scratch folder. It answers what can't be told from a row alone: whether it
came before, whether its picture came with other attributes, whether a picture looks like an
earlier one, and which pictures no row named. It is thrown away with the scratch folder.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Two pictures are near duplicates where their 64-bit perceptual hashes differ in at most this
# many bits. Measured on 600 starter portraits of 64 pixels and 2000 drawings: of those encoded
# again as JPEG at quality 90, or reduced to three quarters, all are within 2 bits; at quality 60,
# 98.5 %; of the 180,000 pairs of different portraits 11 are, and of the drawings none.
NEAR_BITS = 2
# Of hashes that differ in no more bits than that, at least one of so many bands is the same, so
# that an index of each band finds them without comparing all with all (pigeonhole; Manku, Jain and
# Das Sarma 2007, "Detecting near-duplicates for web crawling", section 3).
BANDS = NEAR_BITS + 1
BAND_BITS = -(-64 // BANDS)
CANDIDATES = 256  # looked at of one band: flat pictures share bands by the thousand

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE named (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE pairs (pair BLOB PRIMARY KEY, file_name TEXT, hash BLOB) WITHOUT ROWID;
CREATE TABLE pictures (
    pixels BLOB PRIMARY KEY, attributes TEXT, near TEXT, source_id TEXT, look INTEGER
);
"""


@dataclass(frozen=True)
class KnownPicture:
    """What is known of a picture: its person's attributes, and which picture it is nearly."""

    attributes: dict[str, str]
    near_duplicate_of: str | None


class Ledger:
    """Kept by one thread; close it after use."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.executescript(_SCHEMA)
        for band, expression in enumerate(_EXPRESSIONS):
            self._db.execute(f"CREATE INDEX band_{band} ON pictures ({expression})")
        self._db.execute("BEGIN")

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def note_name(self, name: str) -> None:
        """Remembers that a row names this file."""
        self._db.execute("INSERT OR IGNORE INTO named VALUES (?)", (name,))

    def is_named(self, name: str) -> bool:
        """Whether a row named this file."""
        return bool(self._one("SELECT 1 FROM named WHERE name = ?", name))

    def file_of(self, pixels: str, caption: str) -> str | None:
        """The file name of the earlier row with this picture and caption, None where none is."""
        row = self._one("SELECT file_name FROM pairs WHERE pair = ?", _pair(pixels, caption))
        return row[0] if row else None

    def picture(self, pixels: str) -> KnownPicture | None:
        """What is known of a picture that came before."""
        row = self._one(
            "SELECT attributes, near FROM pictures WHERE pixels = ?", bytes.fromhex(pixels)
        )
        return KnownPicture(json.loads(row[0]), row[1]) if row else None

    def near(self, look: int) -> str | None:
        """The id of the first pair whose picture looks the same, None where none does."""
        signed = _signed(look)
        bands = [signed >> band * BAND_BITS & _BAND_MASK for band in range(BANDS)]
        for other, source_id in self._db.execute(_ALIKE, bands):
            if ((signed ^ other) & _LOOK_MASK).bit_count() <= NEAR_BITS:
                return str(source_id)
        return None

    def add_picture(self, pixels: str, look: int, source_id: str, known: KnownPicture) -> None:
        """Remembers a picture that did not come before."""
        self._db.execute(
            "INSERT INTO pictures VALUES (?, ?, ?, ?, ?)",
            (
                bytes.fromhex(pixels),
                _encode(known.attributes),
                known.near_duplicate_of,
                source_id,
                _signed(look),
            ),
        )

    def set_attributes(self, pixels: str, attributes: Mapping[str, str]) -> None:
        """Remembers more attributes of a picture that came before."""
        self._db.execute(
            "UPDATE pictures SET attributes = ? WHERE pixels = ?",
            (_encode(attributes), bytes.fromhex(pixels)),
        )

    def add_pair(self, pixels: str, caption: str, file_name: str, row_hash: bytes) -> None:
        """Remembers a row that was taken."""
        self._db.execute(
            "INSERT INTO pairs VALUES (?, ?, ?)", (_pair(pixels, caption), file_name, row_hash)
        )

    def pictures(self) -> int:
        """How many different pictures came."""
        return int(self._one("SELECT count(*) FROM pictures")[0])

    def row_hashes(self) -> Iterator[bytes]:
        """The hashes of all rows that were taken, in order of the hash."""
        return (row[0] for row in self._db.execute("SELECT hash FROM pairs ORDER BY hash"))

    def _one(self, query: str, *values: object) -> Any:
        return self._db.execute(query, values).fetchone()


_encode = json.JSONEncoder().encode
_LOOK_MASK = (1 << 64) - 1
_BAND_MASK = (1 << BAND_BITS) - 1
_EXPRESSIONS = [f"(look >> {band * BAND_BITS} & {_BAND_MASK})" for band in range(BANDS)]
_ALIKE = " UNION ALL ".join(
    f"SELECT * FROM (SELECT look, source_id FROM pictures WHERE {expression} = ? "
    f"LIMIT {CANDIDATES})"
    for expression in _EXPRESSIONS
)


def _signed(look: int) -> int:
    """The same 64 bits as SQLite's integers have them."""
    return look - (1 << 64) if look >> 63 else look


def _pair(pixels: str, caption: str) -> bytes:
    return hashlib.sha256(f"{pixels}\n{caption}".encode()).digest()[:16]
