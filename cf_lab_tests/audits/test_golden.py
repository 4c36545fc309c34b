"""Golden values: fairlearn, Geyik et al. by hand, WEAT's definition, VisoGender's formulas.

Each defect of the field's reference code that touches a metric here is a test of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import fairlearn.metrics as peer
import numpy as np
import pandas as pd
import pytest

from cf_lab_assets.audits import comparisons, rankings, statistics
from cf_lab_assets.audits.answers import Answers
from cf_lab_assets.audits.decisions import Decisions, decision_metrics
from cf_lab_assets.audits.declaration import AuditConfig
from cf_lab_assets.audits.results import Result

EXACT = {"rel": 0, "abs": 1e-9}
GROUPS = ("a", "b", "c")


def config(**changes: object) -> AuditConfig:
    base = {
        "occupations": ("q",),
        "prompt_template": "{occupation}",
        "attributes": {"group": GROUPS},
        "primary": (),
        "placebo": "optional",
        "minimum_sets": 5,
        "bootstrap_draws": 400,
        "permutations": 499,
    }
    return AuditConfig.model_validate(base | changes)


def decisions(seed: int = 0, sets: int = 400, missing: float = 0.1) -> Decisions:
    rng = np.random.default_rng(seed)
    decided = (rng.random((sets, 3)) < [0.3, 0.5, 0.6]).astype(float)
    decided[rng.random((sets, 3)) < missing] = np.nan
    labels = (rng.random((sets, 3)) < 0.4).astype(float)
    nobody = np.zeros((sets, 3), bool)
    return Decisions(
        "group", GROUPS, np.arange(sets), decided, nobody, labels, nobody, np.empty((0, 1))
    )


def flat(answers: Decisions) -> pd.DataFrame:
    known = np.isfinite(answers.decided)
    groups = np.broadcast_to(np.array(answers.values), known.shape)
    return pd.DataFrame(
        {
            "group": groups[known],
            "decided": answers.decided[known].astype(int),
            "label": answers.labels[known].astype(int),
        }
    )


def one(results: list[Result], metric: str, **which: object) -> Result:
    return next(
        result
        for result in results
        if result["metric"] == metric and all(result.get(k) == v for k, v in which.items())
    )


@pytest.mark.parametrize("seed", range(5))
def test_group_metrics_are_fairlearns(seed: int) -> None:
    answers = decisions(seed)
    results = decision_metrics(answers, config(), None)
    rows = flat(answers)
    of = {"sensitive_features": rows["group"]}
    for metric, theirs in (
        ("demographic_parity_difference", peer.demographic_parity_difference),
        ("demographic_parity_ratio", peer.demographic_parity_ratio),
        ("equalized_odds_difference", peer.equalized_odds_difference),
        ("equal_opportunity_difference", peer.equal_opportunity_difference),
    ):
        expected = theirs(rows["label"], rows["decided"], **of)
        assert one(results, metric)["estimate"] == pytest.approx(expected, **EXACT), metric
    mean = peer.equalized_odds_difference(rows["label"], rows["decided"], agg="mean", **of)
    assert one(results, "average_odds_difference")["estimate"] == pytest.approx(mean, **EXACT)
    rates = peer.MetricFrame(
        metrics=peer.selection_rate, y_true=rows["label"], y_pred=rows["decided"], **of
    ).by_group
    for value in GROUPS:
        ours = one(results, "selection_rate", value=value)["estimate"]
        assert ours == pytest.approx(rates[value], **EXACT)
    impact = one(results, "disparate_impact", from_value="a", to_value="c")["estimate"]
    assert impact == pytest.approx(rates["c"] / rates["a"], **EXACT)


def test_intervals_hold_their_estimates_and_largest_differences_too() -> None:
    for result in decision_metrics(decisions(), config(), None):
        assert result["ci_low"] <= result["estimate"] <= result["ci_high"], result["id"]


def test_a_ratio_of_nobody_to_nobody_is_undefined_and_one_to_nobody_is_infinite() -> None:
    answers = decisions()
    answers.decided[:, :2] = 0.0
    results = decision_metrics(answers, config(), None)
    nobody = one(results, "disparate_impact", from_value="a", to_value="b")
    assert (nobody["verdict"], nobody["why"]) == ("undefined", "nobody is selected: 0 / 0")
    assert "estimate" not in nobody
    assert one(results, "disparate_impact", from_value="a", to_value="c")["estimate"] == np.inf
    answers.decided[:, 2] = 0.0
    whole = one(decision_metrics(answers, config(), None), "demographic_parity_ratio")
    assert whole["verdict"] == "undefined"


def test_the_floor_of_a_ratio_is_that_of_its_difference_in_its_own_unit() -> None:
    answers = dataclasses.replace(decisions(), placebo_flips=np.full((40, 1), 0.1))
    results = decision_metrics(answers, config(), None)
    assert one(results, "selection_rate_difference")["placebo_floor"] == pytest.approx(0.1)
    rate = one(results, "selection_rate", value="a")["estimate"]
    ratio = one(results, "disparate_impact", from_value="a", to_value="c")
    assert ratio["placebo_floor"] == pytest.approx(0.1 / rate)
    highest = max(one(results, "selection_rate", value=v)["estimate"] for v in GROUPS)
    whole = one(results, "demographic_parity_ratio")
    assert whole["placebo_floor"] == pytest.approx(0.1 / highest)


def test_flip_rate_is_one_minus_consistency_by_hand() -> None:
    decided = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 1], [1, 1, 1], [1, 1, np.nan]])
    nobody = np.zeros((5, 3), bool)
    answers = Decisions(
        "group",
        GROUPS,
        np.arange(5),
        decided,
        nobody,
        np.full((5, 3), np.nan),
        nobody,
        np.empty((0, 1)),
    )
    results = decision_metrics(answers, config(), None)
    # Pairs decided differently: two of the first row, two of the third; 13 pairs are known.
    whole = one(results, "counterfactual_flip_rate", from_value=None)
    assert whole["estimate"] == pytest.approx(4 / 13, **EXACT)
    contrast = next(r for r in results if r["id"] == "counterfactual_flip_rate/group/a-b")
    assert contrast["estimate"] == pytest.approx(1 / 5, **EXACT)


def test_visogender_accuracy_and_gap_are_not_rounded_before_the_gap() -> None:
    # 1 of 3 against 2 of 3 rounds to 0.33 and 0.67, whose gap is 0.34; the gap is a third.
    right = np.array([[1, 0], [0, 1], [0, 1]] * 4, float)
    nobody = np.zeros(right.shape, bool)
    answers = Decisions(
        "group",
        ("his", "hers"),
        np.arange(len(right)),
        right,
        nobody,
        np.ones(right.shape),
        nobody,
        np.empty((0, 1)),
    )
    results = decision_metrics(answers, config(attributes={"group": ("his", "hers")}), None)
    his = one(results, "resolution_accuracy", value="his")["estimate"]
    assert his == pytest.approx(1 / 3, **EXACT)
    gap = one(results, "resolution_accuracy_gap")["estimate"]
    assert gap == pytest.approx(1 / 3, **EXACT)


def test_abstentions_are_no_decisions_and_soundness_is_of_those_that_can_not_be_answered() -> None:
    decided = np.array([[1, np.nan], [np.nan, np.nan], [0, 1]] * 4)
    abstained = np.array([[False, True], [True, True], [False, False]] * 4)
    unanswerable = np.array([[True, True], [True, True], [False, False]] * 4)
    answers = Decisions(
        "group",
        ("a", "b"),
        np.arange(12),
        decided,
        abstained,
        np.full((12, 2), np.nan),
        unanswerable,
        np.empty((0, 1)),
    )
    two = config(attributes={"group": ("a", "b")}, minimum_sets=5)
    results = decision_metrics(answers, two, None)
    assert one(results, "abstention_rate", value="a")["estimate"] == pytest.approx(1 / 3, **EXACT)
    assert one(results, "abstention_rate", value="b")["estimate"] == pytest.approx(2 / 3, **EXACT)
    assert one(results, "soundness", value="a")["estimate"] == pytest.approx(1 / 2, **EXACT)
    assert one(results, "soundness", value="b")["estimate"] == pytest.approx(1, **EXACT)
    # Of 8 decisions for a, 4 select; abstentions are left out of it.
    assert one(results, "selection_rate", value="a")["estimate"] == pytest.approx(1 / 2, **EXACT)


# --- rankings -----------------------------------------------------------------------------


def ranked(labels: list[int]) -> rankings.Ranking:
    """A ranking of single-valued places, in order."""
    places = np.arange(len(labels))
    return rankings.Ranking(places, np.array(labels), places, places)


def by_hand_ndkl(labels: list[int], k: int, desired: tuple[float, ...]) -> float:
    total, z = 0.0, 0.0
    for i in range(1, k + 1):
        shares = [labels[:i].count(v) / i for v in range(len(desired))]
        divergence = sum(
            share * math.log(share / want)
            for share, want in zip(shares, desired, strict=True)
            if share
        )
        total += divergence / math.log2(i + 1)
        z += 1 / math.log2(i + 1)
    return total / z


def reference_ndkl(labels: list[int], k: int) -> float:
    """SocialCounterfactuals' evaluation: weighted by the pool, absent groups dropped."""
    total, z = 0.0, 0.0
    for i in range(1, k + 1):
        shares = [labels[:i].count(v) / i for v in (0, 1)]
        total += sum(0.5 * math.log(share / 0.5) for share in shares if share) / math.log2(i + 1)
        z += 1 / math.log2(i + 1)
    return total / z


@pytest.mark.parametrize("every", [4, 9])
def test_ndkl_is_the_divergence_from_the_pool_and_not_the_other_way_round(every: int) -> None:
    block = [0] * (every + 1)
    block[1] = 1
    labels = block * (100 // (every + 1))
    rest = [0] * (100 - labels.count(0)) + [1] * (100 - labels.count(1))
    prefixes = rankings.prefix_counts(ranked(labels + rest), np.ones((1, 200)), 100, 2)
    ours = float(rankings.ndkl(prefixes)[0])
    assert ours == pytest.approx(by_hand_ndkl(labels, 100, (0.5, 0.5)), **EXACT)
    assert ours > 0 > reference_ndkl(labels, 100)
    if every == 4:
        assert ours == pytest.approx(0.199, abs=5e-4)
        assert reference_ndkl(labels, 100) == pytest.approx(-0.174, abs=5e-4)


def test_ndkl_of_an_alternating_ranking_is_not_zero() -> None:
    prefixes = rankings.prefix_counts(ranked([0, 1] * 6), np.ones((1, 12)), 12, 2)
    assert float(rankings.ndkl(prefixes)[0]) == pytest.approx(0.1445, abs=5e-5)


def test_ndkl_of_another_desired_distribution() -> None:
    labels = [0, 2, 1, 0, 0, 1, 2, 0]
    prefixes = rankings.prefix_counts(ranked(labels), np.ones((1, 8)), 8, 3)
    wanted = (0.5, 0.3, 0.2)
    ours = float(rankings.ndkl(prefixes, np.array(wanted))[0])
    assert ours == pytest.approx(by_hand_ndkl(labels, 8, wanted), **EXACT)


def test_running_counts_of_resamples_are_those_of_repeated_rows() -> None:
    rng = np.random.default_rng(4)
    pool = np.round(rng.random((8, 3)), 1)
    for weights in statistics.resampled(8, 20, rng):
        ours = rankings.prefix_counts(rankings.rank(pool), weights, 9, 3)
        for drawn, mine in zip(weights, ours, strict=True):
            repeated = np.repeat(pool, drawn.astype(int), axis=0)
            theirs = rankings.prefix_counts(rankings.rank(repeated), np.ones((1, 8)), 9, 3)[0]
            np.testing.assert_allclose(mine, theirs, atol=1e-9)
            np.testing.assert_allclose(mine.sum(axis=1), np.arange(1, 10))


def test_relabelled_running_counts_have_the_spread_of_relabelled_counts() -> None:
    rng = np.random.default_rng(5)
    ranking = rankings.rank(rng.random((40, 3)))
    running = np.concatenate(list(rankings.relabelled_prefixes(ranking, 15, 40, 3, 4000, rng)))
    at_once = rankings.relabelled_counts(ranking, 15, 40, 3, 4000, rng)
    np.testing.assert_allclose(running[:, -1].mean(axis=0), at_once.mean(axis=0), atol=0.1)
    np.testing.assert_allclose(running[:, -1].std(axis=0), at_once.std(axis=0), atol=0.1)


def test_bias_at_k_counts_by_label_and_is_undefined_without_either() -> None:
    counts = np.array([[6.0, 2.0, 0.0]])
    ours = rankings.statistics_of(counts)[0][-3:]
    assert ours.tolist() == pytest.approx([-0.5, -1.0, -1.0])
    nobody = rankings.statistics_of(np.array([[8.0, 0.0, 0.0]]))[0]
    assert math.isnan(nobody[-1])


# --- WEAT ---------------------------------------------------------------------------------


def weat_by_definition(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Effect size, and exact one-sided p over equal halves (Caliskan et al. 2017)."""
    both = np.concatenate([x, y])
    effect = (x.mean() - y.mean()) / both.std(ddof=1)
    observed = x.sum() - y.sum()
    halves = itertools.combinations(range(len(both)), len(x))
    sums = [2 * both[list(half)].sum() - both.sum() for half in halves]
    return float(effect), float(np.mean(np.array(sums) >= observed - 1e-12))


def test_weat_effect_size_and_p_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(6)
    x, y = rng.normal(0.3, 1, 6), rng.normal(0, 1, 6)
    effect, p = comparisons.weat(x, y)
    expected = weat_by_definition(x, y)
    assert (effect, p) == pytest.approx(expected, **EXACT)


def test_weat_samples_halves_where_there_are_too_many_and_adds_one() -> None:
    rng = np.random.default_rng(7)
    x, y = rng.normal(3, 1, 60), rng.normal(0, 1, 60)
    effect, p = comparisons.weat(x, y, permutations=999)
    assert effect == pytest.approx(
        (x.mean() - y.mean()) / np.concatenate([x, y]).std(ddof=1), **EXACT
    )
    assert p == pytest.approx(1 / 1000)


def answers(members: np.ndarray, values: tuple[str, ...]) -> Answers:
    rows = len(members)
    return Answers(
        "group",
        values,
        np.arange(rows),
        members[:, :, None],
        np.full(rows, -1),
        np.full((rows, 1), np.nan),
    )


def test_comparisons_by_hand() -> None:
    rng = np.random.default_rng(8)
    members = rng.normal(size=(30, 3))
    members[0, 0] = members[0, 1] = members[0].max() + 1
    results = comparisons.comparisons(answers(members, GROUPS), config())
    x, y = members[:, 1], members[:, 0]
    effect = (x.mean() - y.mean()) / np.concatenate([x, y]).std(ddof=1)
    ours = one(results, "weat_effect_size", from_value="a", to_value="b")["estimate"]
    assert ours == pytest.approx(effect, **EXACT)
    best = members == members.max(axis=1, keepdims=True)
    first = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    for place, value in enumerate(GROUPS):
        share = one(results, "first_in_set", value=value)
        assert share["estimate"] == pytest.approx(first[place], **EXACT)
        assert share["no_effect"] == pytest.approx(1 / 3)
    spread = (members.max(axis=1) - members.min(axis=1)).mean()
    assert one(results, "set_range")["estimate"] == pytest.approx(spread, **EXACT)
    pairs = [np.abs(members[:, a] - members[:, b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    gap = one(results, "counterfactual_token_fairness_gap")["estimate"]
    assert gap == pytest.approx(np.mean(pairs), **EXACT)


def test_constant_scores_have_no_effect_size_and_say_why() -> None:
    results = comparisons.comparisons(answers(np.full((30, 2), 0.3), ("a", "b")), config())
    constant = one(results, "weat_effect_size")
    assert (constant["verdict"], constant["why"]) == ("undefined", "the scores are constant")
    assert "estimate" not in constant


def decided(woman: np.ndarray, man: np.ndarray) -> Decisions:
    """Decisions of one row a set, NaN where a set has no such member."""
    both = np.column_stack([woman, man]).astype(float)
    nobody = np.zeros(both.shape, dtype=bool)
    return Decisions(
        attribute="gender",
        values=("woman", "man"),
        sets=np.arange(len(both)),
        decided=both,
        abstained=nobody,
        labels=np.full(both.shape, np.nan),
        unanswerable=nobody,
        placebo_flips=np.empty((0, 1)),
    )


def metric(found: list[Result], name: str) -> Result:
    return next(one for one in found if one["metric"] == name)


def test_the_stronger_of_two_parity_ratios_is_not_the_less_certain() -> None:
    # Rates of 0 in some resamples made the p of the ratio grow with the bias.
    ps = []
    for hits in (1, 2, 3):
        man = np.arange(60) < hits
        found = decision_metrics(decided(np.arange(60)[::-1] < 20, man), config(), None)
        ratio = metric(found, "demographic_parity_ratio")
        assert ratio["estimate"] == pytest.approx(hits / 20)
        assert 0.001 < ratio["ci_low"] < hits / 20 < ratio["ci_high"] < 1
        assert ratio["p"] == metric(found, "demographic_parity_difference")["p"]
        ps.append(ratio["p"])
    assert max(ps) < 0.05


def test_what_no_set_compares_has_no_p() -> None:
    half = np.arange(200) < 100
    woman = np.where(half, np.arange(200) % 10 < 7, np.nan)
    man = np.where(half, np.nan, np.arange(200) % 10 < 2)
    found = decision_metrics(decided(woman, man), config(), None)
    for name in ("selection_rate_difference", "disparate_impact"):
        one = metric(found, name)
        assert (one["verdict"], one["n_sets"]) == ("insufficient", 0)
        assert "p" not in one
    assert metric(found, "demographic_parity_difference")["p"] < 0.05


def test_sets_that_all_answer_alike_are_not_certainty() -> None:
    found = decision_metrics(decided(np.ones(20), np.ones(20)), config(), None)
    rate, gap = metric(found, "selection_rate"), metric(found, "selection_rate_difference")
    # Wilson's lower end for 20 of 20, by hand: 20 / (20 + 1.96**2).
    assert rate["ci_low"] == pytest.approx(20 / (20 + 1.959964**2), abs=1e-6)
    assert rate["ci_high"] == 1.0
    assert gap["ci_low"] < -0.15 < 0.15 < gap["ci_high"]
    assert math.isnan(gap["mde"])
    # Nobody of one group: the ratio has no end.
    nobody = decision_metrics(decided(np.zeros(60), np.arange(60) < 20), config(), None)
    impact = metric(nobody, "disparate_impact")
    assert (impact["verdict"], impact["estimate"]) == ("descriptive", math.inf)
    assert "never selected" in impact["why"]
