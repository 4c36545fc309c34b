"""Stores of a test of the lookup API, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cf_lab_resources.bucket import open_bucket
from cf_lab_resources.cache import open_cache
from cf_lab_resources.catalog import open_catalog
from cf_lab_tests.resources.serving import Stores, app, served


@pytest.fixture
def bucket_url(tmp_path: Path) -> str:
    return (tmp_path / "bucket").as_uri()


@pytest.fixture
def stores(postgres_url: str, redis_url: str, bucket_url: str) -> Iterator[Stores]:
    with open_catalog(postgres_url) as catalog, open_cache(redis_url) as cache:
        catalog.migrate()
        yield Stores(catalog, cache, open_bucket(bucket_url))


@pytest.fixture
def client(
    stores: Stores, postgres_url: str, redis_url: str, bucket_url: str
) -> Iterator[httpx.Client]:
    with served(app(postgres_url, redis_url, bucket_url)) as client:
        yield client
