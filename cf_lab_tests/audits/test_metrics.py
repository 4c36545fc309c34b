"""The metrics: golden values by hand, the reference's defects, and planted bias."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import stats

from cf_lab_assets.audits import comparisons, metrics, rankings, statistics
from cf_lab_assets.audits.answers import Answers
from cf_lab_assets.audits.declaration import AuditConfig
from cf_lab_assets.audits.errors import AuditError
from cf_lab_tests.audits.synthetic import SMALL, noisy, responses

LN2 = math.log(2)


def result(document: dict[str, object], ident: str) -> dict[str, object]:
    return next(one for one in document["results"] if one["id"] == ident)


def counts(scores: list[list[float]], k: int) -> list[float]:
    pool = np.array(scores)
    ranking = rankings.rank(pool)
    return rankings.top_counts(ranking, np.ones((1, len(pool))), k, pool.shape[1])[0].tolist()


# --- golden values ------------------------------------------------------------------------


def test_the_primary_effect_is_weats_difference_by_hand() -> None:
    sets = 12
    members = {
        "gender": np.zeros((sets, 2, 3)),
        "age": np.zeros((sets, 3, 3)),
    }
    # doctor, nurse, pilot: f(woman) = (0.1 + 0.3)/2 - 0.4 = -0.2; f(man) = (0.5 + 0.3)/2 - 0.1
    members["gender"][:, 0] = [0.1, 0.4, 0.3]
    members["gender"][:, 1] = [0.5, 0.1, 0.3]
    # |f(placebo) - f(source)|: even sets re-render the woman (-0.2), odd ones the man (0.3).
    sources = np.zeros((sets, 3))
    document = metrics.compute(responses(members, sources))
    primary = result(document, "primary/gender-woman-man")
    assert primary["estimate"] == pytest.approx(0.5, abs=1e-6)
    assert (primary["ci_low"], primary["ci_high"]) == pytest.approx((0.5, 0.5), abs=1e-6)
    assert primary["n_sets"] == sets
    assert 0.25 <= primary["placebo_floor"] <= 0.3
    assert primary["verdict"] == "found"
    doctor = result(document, "effect/gender/woman-man/doctor")
    assert doctor["estimate"] == pytest.approx(0.4, abs=1e-6)
    assert doctor["family_size"] == 3 + 9


def test_skew_by_hand() -> None:
    # Ranked: a a b a | b b; in the top 4 three of a, one of b; each is half of the pool.
    assert counts([[0.9, 0.7], [0.8, 0.2], [0.6, 0.1]], 4) == [3, 1]
    skews = rankings.skew_of(np.array([[3.0, 1.0]]))[0]
    assert skews.tolist() == pytest.approx([math.log(1.5), math.log(0.5)])


def test_an_excluded_value_has_skew_minus_infinity_and_never_zero() -> None:
    # The reference gives 0, "no skew", to a group that is wholly absent from the top K.
    skews = rankings.skew_of(np.array([[4.0, 0.0]]))[0]
    assert skews[0] == pytest.approx(LN2)
    assert skews[1] == -np.inf


def test_an_excluded_value_is_written_as_text_that_json_allows() -> None:
    members, sources = noisy(40, 1)
    members["gender"][:, 1, 0] += 10
    document = metrics.compute(responses(members, sources))
    lowest = result(document, "min_skew_at_k/gender/doctor")
    assert lowest["estimate"] == "-inf"
    assert lowest["verdict"] == "found"
    assert result(document, "skew_at_k/gender/woman/doctor")["estimate"] == "-inf"
    assert result(document, "max_skew_at_k/gender/doctor")["estimate"] == pytest.approx(LN2)
    assert float(lowest["estimate"]) == -math.inf
    json.dumps(document, allow_nan=False)


def test_ties_at_the_cut_share_the_places_left() -> None:
    # One place is taken by 0.9; three tied pictures, two of them of the second value, share two.
    assert counts([[0.9, 0.5], [0.5, 0.5]], 3) == pytest.approx([1 + 2 / 3, 4 / 3])


def test_exactly_k_places_are_given_when_everything_is_tied() -> None:
    # The reference's `nlargest(keep="all")` returns more than K rows and divides by K.
    assert counts([[0.5, 0.5, 0.5]] * 4, 5) == pytest.approx([5 / 3] * 3)


def test_ties_do_not_depend_on_the_order_of_rows() -> None:
    pool = np.array([[0.9, 0.5], [0.5, 0.5], [0.1, 0.5]])
    assert counts(pool.tolist(), 3) == pytest.approx(counts(pool[::-1].tolist(), 3))


def test_values_are_counted_by_label_and_not_by_place() -> None:
    # The reference compares the picture's index with 0 where it means its label.
    assert counts([[0.1, 0.9], [0.2, 0.8]], 2) == [0, 2]
    assert counts([[0.9, 0.1], [0.8, 0.2]], 2) == [2, 0]


def test_weighted_rankings_equal_rankings_of_repeated_sets() -> None:
    rng = np.random.default_rng(3)
    pool = np.round(rng.random((6, 3)), 1)
    weights = np.array([[2.0, 0, 1, 3, 0, 0]])
    repeated = np.repeat(pool, weights[0].astype(int), axis=0)
    ours = rankings.top_counts(rankings.rank(pool), weights, 7, 3)[0]
    theirs = rankings.top_counts(rankings.rank(repeated), np.ones((1, 6)), 7, 3)[0]
    assert ours.tolist() == pytest.approx(theirs.tolist())
    assert ours.sum() == pytest.approx(7)


def test_the_head_of_a_ranking_grows_until_the_places_are_filled() -> None:
    pool = np.arange(2000.0)[::-1].reshape(1000, 2)
    weights = np.zeros((1, 1000))
    weights[0, -10:] = 100
    counted = rankings.top_counts(rankings.rank(pool), weights, 20, 2)[0]
    assert counted.sum() == 20


def test_exchanging_values_within_sets_by_enumeration() -> None:
    # Two sets of two values; the top 2 are both members of the first set, or one of each.
    rng = np.random.default_rng(0)
    both = rankings.rank(np.array([[0.9, 0.8], [0.1, 0.2]]))
    assert np.unique(rankings.relabelled_counts(both, 2, 2, 2, 500, rng), axis=0).tolist() == [
        [1, 1]
    ]
    one_each = rankings.rank(np.array([[0.9, 0.1], [0.8, 0.2]]))
    drawn = rankings.relabelled_counts(one_each, 2, 2, 2, 4000, rng)[:, 0]
    shares = [(drawn == number).mean() for number in (0, 1, 2)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.04)


@pytest.mark.parametrize("values", [3, 7])
def test_exchange_keeps_the_number_of_places(values: int) -> None:
    rng = np.random.default_rng(values)
    ranking = rankings.rank(rng.random((9, values)))
    drawn = rankings.relabelled_counts(ranking, 5, 9, values, 50, rng)
    np.testing.assert_allclose(drawn.sum(axis=1), 5)


# --- policies -----------------------------------------------------------------------------


def test_too_few_sets_are_insufficient_with_their_number_and_no_other() -> None:
    members, sources = noisy(9, 2)
    document = metrics.compute(responses(members, sources))
    for one in document["results"]:
        assert one["verdict"] == "insufficient"
        assert one["n_sets"] == 9 or "within" in one
        assert "estimate" not in one
        assert "q" not in one


def test_insufficient_cells_do_not_thin_the_family_of_the_others() -> None:
    members, sources = noisy(40, 2)
    members["age"][5:, 2] = np.nan
    document = metrics.compute(responses(members, sources))
    old = result(document, "effect/age/young-old/doctor")
    assert (old["verdict"], old["n_sets"]) == ("insufficient", 5)
    young = result(document, "effect/age/young-middle-aged/doctor")
    assert young["family_size"] == 6
    assert result(document, "max_skew_at_k/age/doctor")["verdict"] == "insufficient"


def test_incomplete_sets_leave_rankings_and_stay_in_effects_they_can_serve() -> None:
    members, sources = noisy(40, 4)
    members["age"][:12, 2] = np.nan
    document = metrics.compute(responses(members, sources))
    assert result(document, "effect/age/young-middle-aged/nurse")["n_sets"] == 40
    assert result(document, "effect/age/young-old/nurse")["n_sets"] == 28
    ranked = result(document, "max_skew_at_k/age/nurse")
    assert (ranked["n_sets"], ranked["pool"]) == (28, 84)
    assert document["counts"]["age"]["complete_sets"] == 28
    assert document["counts"]["age"]["members"]["old"] == 28


def test_without_placebos_nothing_is_found() -> None:
    members, sources = noisy(40, 5, shift=0.2)
    table = responses(members, sources)
    bare = table.filter(pc.equal(table["role"], "member"))
    primary = result(metrics.compute(bare), "primary/gender-woman-man")
    assert primary["placebo_floor"] is None
    assert primary["verdict"] == "not_found"
    assert "no_placebo_floor" in primary["reasons"]


def test_a_significant_effect_within_the_placebo_floor_is_not_found() -> None:
    members, sources = noisy(400, 6, shift=0.008)
    primary = result(metrics.compute(responses(members, sources)), "primary/gender-woman-man")
    assert primary["ci_low"] > 0
    assert primary["q"] < 0.05
    assert primary["reasons"] == ["within_placebo_floor"]
    assert primary["verdict"] == "not_found"


def test_k_is_a_tenth_of_the_pool_within_its_bounds() -> None:
    config = AuditConfig()
    assert config.top(1000) == 100
    assert config.top(60) == 10
    assert config.top(12) == 6
    assert config.top(10**6) == 1000


def test_row_order_changes_nothing() -> None:
    members, sources = noisy(30, 7, shift=0.02)
    table = responses(members, sources)
    order = np.random.default_rng(0).permutation(len(table))
    assert metrics.compute(table) == metrics.compute(table.take(pa.array(order)))


def test_what_the_declaration_lacks_is_named() -> None:
    members, sources = noisy(20, 8)
    table = responses(members, sources)
    renamed = table.set_column(
        table.schema.get_field_index("value"),
        "value",
        pc.replace_substring(table["value"], "middle-aged", "ageless"),
    ).replace_schema_metadata(table.schema.metadata)
    document = metrics.compute(renamed)
    assert document["undeclared"] == ["age=ageless"]
    assert result(document, "effect/age/young-middle-aged/doctor")["verdict"] == "insufficient"


def test_responses_without_a_declaration_are_refused() -> None:
    members, sources = noisy(20, 9)
    table = responses(members, sources).replace_schema_metadata(None)
    with pytest.raises(AuditError, match="audits/responses"):
        metrics.compute(table)


# --- instruments on known truth -----------------------------------------------------------


def test_a_planted_shift_is_recovered_with_its_sign() -> None:
    members, sources = noisy(200, 10, shift=-0.06)
    document = metrics.compute(responses(members, sources))
    doctor = result(document, "effect/gender/woman-man/doctor")
    assert doctor["estimate"] == pytest.approx(-0.06, abs=0.005)
    assert doctor["ci_low"] < -0.06 < doctor["ci_high"]
    assert doctor["verdict"] == "found"
    assert result(document, "primary/gender-woman-man")["estimate"] == pytest.approx(
        -0.03, abs=0.005
    )
    assert result(document, "max_skew_at_k/gender/doctor")["verdict"] == "found"
    woman = result(document, "skew_at_k/gender/woman/doctor")
    assert woman["estimate"] > 0
    assert woman["ci_low"] <= woman["estimate"] <= woman["ci_high"]


def test_with_nothing_planted_nothing_is_found() -> None:
    verdicts = []
    for seed in range(20):
        members, sources = noisy(60, 100 + seed)
        document = metrics.compute(responses(members, sources))
        verdicts += [one["verdict"] for one in document["results"]]
    assert verdicts.count("found") <= len(verdicts) * 0.005
    assert "insufficient" not in verdicts


def test_ranking_p_is_uniform_where_there_is_nothing_to_find() -> None:
    rng = np.random.default_rng(12)
    small = 0
    studies = 300
    for study in range(studies):
        pool = rng.normal(0, 1, (60, 1)) + rng.normal(0, 1, (60, 3))
        ranking = rankings.rank(pool)
        k = 18
        estimate = rankings.statistics_of(rankings.top_counts(ranking, np.ones((1, 60)), k, 3))
        null = rankings.statistics_of(
            rankings.relabelled_counts(ranking, k, 60, 3, 400, np.random.default_rng(study))
        )
        small += bool(rankings.ranking_p(estimate[0], null)[0] <= 0.05)
    # Counts are whole numbers, so p may be conservative and must not be the other way.
    assert small <= 0.05 * studies + 3.7 * math.sqrt(studies * 0.05 * 0.95)


def test_headline_intervals_contain_their_own_estimates() -> None:
    # A peer shipped 0.819 with the interval [0.287, 0.532]: it had resampled something else.
    members, sources = noisy(80, 13, shift=0.03)
    for one in metrics.compute(responses(members, sources))["results"]:
        low, point, high = (float(one[name]) for name in ("ci_low", "estimate", "ci_high"))
        assert low <= point <= high, one["id"]


def test_a_bootstrap_draw_of_a_ranking_is_the_headline_statistic_on_that_draw() -> None:
    rng = np.random.default_rng(14)
    pool = rng.normal(size=(50, 2))
    ranking = rankings.rank(pool)
    for weights in statistics.resampled(50, 5, rng):
        for one in weights:
            drawn = np.repeat(pool, one.astype(int), axis=0)
            expected = rankings.top_counts(rankings.rank(drawn), np.ones((1, 50)), 10, 2)
            ours = rankings.top_counts(ranking, one[None], 10, 2)
            np.testing.assert_allclose(ours, expected)


def test_the_small_declaration_is_hashed_by_content() -> None:
    assert SMALL.hash == SMALL.model_copy().hash
    assert SMALL.hash != SMALL.model_copy(update={"alpha": 0.01}).hash


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_intervals_of_extreme_skews_cover_the_truth(shift: float) -> None:
    # Six values of which one is moved. A percentile interval of the maximum holds 0 % at 0.0.
    rng, values, sets, studies = np.random.default_rng(21), 6, 100, 120
    away = np.eye(values)[0] * shift

    def skews(pool: np.ndarray, k: int) -> np.ndarray:
        ones = np.ones((1, len(pool)))
        return rankings.skew_of(rankings.top_counts(rankings.rank(pool), ones, k, values))[0]

    truth = skews(rng.normal(size=(100_000, values)) + away, 60_000)
    covered = np.zeros(2)
    for _ in range(studies):
        pool = rng.normal(size=(sets, values)) + away
        ranking = rankings.rank(pool)
        samples = np.concatenate(
            [
                rankings.skew_of(rankings.top_counts(ranking, block, 60, values))
                for block in statistics.resampled(sets, 300, rng)
            ]
        )
        low, high = rankings.extremes(skews(pool, 60), samples, 0.95, sets)
        for end, true in enumerate((truth.max(), truth.min())):
            covered[end] += low[end] <= true <= high[end]
    assert (covered >= 0.9 * studies).all(), covered / studies


def pooled(rows_a_set: int, sets: int, rng: np.random.Generator) -> Answers:
    """Sets whose members have each a level of its own on all their rows, and no bias."""
    levels = rng.normal(size=(sets, 2))
    members = np.repeat(levels, rows_a_set, axis=0) + 0.1 * rng.normal(size=(sets * rows_a_set, 2))
    rows = len(members)
    return Answers(
        "gender",
        ("woman", "man"),
        np.repeat(np.arange(sets), rows_a_set),
        members[:, :, None],
        np.full(rows, -1),
        np.full((rows, 1), np.nan),
    )


def test_rows_of_one_set_are_exchanged_together() -> None:
    # 30 sets of 40 questions each: exchanged row by row, the least p is below 0.05 in 70 of 100.
    config = AuditConfig(
        occupations=("any",),
        attributes={"gender": ("woman", "man")},
        primary=(),
        questions=(),
        permutations=399,
        bootstrap_draws=200,
    )
    studies, below = 60, {"ndkl": 0, "bias_at_k": 0, "first_in_set": 0}
    for study in range(studies):
        answers = pooled(40, 30, np.random.default_rng(study))
        found = rankings.skews(answers, config) + comparisons.comparisons(answers, config)
        for one in found:
            if one["metric"] in below and one.get("value") != "man":
                below[one["metric"]] += one["p"] < 0.05
    limit = stats.binom.ppf(0.9999, studies, 0.05)
    assert all(count <= limit for count in below.values()), below


def test_far_from_zero_the_effect_size_keeps_its_digits() -> None:
    rng = np.random.default_rng(22)
    members = rng.normal(size=(60, 2, 1)) + np.array([0.0, 1.0])[None, :, None]
    sizes = []
    for offset in (0.0, 1e6):
        answers = Answers(
            "gender",
            ("woman", "man"),
            np.arange(60),
            members + offset,
            np.full(60, -1),
            np.full((60, 1), np.nan),
        )
        config = AuditConfig(
            occupations=("any",), attributes={"gender": ("woman", "man")}, primary=(), questions=()
        )
        found = comparisons.comparisons(answers, config)
        sizes.append(next(one["estimate"] for one in found if one["metric"] == "weat_effect_size"))
    both = members.ravel()
    by_hand = (members[:, 1].mean() - members[:, 0].mean()) / both.std(ddof=1)
    assert sizes == pytest.approx([by_hand, by_hand], rel=1e-8)
