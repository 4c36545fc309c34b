"""The much-used lookups as plain ASGI endpoints: stored bytes go out without being parsed.

Each checks its input before it asks anything. They stand in FastAPI's router as Starlette routes,
which skips FastAPI's own work on each request (8.7k against 6.4k requests/s); their OpenAPI entries
are in `documentation`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from cf_lab_resources.api.answers import (
    JSON,
    RELEASE_HEADER,
    Problem,
    send_bytes,
    unavailable,
)
from cf_lab_resources.api.lookups import Lookups
from cf_lab_resources.bucket import BucketKeyError
from cf_lab_resources.catalog.ids import MAX_ID_LENGTH, Kind, is_record_id, is_sha256

BATCH_IDS = 500
BODY_BYTES = 256 * 1024  # 500 ids of 200 characters take 100 kB; white space may double it
BODY_SECONDS = 10.0
_NOT_CACHED = (b"cache-control", b"no-cache")
_FOREVER = (b"cache-control", b"public, max-age=31536000, immutable")

GetLookups = Callable[[], Lookups]


class HotRoute(Route):
    """A Starlette route that tells its template, as FastAPI's own routes do."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether this is the request's route; see Starlette."""
        match, child_scope = super().matches(scope)
        if match is not Match.NONE:
            child_scope["route"] = self
        return match, child_scope


class RecordEndpoint:
    """GET of one pair or one set."""

    def __init__(self, lookups: GetLookups, kind: Kind) -> None:
        self._lookups = lookups
        self._kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers with the record's stored bytes."""
        record_id = _checked_id(scope["path_params"]["record_id"], self._kind)
        lookups = self._lookups()
        release_id = await lookups.release_of(scope)
        body = await lookups.record(self._kind, release_id, record_id)
        header = (RELEASE_HEADER, release_id.encode())
        if body is None:
            raise Problem(
                404,
                f"release {release_id} has no {self._kind} {record_id!r}; take an id from another "
                "record of the same release",
                [header],
            )
        await send_bytes(send, 200, JSON, body, (header, _NOT_CACHED))


class BatchEndpoint:
    """POST of many pairs' ids."""

    def __init__(self, lookups: GetLookups) -> None:
        self._lookups = lookups

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers with a slot for each id, in their order."""
        ids = _parse_ids(await _read_body(receive))
        lookups = self._lookups()
        release_id = await lookups.release_of(scope)
        records = await lookups.pairs(release_id, ids)
        slots = (
            b'{"id":"%b","found":false}' % id_.encode()
            if record is None
            else b'{"id":"%b","found":true,"pair":%b}' % (id_.encode(), record)
            for id_, record in zip(ids, records, strict=True)
        )
        body = b'{"release_id":"%b","results":[%b]}' % (release_id.encode(), b",".join(slots))
        header = (RELEASE_HEADER, release_id.encode())
        await send_bytes(send, 200, JSON, body, (header, _NOT_CACHED))


class PictureEndpoint:
    """GET of a picture by its hash."""

    def __init__(self, lookups: GetLookups) -> None:
        self._lookups = lookups

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers with a PNG, or 304 for those who have it."""
        sha256 = scope["path_params"]["sha256"]
        if not is_sha256(sha256):
            raise Problem(
                422,
                "a picture's id has 64 lower-case hexadecimal digits; take it from a record's "
                "image_sha256",
            )
        lookups = self._lookups()
        release_id = await lookups.release_of(scope)
        header = (RELEASE_HEADER, release_id.encode())
        if not await lookups.has_picture(release_id, sha256):
            raise Problem(
                404,
                f"release {release_id} has no picture {sha256}; take the hash from one of its "
                "records",
                [header],
            )
        etag = f'"{sha256}"'
        # What is not current is for one key's eyes, and no shared cache's.
        kept = _FOREVER if release_id == lookups.known else _NOT_CACHED
        headers = (header, kept, (b"etag", etag.encode()))
        if _has_etag(scope, etag):
            await send({"type": "http.response.start", "status": 304, "headers": list(headers)})
            await send({"type": "http.response.body", "body": b""})
            return
        try:
            data = await lookups.picture(sha256)
        except BucketKeyError as error:
            raise unavailable(
                "the picture is not in the bucket and must be restored from the backup"
            ) from error
        await send_bytes(send, 200, b"image/png", data, headers)


def _checked_id(record_id: str, kind: Kind) -> str:
    if not is_record_id(record_id):
        raise Problem(
            422,
            f"not a {kind}'s id; it is 's' and 15 hexadecimal digits, then the attribute"
            + (" and the value" if kind == "pair" else "")
            + f", joined by '-', in all {MAX_ID_LENGTH} characters at most",
        )
    return record_id


async def _read_body(receive: Receive) -> bytes:
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Problem(400, "the request's body ended early; send it whole")
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > BODY_BYTES:
                    raise Problem(
                        413,
                        f"the body has more than {BODY_BYTES} bytes; send {BATCH_IDS} ids at most",
                        [(b"connection", b"close")],
                    )
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError as error:
        raise Problem(
            408,
            f"the body did not come within {BODY_SECONDS:.0f} s; send the request again",
            [(b"connection", b"close")],
        ) from error


def _parse_ids(body: bytes) -> list[str]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f'the body is not JSON ({error}); send {{"ids": [...]}}') from error
    ids = parsed.get("ids") if isinstance(parsed, dict) else None
    if not isinstance(ids, list) or len(parsed) != 1:
        raise Problem(422, 'the body must be an object with the one field ids: {"ids": [...]}')
    if not 1 <= len(ids) <= BATCH_IDS:
        raise Problem(422, f"ids has {len(ids)} entries; send 1 to {BATCH_IDS}")
    for at, record_id in enumerate(ids):
        if not isinstance(record_id, str) or not is_record_id(record_id):
            raise Problem(
                422,
                f"ids[{at}] is not a pair's id; it is 's' and 15 hexadecimal digits, then the "
                "attribute and the value, joined by '-'",
            )
    return ids


def _has_etag(scope: Scope, etag: str) -> bool:
    sent = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
    known = [one.strip().removeprefix("W/") for one in sent.decode("latin-1").split(",")]
    return etag in known or "*" in known
