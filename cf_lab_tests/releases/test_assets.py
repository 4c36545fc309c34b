"""The release assets as Dagster runs them: gates before publication, refusal by hand too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import pytest

from cf_lab_assets import names
from cf_lab_assets.releases import assets, candidate, checks, gates
from cf_lab_resources.bucket import Bucket
from cf_lab_resources.cache import Cache
from cf_lab_resources.catalog import Catalog, open_catalog
from cf_lab_resources.dagster import BucketResource, CacheResource, CatalogResource
from cf_lab_resources.embedded.servers import free_port
from cf_lab_tests.releases.sample import write_dataset, write_report

GATES = [gate.name for gate in gates.GATES]
UPSTREAM = [dg.AssetSpec(key) for key in (names.DATASET, names.PACKAGE, names.BIAS_REPORT)]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def run(instance: dg.DagsterInstance, bucket_url: str, postgres_url: str, redis_url: str) -> Any:
    resources = {
        "bucket": BucketResource(url=bucket_url),
        "catalog": CatalogResource(url=postgres_url),
        "cache": CacheResource(url=redis_url),
    }

    def run(*definitions: Any, **others: Any) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [*definitions, *UPSTREAM],
            selection=_selection(definitions),
            instance=instance,
            resources={**resources, **others},
            raise_on_error=False,
        )

    return run


def _selection(definitions: Sequence[Any]) -> dg.AssetSelection:
    # Where no asset is among them, Dagster would run nothing unless the checks are named.
    checked = [d for d in definitions if isinstance(d, dg.AssetChecksDefinition)]
    made = [d for d in definitions if d not in checked]
    return dg.AssetSelection.assets(*made) | dg.AssetSelection.checks(*checked)


ALL = (assets.candidate, checks.release_gates, assets.current)


def refusal(result: dg.ExecuteInProcessResult) -> str:
    failures = [event for event in result.all_events if event.is_step_failure]
    assert [event.step_key for event in failures] == ["releases__current"]
    data = failures[0].step_failure_data.user_failure_data
    assert data is not None
    return str(data.description)


def test_a_good_candidate_is_judged_and_published_in_one_run(
    run: Any, bucket: Bucket, catalog: Catalog, cache: Cache
) -> None:
    write_dataset(bucket)
    result = run(*ALL)
    assert result.success
    evaluated = [e.check_name for e in result.get_asset_check_evaluations()]
    planned = [spec.name for spec in checks.release_gates.check_specs]
    assert sorted(evaluated) == sorted(planned) == sorted(GATES)
    assert all(spec.blocking for spec in checks.release_gates.check_specs)
    order = [e.step_key for e in result.all_events if e.is_step_success]
    assert order == ["releases__candidate", "release_gates", "releases__current"]
    current = catalog.current_release()
    assert current is not None
    assert cache.pointer() == current.release_id
    (made,) = result.asset_materializations_for_node("releases__current")
    assert made.metadata["release_id"].value == current.release_id
    assert made.metadata["pairs"].value == 20
    assert len(made.metadata["gates"].records) == len(GATES)
    (made,) = result.asset_materializations_for_node("releases__candidate")
    assert made.metadata["dagster/row_count"].value == 20
    assert made.metadata["records_in_cache"].value == 28


@pytest.mark.parametrize("time", [1, 2, 3])
def test_a_catalog_that_is_away_once_holds_no_step_up_for_good(
    time: int, run: Any, bucket: Bucket, catalog: Catalog, postgres_url: str
) -> None:
    opened = []

    class AwayOnce(CatalogResource):
        def open(self) -> Catalog:
            opened.append(self.url)
            nobody = f"postgresql://cf_lab@127.0.0.1:{free_port()}/cf_lab"
            return open_catalog(nobody) if len(opened) == time else super().open()

    write_dataset(bucket)
    result = run(*ALL, catalog=AwayOnce(url=postgres_url))
    assert result.success
    steps = ["releases__candidate", "release_gates", "releases__current"]
    retried = [event.step_key for event in result.all_events if event.is_step_up_for_retry]
    assert retried == [steps[time - 1]]
    assert catalog.current_id() is not None


def test_running_again_changes_nothing(run: Any, bucket: Bucket, catalog: Catalog) -> None:
    write_dataset(bucket)
    assert run(*ALL).success
    before = (catalog.current_release(), catalog.events())
    assert run(*ALL).success
    assert (catalog.current_release(), catalog.events()) == before


def test_a_bad_candidate_is_stopped_and_the_current_release_stays(
    run: Any, bucket: Bucket, catalog: Catalog
) -> None:
    write_dataset(bucket)
    assert run(*ALL).success
    good = catalog.current_id()
    dataset_hash = write_dataset(bucket, sources=3, cits=0.1)
    write_report(bucket, dataset_hash, named="f" * 64)
    result = run(*ALL)
    assert not result.success
    assert {e.check_name for e in result.get_asset_check_evaluations() if not e.passed} == {
        "quality_is_above_floor",
        "report_is_present",
    }
    assert not result.asset_materializations_for_node("releases__current")
    assert catalog.current_id() == good
    text = refusal(run(assets.current))
    assert f"refused by 2 of {len(GATES)} gates" in text
    assert "quality_is_above_floor: median 0.100" in text
    assert "report_is_present: report.html is of another dataset" in text
    assert "schema_matches" not in text


def test_a_candidate_whose_gates_never_ran_is_refused_until_they_have(
    run: Any, bucket: Bucket, catalog: Catalog
) -> None:
    write_dataset(bucket)
    assert run(assets.candidate).success
    text = refusal(run(assets.current))
    assert all(f"{gate}: it was not evaluated" in text for gate in GATES)
    assert "run the checks of releases/candidate" in text
    assert catalog.current_id() is None
    assert run(checks.release_gates).success
    assert run(assets.current).success
    assert catalog.current_id() is not None


def test_gates_that_passed_on_an_older_candidate_do_not_count(
    run: Any, bucket: Bucket, catalog: Catalog
) -> None:
    write_dataset(bucket)
    assert run(*ALL).success
    write_dataset(bucket, sources=5)
    assert run(assets.candidate).success
    text = refusal(run(assets.current))
    assert all(f"{gate}: its latest evaluation is of an older candidate" in text for gate in GATES)
    assert run(checks.release_gates).success
    assert run(assets.current).success


def test_nothing_staged_and_nothing_made_are_said_plainly(run: Any, bucket: Bucket) -> None:
    assert "nothing to publish" in refusal(run(assets.current))
    result = run(assets.candidate)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "no dataset in the bucket" in failure.step_failure_data.user_failure_data.description
    assert not run(checks.release_gates).success


def test_a_withdrawn_release_does_not_come_back_by_a_rerun(
    run: Any, bucket: Bucket, catalog: Catalog
) -> None:
    for sources in (4, 5):
        write_dataset(bucket, sources=sources)
        assert run(*ALL).success
    catalog.roll_back()
    assert "was withdrawn" in refusal(run(*ALL))


def test_a_cache_that_is_down_does_not_stop_a_release(
    instance: dg.DagsterInstance, bucket: Bucket, bucket_url: str, catalog: Catalog,
    postgres_url: str,
) -> None:  # fmt: skip
    write_dataset(bucket)
    result = dg.materialize(
        [*ALL, *UPSTREAM],
        instance=instance,
        resources={
            "bucket": BucketResource(url=bucket_url),
            "catalog": CatalogResource(url=postgres_url),
            "cache": CacheResource(url="redis://127.0.0.1:1/0"),
        },
    )
    assert result.success
    assert catalog.current_id() == candidate.read_content(bucket).release_id
    (made,) = result.asset_materializations_for_node("releases__current")
    assert "does not answer" in str(made.metadata["cache"].value)
