"""Old releases go by whole partitions; what a rollback may want, and what was made, stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cf_lab_assets.releases import candidate
from cf_lab_assets.releases.pointer import publish, rollback
from cf_lab_assets.releases.retention import drop_old, too_old
from cf_lab_resources.bucket import Bucket
from cf_lab_resources.cache import Cache, open_cache
from cf_lab_resources.catalog import Catalog, CatalogError, Release
from cf_lab_tests.releases.sample import write_dataset

START = datetime(2026, 1, 1, tzinfo=UTC)


def release(day: int, state: str, dropped: bool = False) -> Release:
    at = START + timedelta(days=day)
    published = None if state == "candidate" else at + timedelta(hours=1)
    name = f"r{day:012d}"
    return Release(name, "c", "d", state, at, published, None, {}, at if dropped else None)


def days(found: list[Release]) -> list[int]:
    return [int(one.release_id[1:]) for one in found]


def staged(bucket: Bucket, catalog: Catalog, sources: int) -> str:
    write_dataset(bucket, sources=sources)
    content = candidate.read_content(bucket)
    candidate.stage_candidate(bucket, catalog, content)
    return content.release_id


def test_the_newest_superseded_ones_the_current_one_and_newer_candidates_stay() -> None:
    releases = [
        release(9, "candidate"),
        release(8, "current"),
        release(7, "withdrawn"),
        release(6, "superseded"),
        release(5, "superseded"),
        release(4, "superseded"),
        release(3, "candidate"),
        release(2, "superseded"),
        release(1, "superseded", dropped=True),
    ]
    assert days(too_old(releases, keep=2)) == [2, 3, 4, 7]
    assert days(too_old(releases, keep=9)) == [3, 7]
    assert too_old([one for one in releases if one.state != "current"], keep=1) == []


def test_records_go_and_the_release_is_staged_again_under_its_id(
    bucket: Bucket, catalog: Catalog, cache: Cache
) -> None:
    releases = []
    for sources in (3, 4, 5):
        releases.append(staged(bucket, catalog, sources))
        publish(catalog, cache, releases[-1])
    first, second, _ = releases
    known = catalog.pair(first, "s000000000000001-age-old")
    assert known is not None
    assert drop_old(catalog, cache, keep=1) == [first]
    assert drop_old(catalog, cache, keep=1) == []
    assert catalog.pair(first, "s000000000000001-age-old") is None
    assert catalog.counts(second) == {"pair": 20, "set": 8}
    row = catalog.get_release(first)
    assert row is not None
    assert row.dropped_at is not None
    assert row.manifest["release_id"] == first
    assert [one.event for one in catalog.events(first)][-1] == "dropped"

    with pytest.raises(CatalogError, match="were dropped to make room"):
        rollback(catalog, cache, to=first)
    assert rollback(catalog, cache).release_id == second
    with pytest.raises(CatalogError, match="nothing to roll back to"):
        rollback(catalog, cache)

    assert staged(bucket, catalog, 3) == first
    assert catalog.pair(first, "s000000000000001-age-old") == known
    assert rollback(catalog, cache, to=first).release_id == first


def test_the_current_release_and_an_unknown_one_are_refused(
    bucket: Bucket, catalog: Catalog, cache: Cache
) -> None:
    current = staged(bucket, catalog, 3)
    publish(catalog, cache, current)
    with pytest.raises(CatalogError, match="is current"):
        catalog.drop_records(current)
    with pytest.raises(CatalogError, match="there is no release"):
        catalog.drop_records("r000000000000")


def test_a_cache_that_is_down_does_not_keep_old_records(bucket: Bucket, catalog: Catalog) -> None:
    with open_cache("redis://127.0.0.1:1/0") as no_cache:
        for sources in (3, 4, 5):
            publish(catalog, no_cache, staged(bucket, catalog, sources))
        assert len(drop_old(catalog, no_cache, keep=1)) == 1
