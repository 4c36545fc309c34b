import numpy as np
import pyarrow as pa
import pytest

from cf_lab_assets.audits import effects
from cf_lab_assets.audits.answers import read_answers
from cf_lab_assets.audits.instrument import multiverse, plots
from cf_lab_assets.audits.instrument.findings import FAILS, HOLDS, INSUFFICIENT
from cf_lab_tests.audits.synthetic import SMALL, noisy, responses

ACCEPTED = 0.5
SETS = 200


def strict(cits, at_once=None):
    """Sets of synthetic responses with their least CITS, and whether they passed at once."""
    return {
        f"s{number:05}-{attribute}": (float(score), at_once is None or bool(at_once[number]))
        for attribute in SMALL.attributes
        for number, score in enumerate(cits)
    }


@pytest.fixture(scope="module")
def answered():
    return responses(*noisy(SETS, seed=1, shift=0.05))


CITS = np.linspace(0.5, 0.94, SETS)


def test_at_the_threshold_of_acceptance_the_curve_is_the_audits_own_effect(answered):
    headline, *_ = multiverse.curve(answered, strict(CITS), ACCEPTED)
    (endpoint,) = SMALL.primary
    (own,) = effects.primary_effects(read_answers(answered, SMALL)[endpoint.attribute], SMALL)
    assert (headline.rule, headline.threshold) == (multiverse.ANY_DRAW, ACCEPTED)
    for name in ("n_sets", "estimate", "ci_low", "ci_high", "placebo_floor"):
        assert getattr(headline, name) == own[name]
    assert headline.shift.estimate == 0


def test_a_point_is_the_effect_of_the_sets_that_a_stricter_threshold_keeps(answered):
    points = multiverse.curve(answered, strict(CITS), ACCEPTED)
    (one,) = [p for p in points if (p.rule, p.threshold) == (multiverse.ANY_DRAW, 0.8)]
    kept = CITS >= 0.8
    members, sources = noisy(SETS, seed=1, shift=0.05)
    part = responses({name: block[kept] for name, block in members.items()}, sources[kept])
    (own,) = effects.primary_effects(read_answers(part, SMALL)["gender"], SMALL)
    assert one.n_sets == kept.sum() == own["n_sets"]
    assert one.estimate == pytest.approx(own["estimate"], abs=1e-12)
    assert one.shift.estimate == pytest.approx(one.estimate - points[0].estimate, abs=1e-12)


def test_a_headline_that_does_not_hang_on_the_filter_holds(answered):
    points = multiverse.curve(answered, strict(CITS), ACCEPTED)
    assert {one.verdict for one in multiverse.judged(points)} == {HOLDS}
    too_few = [one for one in points if one.estimate is None]
    assert too_few
    assert {one.shift.verdict for one in too_few} == {INSUFFICIENT}


def test_a_headline_that_comes_from_poor_pairs_alone_fails():
    members, sources = noisy(SETS, seed=1)
    poor = CITS < 0.7
    members["gender"][poor, 1, 0] += 0.5
    points = multiverse.curve(responses(members, sources), strict(CITS), ACCEPTED)
    failed = [one for one in multiverse.judged(points) if one.verdict == FAILS]
    assert failed
    assert all(abs(one.estimate) > one.limit.value for one in failed)


def test_sets_that_needed_another_draw_can_be_left_out(answered):
    at_once = np.arange(SETS) % 2 == 0
    points = multiverse.curve(answered, strict(CITS, at_once), ACCEPTED)
    (one,) = [p for p in points if (p.rule, p.threshold) == (multiverse.FIRST_DRAW, ACCEPTED)]
    assert one.n_sets == SETS // 2


def test_an_endpoint_of_which_no_stricter_point_is_left_is_insufficient(answered):
    sets = strict(np.full(SETS, ACCEPTED), np.zeros(SETS))
    points = multiverse.curve(answered, sets, ACCEPTED)
    assert [one.verdict for one in multiverse.judged(points)] == [INSUFFICIENT]


def test_strictness_is_of_the_worst_member():
    pairs = pa.table(
        {
            "set_id": ["a", "a", "b", "b"],
            "cits": pa.array([0.9, 0.6, 0.7, 0.8], pa.float32()),
            "draw": pa.array([0, 0, 0, 2], pa.int32()),
        }
    )
    found = multiverse.strictness(pairs)
    assert found["a"] == (pytest.approx(0.6), True)
    assert found["b"] == (pytest.approx(0.7), False)


@pytest.mark.parametrize(
    ("accepted", "second"), [(0.5, 0.55), (0.52, 0.55), (0.55, 0.6), (0.0, 0.05)]
)
def test_the_grid_starts_where_sets_were_accepted_and_only_gets_stricter(accepted, second):
    grid = multiverse.grid(accepted)
    assert grid[:2] == [accepted, second]
    assert grid[-1] == 0.95
    assert grid == sorted(set(grid))


def test_the_same_points_give_the_same_picture(answered):
    points = multiverse.curve(answered, strict(CITS), ACCEPTED)
    first = plots.multiverse_curves(points)
    assert first.startswith(b"\x89PNG")
    assert first == plots.multiverse_curves(points)
    assert first != plots.multiverse_curves(points[:5])
