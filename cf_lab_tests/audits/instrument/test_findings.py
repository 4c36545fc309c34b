import pytest

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
