"""Keys of the lookup API as Postgres has them: a digest each, never the key itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cf_lab_resources.catalog.connections import CatalogError, Database

_COLUMNS = "key_id, name, scopes, created_at, expires_at, revoked_at, digest"


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key.

    Attributes:
        key_id: 8 hexadecimal digits, which the key itself shows.
        name: whose it is, or what for.
        scopes: what it opens.
        created_at: When it was made.
        expires_at: From when on it opens nothing.
        revoked_at: When it was taken back; None where it was not.
        digest: HMAC-SHA256 of the key.
    """

    key_id: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    digest: bytes = field(repr=False)

    def state(self, now: datetime) -> str:
        """Valid, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "valid" if now < self.expires_at else "expired"


class ApiKeys(Database):
    """The table of keys; safe to share among threads."""

    def add(
        self, key_id: str, digest: bytes, name: str, scopes: Sequence[str], expires_at: datetime
    ) -> ApiKey:
        """Keeps a new key."""
        (row,) = self._rows(
            "INSERT INTO api_keys (key_id, digest, name, scopes, expires_at)"
            f" VALUES (%s, %s, %s, %s, %s) RETURNING {_COLUMNS}",
            (key_id, digest, name, list(scopes), expires_at),
        )
        return _key(row)

    def find(self, key_id: str) -> ApiKey | None:
        """A key by its id, valid or not; None where there is none."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM api_keys WHERE key_id = %s", (key_id,))
        return _key(rows[0]) if rows else None

    def all(self) -> list[ApiKey]:
        """All keys ever made, oldest first."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM api_keys ORDER BY created_at, key_id")
        return [_key(row) for row in rows]

    def revoke(self, key_id: str) -> ApiKey:
        """Takes a key back; the row stays. One that was taken back before keeps its time.

        Raises:
            CatalogError: There is no such key.
        """
        rows = self._rows(
            "UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp())"
            f" WHERE key_id = %s RETURNING {_COLUMNS}",
            (key_id,),
        )
        if not rows:
            raise CatalogError(f"there is no key {key_id!r}; see `cf-lab keys list`")
        return _key(rows[0])


def _key(row: Sequence[Any]) -> ApiKey:
    key_id, name, scopes, created_at, expires_at, revoked_at, digest = row
    return ApiKey(key_id, name, scopes, created_at, expires_at, revoked_at, bytes(digest))
