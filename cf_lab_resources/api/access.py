"""Who may ask for more than the current release: keys, and the release that a request names.

A key is `cfl_<key_id>_<secret>`: the id finds its row, and 256 random bits need no slow hash. What
is stored is HMAC-SHA256 of the whole key under the lab's own secret, so that who reads the table,
or a backup of it, can neither use a key nor make one.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from starlette.types import Scope

from cf_lab_resources.api.answers import RELEASE_HEADER, Problem
from cf_lab_resources.catalog.api_keys import ApiKey, ApiKeys
from cf_lab_resources.catalog.ids import is_release_id
from cf_lab_resources.errors import LabError

SHADOW = "shadow"
SCOPES = {SHADOW: "look up in a release by its id, before it is current or afterwards"}
SECRET_BYTES = 32
DAYS = 90
MAXIMUM_DAYS = 366
KNOWN_SECONDS = 2.0  # how long a key that was revoked may still open
KNOWN_KEYS = 1024
_KEY = re.compile(r"cfl_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")
_CHALLENGE = [(b"www-authenticate", b"Bearer")]


class AccessError(LabError):
    """A key can't be made; the message says what is wrong."""


def read_secret(path: Path) -> bytes:
    """The lab's secret, under which keys are hashed; made where the file is missing.

    All API servers of a lab need the same file.

    Raises:
        AccessError: The file is no such secret.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(SECRET_BYTES))
        with suppress(FileExistsError):  # where two make one at once, the first one stays
            os.link(made, path)
        made.unlink()
    text = path.read_text(errors="replace").strip()
    if re.fullmatch(r"[0-9a-f]{64,}", text) is None:
        raise AccessError(
            f"{path} is not a secret of API keys: it must hold at least {SECRET_BYTES} random "
            "bytes in hexadecimal digits; restore it, or remove it and make all keys anew"
        )
    return bytes.fromhex(text)


def make_key(
    keys: ApiKeys, secret: bytes, name: str, scopes: Sequence[str], days: int = DAYS
) -> tuple[str, ApiKey]:
    """A new key, which is told this once, and its row.

    Raises:
        AccessError: A scope is unknown, there is none, the name is empty, or the days are not 1 to
            `MAXIMUM_DAYS`.
    """
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise AccessError(f"scope: {', '.join(unknown) or 'none'}; take one of {', '.join(SCOPES)}")
    if not name.strip():
        raise AccessError("name: it is empty; say whose key it is, or what for")
    if not 1 <= days <= MAXIMUM_DAYS:
        raise AccessError(f"days: {days}; a key lasts 1 to {MAXIMUM_DAYS} days")
    key_id = secrets.token_hex(4)
    key = f"cfl_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    expires_at = datetime.now(UTC) + timedelta(days=days)
    row = keys.add(key_id, digest(secret, key), name.strip(), sorted(set(scopes)), expires_at)
    return key, row


def digest(secret: bytes, key: str) -> bytes:
    """What is stored of a key: HMAC-SHA256 (RFC 2104), 32 bytes."""
    return hmac.digest(secret, key.encode(), hashlib.sha256)


def named_release(scope: Scope) -> str | None:
    """The release that a request names in the header `x-release-id`; None where it names none.

    Raises:
        Problem: 422, it is no release's id.
    """
    named = _header(scope, RELEASE_HEADER)
    if named is not None and not is_release_id(named):
        raise Problem(
            422,
            "x-release-id is not a release's id, which is 'r' and 12 hexadecimal digits; leave "
            "the header out for the current release",
        )
    return named


class Gatekeeper:
    """Knows keys for a moment, and asks Postgres for others; used on one event loop.

    Args:
        keys: the table.
        secret: under which keys are hashed.
    """

    def __init__(self, keys: ApiKeys, secret: bytes) -> None:
        self._keys = keys
        self._secret = secret
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keys")
        self._known: dict[bytes, tuple[float, ApiKey]] = {}

    def close(self) -> None:
        """Ends its thread and connection."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._keys.close()

    async def admit(self, scope: Scope, wanted: str) -> ApiKey:
        """The key that a request brings as a bearer token.

        Raises:
            Problem: 401, there is none or it is not valid; 403, it does not open this.
            CatalogError: Postgres refuses or does not answer.
        """
        sent = (_header(scope, b"authorization") or "").partition(" ")
        if sent[0].lower() != "bearer":
            raise Problem(
                401,
                f"this needs a key with the scope {wanted}; send it as 'Authorization: Bearer "
                "<key>', and have one made with `cf-lab keys create`",
                _CHALLENGE,
            )
        key = await self._find(sent[2].strip())
        if key is None or key.state(datetime.now(UTC)) != "valid":
            raise Problem(
                401,
                "the key is not valid: it is unknown, expired or revoked; have a new one made "
                "with `cf-lab keys create`",
                _CHALLENGE,
            )
        if wanted not in key.scopes:
            raise Problem(
                403,
                f"the key does not open this, which needs the scope {wanted}; have one with it "
                "made with `cf-lab keys create`",
            )
        return key

    async def _find(self, text: str) -> ApiKey | None:
        found = _KEY.fullmatch(text)
        if found is None:
            return None
        hashed = digest(self._secret, text)
        until, known = self._known.get(hashed, (0.0, None))
        if time.monotonic() < until:
            return known
        loop = asyncio.get_running_loop()
        row = await loop.run_in_executor(self._thread, self._keys.find, found[1])
        if row is None or not hmac.compare_digest(row.digest, hashed):
            self._known.pop(hashed, None)
            return None
        if len(self._known) >= KNOWN_KEYS:
            self._known.clear()
        self._known[hashed] = (time.monotonic() + KNOWN_SECONDS, row)
        return row


def _header(scope: Scope, name: bytes) -> str | None:
    for sent, value in scope["headers"]:
        if sent == name:
            return str(value.decode("latin-1")).strip()
    return None
