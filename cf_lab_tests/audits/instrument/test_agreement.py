import pytest

from cf_lab_assets.audits.instrument.agreement import KAPPA_LIMIT, agreement
from cf_lab_assets.audits.instrument.findings import FAILS, HOLDS, INSUFFICIENT
from cf_lab_assets.counterfactuals.scores import Miss


def counts(table):
    """One candidate a source, as often as the table says."""
    seen = [pair for pair, count in table.items() for _ in range(count)]
    return {(number, *pair): 1 for number, pair in enumerate(seen)}


TABLE = {("yes", "yes"): 45, ("yes", "no"): 15, ("no", "yes"): 25, ("no", "no"): 15}


def test_kappa_is_that_of_a_computation_by_hand():
    # p_o = 60/100; p_e = 0.6 * 0.7 + 0.4 * 0.3 = 0.54; kappa = 0.06 / 0.46.
    found = agreement("gender", counts(TABLE))
    assert found.candidates == 100
    assert found.values == ("no", "yes")
    assert found.table == [[15, 25], [15, 45]]
    assert found.share[0] == pytest.approx(0.6)
    assert found.kappa.estimate == pytest.approx(0.06 / 0.46)
    assert found.share[1] < 0.6 < found.share[2]
    assert found.kappa.low < found.kappa.estimate < found.kappa.high
    assert found.kappa.verdict == FAILS


def test_scorers_that_see_nearly_the_same_agree():
    table = {("yes", "yes"): 50, ("no", "no"): 47, ("yes", "no"): 2, ("no", "yes"): 1}
    found = agreement("gender", counts(table))
    assert found.kappa.verdict == HOLDS
    assert found.kappa.low >= KAPPA_LIMIT.value


def test_kappa_of_three_values():
    table = {("a", "a"): 20, ("b", "b"): 20, ("c", "c"): 20, ("a", "b"): 10, ("c", "a"): 10}
    # p_o = 60/80; p_e = (30 * 30 + 20 * 30 + 30 * 20) / 80**2.
    chance = 2100 / 6400
    found = agreement("age", counts(table))
    assert found.kappa.estimate == pytest.approx((0.75 - chance) / (1 - chance))


def test_few_sources_or_one_value_alone_say_nothing():
    few = agreement("gender", {(0, "yes", "yes"): 500, (1, "no", "no"): 500})
    assert few.kappa.verdict == INSUFFICIENT
    assert few.kappa.n == 2
    same = agreement("gender", {(number, "yes", "yes"): 1 for number in range(100)})
    assert same.kappa.verdict == INSUFFICIENT
    assert same.kappa.estimate is None
    assert same.share == (1.0, 1.0, 1.0)


def test_what_a_scorer_saw_instead_is_read_back_from_its_sentence():
    miss = Miss("encoder", "skin_tone", "very dark", "light")
    assert Miss.parse(str(miss)) == miss
    assert Miss.parse("cits 0.412 is under 0.500") is None
