"""The calibration: a sound auditor passes it, and each kind of broken one is told."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cf_lab_assets.audits import calibration, effects, rankings, statistics
from cf_lab_assets.audits.answers import Answers
from cf_lab_assets.audits.declaration import AuditConfig
from cf_lab_assets.audits.errors import AuditError

AUDITS = 300
CONFIG = AuditConfig.model_validate(
    {
        "occupations": ("q",),
        "prompt_template": "{occupation}",
        "attributes": {"gender": ("woman", "man")},
        "primary": (),
        "bootstrap_draws": 500,
        "permutations": 499,
    }
)


def skeleton(sets: int = 60) -> dict[str, Answers]:
    half = np.array(["dark", "light"], dtype=object)[np.arange(sets) % 2]
    return {
        "gender": Answers(
            "gender",
            ("woman", "man"),
            np.arange(sets),
            np.zeros((sets, 2, 1)),
            np.arange(sets) % 2,
            np.zeros((sets, 1)),
            {"skin_tone": half},
        )
    }


def failed(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one["oracle"], one["name"]) for one in document["quantities"] if not one["passed"]}


@pytest.fixture(scope="module")
def sound() -> dict[str, Any]:
    return calibration.calibrate(skeleton(), CONFIG, AUDITS, 60)


def test_a_sound_auditor_passes_on_every_oracle(sound: dict[str, Any]) -> None:
    assert failed(sound) == set()
    assert sound["passed"]
    assert {one["oracle"] for one in sound["quantities"]} == set(calibration.ORACLES)


def test_power_grows_with_the_effect_and_is_as_declared_at_the_mde(sound: dict[str, Any]) -> None:
    found = {one["multiple_of_mde"]: one["found"] for one in sound["power"]}
    assert list(found.values()) == sorted(found.values())
    assert found[1.0] == pytest.approx(CONFIG.power, abs=0.08)
    assert found[2.0] > 0.99


def test_the_same_sets_give_the_same_document(sound: dict[str, Any]) -> None:
    assert calibration.calibrate(skeleton(), CONFIG, AUDITS, 60) == sound


def test_a_p_that_is_half_of_what_it_should_be_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = statistics.sign_flip_p

    def halved(*arguments: Any) -> Any:
        p, method = honest(*arguments)
        return p / 3, method

    monkeypatch.setattr(statistics, "sign_flip_p", halved)
    found = failed(calibration.calibrate(skeleton(), CONFIG, AUDITS, 20))
    assert ("null", "false positive rate of one test") in found
    assert ("variance", "false positive rate of one test") in found


def test_intervals_that_are_too_narrow_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "small_sample_factor", lambda level, sets: 0.8)
    found = failed(calibration.calibrate(skeleton(), CONFIG, AUDITS, 20))
    assert ("null", "coverage of intervals") in found
    assert ("shift", "coverage of intervals") in found


def test_an_estimate_that_shrinks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = effects._weights
    monkeypatch.setattr(effects, "_weights", lambda *arguments: 0.8 * honest(*arguments))
    found = failed(calibration.calibrate(skeleton(), CONFIG, AUDITS, 20))
    assert ("shift", "bias of the estimate in standard errors") in found


def test_the_references_ndkl_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def reversed_divergence(prefixes: np.ndarray, desired: Any = None) -> np.ndarray:
        _, k, values = prefixes.shape
        share = np.maximum(prefixes / np.arange(1, k + 1)[:, None], 1e-300)
        discount = 1 / np.log2(np.arange(2, k + 2))
        present = np.where(prefixes > 0, np.log(share * values) / values, 0.0)
        return present.sum(axis=2) @ discount / discount.sum()

    monkeypatch.setattr(rankings, "ndkl", reversed_divergence)
    found = failed(calibration.calibrate(skeleton(), CONFIG, 20, 20))
    assert ("ranking", "largest error of Skew and NDKL") in found


def test_strata_that_are_too_small_are_unmeasured_and_do_not_fail() -> None:
    document = calibration.calibrate(skeleton(30), CONFIG, 50, 20)
    (strata,) = (one for one in document["quantities"] if one["oracle"] == "intersection")
    assert (strata["measured"], strata["sets"], strata["passed"]) == (None, 15, True)


def test_sets_without_placebos_are_calibrated_on_too() -> None:
    made = skeleton()["gender"]
    bare = {"gender": dataclasses.replace(made, placebo=np.full(60, -1))}
    assert failed(calibration.calibrate(bare, CONFIG, AUDITS, 20)) == set()


def test_an_attribute_with_one_value_is_unmeasured() -> None:
    made = skeleton()["gender"]
    alone = dataclasses.replace(made, values=("man",), members=made.members[:, :1])
    document = calibration.calibrate({"gender": alone}, CONFIG, 50, 20)
    assert (document["measured"], document["passed"]) == (0, True)


def test_the_skeleton_is_the_datasets_own() -> None:
    pairs = pa.Table.from_pylist(
        [
            {
                "set_id": f"s{i}",
                "attribute": "gender",
                "value": value,
                "values": [("gender", value), ("skin_tone", "dark" if i < 2 else "light")],
                "is_placebo": value == "man",
            }
            for i in range(3)
            for value in ("woman", "man")
            if (i, value) != (2, "woman")
        ],
        schema=pa.schema(
            [
                ("set_id", pa.string()),
                ("attribute", pa.string()),
                ("value", pa.string()),
                ("values", pa.map_(pa.string(), pa.string())),
                ("is_placebo", pa.bool_()),
            ]
        ),
    )
    made = calibration.skeletons(pairs, CONFIG)["gender"]
    assert np.isnan(made.members[:, 0, 0]).tolist() == [False, False, True]
    assert made.placebo.tolist() == [1, 1, 1]
    assert made.within["skin_tone"].tolist() == ["dark", "dark", "light"]
    with pytest.raises(AuditError, match="no set of any declared attribute"):
        calibration.skeletons(pairs.slice(0, 0), CONFIG)
