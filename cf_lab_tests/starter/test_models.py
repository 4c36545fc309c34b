"""The shipped starter models against what is promised of them, and the way they are made."""

import json

import dagster as dg
import numpy as np
import pytest

from cf_lab_assets.models import artifacts
from cf_lab_assets.starter import evaluation, factory, world
from cf_lab_assets.starter.assets import STARTER_ASSETS
from cf_lab_resources.engine.scorers import AttributeClassifier

SOURCES = 40


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    picture = tmp_path_factory.mktemp("evaluation") / "editor.png"
    result = evaluation.evaluate(SOURCES, picture, seed=4_711)
    assert picture.stat().st_size > 10_000
    return result


def test_edits_succeed_by_a_judge_that_can_be_trusted(measured):
    for attribute in world.ATTRIBUTES:
        assert measured.accuracy[attribute] >= 0.98
        assert measured.scores[attribute].success >= 0.95


def test_edits_are_near_the_truth_and_leave_the_rest(measured):
    for attribute in world.ATTRIBUTES:
        score = measured.scores[attribute]
        assert score.inside <= 0.35
        assert score.outside <= 0.03
    assert measured.scores[evaluation.PLACEBO].outside <= 0.03


def test_the_evaluation_would_notice_an_editor_that_does_nothing():
    class Idle:
        def draw(self, drawings):
            return [[drawing.source for _ in drawing.members] for drawing in drawings]

    classifier = AttributeClassifier(artifacts.model_folder(artifacts.CLASSIFIER))
    idle = evaluation.evaluate(6, models=lambda: (Idle(), classifier))
    for attribute in world.ATTRIBUTES:
        assert idle.scores[attribute].success <= 0.1
        assert idle.scores[attribute].inside == pytest.approx(1.0)
        assert idle.scores[attribute].outside < 1e-3
    assert idle.scores[evaluation.PLACEBO].success >= 0.9


def test_errors_are_measured_where_the_truth_differs():
    source = np.zeros((1, 4, 4, 3), np.float32)
    truth, output = source.copy(), source.copy()
    truth[0, :2] = 0.8
    output[0, :2] = 0.6  # a quarter of the way is missing
    output[0, 2:] = 0.1
    inside, outside = evaluation.errors(source, truth, output)
    assert inside == pytest.approx(0.25)
    assert outside == pytest.approx(0.1)


def test_the_manifest_says_how_the_skewed_model_was_skewed():
    models = artifacts.starter_manifest()["models"]
    planted = models["audited-skewed"]["metrics"]["planted_skew"]
    assert planted["ratio"] == world.PLANTED_SKEW.ratio
    assert models["audited-balanced"]["metrics"]["planted_skew"] is None
    assert models["audited-balanced"]["files"] != models["audited-skewed"]["files"]


@pytest.mark.timeout(900)
def test_the_models_can_be_made_again_as_assets(tmp_path):
    """A few steps only: what is made is bad, and whole."""
    config = {"config": {"into": str(tmp_path / "weights"), "small": True}}
    result = dg.materialize(
        STARTER_ASSETS,
        run_config={
            "ops": {asset.op.name: config for asset in STARTER_ASSETS},
            "loggers": {"console": {"config": {"log_level": "ERROR"}}},
        },
    )
    assert result.success
    manifest = json.loads((tmp_path / "weights" / artifacts.MANIFEST).read_text())
    assert set(manifest["models"]) == set(artifacts.FOLDERS.values())
    for folder, record in manifest["models"].items():
        assert record["files"] == factory.folder_files(tmp_path / "weights" / folder)
        assert record["training"]["steps"] == 2
    assert (tmp_path / "weights" / artifacts.CALIBRATION).exists()
