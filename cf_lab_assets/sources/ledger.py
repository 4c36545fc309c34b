"""What an ingest remembers of the rows that it has seen, on disk, so that memory stays flat.

A SQLite file in the scratch folder. It answers what can't be told from a row alone: whether it
came before, whether its picture came with other attributes, whether a picture looks like an
earlier one, and which pictures no row named. It is thrown away with the scratch folder.

Rows come in groups, and each table is asked and written once for a group. A statement costs more
than the work that it does for a row: at each step of one, SQLite's binding lets the threads that
decode run, and waits to get its turn back.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

# Two pictures are near duplicates where their 64-bit perceptual hashes differ in at most this
# many bits. Measured on 600 starter portraits of 64 pixels and 2000 drawings: of those encoded
# again as JPEG at quality 90, or reduced to three quarters, all are within 2 bits; at quality 60,
# 98.5 %; of the 180,000 pairs of different portraits 11 are, and of the drawings none.
NEAR_BITS = 2
# Of hashes that differ in no more bits than that, at least one of so many bands is the same, so
# that an index of each band finds them without comparing all with all (pigeonhole; Manku, Jain and
# Das Sarma 2007, "Detecting near-duplicates for web crawling", section 3). A band has every third
# bit, as bits side by side are of like frequencies and say much the same: of drawings, fifteen
# times as many share a band of those.
BANDS = NEAR_BITS + 1
CANDIDATES = 256  # looked at of one band: flat pictures share bands by the thousand

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -16384; -- KiB; what is larger is on disk
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


class Sought(NamedTuple):
    """A row that may have come before: its picture's pixels and perceptual hash, and its caption.

    `pixels` is empty and `look` None where there is no picture.
    """

    pixels: str
    caption: str
    look: int | None


class Ledger:
    """Kept by one thread; close it after use.

    `look_up` begins a group of rows, and `write` ends it. In between the ledger answers for these
    rows only, from what it found and from what came earlier in the group.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.executescript(_SCHEMA)
        for band, expression in enumerate(_EXPRESSIONS):
            self._db.execute(f"CREATE INDEX band_{band} ON pictures ({expression})")
        self._db.execute("BEGIN")
        self.look_up([])

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def look_up(self, rows: Sequence[Sought]) -> None:
        """Begins a group of at most 160 rows: finds what is on disk of them."""
        self._pairs = {(row.pixels, row.caption): _pair(row) for row in rows}
        self._files: dict[bytes, str] = {}
        self._pictures: dict[str, KnownPicture] = {}
        self._alike: dict[int, str] = {}
        self._new_pairs: list[tuple[bytes, str, bytes]] = []
        self._new_pictures: dict[str, tuple[int, str]] = {}
        if not rows:
            return
        self._files.update(self._many(_FILES, list(self._pairs.values())))
        pictures = {row.pixels: _signed(row.look) for row in rows if row.look is not None}
        for pixels, attributes, near in self._many(_PICTURES, [*map(bytes.fromhex, pictures)]):
            self._pictures[pixels.hex()] = KnownPicture(json.loads(attributes), near)
        looks = {look for pixels, look in pictures.items() if pixels not in self._pictures}
        bands = [value for look in looks for mask in _MASKS for value in (look, look & mask)]
        for look, other, source_id in self._many(_ALIKE, bands):
            if _is_near(look, other):
                self._alike.setdefault(look, source_id)

    def file_of(self, pixels: str, caption: str) -> str | None:
        """The file name of the earlier row with this picture and caption, None where none is."""
        return self._files.get(self._pairs[pixels, caption])

    def picture(self, pixels: str) -> KnownPicture | None:
        """What is known of a picture that came before."""
        return self._pictures.get(pixels)

    def near(self, look: int) -> str | None:
        """The id of the first pair whose picture looks the same, None where none does."""
        signed = _signed(look)
        if signed in self._alike:
            return self._alike[signed]
        return next((id_ for it, id_ in self._new_pictures.values() if _is_near(signed, it)), None)

    def add_picture(self, pixels: str, look: int, source_id: str, known: KnownPicture) -> None:
        """Remembers a picture that did not come before."""
        self._pictures[pixels] = known
        self._new_pictures[pixels] = _signed(look), source_id

    def set_attributes(self, pixels: str, attributes: dict[str, str]) -> None:
        """Remembers more attributes of a picture that came before."""
        known = self._pictures[pixels]
        self._pictures[pixels] = KnownPicture(attributes, known.near_duplicate_of)
        if pixels not in self._new_pictures:
            self._db.execute(
                "UPDATE pictures SET attributes = ? WHERE pixels = ?",
                (_encode(attributes), bytes.fromhex(pixels)),
            )

    def add_pair(self, pixels: str, caption: str, file_name: str, row_hash: bytes) -> None:
        """Remembers a row that was taken."""
        pair = self._pairs[pixels, caption]
        self._files[pair] = file_name
        self._new_pairs.append((pair, file_name, row_hash))

    def write(self) -> None:
        """Ends the group: what is new in it goes to disk."""
        self._many(_ADD_PAIRS, [value for pair in self._new_pairs for value in pair])
        values: list[object] = []
        for pixels, (look, source_id) in self._new_pictures.items():
            known = self._pictures[pixels]
            attributes = _encode(known.attributes)
            values += bytes.fromhex(pixels), attributes, known.near_duplicate_of, source_id, look
        self._many(_ADD_PICTURES, values)
        self.look_up([])

    def note_name(self, name: str) -> None:
        """Remembers that a row names this file."""
        self._db.execute("INSERT OR IGNORE INTO named VALUES (?)", (name,))

    def is_named(self, name: str) -> bool:
        """Whether a row named this file."""
        return bool(self._one("SELECT 1 FROM named WHERE name = ?", name))

    def pictures(self) -> int:
        """How many different pictures came."""
        return int(self._one("SELECT count(*) FROM pictures")[0])

    def row_hashes(self) -> Iterator[bytes]:
        """The hashes of all rows that were taken, in order of the hash."""
        return (row[0] for row in self._db.execute("SELECT hash FROM pairs ORDER BY hash"))

    def _one(self, query: str, *values: object) -> Any:
        return self._db.execute(query, values).fetchone()

    def _many(self, query: _Many, values: Sequence[object]) -> Iterator[Any]:
        """The answers to a query that is said once for all values, none where there are none."""
        times = len(values) // query.part.count("?")
        if not times:
            return iter(())
        parts = query.between.join([query.part] * times)
        return self._db.execute(f"{query.start}{parts}{query.end}", values)


class _Many(NamedTuple):
    """A statement whose part is repeated."""

    start: str
    part: str
    between: str = ", "
    end: str = ""


def _signed(look: int) -> int:
    """The same 64 bits as SQLite's integers have them."""
    return look - (1 << 64) if look >> 63 else look


_encode = json.JSONEncoder().encode
_MASKS = [_signed(sum(1 << bit for bit in range(band, 64, BANDS))) for band in range(BANDS)]
_LOOK_MASK = (1 << 64) - 1
_EXPRESSIONS = [f"(look & {mask})" for mask in _MASKS]
_FILES = _Many("SELECT pair, file_name FROM pairs WHERE pair IN (", "?", end=")")
_PICTURES = _Many("SELECT pixels, attributes, near FROM pictures WHERE pixels IN (", "?", end=")")
_ALIKE = _Many(
    "",
    " UNION ALL ".join(
        f"SELECT * FROM (SELECT ?, look, source_id FROM pictures WHERE {expression} = ? "
        f"LIMIT {CANDIDATES})"
        for expression in _EXPRESSIONS
    ),
    between=" UNION ALL ",
)
_ADD_PAIRS = _Many("INSERT INTO pairs VALUES ", "(?, ?, ?)")
_ADD_PICTURES = _Many("INSERT INTO pictures VALUES ", "(?, ?, ?, ?, ?)")


def _is_near(look: int, other: int) -> bool:
    return ((look ^ other) & _LOOK_MASK).bit_count() <= NEAR_BITS


def _pair(row: Sought) -> bytes:
    return hashlib.sha256(f"{row.pixels}\n{row.caption}".encode()).digest()[:16]
