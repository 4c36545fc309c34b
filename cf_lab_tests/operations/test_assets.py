"""The reviews as Dagster runs them: a tick of each schedule, its run, and what is to be seen."""

from __future__ import annotations

import datetime
import json
import os

import dagster as dg
import pytest

from cf_lab_assets import names
from cf_lab_assets.definitions import build_defs
from cf_lab_assets.operations import assets, capacity, checks, configuration, dependencies
from cf_lab_resources.api.access import make_key
from cf_lab_resources.catalog.api_keys import ApiKeys
from cf_lab_resources.dagster import BucketResource, CacheResource, CatalogResource

REVIEWS = {
    "weekly_dependency_report": (names.DEPENDENCIES, "dependencies_are_as_locked"),
    "monthly_configuration_review": (names.CONFIGURATION, "keys_outlast_the_month"),
    "quarterly_capacity_review": (names.CAPACITY, "disk_lasts"),
}
NEW_YEAR = datetime.datetime(2027, 1, 1, 7, tzinfo=datetime.UTC)


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def definitions(home, bucket, postgres_url, redis_url, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # the tests use no network
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return build_defs(
        {
            "bucket": BucketResource(url=bucket.root),
            "catalog": CatalogResource(url=postgres_url),
            "cache": CacheResource(url=redis_url),
        }
    )


def run_of(schedule, definitions, instance):
    """What a tick of a schedule asks for, run."""
    repository = definitions.get_repository_def()
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=NEW_YEAR, repository_def=repository
    )
    found = repository.get_schedule_def(schedule)
    (request,) = found.evaluate_tick(context).run_requests
    job = definitions.resolve_job_def(found.job_name)
    return job.execute_in_process(
        instance=instance, run_config=request.run_config, tags=request.tags, raise_on_error=False
    )


def made(result):
    (found,) = [e for e in result.all_events if e.is_step_materialization]
    return found.step_materialization_data.materialization


def evaluation(result):
    (found,) = result.get_asset_check_evaluations()
    return found


@pytest.mark.parametrize("schedule", REVIEWS)
def test_a_tick_becomes_a_review_that_is_kept_and_checked(schedule, definitions, instance, bucket):
    key, check = REVIEWS[schedule]
    result = run_of(schedule, definitions, instance)
    assert result.success
    found = made(result)
    assert found.asset_key == key
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    document = json.loads(bucket.get_bytes(f"{key.path[0]}/{key.path[1]}/{today}.json"))
    assert document["date"] == today
    tables = [value for value in document.values() if isinstance(value, list)]
    assert found.metadata["dagster/row_count"].value == sum(map(len, tables)) > 0
    columns = found.metadata["dagster/column_schema"].schema.columns
    assert all(column.description and column.type for column in columns)
    assert len(dg.serialize_value(found)) < 100_000

    checked = evaluation(result)
    assert (checked.asset_key, checked.check_name) == (key, check)
    assert checked.severity == dg.AssetCheckSeverity.WARN
    assert isinstance(checked.metadata["measured"].value, int | float)
    assert isinstance(checked.metadata["limit"].value, int | float)
    assert checked.metadata["unit"].value


def test_without_an_index_the_dependency_report_is_made_and_says_so(definitions, instance, bucket):
    result = run_of("weekly_dependency_report", definitions, instance)
    metadata = made(result).metadata
    assert metadata["newest_versions"].value == "no package index is configured, or none answers"
    assert metadata["locked_versions"].value == "checked"
    assert metadata["newer_are_out"].value == "not checked"
    assert evaluation(result).passed
    assert evaluation(result).metadata["measured"].value == 0
    shown = {one.data["name"] for one in metadata["to_look_at"].records}
    assert "dagster" not in shown, "it is as locked, and nobody need look at it"


def test_a_lock_that_others_were_installed_from_is_told(monkeypatch, tmp_path):
    version = next(one.version for one in dependencies.installed() if one.name == "dagster")
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"dagster=={version}.post9 \\\n")
    read = dependencies.locked
    monkeypatch.setattr(dependencies, "locked", lambda: read(lock))
    found = checks.dependencies_are_as_locked()
    assert not found.passed
    assert found.metadata["measured"].value == 1
    assert f"dagster {version} instead of {version}.post9" in found.description
    lock.unlink()
    found = checks.dependencies_are_as_locked()
    assert not found.passed
    assert found.metadata["measured"].value == "not measured"
    assert "there is no deploy/requirements.lock beside the package" in found.description


def test_a_key_that_ends_before_the_next_review_is_told_by_name(
    definitions, instance, postgres_url
):
    first = run_of("monthly_configuration_review", definitions, instance)
    assert evaluation(first).passed
    with ApiKeys(postgres_url) as keys:
        key, row = make_key(keys, b"0" * 32, "the pilot", ["shadow"], days=20)
    result = run_of("monthly_configuration_review", definitions, instance)
    found = evaluation(result)
    assert result.success, "a warning stops nothing"
    assert not found.passed
    assert found.metadata["measured"].value == 1
    assert f"{row.key_id} (the pilot) ends on {row.expires_at:%Y-%m-%d}" in found.description
    metadata = made(result).metadata
    assert metadata["valid_keys"].value == 1
    assert key not in dg.serialize_value(made(result))
    assert {part for part in metadata if part in configuration.COLUMNS} == {
        "variables",
        "gates",
        "api_keys",
        "retention",
    }


def test_a_full_disk_is_told(monkeypatch, home):
    monkeypatch.setattr(capacity, "disk_of", lambda folder: capacity.Disk(1000, 99))
    found = checks.disk_lasts()
    assert not found.passed
    assert found.metadata["measured"].value == 9.9
    assert "enlarge the disk" in found.description


def test_the_capacity_review_shows_all_stores_and_the_plot(
    definitions, instance, bucket, postgres_url
):
    bucket.put_bytes("objects/images/one", b"x" * 70)
    run_of("monthly_configuration_review", definitions, instance)
    metadata = made(run_of("quarterly_capacity_review", definitions, instance)).metadata
    stores = {(one.data["store"], one.data["part"]): one.data for one in metadata["stores"].records}
    assert stores["bucket", "objects"]["bytes"] == 70
    assert stores["bucket", "operations"]["objects"] == 1
    assert stores["postgres", "releases"]["bytes"] > 0
    assert stores["redis", "used memory"]["bytes"] < stores["redis", "maximum memory"]["bytes"]
    (job,) = [one.data for one in metadata["jobs"].records]
    assert (job["job"], job["runs"], job["failed"]) == ("review_configuration", 1, 0)
    assert 0 < job["median_seconds"] == job["p95_seconds"]
    assert metadata["growth"].value.startswith("![what the stores held at each review](data:image")
    assert metadata["reviews"].value == 1


def test_ended_runs_are_read_page_by_page_and_no_earlier_ones(definitions, instance):
    job = definitions.resolve_job_def("report_dependencies")
    statuses = [*assets.ENDED, dg.DagsterRunStatus.STARTED]
    for status in (*statuses, *statuses):
        instance.create_run_for_job(job, status=status)
    since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)
    for page in (1, 2, 5, 6, 100):
        found = list(assets.ended_runs(instance, since, page))
        assert len(found) == 6
        assert sum(one.failed for one in found) == 2
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=5)
    assert list(assets.ended_runs(instance, later)) == []
