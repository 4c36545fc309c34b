import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cf_lab_assets.counterfactuals import sampling
from cf_lab_assets.counterfactuals.sampling import Sampler, TargetError, quotas
from cf_lab_tests.benchmarks import sampling as simulated

WEIGHTS = st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=90).filter(any)
# The bars of skew-aware sampling.
MOST_DISTANCE, MOST_DRAWS = 0.01, 1.15
# A round is a batch of work of the editor: more than this many would leave it idle.
MOST_ROUNDS = 25


@given(WEIGHTS, st.integers(0, 50_000))
def test_quotas_add_up_and_are_less_than_one_from_their_exact_share(weights, total):
    found = quotas(weights, total)
    exact = np.array(weights) / max(weights)
    exact = exact / exact.sum() * total
    assert found.sum() == total
    assert (found >= 0).all()
    assert (np.abs(found - exact) < 1 + 1e-6).all()


@given(WEIGHTS, st.integers(0, 50_000), st.floats(0.001, 1000))
def test_a_cell_of_more_weight_never_gets_less(weights, total, scale):
    found = quotas(weights, total)
    order = np.argsort(weights, kind="stable")
    assert (np.diff(found[order]) >= 0).all() or len(set(weights)) < len(weights)
    assert np.abs(quotas(np.array(weights) * scale, total) - found).max() <= 1


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [1.0, -1.0], [np.nan, 1.0], [np.inf]])
def test_weights_that_say_nothing_are_refused(weights):
    with pytest.raises(TargetError, match="not negative"):
        quotas(weights, 10)


def test_marginals_are_joined_as_independent():
    joint = sampling.independent({"gender": {"woman": 3, "man": 1}, "age": {"old": 1, "young": 1}})
    assert joint["woman", "old"] == pytest.approx(0.375)
    assert sum(joint.values()) == pytest.approx(1)
    with pytest.raises(TargetError, match="age"):
        sampling.independent({"age": {"old": 0.0}})


def test_distance_of_nothing_is_the_largest_and_of_the_target_none():
    assert sampling.total_variation(np.zeros(2, int), [1, 1]) == 1
    assert sampling.total_variation(np.array([5, 5]), [2, 2]) == 0
    assert sampling.total_variation(np.array([10, 0]), [1, 1]) == 0.5


@pytest.mark.parametrize("seed", range(4))
def test_the_target_is_met_with_few_more_draws_than_the_oracles(seed):
    for layout in simulated.layouts(seed):
        outcome = simulated.simulate(layout, seed)
        where = (layout.name, len(layout.target))
        assert outcome.accepted >= simulated.ACCEPTED, where
        assert outcome.distance <= MOST_DISTANCE, where
        assert outcome.draws <= MOST_DRAWS, where
        assert outcome.rounds <= MOST_ROUNDS, where


WORLDS = st.lists(
    st.tuples(st.integers(0, 300), st.integers(0, 3000), st.floats(0.0, 1.0)),
    min_size=1,
    max_size=12,
)


def run(sampler, rates, rng):
    while (more := sampler.next_round()).any():
        sampler.record(more, rng.binomial(more, rates))
    return sampler


@settings(deadline=None)
@given(WORLDS, st.one_of(st.none(), st.integers(0, 5000)), st.integers(0, 99))
def test_whatever_the_rates_it_ends_within_bounds_and_says_what_is_missing(world, budget, seed):
    quota, offered, rates = (np.array(column) for column in zip(*world, strict=True))
    sampler = run(Sampler(quota, offered, budget), rates, np.random.default_rng(seed))
    assert (sampler.drawn <= offered).all()
    assert budget is None or sampler.drawn.sum() <= budget
    assert (sampler.drawn[quota == 0] == 0).all()
    for cell, outcome in enumerate(sampler.outcomes()):
        met = sampler.accepted[cell] >= quota[cell]
        assert (outcome == sampling.MET) is bool(met)
        assert outcome != sampling.OPEN
        if outcome == sampling.NO_SOURCES:
            assert sampler.drawn[cell] == offered[cell]
        if outcome == sampling.TOO_LOW:
            assert sampler.accepted[cell] < 0.01 * sampler.drawn[cell]


@settings(deadline=None)
@given(WORLDS, st.integers(0, 99), st.integers(1, 6))
def test_a_sampler_read_back_goes_on_as_the_one_that_was_not(world, seed, stop):
    quota, offered, rates = (np.array(column) for column in zip(*world, strict=True))
    sampler = Sampler(quota, offered)
    rng = np.random.default_rng(seed)
    for _ in range(stop):
        more = sampler.next_round()
        sampler.record(more, rng.binomial(more, rates))
    again = Sampler.from_dict(json.loads(json.dumps(sampler.as_dict())))
    assert again.as_dict() == sampler.as_dict()
    ended = [run(one, rates, np.random.default_rng(7)).as_dict() for one in (sampler, again)]
    assert ended[0] == ended[1]


def test_evidence_of_earlier_batches_costs_no_rounds_and_is_overruled_where_it_is_wrong():
    quota, offered = np.full(6, 500), np.full(6, 10**9)
    right, wrong = Sampler(quota, offered), Sampler(quota, offered)
    right.believe(np.full(6, 1000), np.full(6, 100))
    wrong.believe(np.full(6, 1000), np.full(6, 10))
    rates = np.full(6, 0.1)
    blank = run(Sampler(quota, offered), rates, np.random.default_rng(1))
    run(right, rates, np.random.default_rng(1))
    run(wrong, rates, np.random.default_rng(1))
    assert right.rounds <= blank.rounds
    for sampler in (right, wrong):
        assert sampling.total_variation(sampler.accepted, quota) <= MOST_DISTANCE
        assert sampler.drawn.sum() <= MOST_DRAWS * (quota / rates).sum()


def test_a_budget_is_spent_evenly_where_it_does_not_reach():
    sampler = Sampler(np.full(4, 1000), np.full(4, 10**6), budget=2000)
    run(sampler, np.full(4, 0.5), np.random.default_rng(3))
    assert sampler.drawn.sum() == 2000
    assert sampler.outcomes() == [sampling.BUDGET_SPENT] * 4
    assert sampling.total_variation(sampler.accepted, sampler.quota) < 0.05


def test_a_cell_that_accepts_nothing_is_given_up_and_named():
    sampler = Sampler(np.array([100, 100]), np.full(2, 10**9))
    run(sampler, np.array([0.5, 0.0]), np.random.default_rng(3))
    assert sampler.outcomes() == [sampling.MET, sampling.TOO_LOW]
    assert sampler.drawn[1] < 20_000
