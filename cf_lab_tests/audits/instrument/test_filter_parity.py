import numpy as np

from cf_lab_assets.audits.instrument import filter_parity as parity
from cf_lab_assets.audits.instrument.findings import FAILS, HOLDS
from cf_lab_tests.audits.instrument.planted import offered


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
