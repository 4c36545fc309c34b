import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cf_lab_assets.counterfactuals.scores import Calibration, Pair, preservation
from cf_lab_assets.models import artifacts
from cf_lab_assets.starter import world

CALIBRATION = Calibration(2.0, 1.5, 4.0, -3.0, placebo_direction=0.5, threshold=0.5)
UNIT = st.floats(-1, 1, width=32)


@given(UNIT, UNIT, UNIT, st.floats(0, 1, width=32), st.integers(0, 2))
def test_cits_lies_between_0_and_1_and_rises_with_each_part(first, second, third, more, part):
    parts = [np.array([value], np.float32) for value in (first, second, third)]
    raised = [value + (more if index == part else 0) for index, value in enumerate(parts)]
    low, high = CALIBRATION.cits(*parts)[0], CALIBRATION.cits(*raised)[0]
    assert 0 < low < 1
    assert high >= low


def test_a_placebo_has_no_direction_and_is_scored_all_the_same():
    nothing = np.array([np.nan], np.float32)
    typical = np.array([CALIBRATION.placebo_direction], np.float32)
    zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    assert CALIBRATION.cits(zero, nothing, one) == CALIBRATION.cits(zero, typical, one)


def test_preservation_forgives_the_edited_part_and_not_the_rest():
    rng = np.random.default_rng(0)
    picture = rng.random((1, 64, 64, 3), dtype=np.float32)
    edited, ruined = picture.copy(), picture.copy()
    edited[:, 16:44, 20:44] = 1 - edited[:, 16:44, 20:44]
    ruined[:] = rng.random(picture.shape, dtype=np.float32)
    assert preservation(picture, picture)[0] == pytest.approx(1)
    assert preservation(picture, edited)[0] > 0.95
    assert preservation(picture, ruined)[0] < 0.3


@pytest.fixture(scope="module")
def judge():
    return artifacts.load_judge()


def scored(judge, portrait, candidate, caption, values):
    pair = Pair(world.render(portrait), world.render(candidate), portrait.caption, caption, values)
    return judge.score([pair])[0]


def test_the_true_counterfactual_is_right_and_other_pictures_are_not(judge):
    portrait = world.Portrait("woman", "young", "medium", "chef", "kitchen", seed=77)
    truth = portrait.with_values({"gender": "man"})
    stranger = world.Portrait("man", "young", "medium", "judge", "seaside", seed=1)
    right = scored(judge, portrait, truth, truth.caption, truth.attributes)
    unchanged = scored(judge, portrait, portrait, truth.caption, truth.attributes)
    elsewhere = scored(judge, portrait, stranger, truth.caption, truth.attributes)
    assert right["missed"] == []
    assert any("gender" in reason for reason in unchanged["missed"])
    assert right["cits"] > 0.5 > elsewhere["cits"]
    assert right["cits"] > unchanged["cits"]
    assert unchanged["sim_dir"] is None or right["sim_dir"] > unchanged["sim_dir"]


def test_embeddings_of_a_text_are_made_once(judge):
    first = judge.embed_texts(["a portrait of a judge", "a portrait of a judge"])
    assert (first[0] == first[1]).all()
    assert first.shape[0] == 2
