import dagster as dg
import pytest

from cf_lab_assets.counterfactuals import checks, parity


def compared(first, second):
    return parity.compare("gender", ("woman", first), ("man", second), 0.95)


def test_the_interval_is_newcombes():
    # Newcombe 1998, table II, (a) 56/70 against 48/80, method 10.
    low, high = parity.newcombe_interval((70, 56), (80, 48), 0.95)
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)
    # The same table, (f) 10/10 against 0/20: a share of one is no certainty.
    low, high = parity.newcombe_interval((10, 10), (20, 0), 0.95)
    assert (round(low, 4), round(high, 4)) == (0.6791, 1.0)


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ((100, 90), (100, 85), parity.EQUAL),
        ((100, 90), (100, 45), parity.UNEQUAL),
        ((100, 45), (100, 90), parity.UNEQUAL),
        ((40, 20), (40, 15), parity.EQUAL),  # far apart, and well within chance
        ((5000, 4900), (5000, 4700), parity.EQUAL),  # sure, and near
        ((10, 10), (500, 10), parity.INSUFFICIENT),
        ((0, 0), (500, 10), parity.INSUFFICIENT),
        ((500, 0), (500, 0), parity.INSUFFICIENT),
        ((500, 0), (500, 400), parity.UNEQUAL),
    ],
)
def test_unequal_means_far_apart_and_not_by_chance(first, second, verdict):
    assert compared(first, second).verdict == verdict


def test_what_was_not_drawn_has_no_rate():
    one = compared((0, 0), (500, 10))
    assert one.gap is one.low is one.high is one.ratio is None


def acceptance(rates, sets=100):
    """Sets that vary gender, accepted at the rate of their source's gender."""
    made = parity.Acceptance()
    for own, other in (("woman", "man"), ("man", "woman")):
        for number in range(sets):
            accepted = number < rates[own] * sets
            made.add_set("gender", {"gender": own}, accepted)
            edit = {
                "attribute": "gender",
                "from_values": {"gender": own},
                "to_values": {"gender": other},
            }
            made.add_edit(edit, accepted)
    return made


def test_only_sets_that_vary_the_same_are_compared():
    rows = [
        {"attribute": varied, "values": {"gender": own}, "drawn": drawn, "accepted": accepted}
        for varied, own, drawn, accepted in [
            ("gender", "woman", 1000, 900),
            ("gender", "man", 100, 90),
            ("age", "woman", 100, 50),
            ("age", "man", 1000, 500),
        ]
    ]
    found = parity.source_groups(rows)
    assert [(one.attribute, one.verdict) for one in found] == [
        ("gender", parity.EQUAL),
        ("age", parity.EQUAL),
    ]


def test_directions_are_compared_with_their_opposites_and_intersections_too():
    rows = [
        {"attribute": "gender+age", "from_value": a, "to_value": b, "drawn": n, "accepted": k}
        for a, b, n, k in [
            ("woman+old", "man+young", 100, 90),
            ("man+young", "woman+old", 100, 30),
            ("man+old", "man+young", 100, 90),
        ]
    ]
    found = {(one.first, one.second): one for one in parity.directions(rows)}
    assert len(found) == 2
    there_and_back = found["man+young to woman+old", "woman+old to man+young"]
    assert there_and_back.verdict == parity.UNEQUAL
    assert there_and_back.gap == pytest.approx(-0.6)
    assert found["man+old to man+young", "man+young to man+old"].verdict == parity.INSUFFICIENT


@pytest.mark.parametrize(
    ("made", "passed", "severity"),
    [
        (acceptance({"woman": 0.9, "man": 0.88}), True, dg.AssetCheckSeverity.WARN),
        (acceptance({"woman": 0.9, "man": 0.5}), False, dg.AssetCheckSeverity.ERROR),
        (acceptance({"woman": 0.9, "man": 0.5}, sets=10), False, dg.AssetCheckSeverity.WARN),
        (parity.Acceptance(), False, dg.AssetCheckSeverity.WARN),
    ],
)
def test_a_check_passes_only_on_enough_and_equal(made, passed, severity):
    results = checks.evaluate(made)
    assert [result.check_name for result in results] == [checks.SOURCE_GROUPS, checks.DIRECTIONS]
    for result in results:
        assert result.passed is passed
        assert result.severity == severity
        assert result.metadata["limit"].value == parity.RATIO_LIMIT


def test_too_few_are_called_insufficient_and_have_no_ratio():
    for result in checks.evaluate(acceptance({"woman": 0.9, "man": 0.5}, sets=10)):
        assert result.metadata["measured"].value == "insufficient"
        assert "insufficient" in result.description
