"""Finds the current release, its records and pictures: Redis first, then Postgres, on one loop.

**The pointer.** A thread follows Postgres, which tells it of each change of the current release,
and is asked once a second in case that it could not tell. Each request takes the id last known,
once, for all that it looks up, and a release's records never change, so nothing half-visible is
ever sent. Redis' copy of the pointer is only asked by a process that has known no release yet while
Postgres does not answer. While Postgres is away the id last known stays in use.

**Records.** Lookups of one moment travel together, as one MGET or one `id = ANY(...)`, and equal
ones as one: 2.5 times the throughput of single GETs, and a stampede for one cold key costs one
index scan. A key that Redis lacks is looked up in Postgres; a Redis that fails is left alone for a
second, so that its time-outs aren't paid by each request.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from threading import Event, Thread
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from redis import RedisError

from cf_lab_resources.api.access import SHADOW, Gatekeeper, named_release
from cf_lab_resources.api.answers import RELEASE_HEADER, Problem, no_release, unavailable
from cf_lab_resources.bucket import Bucket, content_key
from cf_lab_resources.cache import POINTER, record_key
from cf_lab_resources.catalog import Catalog, CatalogError, CatalogUnavailable, Release
from cf_lab_resources.catalog.ids import Kind, is_release_id

if TYPE_CHECKING:
    from prometheus_client import Counter
    from redis.asyncio import Redis
    from starlette.types import Scope

logger = logging.getLogger(__name__)

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

POINTER_SECONDS = 1.0  # after which Postgres is asked although it has told nothing
POINTER_PAUSE = 0.5  # until a Postgres that was away is followed anew
CACHE_SECONDS = 0.25
CACHE_PAUSE = 1.0
CATALOG_THREADS = 4  # more is slower: 4.2k lookups/s with 4 connections, 3.5k with 10
CATALOG_SECONDS = 5.0
PICTURE_THREADS = 4  # bounds the memory for pictures that are being read
TOGETHER = 500  # lookups in one request to a store
WAITING = 4096  # lookups that may wait; beyond it the answer is 503
KNOWN_PICTURES = 65_536
KNOWN_DOCUMENTS = 4


class Together(Generic[K, T]):
    """Lookups of one moment as one request to a store.

    Args:
        fetch: gives the values of keys, in their order.
        at_once: requests under way at the same time, at most.
    """

    def __init__(self, fetch: Callable[[list[K]], Awaitable[Sequence[T]]], at_once: int) -> None:
        self._fetch = fetch
        self._idle = at_once
        self._waiting: dict[K, list[asyncio.Future[T]]] = {}
        self._workers: set[asyncio.Task[None]] = set()

    async def get(self, key: K) -> T:
        """The value of a key.

        Raises:
            Problem: Too many lookups are waiting.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if key in self._waiting:
            self._waiting[key].append(future)
        elif len(self._waiting) >= WAITING:
            raise unavailable("too many lookups are waiting")
        else:
            self._waiting[key] = [future]
        if self._idle:
            self._idle -= 1
            # It starts when this turn of the loop ends, so after all requests of this moment.
            worker = loop.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        return await future

    async def _work(self) -> None:
        try:
            while self._waiting:
                keys = list(self._waiting)[:TOGETHER]
                futures = [self._waiting.pop(key) for key in keys]
                try:
                    values = await self._fetch(keys)
                except Exception as error:
                    for future in _open(chain.from_iterable(futures)):
                        future.set_exception(error)
                else:
                    for value, alike in zip(values, futures, strict=True):
                        for future in _open(alike):
                            future.set_result(value)
        finally:
            self._idle += 1


def _open(futures: Iterable[asyncio.Future[T]]) -> Iterator[asyncio.Future[T]]:
    """Those that are still awaited: a request may have been given up."""
    return (future for future in futures if not future.done())


class Recent(Generic[K, T]):
    """The values used last, at most `size` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[K, T] = OrderedDict()

    def get(self, key: K) -> T | None:
        """The value of a key; None where it isn't held."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: K, value: T) -> T:
        """Holds a value, and lets go of the one that was not used for longest."""
        self._values[key] = value
        if len(self._values) > self._size:
            self._values.popitem(last=False)
        return value


class Lookups:
    """What the API's endpoints ask; used on one event loop.

    Args:
        catalog: with a pool of at least `CATALOG_THREADS` + 1 connections.
        redis: with short time-outs.
        bucket: holds pictures and reports.
        gatekeeper: knows who may name a release.
        answered: counts records by the store that they came from.
        known: the release that is answered from, until `follow_pointer` says otherwise.
    """

    def __init__(
        self,
        catalog: Catalog,
        redis: Redis,
        bucket: Bucket,
        gatekeeper: Gatekeeper,
        answered: Counter,
        known: str | None = None,
    ) -> None:
        self.known = known
        self._catalog = catalog
        self._redis = redis
        self._bucket = bucket
        self._gatekeeper = gatekeeper
        self._from_cache = answered.labels("redis")
        self._from_catalog = answered.labels("postgres")
        self._threads = ThreadPoolExecutor(CATALOG_THREADS, thread_name_prefix="catalog")
        self._picture_threads = ThreadPoolExecutor(PICTURE_THREADS, thread_name_prefix="picture")
        self._first: Together[None, str | None] = Together(self._ask, at_once=1)
        self._closed = Event()
        self._cache_paused_until = 0.0
        self._in_cache: Together[str, bytes | None] = Together(self._mget, at_once=2)
        self._in_catalog: Together[tuple[Kind, str, str], bytes | None] = Together(
            self._select, at_once=CATALOG_THREADS
        )
        self._releases: Recent[str, Release] = Recent(KNOWN_DOCUMENTS)
        self._pictures: Recent[tuple[str, str], bool] = Recent(KNOWN_PICTURES)
        self._documents: Recent[str, bytes] = Recent(KNOWN_DOCUMENTS)

    def follow_pointer(self) -> None:
        """Begins to follow Postgres' pointer, on the running loop, until `close`."""
        loop = asyncio.get_running_loop()
        # Its own thread, so that it waits behind no lookups, and none that holds up the end.
        Thread(target=self._follow, args=(loop,), name="pointer", daemon=True).start()

    async def close(self) -> None:
        """Ends threads and connections."""
        self._closed.set()
        for threads in (self._threads, self._picture_threads):
            threads.shutdown(wait=False, cancel_futures=True)
        self._gatekeeper.close()
        self._catalog.close()
        await self._redis.aclose()

    async def current_id(self) -> str:
        """Id of the current release.

        Raises:
            Problem: 503, no release is current.
        """
        if self.known is None:
            first = await self._first.get(None)
            self.known = self.known or first  # it may have been told meanwhile, of a later one
        if self.known is None:
            raise no_release()
        return self.known

    async def release_of(self, scope: Scope) -> str:
        """Id of the release that a request is answered from: the current one, or one it names.

        Raises:
            Problem: 401 or 403, the request may name none; 404, there is none to look up in; 422,
                it is no id; 503, none is named and none is current.
            CatalogError: Postgres refuses or does not answer.
        """
        named = named_release(scope)
        if named is None or named == self.known:
            return await self.current_id()
        await self._gatekeeper.admit(scope, SHADOW)
        release = await self.in_thread(self._catalog.get_release, named)
        if release is None or release.state == "withdrawn" or release.dropped_at is not None:
            raise Problem(
                404,
                f"there is no release {named} to look up in: it is unknown, withdrawn, or its "
                "records were dropped; see `cf-lab release list`",
                [(RELEASE_HEADER, named.encode())],
            )
        return named

    async def release(self, release_id: str) -> Release:
        """What is known of a release whose id `release_of` gave.

        Raises:
            Problem: 503, it is gone.
            CatalogError: Postgres refuses or does not answer.
        """
        known = self._releases.get(release_id)
        if known is not None and release_id == self.known:
            return known
        release = await self.in_thread(self._catalog.get_release, release_id)
        if release is None:
            raise no_release()
        # Others change their state.
        return self._releases.put(release_id, release) if release.state == "current" else release

    async def event_counts(self) -> dict[str, int]:
        """How many events of each kind the releases' history has.

        Raises:
            CatalogError: Postgres refuses or does not answer.
        """
        return await self.in_thread(self._catalog.event_counts)

    async def published(self, limit: int) -> list[Release]:
        """Releases that are or were current, newest first."""
        states = ("current", "superseded", "withdrawn")
        return await self.in_thread(self._catalog.list_releases, limit, states)

    async def record(self, kind: Kind, release_id: str, record_id: str) -> bytes | None:
        """A record as it is sent; None where the release has none of that id."""
        if time.monotonic() >= self._cache_paused_until:
            found = await self._in_cache.get(record_key(release_id, kind, record_id))
            if found is not None:
                self._from_cache.inc()
                return found
        self._from_catalog.inc()
        return await self._in_catalog.get((kind, release_id, record_id))

    async def pairs(self, release_id: str, ids: Sequence[str]) -> list[bytes | None]:
        """Records of pairs: as many as ids, in their order, None for missing ones."""
        found: list[bytes | None] = [None] * len(ids)
        if time.monotonic() >= self._cache_paused_until:
            found = await self._mget([record_key(release_id, "pair", id_) for id_ in ids])
        missing = list({id_ for id_, body in zip(ids, found, strict=True) if body is None})
        self._from_cache.inc(sum(body is not None for body in found))
        if not missing:
            return found
        self._from_catalog.inc(len(missing))
        bodies = await self.in_thread(self._catalog.pairs, release_id, missing)
        late = dict(zip(missing, bodies, strict=True))
        return [late[i] if body is None else body for i, body in zip(ids, found, strict=True)]

    async def has_picture(self, release_id: str, sha256: str) -> bool:
        """Whether the release has this picture."""
        key = (release_id, sha256)
        if self._pictures.get(key):
            return True
        if not await self.in_thread(self._catalog.has_image, release_id, sha256):
            return False
        return self._pictures.put(key, True)

    async def picture(self, sha256: str) -> bytes:
        """A picture's bytes, which are those that its hash names.

        Pictures are read whole, since one that is damaged must not be begun: they have at most
        1024 pixels an edge, and as many are read at a time as there are threads.
        """
        key = content_key("images", sha256, ".png")
        data = await self.in_thread(self._bucket.get_bytes, key, threads=self._picture_threads)
        if hashlib.sha256(data).hexdigest() != sha256:
            logger.error("%s does not have the hash of its name; restore the bucket", key)
            raise unavailable("the picture is damaged and must be restored from the backup")
        return data

    async def document(self, key: str) -> bytes:
        """A released document's bytes, by its content key."""
        known = self._documents.get(key)
        if known is not None:
            return known
        data = await self.in_thread(self._bucket.get_bytes, key, threads=self._picture_threads)
        return self._documents.put(key, data)

    async def check(self) -> dict[str, str]:
        """How Postgres and Redis are: "ok", or "down" for each."""
        return {
            "postgres": await self._state(self.in_thread(self._catalog.ping)),
            "redis": await self._state(cast("Awaitable[object]", self._redis.ping())),
        }

    async def in_thread(
        self,
        call: Callable[..., T],
        *args: object,
        threads: ThreadPoolExecutor | None = None,
    ) -> T:
        """What a blocking call returns.

        Raises:
            BucketKeyError: An object is missing.
            CatalogError: Postgres refuses or does not answer.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(threads or self._threads, call, *args)

    @staticmethod
    async def _state(call: Awaitable[object]) -> str:
        try:
            await asyncio.wait_for(call, 2.0)
        except (CatalogError, RedisError, OSError, TimeoutError):
            return "down"
        return "ok"

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tells the loop of each change; where Postgres is away, the id last known stays in use."""
        while not self._closed.is_set():
            try:
                for release_id in self._catalog.follow(POINTER_SECONDS):
                    loop.call_soon_threadsafe(self._tell, release_id)
            except CatalogUnavailable:
                pass
            except CatalogError:  # no tables yet, so no release
                loop.call_soon_threadsafe(self._tell, None)
            except RuntimeError:  # the loop is closed
                return
            self._closed.wait(POINTER_PAUSE)

    def _tell(self, release_id: str | None) -> None:
        self.known = release_id

    async def _ask(self, once: list[None]) -> list[str | None]:
        try:
            return [await self.in_thread(self._catalog.current_id)] * len(once)
        except CatalogUnavailable:
            return [await self._hint()] * len(once)
        except CatalogError:  # no tables yet, so no release
            return [None] * len(once)

    async def _hint(self) -> str | None:
        try:
            value = await self._redis.get(POINTER)
        except (RedisError, OSError):
            return None
        hint = value.decode(errors="replace") if isinstance(value, bytes) else ""
        return hint if is_release_id(hint) else None

    async def _mget(self, keys: list[str]) -> list[bytes | None]:
        try:
            return cast("list[bytes | None]", await self._redis.mget(keys))
        except (RedisError, OSError) as error:
            logger.warning("Redis does not answer, lookups go to Postgres: %s", error)
            self._cache_paused_until = time.monotonic() + CACHE_PAUSE
            return [None] * len(keys)

    async def _select(self, keys: list[tuple[Kind, str, str]]) -> list[bytes | None]:
        ids: dict[tuple[Kind, str], list[str]] = defaultdict(list)
        for kind, release_id, record_id in keys:
            ids[kind, release_id].append(record_id)
        found: dict[tuple[Kind, str, str], bytes | None] = {}
        for (kind, release_id), wanted in ids.items():
            bodies = await self.in_thread(self._catalog.records, kind, release_id, wanted)
            found.update(((kind, release_id, i), b) for i, b in zip(wanted, bodies, strict=True))
        return [found[key] for key in keys]
