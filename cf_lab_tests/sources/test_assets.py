from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from cf_lab_assets.names import OWNERS, SOURCE_BATCHES, SOURCE_PAIRS
from cf_lab_assets.sources import assets, batches, checks
from cf_lab_assets.sources.batches import Inspection, read_manifest, read_pairs
from cf_lab_assets.sources.ingest import ingest
from cf_lab_resources.bucket import Bucket
from cf_lab_resources.dagster import BucketResource
from cf_lab_tests.sources.conftest import good_rows, make_delivery, write_csv

STARTER_VALUES = {"gender": ("woman", "man"), "age": ("young", "middle-aged", "old")}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@dg.asset(deps=[assets.pairs], partitions_def=SOURCE_BATCHES)
def downstream() -> None:
    """Stands for all that is made of a batch."""


def materialise(
    bucket: Bucket, instance: dg.DagsterInstance, batch: str = "spring"
) -> dg.ExecuteInProcessResult:
    instance.add_dynamic_partitions("source_batches", [batch])
    return dg.materialize(
        [assets.pairs, downstream],
        instance=instance,
        resources={"bucket": BucketResource(url=bucket.url("x").removesuffix("/x"))},
        partition_key=batch,
        raise_on_error=False,
    )


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    (event,) = result.asset_materializations_for_node("sources__pairs")
    return {
        name: [record.data for record in value.records]
        if isinstance(value, dg.TableMetadataValue)
        else value.value
        for name, value in event.metadata.items()
    }


def failure_of(result: dg.ExecuteInProcessResult) -> tuple[str, str]:
    assert not result.success
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data is not None, event
    return str(data.metadata["reason"].value), data.description or ""


def ran(result: dg.ExecuteInProcessResult, node: str) -> bool:
    return bool(result.asset_materializations_for_node(node))


def test_a_stored_batch_is_checked_and_shown(
    folder: Path, bucket: Bucket, instance: dg.DagsterInstance
) -> None:
    stored = ingest(folder, None, bucket, STARTER_VALUES)
    result = materialise(bucket, instance)
    assert result.success
    found = metadata_of(result)
    assert found["dagster/row_count"] == 3
    assert found["content_hash"] == stored.content_hash
    assert found["quarantined"] == 0
    assert found["stray_files"] == 0
    assert str(found["dagster/uri"]).endswith(batches.pairs_key(stored.manifest))
    columns = [column.name for column in found["dagster/column_schema"].columns]
    assert columns == batches.pairs_schema().names
    assert found["pictures"].startswith("![")
    assert len(found["pictures"]) < 100_000
    (event,) = result.asset_materializations_for_node("sources__pairs")
    assert event.tags["dagster/data_version"] == stored.content_hash


def test_a_delivery_in_incoming_is_taken_in(
    tmp_path: Path, bucket: Bucket, instance: dg.DagsterInstance
) -> None:
    delivery = make_delivery(tmp_path / "bucket" / "incoming" / "spring")
    write_csv(delivery, [*good_rows(), good_rows()[0], {"file_name": "absent.png", "text": "x"}])
    result = materialise(bucket, instance)
    assert result.success
    found = metadata_of(result)
    assert found["dagster/row_count"] == 3
    assert found["quarantined_by_reason"] == [
        {"reason": "duplicate_file_name", "rows": 1},
        {"reason": "missing_file", "rows": 1},
    ]
    assert {"attribute": "gender", "value": "woman", "pairs": 2} in found["attribute_values"]


def test_a_rerun_gives_the_same_and_writes_nothing(
    tmp_path: Path, bucket: Bucket, instance: dg.DagsterInstance
) -> None:
    make_delivery(tmp_path / "bucket" / "incoming" / "spring")
    first = metadata_of(materialise(bucket, instance))
    before = {info.key: bucket.get_bytes(info.key) for info in bucket.list()}
    assert metadata_of(materialise(bucket, instance)) == first
    assert {info.key: bucket.get_bytes(info.key) for info in bucket.list()} == before


def test_the_planned_checks_are_evaluated(
    folder: Path, bucket: Bucket, instance: dg.DagsterInstance
) -> None:
    ingest(folder, None, bucket, STARTER_VALUES)
    evaluations = materialise(bucket, instance).get_asset_check_evaluations()
    assert {e.check_name for e in evaluations} == {spec.name for spec in checks.SPECS}
    assert {e.check_name for e in evaluations} == {
        "every_picture_is_stored",
        "quarantine_share_is_low",
    }
    assert all(e.passed and e.asset_key == SOURCE_PAIRS for e in evaluations)


def test_a_lost_picture_fails_the_check_and_stops_what_is_downstream(
    folder: Path, bucket: Bucket, instance: dg.DagsterInstance
) -> None:
    ingest(folder, None, bucket, STARTER_VALUES)
    lost = next(read_pairs(bucket, "spring")).image_key
    bucket.delete([lost])
    result = materialise(bucket, instance)
    assert not result.success
    (failed,) = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert failed.check_name == "every_picture_is_stored"
    assert failed.blocking
    assert failed.metadata["missing"].value == 1
    assert failed.metadata["first"].value == [lost]
    assert ran(result, "sources__pairs")
    assert not ran(result, "downstream")
    ingest(folder, None, bucket, STARTER_VALUES)
    assert materialise(bucket, instance).success


def test_a_damaged_picture_fails_the_check(
    folder: Path, bucket: Bucket, instance: dg.DagsterInstance
) -> None:
    ingest(folder, None, bucket, STARTER_VALUES)
    bucket.put_bytes(next(read_pairs(bucket, "spring")).image_key, b"damaged")
    result = materialise(bucket, instance)
    (failed,) = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert failed.metadata["damaged"].value == 1
    assert metadata_of(result)["pictures"] == "a picture is damaged"


def test_a_high_share_in_quarantine_warns_and_does_not_block(
    folder: Path, bucket: Bucket, instance: dg.DagsterInstance
) -> None:
    write_csv(folder, [*good_rows(), {"file_name": "absent.png", "text": "x"}])
    ingest(folder, None, bucket, STARTER_VALUES)
    result = materialise(bucket, instance)
    assert result.success
    assert ran(result, "downstream")
    (failed,) = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert failed.check_name == "quarantine_share_is_low"
    assert failed.severity == dg.AssetCheckSeverity.WARN
    assert failed.metadata["measured"].value == 0.25
    assert failed.metadata["limit"].value == 0.10


def test_a_long_delivery_tells_how_far_it_is(tmp_path: Path, bucket: Bucket) -> None:
    make_delivery(tmp_path / "bucket" / "incoming" / "spring", 70)
    told: list[int] = []
    assert assets.stored_or_delivered(bucket, "spring", told.append).rows == 70
    assert told == [32, 64, 70]
    assert assets.stored_or_delivered(bucket, "spring", told.append).rows == 70
    assert told == [32, 64, 70]


@pytest.mark.parametrize(("quarantined", "passed"), [(0, True), (10, True), (11, False)])
def test_the_limit_of_the_quarantine_share(quarantined: int, passed: bool) -> None:
    manifest = batches.Manifest("b", "h", 100 - quarantined, 1, 0, quarantined, 0, "m", "d", "p")
    results = {r.check_name: r for r in checks.evaluate(manifest, Inspection(1, 1, (), ()))}
    assert results["quarantine_share_is_low"].passed is passed


def test_a_batch_that_is_nowhere_fails_with_a_word_on_what_to_do(
    bucket: Bucket, instance: dg.DagsterInstance
) -> None:
    reason, said = failure_of(materialise(bucket, instance))
    assert reason == "not_delivered"
    assert "incoming/spring" in said


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda d: (d / "metadata.csv").write_text("a,b\n"), "missing_column"),
        (lambda d: (d / "metadata.jsonl").write_text("{}"), "two_metadata_files"),
        (lambda d: write_csv(d, [r | {"text": ""} for r in good_rows()]), "nothing_accepted"),
    ],
)
def test_a_delivery_that_is_refused_fails_the_run_and_stores_no_batch(
    tmp_path: Path, bucket: Bucket, instance: dg.DagsterInstance, spoil: object, expected: str
) -> None:
    spoil(make_delivery(tmp_path / "bucket" / "incoming" / "spring"))
    reason, _ = failure_of(materialise(bucket, instance))
    assert reason == expected
    assert read_manifest(bucket, "spring") is None


def test_a_name_that_no_batch_can_have_fails(bucket: Bucket, instance: dg.DagsterInstance) -> None:
    reason, _ = failure_of(materialise(bucket, instance, "../models"))
    assert reason == "bad_batch_name"


def test_a_batch_whose_table_is_gone_fails(
    folder: Path, bucket: Bucket, instance: dg.DagsterInstance
) -> None:
    stored = ingest(folder, None, bucket, STARTER_VALUES)
    bucket.delete([batches.pairs_key(stored.manifest)])
    reason, said = failure_of(materialise(bucket, instance))
    assert reason == "batch_broken"
    assert "ingest the same delivery again" in said


def test_the_asset_says_what_it_is() -> None:
    spec = assets.pairs.get_asset_spec()
    assert spec.key == SOURCE_PAIRS
    assert spec.group_name == "sources"
    assert list(spec.owners) == OWNERS
    assert spec.kinds == {"python", "parquet"}
    assert spec.code_version == "2"
    assert spec.description
    assert assets.pairs.partitions_def == SOURCE_BATCHES


def test_loading_the_modules_imports_nothing_heavy() -> None:
    program = (
        "import sys; import cf_lab_assets.sources.assets, cf_lab_assets.sources.sensors\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'pandas', 'matplotlib', 'skimage',"
        " 'pyarrow', 'psycopg2', 'redis', 'obstore', 'fastapi', 'PIL'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
