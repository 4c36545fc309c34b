"""A release whose gates fail after publication is withdrawn, once, for the last good one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from cf_lab_assets.definitions import build_defs
from cf_lab_assets.releases import candidate, checks, withdrawal
from cf_lab_assets.releases.pointer import publish
from cf_lab_resources.bucket import Bucket
from cf_lab_resources.cache import Cache
from cf_lab_resources.catalog import Catalog
from cf_lab_resources.dagster import BucketResource, CacheResource, CatalogResource
from cf_lab_tests.releases.sample import write_dataset


@pytest.fixture
def resources(bucket_url: str, postgres_url: str, redis_url: str) -> dict[str, Any]:
    return {
        "bucket": BucketResource(url=bucket_url),
        "catalog": CatalogResource(url=postgres_url),
        "cache": CacheResource(url=redis_url),
    }


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def releases(bucket: Bucket, catalog: Catalog, cache: Cache) -> list[str]:
    """Three releases, published one after another; the last is current."""
    return [published(bucket, catalog, cache, sources) for sources in (3, 4, 5)]


def published(bucket: Bucket, catalog: Catalog, cache: Cache, sources: int) -> str:
    write_dataset(bucket, sources=sources)
    content = candidate.read_content(bucket)
    candidate.stage_candidate(bucket, catalog, content)
    publish(catalog, cache, content.release_id)
    return content.release_id


def damage(bucket_url: str, bucket: Bucket, catalog: Catalog, release_id: str) -> None:
    """Change a picture of a release that no smaller one shows."""
    release = catalog.get_release(release_id)
    assert release is not None
    staged = candidate.read_staged(bucket, release)
    key = staged.pairs.column("image_key").to_pylist()[-1]
    path = Path(bucket_url.removeprefix("file://")) / key
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def judged(instance: dg.DagsterInstance, resources: dict[str, Any]) -> dg.AssetCheckEvaluation:
    result = dg.materialize(
        [checks.every_gate_still_holds],
        selection=dg.AssetSelection.checks(checks.every_gate_still_holds),
        instance=instance,
        resources=resources,
    )
    (found,) = result.get_asset_check_evaluations()
    return found


def requests(instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    context = dg.build_sensor_context(instance=instance)
    found = withdrawal.withdraw_failed_release(context)
    assert isinstance(found, dg.SensorResult)
    return list(found.run_requests or [])


def execute(
    instance: dg.DagsterInstance, resources: dict[str, Any], config: Any, fails: bool = False
) -> dg.ExecuteInProcessResult:
    job = build_defs(resources).resolve_job_def("roll_back")
    result = job.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
    assert result.success is not fails
    return result


def answered(
    instance: dg.DagsterInstance, resources: dict[str, Any], fails: bool = False
) -> dg.ExecuteInProcessResult:
    """Judge the current release, and run what the sensor then asks for."""
    judged(instance, resources)
    (request,) = requests(instance)
    return execute(instance, resources, request.run_config, fails)


def test_nothing_is_asked_for_while_every_gate_holds(
    instance: dg.DagsterInstance, resources: dict[str, Any], releases: list[str]
) -> None:
    assert requests(instance) == []
    found = judged(instance, resources)
    assert found.passed
    assert found.metadata["release_id"].value == releases[-1]
    assert requests(instance) == []


def test_a_damaged_release_is_withdrawn_once_with_an_event(
    instance: dg.DagsterInstance,
    resources: dict[str, Any],
    releases: list[str],
    bucket_url: str,
    bucket: Bucket,
    catalog: Catalog,
) -> None:
    damage(bucket_url, bucket, catalog, releases[-1])
    found = judged(instance, resources)
    assert not found.passed
    assert found.metadata["measured"].value == 1
    assert found.metadata["failed"].value == "no_hash_mismatch"
    (request,) = requests(instance)
    assert [one.run_key for one in requests(instance)] == [request.run_key]  # runs once by its key

    execute(instance, resources, request.run_config)
    assert catalog.current_id() == releases[1]
    (withdrawn,) = [one for one in catalog.events(releases[2]) if one.event == "withdrawn"]
    assert "no_hash_mismatch" in withdrawn.detail["reason"]

    execute(instance, resources, request.run_config)  # the answer to a failure seen twice
    assert catalog.current_id() == releases[1]
    assert judged(instance, resources).passed
    assert requests(instance) == []


def test_what_is_damaged_too_is_passed_over(
    instance: dg.DagsterInstance,
    resources: dict[str, Any],
    releases: list[str],
    bucket_url: str,
    bucket: Bucket,
    catalog: Catalog,
) -> None:
    for release_id in releases[1:]:
        damage(bucket_url, bucket, catalog, release_id)
    answered(instance, resources)
    assert catalog.current_id() == releases[0]


def test_a_release_without_its_records_is_passed_over(
    instance: dg.DagsterInstance,
    resources: dict[str, Any],
    releases: list[str],
    bucket_url: str,
    bucket: Bucket,
    catalog: Catalog,
) -> None:
    catalog.drop_records(releases[1])
    damage(bucket_url, bucket, catalog, releases[2])
    answered(instance, resources)
    assert catalog.current_id() == releases[0]


def test_where_nothing_good_is_left_the_release_stays_and_the_run_says_so(
    instance: dg.DagsterInstance,
    resources: dict[str, Any],
    releases: list[str],
    bucket_url: str,
    bucket: Bucket,
    catalog: Catalog,
) -> None:
    for release_id in releases:
        damage(bucket_url, bucket, catalog, release_id)
    result = answered(instance, resources, fails=True)
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    description = failed.step_failure_data.user_failure_data.description
    assert "no good release" in description
    assert releases[0] in description
    assert catalog.current_id() == releases[2]


def test_a_release_put_right_by_hand_is_not_withdrawn_for_the_old_failure(
    instance: dg.DagsterInstance,
    resources: dict[str, Any],
    releases: list[str],
    bucket_url: str,
    bucket: Bucket,
    catalog: Catalog,
    cache: Cache,
) -> None:
    damage(bucket_url, bucket, catalog, releases[-1])
    judged(instance, resources)
    (request,) = requests(instance)
    newest = published(bucket, catalog, cache, sources=6)
    execute(instance, resources, request.run_config)
    assert catalog.current_id() == newest


def test_people_roll_back_by_the_job_too(
    instance: dg.DagsterInstance, resources: dict[str, Any], releases: list[str], catalog: Catalog
) -> None:
    config = withdrawal.RollBack(to=releases[0], reason="asked for by the owner")
    execute(instance, resources, dg.RunConfig(ops={withdrawal.MOVE: config}))
    assert catalog.current_id() == releases[0]
    events = [one for one in catalog.events(releases[0]) if one.event == "rolled_back_to"]
    assert events[-1].detail["reason"] == "asked for by the owner"
