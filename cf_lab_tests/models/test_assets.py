"""Artifacts, their checks and variants as Dagster runs them, on the shipped models."""

import importlib.util
import shutil
import sys

import dagster as dg
import pytest

from cf_lab_assets import automation, names
from cf_lab_assets.definitions import build_defs
from cf_lab_assets.models import artifacts, registry
from cf_lab_assets.models.assets import KEEP_QUALITY, model_artifacts, optimised_models
from cf_lab_assets.models.checks import (
    EVERY_FILE,
    EVERY_MODEL,
    every_file_is_the_one_on_record,
    every_model_loads,
)
from cf_lab_resources.dagster import BucketResource
from cf_lab_resources.engine import latent, pipeline
from cf_lab_resources.engine.editors import EditorSettings
from cf_lab_resources.engine.model_sources import ModelUnavailable


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CF_LAB_HOME", str(tmp_path / "home"))


@pytest.fixture
def materialise(bucket):
    def run(*assets, **config):
        node = names.OPTIMISED_MODELS.to_python_identifier()
        return dg.materialize(
            list(assets),
            resources={"bucket": BucketResource(url=bucket.root)},
            run_config={"ops": {node: {"config": config}}} if config else None,
            raise_on_error=False,
        )

    return run


def check_alone(bucket, check):
    """Evaluate a check without its asset, as the nightly job does."""
    return dg.materialize(
        [model_artifacts, check],
        selection=dg.AssetSelection.checks(check),
        resources={"bucket": BucketResource(url=bucket.root)},
        raise_on_error=False,
    )


def table(result, node, name):
    (event,) = result.asset_materializations_for_node(node)
    return [record.data for record in event.metadata[name].records]


def evaluations(result):
    return {one.check_name: one for one in result.get_asset_check_evaluations()}


def failure(result):
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data.user_failure_data.description


def test_all_models_in_use_are_resolved_verified_and_loaded(materialise, bucket):
    result = materialise(model_artifacts, every_file_is_the_one_on_record, every_model_loads)
    assert result.success
    rows = table(result, "models__artifacts", "models")
    assert [row["model"] for row in rows] == list(artifacts.FOLDERS)
    for row in rows:
        assert row["uri"] == f"starter://{artifacts.FOLDERS[row['model']]}"
        assert row["licence"] == "MIT"
        assert row["revision"]
        assert row["bytes"] > 10_000
        assert bucket.exists(registry.manifest_key(row["sha256"]))
    found = evaluations(result)
    assert found.keys() == {EVERY_FILE, EVERY_MODEL}
    assert all(one.passed and one.blocking for one in found.values())
    answers = found[EVERY_MODEL].metadata["answers"].value
    assert answers["starter-editor"] == {"kind": "editor, instruction", "size": 64}
    assert answers["starter-resnet"]["kind"] == "classifier"
    assert answers["starter-skewed"]["kind"] == "clip"


def test_a_damaged_model_stops_the_run_and_is_named(materialise, tmp_path, monkeypatch, bucket):
    assert materialise(model_artifacts).success
    copy = tmp_path / "weights"
    shutil.copytree(artifacts.WEIGHTS, copy)
    monkeypatch.setattr(artifacts, "WEIGHTS", copy)
    (copy / "scorer-siglip" / "config.json").write_text("{}")
    checked = check_alone(bucket, every_file_is_the_one_on_record)
    (damaged,) = evaluations(checked)[EVERY_FILE].metadata["damaged"].value
    assert "scorer-siglip" in damaged
    result = materialise(model_artifacts)
    assert not result.success
    assert "config.json" in failure(result)
    loaded = check_alone(bucket, every_model_loads)
    (failed,) = evaluations(loaded)[EVERY_MODEL].metadata["failed"].value
    assert failed.startswith("starter-siglip: ")


def test_another_editor_is_resolved_loaded_and_has_its_own_hash(materialise, bucket, monkeypatch):
    folder = artifacts.model_folder(artifacts.EDITOR)
    uri = folder.as_uri()
    monkeypatch.setenv("CF_LAB_EDITOR", uri)
    with pytest.raises(ModelUnavailable, match="materialise models/artifacts"):
        artifacts.generation_models(bucket)
    result = materialise(model_artifacts, every_file_is_the_one_on_record, every_model_loads)
    assert result.success
    assert table(result, "models__artifacts", "models")[0]["uri"] == uri
    editor = artifacts.generation_models(bucket)["editor"]
    assert editor["name"] == uri
    assert editor["family"] == "stable-diffusion"
    assert artifacts.identity(bucket)[uri] == editor["sha256"]
    assert artifacts.in_use_folder(uri, bucket) != folder
    assert artifacts.load_editor(EditorSettings(), bucket).strategy == "instruction"


def test_variants_are_artifacts_of_their_own_and_measured(materialise, bucket, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    materialise(model_artifacts)
    result = materialise(optimised_models, portraits=1)
    original, half, int8 = table(result, "models__optimised", "variants")
    assert half["state"] == "made"
    # The starter's weights are stored in half precision already: a variant saves no bytes there.
    assert half["bytes"] == pytest.approx(original["bytes"], rel=0.01)
    assert int8["state"] == "not made: torchao is not installed"
    assert int8["uri"] == ""
    manifest = registry.recorded(bucket, artifacts.parse_model_uri(half["uri"]))
    assert manifest.variant == "bf16"
    assert manifest.parent == artifacts.generation_models(bucket)["editor"]["sha256"]
    assert half["mean cits"] == pytest.approx(original["mean cits"], abs=0.03)
    check = evaluations(result)[KEEP_QUALITY]
    assert check.blocking
    assert check.metadata["draws"].value == 6


needs_torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="needs the extra int8"
)


@pytest.mark.int8
@needs_torchao
def test_the_int8_variant_is_the_bf16_one_quantised_when_it_is_loaded(materialise, monkeypatch):
    quantised = []
    own = pipeline.quantise
    monkeypatch.setattr(latent, "quantise", lambda unet: quantised.append(own(unet)))
    materialise(model_artifacts)
    result = materialise(optimised_models, portraits=1)
    original, half, int8 = table(result, "models__optimised", "variants")
    assert int8["state"] == "made when it is loaded, from the bf16 weights"
    assert int8["uri"] == half["uri"]
    assert len(quantised) == 1
    assert int8["mean cits"] == pytest.approx(original["mean cits"], abs=0.03)
    assert evaluations(result)[KEEP_QUALITY].metadata["lost"].value.keys() == {"bf16", "int8"}


@pytest.mark.int8
@needs_torchao
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_variants_keep_the_quality_of_the_original(materialise):
    materialise(model_artifacts)
    result = materialise(optimised_models)
    check = evaluations(result)[KEEP_QUALITY]
    assert check.passed, check.metadata
    assert check.metadata["draws"].value >= 200


def test_the_nightly_verification_makes_nothing(bucket):
    definitions = build_defs({"bucket": BucketResource(url=bucket.root)})
    result = definitions.resolve_job_def(automation.VERIFY_MODELS).execute_in_process()
    assert result.success
    assert evaluations(result).keys() == {EVERY_FILE}
    assert result.get_asset_materialization_events() == []
    (schedule,) = [one for one in automation.SCHEDULES if one.job_name == automation.VERIFY_MODELS]
    assert schedule.cron_schedule == "0 5 * * *"
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING


def test_variants_are_no_part_of_the_main_job():
    for job in (automation.MAKE_COUNTERFACTUALS, automation.MAKE_DATASET, automation.PUBLISH):
        keys = build_defs().resolve_job_def(job).asset_layer.selected_asset_keys
        assert names.OPTIMISED_MODELS not in keys
