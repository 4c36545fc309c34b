import numpy as np
import pytest

from cf_lab_assets.audits.instrument import editor_parity as parity
from cf_lab_assets.audits.instrument.findings import FAILS, HOLDS, INSUFFICIENT
from cf_lab_tests.audits.instrument.planted import readings

GROUPS = "gender: skin_tone dark less skin_tone light"
DIRECTIONS = "gender: man to woman less woman to man"


def measured(made, realism=None, drift=None):
    nothing = np.full(len(made.edits), np.nan)
    return parity.editor_parity(
        made,
        nothing if realism is None else realism,
        nothing if drift is None else drift,
    )


def gap(compared, subject):
    (found,) = [one for one in compared.gaps if one.subject == subject]
    return found


def test_an_editor_that_fails_more_for_one_group_is_flagged():
    made = readings(600, lambda values: 0.5 if values["skin_tone"] == "dark" else 0.95)
    found = measured(made)[parity.SUCCESS]
    flagged = {one.subject for one in found.gaps if one.verdict == FAILS}
    assert flagged == {
        "gender: skin_tone dark less skin_tone light",
        "gender: skin_tone dark less skin_tone medium",
    }
    one = gap(found, GROUPS)
    assert one.low < one.estimate < one.high < -parity.MEASURES[parity.SUCCESS].value
    assert gap(found, DIRECTIONS).verdict != FAILS


def test_an_editor_that_fails_more_one_way_is_flagged():
    made = readings(600, lambda values: 0.6 if values["gender"] == "man" else 0.95)
    assert gap(measured(made)[parity.SUCCESS], DIRECTIONS).verdict == FAILS


def test_an_even_editor_is_not_flagged_and_with_enough_sources_holds():
    found = measured(readings(3000, lambda values: 0.95))[parity.SUCCESS]
    assert {one.verdict for one in found.gaps if one.subject.startswith("gender")} == {HOLDS}


def test_small_cells_are_insufficient_and_listed_with_what_was_seen():
    found = measured(readings(24, lambda values: 0.0 if values["gender"] == "man" else 1.0))
    success = found[parity.SUCCESS]
    assert {one.verdict for one in success.gaps} == {INSUFFICIENT}
    one = gap(success, DIRECTIONS)
    assert (one.n, one.estimate, one.low) == (12, -1.0, None)
    assert {cell.name for cell in success.cells} >= {"man to woman", "skin_tone dark"}


def test_a_placebo_has_no_success_and_is_listed_beside():
    found = measured(readings(60))
    assert {one.attribute for one in found[parity.SUCCESS].cells} == {"gender"}
    cells = [one for one in found[parity.PRESERVATION].cells if one.attribute == "placebo"]
    assert [one.estimate for one in cells] == pytest.approx([0.95] * 5)


def test_intervals_resample_sources_and_not_edits():
    # The same edits as of fewer sources: what comes from one source says no more when repeated.
    made = readings(90)
    repeated = readings(90)
    repeated.edits = [edit for edit in made.edits for _ in range(5)]
    one, five = (measured(each)[parity.SUCCESS].cells[0] for each in (made, repeated))
    assert five.n == 5 * one.n
    assert (five.sources, five.low, five.high) == (one.sources, one.low, one.high)


def test_drift_of_edits_that_concern_skin_is_not_counted():
    made = readings(60)
    made.edits += [edit._replace(attribute="skin_tone+gender") for edit in made.edits]
    drifts = measured(made, drift=np.full(len(made.edits), 9.0))[parity.DRIFT]
    assert {cell.attribute for cell in drifts.cells} == {"gender", "placebo"}


def test_an_editor_that_lightens_one_group_is_flagged():
    made = readings(300)
    rng = np.random.default_rng(1)
    drift = np.array([4.0 * (edit.values["skin_tone"] == "dark") for edit in made.edits])
    found = measured(made, drift=drift + rng.normal(0, 1, len(drift)))[parity.DRIFT]
    one = gap(found, GROUPS)
    assert one.verdict == FAILS
    assert one.estimate == pytest.approx(4, abs=0.5)
    assert gap(found, DIRECTIONS).verdict == HOLDS
