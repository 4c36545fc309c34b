"""Publishing and rolling back: in Postgres at once, the cache's hint never wrong after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from cf_lab_assets.releases import candidate, pointer
from cf_lab_assets.releases.pointer import Moved, amiss, publish, reconcile, rollback
from cf_lab_resources.bucket import Bucket
from cf_lab_resources.cache import Cache, CacheError, open_cache, record_key
from cf_lab_resources.catalog import Catalog, CatalogError, Flip
from cf_lab_tests.releases.sample import write_dataset

PAIR = "s000000000000001-age-old"


def stage(bucket: Bucket, catalog: Catalog, cache: Cache, sources: int) -> str:
    write_dataset(bucket, sources=sources)
    content = candidate.read_content(bucket)
    candidate.stage_candidate(bucket, catalog, content)
    candidate.warm(catalog, cache, content.release_id)
    return content.release_id


def is_warm(cache: Cache, release_id: str) -> bool:
    return cache.get_many([record_key(release_id, "pair", PAIR)]) != [None]


@pytest.fixture
def no_cache() -> Iterator[Cache]:
    with open_cache("redis://127.0.0.1:1/0") as cache:
        yield cache


def test_publishing_moves_both_pointers_and_is_done_once(
    bucket: Bucket, catalog: Catalog, cache: Cache
) -> None:
    first, second = (stage(bucket, catalog, cache, n) for n in (2, 3))
    assert publish(catalog, cache, first) == Moved(first, None, True, None)
    assert publish(catalog, cache, second) == Moved(second, first, True, None)
    assert publish(catalog, cache, second) == Moved(second, second, False, None)
    assert catalog.current_id() == cache.pointer() == second
    assert [event.event for event in catalog.events(second)] == ["staged", "published"]


def test_the_cache_keeps_the_current_the_last_and_the_newest_candidate(
    bucket: Bucket, catalog: Catalog, cache: Cache
) -> None:
    releases = [stage(bucket, catalog, cache, n) for n in (2, 3, 4, 5, 6)]
    for release_id in releases[:3]:
        publish(catalog, cache, release_id)
    kept = [is_warm(cache, release_id) for release_id in releases]
    assert kept == [False, True, True, False, True]


def test_the_release_before_leaves_the_cache_when_the_rollback_window_closes(
    bucket: Bucket, catalog: Catalog, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (stage(bucket, catalog, cache, n) for n in (2, 3))
    for release_id in (first, second):
        publish(catalog, cache, release_id)
    assert set(cache.warmed()) == {first, second}
    assert amiss(catalog, cache) is None
    monkeypatch.setattr(pointer, "ROLLBACK_WINDOW", timedelta(0))
    assert amiss(catalog, cache) == f"the cache still has records of {first}"
    reconcile(catalog, cache)
    assert set(cache.warmed()) == {second}
    assert not is_warm(cache, first)
    assert amiss(catalog, cache) is None
    assert rollback(catalog, cache).release_id == first
    assert is_warm(cache, first)


def test_a_candidate_that_is_not_warm_is_warmed_before_it_is_current(
    bucket: Bucket, catalog: Catalog, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_id = stage(bucket, catalog, cache, 2)
    cache.drop(release_id)
    seen: list[bool] = []
    flip = catalog.publish

    def look(wanted: str) -> Flip:
        seen.append(is_warm(cache, wanted))
        return flip(wanted)

    monkeypatch.setattr(catalog, "publish", look)
    publish(catalog, cache, release_id)
    assert seen == [True]


def test_what_is_amiss_is_told(bucket: Bucket, catalog: Catalog, cache: Cache) -> None:
    assert amiss(catalog, cache) is None
    release_id = stage(bucket, catalog, cache, 2)
    assert amiss(catalog, cache) is None
    publish(catalog, cache, release_id)
    cache.clear_pointer()
    assert amiss(catalog, cache) == f"the cache takes no release for current, which is {release_id}"
    reconcile(catalog, cache)
    cache._client.flushdb()
    cache.set_pointer(release_id)
    assert amiss(catalog, cache) == f"the records of release {release_id} are not in the cache"
    assert reconcile(catalog, cache).warmed == 14
    assert amiss(catalog, cache) is None


def test_a_rollback_takes_the_last_release_and_withdraws(
    bucket: Bucket, catalog: Catalog, cache: Cache
) -> None:
    first, second, third = (stage(bucket, catalog, cache, n) for n in (2, 3, 4))
    with pytest.raises(CatalogError, match="nothing to roll back to"):
        rollback(catalog, cache)
    for release_id in (first, second, third):
        publish(catalog, cache, release_id)
    assert rollback(catalog, cache) == Moved(second, third, True, None)
    assert not is_warm(cache, third)
    assert rollback(catalog, cache).release_id == first
    assert is_warm(cache, first)
    assert catalog.current_id() == cache.pointer() == first
    with pytest.raises(CatalogError, match="nothing to roll back to"):
        rollback(catalog, cache)
    assert cache.pointer() == first
    with pytest.raises(CatalogError, match="was withdrawn"):
        publish(catalog, cache, third)
    assert rollback(catalog, cache, to=third).release_id == third
    assert catalog.current_id() == cache.pointer() == third


def test_a_cache_that_is_down_holds_up_neither_publication_nor_rollback(
    bucket: Bucket, catalog: Catalog, cache: Cache, no_cache: Cache
) -> None:
    first, second = (stage(bucket, catalog, cache, n) for n in (2, 3))
    publish(catalog, cache, first)
    moved = publish(catalog, no_cache, second)
    assert moved.cache_error is not None
    assert catalog.current_id() == second
    with pytest.raises(CacheError):
        reconcile(catalog, no_cache)
    found = reconcile(catalog, cache)
    assert (found.release_id, found.hint) == (second, first)
    assert cache.pointer() == second
    assert rollback(catalog, no_cache).cache_error is not None
    assert catalog.current_id() == first


def test_reconciling_fills_a_cache_that_was_lost(
    bucket: Bucket, catalog: Catalog, cache: Cache
) -> None:
    assert reconcile(catalog, cache).release_id is None
    release_id = stage(bucket, catalog, cache, 2)
    publish(catalog, cache, release_id)
    cache.drop(release_id)
    cache.clear_pointer()
    found = reconcile(catalog, cache)
    assert (found.release_id, found.hint, found.warmed) == (release_id, None, 14)
    assert is_warm(cache, release_id)


def test_publishers_at_once_leave_both_pointers_the_same(
    bucket: Bucket, catalog: Catalog, cache: Cache
) -> None:
    releases = [stage(bucket, catalog, cache, n) for n in (1, 2, 3, 4)]
    failed: list[Exception] = []

    def run(release_id: str) -> None:
        try:
            publish(catalog, cache, release_id)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(release_id,)) for release_id in releases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert catalog.current_id() == cache.pointer()
    states = sorted(release.state for release in catalog.list_releases())
    assert states == ["current", "superseded", "superseded", "superseded"]


KILLED = """
import os, signal, sys
from cf_lab_assets.releases import pointer
from cf_lab_resources.cache import open_cache
from cf_lab_resources.catalog import open_catalog
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
when, postgres, redis, release_id = sys.argv[1:]
catalog, cache = open_catalog(postgres), open_cache(redis)
if when == "before the flip":
    catalog.publish = die
else:
    cache.set_pointer = die
pointer.publish(catalog, cache, release_id)
"""


@pytest.mark.parametrize("when", ["before the flip", "after the flip"])
def test_a_publisher_killed_leaves_no_wrong_hint_and_the_rerun_ends_it(
    bucket: Bucket, catalog: Catalog, cache: Cache, postgres_url: str, redis_url: str, when: str
) -> None:
    first, second = (stage(bucket, catalog, cache, n) for n in (2, 3))
    publish(catalog, cache, first)
    command = [sys.executable, "-c", KILLED, when, postgres_url, redis_url, second]
    assert subprocess.run(command, env=os.environ).returncode == -signal.SIGKILL
    assert cache.pointer() is None
    assert catalog.current_id() == (first if when == "before the flip" else second)
    assert publish(catalog, cache, second).release_id == second
    assert catalog.current_id() == cache.pointer() == second
    assert [event.event for event in catalog.events(second)] == ["staged", "published"]
    assert catalog.counts(second) == {"pair": 15, "set": 6}
