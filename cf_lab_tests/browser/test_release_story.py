"""A release from the first click to the API; the next one, stopped by a bad picture and mended.

All of it is done by clicks in the UI, but for delivering the batches and planting the picture.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from cf_lab_assets import automation, names
from cf_lab_assets.releases.gates import (
    GATES,
    NO_HASH_MISMATCH,
    QUALITY_IS_ABOVE_FLOOR,
    REPORT_IS_PRESENT,
)
from cf_lab_tests.browser.conftest import deliver, person_before

pytestmark = [pytest.mark.browser, pytest.mark.timeout(3600)]

SECOND_BATCH = "second"
# Two portraits give pictures enough, and each more costs seconds.
FEW = 2


@dataclass(frozen=True)
class Refused:
    """What became of the second release.

    Attributes:
        planted: bucket key of the picture that was overwritten.
        gates: what the UI showed of each gate, by name.
        said: what it showed of why the release was not made current.
        current: what the API answered then of the current release,
        served: of the old release's pairs, by id,
        strange: and of those that only the new release would have brought.
    """

    planted: str
    gates: dict
    said: str
    current: httpx.Response
    served: dict
    strange: list[httpx.Response]


@pytest.fixture(scope="module")
def refused(chromium, lab, api, album, released, tmp_path_factory):
    """A second batch is audited, then a picture of it overwritten; somebody tries to publish it."""
    deliver(lab.home, tmp_path_factory.mktemp("second") / "new", SECOND_BATCH, FEW, seed=6)
    with person_before(chromium, lab, album) as person:
        person.make_dataset(SECOND_BATCH)
        for key in (names.CALIBRATION, names.BIAS_REPORT):
            person.watch(person.materialise(*key.path))
        latest = json.loads((lab.home / "bucket" / "datasets" / "latest.json").read_bytes())
        rows = lab.pairs(latest["content_hash"])
        new = [row for row in rows if row["batch"] == SECOND_BATCH]
        planted = next(row["image_key"] for row in new if not row["is_placebo"])
        overwrite(lab, planted, new[0]["source_image_key"])
        person.watch(person.materialise(*names.RELEASE_CANDIDATE.path), "Failure")
        person.photograph("5-the-candidate-has-failed")
        gates = person.look_at_gates({"6-a-gate-is-red": NO_HASH_MISMATCH})
        person.watch(person.materialise(*names.RELEASE_CURRENT.path), "Failure")
        said = person.page.get_by_text(f"is refused by 1 of {len(GATES)} gates").first
        said.wait_for()
        person.photograph("7-the-release-is-refused")
        return Refused(
            planted,
            gates,
            said.inner_text(),
            api.get("/v1/releases/current"),
            {pair_id: api.get(f"/v1/pairs/{pair_id}") for pair_id in released.pairs},
            [api.get(f"/v1/pairs/{row['pair_id']}") for row in new],
        )


@pytest.fixture(scope="module")
def mended(chromium, lab, album, refused):
    """What the gates then show where somebody does what the refusal says."""
    with person_before(chromium, lab, album) as person:
        person.watch(person.run_job(automation.MAKE_COUNTERFACTUALS, SECOND_BATCH))
        person.watch(person.judge_again())
        gates = person.look_at_gates({"8-the-gate-is-green-again": NO_HASH_MISMATCH})
        person.watch(person.materialise(*names.RELEASE_CURRENT.path))
        person.photograph("9-the-new-release-is-current")
    return gates


def overwrite(lab, key, other):
    """Puts another picture's bytes in a picture's place: it can be opened as before."""
    bucket = lab.home / "bucket"
    staged = (bucket / key).with_suffix(".planted")
    staged.write_bytes((bucket / other).read_bytes())
    os.replace(staged, bucket / key)


def test_every_run_that_was_clicked_for_is_shown_as_a_success(released):
    assert released.made >= 4
    assert released.succeeded == released.made


@pytest.mark.parametrize("gate", GATES, ids=[gate.name for gate in GATES])
def test_a_gate_of_the_good_release_is_green_with_number_and_limit(released, gate):
    shown = released.gates[gate.name]
    assert shown["verdict"] == "Passed"
    assert float(shown["limit"]) == gate.limit
    assert shown["unit"] == gate.unit
    measured = float(shown["measured"])
    if gate in (QUALITY_IS_ABOVE_FLOOR, REPORT_IS_PRESENT):
        assert measured >= gate.limit
    else:
        assert 0 <= measured <= gate.limit


def test_the_api_answers_from_the_release(released, api):
    assert released.release["state"] == "current"
    assert {row["batch"] for row in released.pairs.values()} == {"portraits"}
    assert len(released.pairs) > 10
    for pair_id, row in released.pairs.items():
        assert_served(api, released.served[pair_id], row, released.release["release_id"])


def assert_served(api, answer, row, release_id):
    """Record and picture are those of a pair's row, and of a release."""
    assert answer.status_code == 200
    assert answer.headers["x-release-id"] == answer.json()["release_id"] == release_id
    record = answer.json()
    for column in ("pair_id", "set_id", "value", "caption", "image_sha256"):
        assert record[column] == row[column]
    picture = api.get(record["image"])
    assert hashlib.sha256(picture.content).hexdigest() == row["image_sha256"]


def test_the_overwritten_picture_turns_one_gate_red_that_names_it(refused):
    red = [name for name, shown in refused.gates.items() if shown["verdict"] == "Failed"]
    assert red == [NO_HASH_MISMATCH.name]
    shown = refused.gates[NO_HASH_MISMATCH.name]
    assert float(shown["measured"]) == 1
    assert float(shown["limit"]) == 0
    assert refused.planted in shown["sentence"]
    assert "run make_counterfactuals" in shown["sentence"]


def test_the_new_release_is_refused_with_gate_and_remedy(refused):
    for words in (NO_HASH_MISMATCH.name, refused.planted, "run make_counterfactuals"):
        assert words in refused.said


def test_the_old_release_is_still_served(released, refused, api):
    assert refused.current.json() == released.release
    assert refused.current.headers["x-release-id"] == released.release["release_id"]
    for pair_id, before in released.served.items():
        now = refused.served[pair_id]
        assert now.json() == before.json()
        assert_served(api, now, released.pairs[pair_id], released.release["release_id"])
    assert [answer.status_code for answer in refused.strange] == [404] * len(refused.strange)


def test_what_the_refusal_says_mends_it(released, refused, mended, api):
    assert {shown["verdict"] for shown in mended.values()} == {"Passed"}
    now = api.get("/v1/releases/current").json()["release_id"]
    assert now != released.release["release_id"]
    digest = Path(refused.planted).stem
    picture = api.get(f"/v1/images/{digest}")
    assert hashlib.sha256(picture.content).hexdigest() == digest
