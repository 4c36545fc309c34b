"""A failing gate is waived by a named person, until a day, and only where the report shows it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

from cf_lab_assets.audits.dataset_report import in_force
from cf_lab_assets.releases import assets, candidate, checks
from cf_lab_assets.releases.gates import NO_HASH_MISMATCH, QUALITY_IS_ABOVE_FLOOR
from cf_lab_assets.releases.smoke import Api
from cf_lab_assets.releases.waivers import WaiverRefused, grant
from cf_lab_resources.bucket import Bucket
from cf_lab_resources.catalog import Catalog, CatalogError, Waiver
from cf_lab_resources.dagster import BucketResource, CacheResource, CatalogResource
from cf_lab_tests.releases.sample import write_dataset

QUALITY = QUALITY_IS_ABOVE_FLOOR.name
TODAY = datetime.datetime.now(datetime.UTC).date()
LATER = TODAY + datetime.timedelta(days=30)
ALL = (assets.candidate, checks.release_gates, assets.current)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def publish(
    instance: dg.DagsterInstance, bucket_url: str, postgres_url: str, redis_url: str
) -> Any:
    def publish(*definitions: Any) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            definitions or ALL,
            instance=instance,
            resources={
                "bucket": BucketResource(url=bucket_url),
                "catalog": CatalogResource(url=postgres_url),
                "cache": CacheResource(url=redis_url),
            },
            raise_on_error=False,
        )

    return publish


def show_in_report(bucket: Bucket, dataset_hash: str, waivers: list[Waiver]) -> None:
    """What `audits/bias_report` does with waivers, on the sample's report."""
    key = f"audits/{dataset_hash}/report/report.json"
    document = json.loads(bucket.get_bytes(key))
    document["body"]["waivers"] = in_force(waivers, TODAY)
    bucket.put_bytes(key, json.dumps(document).encode())


def quality(bucket: Bucket, catalog: Catalog, api: Api) -> Any:
    content = candidate.read_content(bucket)
    candidate.stage_candidate(bucket, catalog, content)
    results = {one.name: one for one in candidate.judge(bucket, catalog, api, content.release_id)}
    return results[QUALITY]


def test_a_waived_gate_lets_the_release_through_and_says_whose_word_it_is(
    publish: Any, bucket: Bucket, catalog: Catalog
) -> None:
    dataset_hash = write_dataset(bucket, cits=0.3)
    assert not publish().success
    assert catalog.current_id() is None
    waiver = grant(catalog, QUALITY, "Ada L.", "pilot with a known weak editor", LATER)
    show_in_report(bucket, dataset_hash, catalog.waivers())
    result = publish()
    assert result.success
    assert catalog.current_id() is not None
    (found,) = [one for one in result.get_asset_check_evaluations() if one.check_name == QUALITY]
    assert found.metadata["waived_until"].value == waiver.until.isoformat()
    assert "Ada L." in (found.description or "")
    assert "median 0.300" in (found.description or "")


def test_a_waiver_that_no_report_shows_does_not_count(
    bucket: Bucket, catalog: Catalog, api: Api
) -> None:
    write_dataset(bucket, cits=0.3)
    grant(catalog, QUALITY, "Ada L.", "pilot", LATER)
    found = quality(bucket, catalog, api)
    assert not found.passed
    assert "materialise audits/bias_report" in found.detail


def test_a_waiver_ends_and_can_be_taken_back(bucket: Bucket, catalog: Catalog, api: Api) -> None:
    dataset_hash = write_dataset(bucket, cits=0.3)
    over = catalog.grant_waiver(QUALITY, "Ada L.", "pilot", TODAY - datetime.timedelta(days=1))
    assert in_force([over], TODAY) == []
    last_day = grant(catalog, QUALITY, "Ada L.", "pilot", TODAY)
    show_in_report(bucket, dataset_hash, catalog.waivers())
    assert quality(bucket, catalog, api).passed
    first = catalog.revoke_waiver(last_day.waiver_id)
    assert not quality(bucket, catalog, api).passed
    assert catalog.revoke_waiver(last_day.waiver_id) == first
    assert [one.waiver_id for one in catalog.waivers()] == [over.waiver_id, last_day.waiver_id]
    with pytest.raises(CatalogError, match="no waiver 77"):
        catalog.revoke_waiver(77)


def test_a_waiver_that_ended_since_the_gates_passed_refuses_by_hand_too(
    publish: Any, bucket: Bucket, catalog: Catalog, instance: dg.DagsterInstance
) -> None:
    write_dataset(bucket)
    assert publish(assets.candidate, checks.release_gates).success
    (record,) = instance.fetch_materializations(assets.candidate.key, limit=1).records
    yesterday = (TODAY - datetime.timedelta(days=1)).isoformat()
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=assets.candidate.key,
            check_name=QUALITY,
            passed=True,
            metadata={"waived_until": yesterday},
            target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
                storage_id=record.storage_id,
                run_id=record.run_id,
                timestamp=record.timestamp,
            ),
        )
    )
    result = publish(assets.current)
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert f"its waiver ended on {yesterday}" in str(failed.step_failure_data.user_failure_data)


@pytest.mark.parametrize(
    ("gate", "person", "reason", "until", "named"),
    [
        (NO_HASH_MISMATCH.name, "Ada", "r", LATER, "can't be waived"),
        ("no_such_gate", "Ada", "r", LATER, "is not a gate"),
        (QUALITY, " ", "r", LATER, "--by"),
        (QUALITY, "Ada", "", LATER, "--reason"),
        (QUALITY, "Ada", "two\nlines", LATER, "--reason"),
        (QUALITY, "Ada", "r", TODAY - datetime.timedelta(days=1), "is past"),
    ],
)
def test_a_waiver_without_a_person_a_reason_or_an_end_is_refused(
    catalog: Catalog, gate: str, person: str, reason: str, until: datetime.date, named: str
) -> None:
    with pytest.raises(WaiverRefused, match=named):
        grant(catalog, gate, person, reason, until)
    assert catalog.waivers() == []


def test_damage_is_not_waived_even_by_a_row_in_the_catalog(
    bucket: Bucket, catalog: Catalog, api: Api
) -> None:
    def lose_a_member(pairs: list[Any], sets: list[Any]) -> None:
        pairs.pop()

    dataset_hash = write_dataset(bucket, spoil=lose_a_member)
    catalog.grant_waiver("every_set_is_complete", "Ada", "no", LATER)
    show_in_report(bucket, dataset_hash, catalog.waivers())
    content = candidate.read_content(bucket)
    candidate.stage_candidate(bucket, catalog, content)
    results = {one.name: one for one in candidate.judge(bucket, catalog, api, content.release_id)}
    assert not results["every_set_is_complete"].passed
