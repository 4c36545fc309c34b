"""The cache is mended without a hand, and by one run at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from cf_lab_assets.definitions import build_defs
from cf_lab_assets.releases import candidate, upkeep
from cf_lab_assets.releases.pointer import publish
from cf_lab_resources.bucket import Bucket
from cf_lab_resources.cache import Cache
from cf_lab_resources.catalog import Catalog
from cf_lab_resources.dagster import CacheResource, CatalogResource
from cf_lab_tests.releases.sample import write_dataset


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def resources(postgres_url: str, redis_url: str) -> dict[str, Any]:
    return {
        "catalog": CatalogResource(url=postgres_url),
        "cache": CacheResource(url=redis_url),
    }


def ticked(instance: dg.DagsterInstance, resources: dict[str, Any]) -> dg.SensorResult:
    with dg.build_sensor_context(instance=instance, resources=resources) as context:
        found = upkeep.mend_cache(context)
    assert isinstance(found, dg.SensorResult)
    return found


def test_a_lost_cache_is_filled_again_by_itself(
    instance: dg.DagsterInstance,
    resources: dict[str, Any],
    bucket: Bucket,
    catalog: Catalog,
    cache: Cache,
) -> None:
    write_dataset(bucket, sources=2)
    content = candidate.read_content(bucket)
    candidate.stage_candidate(bucket, catalog, content)
    publish(catalog, cache, content.release_id)
    assert not ticked(instance, resources).run_requests
    cache._client.flushdb()
    (request,) = ticked(instance, resources).run_requests or []
    assert "takes no release for current" in request.tags["cf_lab/amiss"]
    job = build_defs(resources).resolve_job_def("reconcile_cache")
    assert job.execute_in_process(instance=instance).success
    assert cache.pointer() == content.release_id
    assert cache.warmed() == {content.release_id: 14}
    assert not ticked(instance, resources).run_requests


def test_while_a_run_mends_it_no_other_is_asked_for(
    instance: dg.DagsterInstance, resources: dict[str, Any], catalog: Catalog, cache: Cache
) -> None:
    cache.set_pointer("r" + "1" * 12)
    assert ticked(instance, resources).run_requests
    job = build_defs(resources).resolve_job_def("reconcile_cache")
    instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    found = ticked(instance, resources)
    assert not found.run_requests
    assert "a run is mending it" in str(found.skip_reason)


def test_a_store_that_does_not_answer_is_no_failure(
    instance: dg.DagsterInstance, resources: dict[str, Any], catalog: Catalog
) -> None:
    away = {**resources, "cache": CacheResource(url="redis://127.0.0.1:1/0")}
    assert "does not answer" in str(ticked(instance, away).skip_reason)
