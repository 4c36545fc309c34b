import numpy as np
import pytest

from cf_lab_assets.audits.instrument import appearance, parity
from cf_lab_assets.audits.instrument.findings import (
    FAILS,
    HOLDS,
    INSUFFICIENT,
    Finding,
    Limit,
    ceiling_verdict,
    floor_verdict,
    gap_verdict,
    overall,
    ranked,
)
from cf_lab_assets.starter import world
from cf_lab_resources.engine.pictures import as_array
from cf_lab_tests.audits.instrument.planted import offered, readings

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


@pytest.mark.parametrize(
    ("numbers", "verdict"),
    [
        ((0.3, 0.2, 0.4), FAILS),
        ((-0.3, -0.4, -0.2), FAILS),
        ((0.15, 0.02, 0.28), FAILS),
        ((0.15, -0.02, 0.32), INSUFFICIENT),
        ((0.05, 0.01, 0.09), HOLDS),
        ((0.05, 0.01, 0.11), INSUFFICIENT),
        ((None, None, None), INSUFFICIENT),
    ],
)
def test_a_gap_fails_beyond_its_limit_and_not_by_chance_and_holds_wholly_within(numbers, verdict):
    assert gap_verdict(*numbers, 0.1) == verdict


def test_ceilings_and_floors_are_judged_by_the_whole_interval():
    assert [ceiling_verdict(*ends, 0.6) for ends in ((0.61, 0.7), (0.5, 0.6), (0.5, 0.7))] == [
        FAILS,
        HOLDS,
        INSUFFICIENT,
    ]
    assert [floor_verdict(*ends, 0.6) for ends in ((0.5, 0.59), (0.6, 0.9), (0.5, 0.7))] == [
        FAILS,
        HOLDS,
        INSUFFICIENT,
    ]


def test_nothing_measured_is_insufficient_and_one_failure_is_a_failure():
    assert overall([]) == INSUFFICIENT
    assert overall([HOLDS, INSUFFICIENT]) == INSUFFICIENT
    assert overall([HOLDS, INSUFFICIENT, FAILS]) == FAILS


def test_failures_rank_first_and_what_reaches_least_over_a_floor_before_the_rest():
    floor = Limit(0.6, "", "", is_floor=True)
    kappas = [
        Finding("kappa", name, 50, value, None, None, floor, verdict)
        for name, value, verdict in (
            ("high", 0.9, HOLDS),
            ("low", 0.65, HOLDS),
            ("bad", 0.1, FAILS),
            ("none", None, INSUFFICIENT),
        )
    ]
    assert [one.subject for one in ranked(kappas)] == ["bad", "low", "high", "none"]


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
    assert {one.estimate for one in cells} == {0.95}


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


def acceptance(rate_of_men, lost="judge"):
    rng = np.random.default_rng(2)

    def accepted(number, values, occupation):
        rate = rate_of_men if values["gender"] == "man" else 0.9
        return occupation != lost and bool(rng.random() < rate)

    return offered(400, accepted, ("doctor", "judge", "pilot"))


def test_a_lost_occupation_is_named_and_its_cell_has_an_interval():
    found = parity.filter_parity(acceptance(0.9))
    assert found.lost == ["gender: occupation judge (0 of 134)"]
    (cell,) = [one for one in found.cells if one["cell"] == "occupation judge"]
    assert (cell["offered"], cell["accepted"], cell["share"], cell["low"]) == (134, 0, 0.0, 0.0)
    assert 0 < cell["high"] < 0.04
    assert found.least == "gender: occupation judge"
    assert found.ratio[0] == 0


def test_an_uneven_filter_is_flagged_and_the_ratio_lies_in_its_interval():
    found = parity.filter_parity(acceptance(0.4, lost=None))
    assert [one.verdict for one in found.comparisons] == [FAILS]
    assert not found.lost
    ratio, low, high = found.ratio
    assert low < ratio < high < parity.RATIO_LIMIT.value
    assert (found.least, found.most) == ("gender: gender man", "gender: gender woman")
    even = parity.filter_parity(acceptance(0.9, lost=None))
    assert [one.verdict for one in even.comparisons] == [HOLDS]
    assert even.ratio[0] > parity.RATIO_LIMIT.value


def test_what_was_refused_before_the_filter_is_offered_and_not_drawn():
    sets = [one._replace(drawn=False, accepted=False) for one in acceptance(0.9)[:40]]
    found = parity.filter_parity(sets)
    assert {(one["drawn"], one["share"], one["low"]) for one in found.cells} == {(0, None, None)}
    assert sum(one["refused"] for one in found.cells if one["cell"].startswith("gender")) == 40
    assert found.ratio is None
    assert len(found.lost) == len(found.cells)


def test_lightness_shifts_are_those_of_skin_alone():
    portraits = list(world.sample(6, seed=3))
    for portrait in portraits:
        before = as_array([world.render(portrait)])[0]
        tones = [
            world.render(portrait.with_values({"skin_tone": tone}))
            for tone in world.ATTRIBUTES["skin_tone"]
        ]
        light, medium, dark = appearance.lightness_shifts(before, as_array(tones))
        assert light > medium > dark
        assert 0 in (light, medium, dark)
        # A lighter background is no lighter skin.
        brighter = before.copy()
        brighter[:6] = 1.0
        assert appearance.lightness_shifts(before, brighter[None])[0] == 0


def test_without_skin_in_the_window_no_shift_is_measured():
    grey = np.full((64, 64, 3), 0.5, np.float32)
    assert np.isnan(appearance.lightness_shifts(grey, grey[None])).all()


def test_blur_and_noise_are_stranger_than_the_pictures_themselves():
    from scipy.ndimage import gaussian_filter

    pictures = as_array([world.render(one) for one in world.sample(24, seed=4)])
    rng = np.random.default_rng(5)
    blurred = gaussian_filter(pictures, (0, 1.5, 1.5, 0))
    noisy = np.clip(pictures + rng.normal(0, 0.05, pictures.shape).astype(np.float32), 0, 1)
    statistics = [appearance.local_statistics(one) for one in (pictures, blurred, noisy)]
    assert statistics[0].shape == (24, appearance.COUNT)
    own, blur, noise = (appearance.strangeness(one, statistics[0]).mean() for one in statistics)
    assert own < 1.01
    assert blur > own + 0.5
    assert noise > own + 0.5


def test_one_source_is_no_reference():
    assert np.isnan(appearance.strangeness(np.zeros((3, 4)), np.zeros((1, 4)))).all()
