"""Stores of a test of releases: a bucket, a migrated catalog, an empty cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cf_lab_assets.releases.smoke import Api
from cf_lab_resources.bucket import Bucket, open_bucket
from cf_lab_resources.cache import Cache, open_cache
from cf_lab_resources.catalog import Catalog, open_catalog


@pytest.fixture
def bucket_url(tmp_path: Path) -> str:
    return (tmp_path / "bucket").as_uri()


@pytest.fixture
def bucket(bucket_url: str) -> Bucket:
    return open_bucket(bucket_url)


@pytest.fixture
def catalog(postgres_url: str) -> Iterator[Catalog]:
    with open_catalog(postgres_url) as catalog:
        catalog.migrate()
        yield catalog


@pytest.fixture
def cache(redis_url: str) -> Iterator[Cache]:
    with open_cache(redis_url) as cache:
        yield cache


@pytest.fixture
def api(postgres_url: str, redis_url: str, bucket_url: str) -> Api:
    """One in this process, on the test's stores."""
    return Api(postgres_url, redis_url, bucket_url)
