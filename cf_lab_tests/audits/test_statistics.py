"""The statistics: golden values by hand, and coverage on simulated data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cf_lab_assets.audits import statistics as st
from cf_lab_assets.audits.estimation import Numbers, Resamples, detectable


def rng(*labels: object) -> np.random.Generator:
    return st.generator(11, *labels)


def means(values: st.Floats, draws: int, *labels: object) -> Numbers:
    """Means of columns over sets, with the intervals that reports give."""
    drawn = Resamples({"sum": values, "n": np.ones((len(values), 1))}, draws, rng(*labels))
    return drawn.smooth(lambda sums: sums["sum"] / sums["n"], 0.95)


def binomial_band(n: int, p: float, outside: float = 1e-4) -> tuple[int, int]:
    """Hits that a fair instrument stays within, but for one case in ten thousand."""
    low, high = stats.binom.interval(1 - outside, n, p)
    return int(low), int(high)


@pytest.mark.parametrize("sets", [20, 40, 200])
def test_intervals_of_few_sets_hold_as_often_as_they_say(sets: int) -> None:
    # A thousand studies at once, a column each; unwidened, 20 sets hold 92 %.
    studies = 1000
    values = rng("coverage", sets).normal(size=(sets, studies))
    found = means(values, 2000, "samples", sets)
    held = int(((found.low <= 0) & (found.high >= 0)).sum())
    least, most = binomial_band(studies, 0.95)
    assert least <= held <= most


def test_generators_repeat_by_label_and_differ_between_labels() -> None:
    assert rng("a").random() == rng("a").random()
    assert rng("a").random() != rng("b").random()
    assert rng("ab", "c").random() != rng("a", "bc").random()


def test_every_resample_holds_as_many_sets_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(st, "BLOCK", 100)
    blocks = list(st.resampled(7, 50, rng()))
    counts = np.concatenate(blocks)
    assert len(blocks) > 1
    assert counts.shape == (50, 7)
    assert (counts.sum(axis=1) == 7).all()


def test_bootstrap_of_a_constant_is_that_constant() -> None:
    samples = st.bootstrap_means(np.full((9, 2), 3.0), 100, rng())
    np.testing.assert_allclose(samples, 3.0)
    found = means(np.full((9, 2), 3.0), 100)
    np.testing.assert_allclose([found.low, found.high], 3.0)
    assert np.isnan(detectable(found.error, 0.05, 0.8)).all()


def test_bootstrap_spread_is_the_standard_error() -> None:
    values = rng("data").normal(size=(200, 1))
    samples = st.bootstrap_means(values, 4000, rng())
    assert samples.std() == pytest.approx(values.std() / np.sqrt(200), rel=0.05)


def test_bca_agrees_with_scipy() -> None:
    values = rng("data").exponential(size=(40, 1))
    samples = st.bootstrap_means(values, 20000, rng())
    estimate = values.mean(axis=0)
    away = values - estimate
    acceleration = (away**3).sum(axis=0) / (6 * (away**2).sum(axis=0) ** 1.5)
    # Beyond a million sets there is nothing to widen.
    low, high = st.bca(estimate, samples, acceleration, 0.95, 10**6)
    theirs = stats.bootstrap(
        (values[:, 0],), np.mean, n_resamples=20000, method="BCa", rng=np.random.default_rng(5)
    ).confidence_interval
    assert low[0] == pytest.approx(theirs.low, abs=0.02)
    assert high[0] == pytest.approx(theirs.high, abs=0.02)


@pytest.mark.parametrize("shape", ["normal", "skewed", "heavy-tailed"])
def test_bca_intervals_cover_the_truth_as_often_as_they_say(shape: str) -> None:
    data = rng("coverage", shape)
    studies, sets = 600, 80
    draw = {
        "normal": lambda: data.normal(0.3, 1, (sets, studies)),
        "skewed": lambda: data.gamma(4.0, 0.5, (sets, studies)) - 1.7,
        "heavy-tailed": lambda: data.standard_t(6, (sets, studies)) + 0.3,
    }[shape]
    covered = total = 0
    for part in range(2):
        values = draw()
        found = means(values, 1000, "draws", shape, part)
        covered += int(((found.low <= 0.3) & (found.high >= 0.3)).sum())
        total += studies
    # At 80 sets bootstrap intervals of a mean are known to be about one point short.
    least, _ = binomial_band(total, 0.935)
    _, most = binomial_band(total, 0.95)
    assert least <= covered <= most, covered / total


def test_percentile_interval_of_infinite_samples_is_infinite_not_nan() -> None:
    samples = np.concatenate([np.full(50, -np.inf), np.linspace(-1, 0, 50)])[:, None]
    low, high = st.percentile_interval(samples, 0.9)
    assert low[0] == -np.inf
    assert -0.2 < high[0] <= 0


def test_sign_flips_of_few_sets_are_enumerated() -> None:
    # |sum| of (1, 2, 3) reaches 6 in 2 of 8 flips, that of (1, 1, -1) reaches 1 in all of them.
    values = np.array([[1.0, 1.0], [2.0, 1.0], [3.0, -1.0]])
    p, method = st.sign_flip_p(values, 999, rng())
    assert method == "exact"
    np.testing.assert_allclose(p, [0.25, 1.0])


def test_random_sign_flips_agree_with_enumeration() -> None:
    values = rng("data").normal(0.4, 1, (12, 3))
    exact, method = st.sign_flip_p(values, 4096, rng())
    assert method == "exact"
    drawn, method = st.sign_flip_p(values, 4000, rng())
    assert method == "monte-carlo"
    np.testing.assert_allclose(drawn, exact, atol=0.03)


def test_p_is_never_zero() -> None:
    p, _ = st.sign_flip_p(np.ones((50, 1)), 999, rng())
    assert p[0] == pytest.approx(1 / 1000)


def test_p_is_uniform_where_there_is_nothing_to_find() -> None:
    values = rng("null").standard_t(4, (40, 800))
    p, _ = st.sign_flip_p(values, 999, rng())
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    low, high = binomial_band(800, 0.05)
    assert low <= (p <= 0.05).sum() <= high


def test_a_planted_shift_is_recovered_and_its_power_is_as_stated() -> None:
    sets, studies, noise = 60, 800, 1.0
    pilot = means(rng("pilot").normal(0, noise, (sets, 1)), 2000, "pilot draws")
    mde = detectable(pilot.error, 0.05, 0.8)
    true = (1.959964 + 0.841621) * noise / np.sqrt(sets)
    assert mde[0] == pytest.approx(true, rel=0.25)
    values = rng("planted").normal(true, noise, (sets, studies))
    assert values.mean() == pytest.approx(true, abs=4 * noise / np.sqrt(sets * studies))
    p, _ = st.sign_flip_p(values, 999, rng())
    low, high = binomial_band(studies, 0.8)
    assert low - 0.02 * studies <= (p < 0.05).sum() <= high


def test_benjamini_hochberg_by_hand_and_against_scipy() -> None:
    p = np.array([0.04, 0.01, 0.03, 0.5])
    # Sorted: 0.01 * 4/1, 0.03 * 4/2, 0.04 * 4/3, 0.5; then the running minimum from the right.
    np.testing.assert_allclose(st.benjamini_hochberg(p), [0.04 * 4 / 3, 0.04, 0.04 * 4 / 3, 0.5])
    many = rng("p").random(50)
    np.testing.assert_allclose(st.benjamini_hochberg(many), stats.false_discovery_control(many))
    assert st.benjamini_hochberg(np.empty(0)).shape == (0,)


def test_wilson_interval_by_hand() -> None:
    low, high = st.wilson_interval(8, 10, 0.95)
    assert (low, high) == pytest.approx((0.4901625, 0.9433178), abs=1e-5)
    assert st.wilson_interval(0, 0, 0.95) == (0.0, 1.0)


def test_the_same_seed_gives_the_same_numbers_whatever_the_block_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = rng("data").normal(size=(30, 2))
    first = st.bootstrap_means(values, 100, rng("x"))
    monkeypatch.setattr(st, "BLOCK", 64)
    np.testing.assert_allclose(first, st.bootstrap_means(values, 100, rng("x")))
