"""Instrument and multiverse as Dagster runs them."""

import json

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from cf_lab_assets import names
from cf_lab_assets.audits import store
from cf_lab_assets.audits.instrument import assets, checks, editor_parity, filter_parity
from cf_lab_assets.audits.instrument.comparisons import Compared
from cf_lab_assets.audits.instrument.document import Instrument
from cf_lab_assets.audits.instrument.findings import FAILS, HOLDS, INSUFFICIENT, Finding, Limit
from cf_lab_assets.counterfactuals.assets import counterfactual_dataset, draw_and_score, edit_plan
from cf_lab_assets.sources.ingest import ingest
from cf_lab_assets.starter import world
from cf_lab_assets.starter.portraits import write_image_folder
from cf_lab_resources.bucket import open_bucket
from cf_lab_resources.dagster import BucketResource
from cf_lab_tests.audits.synthetic import DATASET_HASH, noisy, parquet, responses

LIMIT = Limit(0.1, "shares", "a test")


@pytest.fixture
def url(tmp_path):
    return f"file://{tmp_path}/bucket"


@pytest.fixture
def bucket(url):
    return open_bucket(url)


@pytest.fixture
def run(url):
    with dg.DagsterInstance.ephemeral() as instance:

        def materialise(selected, partition=None):
            if partition:
                instance.add_dynamic_partitions(str(names.SOURCE_BATCHES.name), [partition])
            return dg.materialize(
                selected,
                instance=instance,
                partition_key=partition,
                resources={"bucket": BucketResource(url=url)},
                raise_on_error=False,
            )

        yield materialise


def failure(result):
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data.user_failure_data.description


def test_a_small_dataset_is_measured_and_called_insufficient_and_a_rerun_changes_no_byte(
    run, bucket, tmp_path
):
    write_image_folder(tmp_path / "portraits", 3, seed=41)
    ingest(tmp_path / "portraits", "small", bucket, world.ATTRIBUTES)
    assert run([edit_plan, draw_and_score], "small").success
    assert run([counterfactual_dataset]).success
    done = run([assets.instrument])
    assert done.success
    evaluated = {one.check_name: one for one in done.get_asset_check_evaluations()}
    assert evaluated.keys() == {spec.name for spec in checks.INSTRUMENT_CHECKS}
    for one in evaluated.values():
        assert not one.passed
        assert one.severity == dg.AssetCheckSeverity.WARN
        assert one.metadata["verdict"].value == INSUFFICIENT
        assert {"measured", "limit", "unit", "limit_from"} <= one.metadata.keys()
    key = store.instrument_key(store.latest_dataset(bucket))
    before = bucket.get_bytes(key)
    written = json.loads(before)
    assert written["sources"] == written["examined_sources"] == 3
    assert set(written["editor"]) == set(editor_parity.MEASURES)
    assert all(one["n"] for one in written["editor"]["realism"]["cells"])
    assert {one["attribute"] for one in written["agreement"]} == set(world.ATTRIBUTES)
    assert sum(cell["offered"] for cell in written["filter"]["cells"]) == 4 * 9
    assert run([assets.instrument]).success
    assert bucket.get_bytes(key) == before


def put_responses(bucket, models, pairs):
    for seed, name in enumerate(models):
        table = responses(*noisy(60, seed, shift=0.1), name=name)
        bucket.put_bytes(store.responses_key(DATASET_HASH, name), parquet(table))
    bucket.put_bytes(store.dataset_key(DATASET_HASH, "pairs.parquet"), parquet(pairs))
    bucket.put_bytes(store.LATEST_DATASET, json.dumps({"content_hash": DATASET_HASH}).encode())


PAIRS = pa.table(
    {
        "set_id": [f"s{i:05}-{name}" for i in range(60) for name in ("gender", "age")],
        "cits": pa.array(np.linspace(0.6, 0.9, 120), pa.float32()),
        "draw": pa.array(np.zeros(120), pa.int32()),
    }
)


def test_the_multiverse_is_of_every_audited_model(run, bucket):
    models = names.AUDITED_MODELS
    put_responses(bucket, models, PAIRS)
    done = run([assets.multiverse])
    assert done.success
    (check,) = done.get_asset_check_evaluations()
    assert check.check_name == checks.HEADLINE
    assert check.passed
    assert check.metadata["unit"].value == "cosine"
    written = json.loads(bucket.get_bytes(store.multiverse_key(DATASET_HASH)))
    assert {point["model"] for point in written["points"]} == set(models)
    assert "can't be computed" in written["note"]
    (event,) = done.asset_materializations_for_node("audits__multiverse")
    assert len(str(event.metadata["plot"].value)) < 150_000


def test_a_model_that_has_not_answered_is_named(run, bucket):
    first, second = names.AUDITED_MODELS
    put_responses(bucket, [first], PAIRS)
    assert f"audits/responses/{second}" in failure(run([assets.multiverse]))


@pytest.mark.parametrize("asset", [assets.instrument, assets.multiverse])
def test_without_a_dataset_the_failure_says_what_to_do(run, asset):
    assert "materialise counterfactuals/dataset" in failure(run([asset]))


def finding(verdict, estimate=0.05):
    return Finding("success", f"{verdict} one", 50, estimate, 0.0, 0.1, LIMIT, verdict)


@pytest.mark.parametrize(
    ("verdicts", "passed", "severity"),
    [
        ([HOLDS, HOLDS], True, dg.AssetCheckSeverity.WARN),
        ([HOLDS, INSUFFICIENT], False, dg.AssetCheckSeverity.WARN),
        ([HOLDS, INSUFFICIENT, FAILS], False, dg.AssetCheckSeverity.ERROR),
        ([], False, dg.AssetCheckSeverity.WARN),
    ],
)
def test_a_check_passes_only_where_all_is_known_and_holds(verdicts, passed, severity):
    one = checks.result(checks.EDITOR, [finding(verdict) for verdict in verdicts])
    assert (one.passed, one.severity) == (passed, severity)
    assert one.metadata["compared"].value == len(verdicts)
    if FAILS in verdicts:
        assert one.description.startswith("fails")
        assert "fails one" in one.description


def test_what_is_lost_fails_the_filters_check_as_a_warning_and_is_named():
    lost = ["gender: occupation judge (0 of 3)"]
    found = filter_parity.FilterParity([], [finding(HOLDS)], None, None, None, lost)
    empty = Instrument({"success": Compared([], [])}, found, [], [], 0, 0)
    by_name = {one.check_name: one for one in checks.instrument_results(empty)}
    one = by_name[checks.FILTER]
    assert not one.passed
    assert one.severity == dg.AssetCheckSeverity.WARN
    assert "nothing is left of gender: occupation judge (0 of 3)" in one.description


def test_no_check_of_the_instrument_blocks_a_release():
    specs = [*checks.INSTRUMENT_CHECKS, *checks.MULTIVERSE_CHECKS]
    assert not any(spec.blocking for spec in specs)
