"""Redis: released records, ready to be sent, and a copy of the pointer to the current release.

The cache holds nothing that Postgres and the bucket have not, and may be emptied at any time:
who finds a key missing, or no server, asks the catalog. Records lie under their release's id, and
a release never changes, so no entry is ever wrong, only there or not. The pointer is a hint: it is
cleared before the catalog's is moved and set after, so that at worst it is missing (`releases`).
A hash tells of which releases records were written; where Redis' own limit of memory has pushed
it out, releases that it told of are the first whose records are pushed out too.

Every key is made by `record_key` and read back by `parse_key`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cf_lab_resources.catalog.ids import Kind, is_record_id, is_release_id
from cf_lab_resources.errors import LabError
from cf_lab_resources.settings import redact

if TYPE_CHECKING:
    import redis.asyncio


PREFIX = "cf"
POINTER = f"{PREFIX}:current"
WARMED = f"{PREFIX}:warmed"
MSET_RECORDS = 1000  # 600k records/s; a pipeline of as many SETs reaches 149k
SECONDS = 5.0


class CacheError(LabError):
    """Redis does not answer or refuses; callers go on with the catalog."""

    passing = True


@dataclass(frozen=True)
class CacheKey:
    """The parts of a record's key."""

    release_id: str
    kind: Kind
    id: str

    def __str__(self) -> str:
        return record_key(self.release_id, self.kind, self.id)


def record_key(release_id: str, kind: Kind, record_id: str) -> str:
    """The key of a record: `cf:<release_id>:<kind>:<id>`."""
    return f"{PREFIX}:{release_id}:{kind}:{record_id}"


def parse_key(key: str) -> CacheKey:
    """The parts of a key that `record_key` made.

    Raises:
        ValueError: It is no such key.
    """
    match key.split(":"):
        case [prefix, release_id, ("pair" | "set") as kind, record_id] if (
            prefix == PREFIX and is_release_id(release_id) and is_record_id(record_id)
        ):
            return CacheKey(release_id, kind, record_id)
    raise ValueError(f"not the key of a released record: {key!r}")


@dataclass(frozen=True)
class Memory:
    """What Redis takes of its machine's memory.

    Attributes:
        used: bytes.
        maximum: bytes at which it pushes keys out; None where it has no limit.
    """

    used: int
    maximum: int | None


class Cache:
    """Released records in Redis; safe to share among threads.

    Made by `open_cache`; nothing is contacted before the first call. Every method raises
    `CacheError` where Redis does not answer.
    """

    def __init__(self, url: str, client: redis.Redis) -> None:
        self._url = url
        self._client = client

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ping(self) -> None:
        """Returns if Redis answers; raises otherwise."""
        with self._errors():
            self._client.ping()

    def memory(self) -> Memory:
        """What it takes of memory, of all databases together."""
        with self._errors():
            found = cast("dict[str, int]", self._client.info("memory"))
        return Memory(int(found["used_memory"]), int(found["maxmemory"]) or None)

    def warm(self, release_id: str, records: Iterable[tuple[str, bytes]]) -> int:
        """Writes all records of one release, by their keys, and returns how many.

        Raises:
            ValueError: A key is of another release.
        """
        prefix, written = f"{PREFIX}:{release_id}:", 0
        records = iter(records)
        with self._errors():
            self._client.hset(WARMED, release_id, 0)  # not whole until it is
        while chunk := dict(islice(records, MSET_RECORDS)):
            for key in chunk:
                if not key.startswith(prefix):
                    raise ValueError(f"{key!r} is not a key of release {release_id}")
            with self._errors():
                self._client.mset(chunk)
            written += len(chunk)
        with self._errors():
            self._client.hset(WARMED, release_id, written)
        return written

    def warmed(self) -> dict[str, int]:
        """Releases that have records here, and how many were written; 0 where not all were."""
        with self._errors():
            found = cast("dict[bytes, bytes]", self._client.hgetall(WARMED))
        return {release_id.decode(): int(written) for release_id, written in found.items()}

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """What is stored under each key; None where nothing is."""
        with self._errors():
            found = self._client.mget(keys) if keys else []
        return cast("list[bytes | None]", found)

    def pointer(self) -> str | None:
        """The hint at the current release; None where there is none."""
        with self._errors():
            value = self._client.get(POINTER)
        return value.decode(errors="replace") if isinstance(value, bytes) else None

    def set_pointer(self, release_id: str) -> None:
        """Sets the hint; the catalog's pointer must have been moved before."""
        if not is_release_id(release_id):
            raise ValueError(f"not a release id: {release_id!r}")
        with self._errors():
            self._client.set(POINTER, release_id)

    def clear_pointer(self) -> None:
        """Takes the hint away; done before the catalog's pointer is moved."""
        with self._errors():
            self._client.delete(POINTER)

    def drop(self, release_id: str) -> int:
        """Removes a release's records, and returns how many; Redis frees them in the background."""
        removed = 0
        with self._errors():
            found = self._client.scan_iter(f"{PREFIX}:{release_id}:*", count=MSET_RECORDS)
            while chunk := list(islice(found, MSET_RECORDS)):
                removed += int(self._client.unlink(*chunk))
            self._client.hdel(WARMED, release_id)
        return removed

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            raise CacheError(
                f"the cache at {redact(self._url)} does not answer: {error}; check that Redis "
                "runs and that CF_LAB_REDIS_URL is right"
            ) from error


def open_cache(url: str) -> Cache:
    """The cache at a `redis://`, `rediss://` or `unix://` URL; nothing is contacted yet."""
    client = redis.Redis.from_url(
        url,
        socket_timeout=SECONDS,
        socket_connect_timeout=SECONDS,
        retry=Retry(NoBackoff(), 1),  # one more try mends connections that a restart has cut
    )
    return Cache(url, client)


def open_async_client(url: str, seconds: float) -> redis.asyncio.Redis:
    """A client for the API's event loop, which gives up after `seconds` rather than wait."""
    import redis.asyncio

    return redis.asyncio.Redis.from_url(
        url,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        retry=redis.asyncio.retry.Retry(NoBackoff(), 1),
    )
