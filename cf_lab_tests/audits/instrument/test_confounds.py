import numpy as np
import pytest

from cf_lab_assets.audits.instrument import confounds, masking
from cf_lab_assets.audits.instrument.findings import FAILS, HOLDS, INSUFFICIENT
from cf_lab_tests.audits.instrument.planted import members_of, scene


def masked(sets, border=(0, 0), seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for number in range(sets):
        before = scene(rng)
        members = members_of(before, rng, border)
        placebo = number % 2 if border == (0, 0) else 0
        made.append(masking.mask_set("gender", ["woman", "man"], before, members, placebo))
    return made


def probed(sets, border=(0, 0), seed=0):
    made = masked(sets, border, seed)
    (found,) = confounds.probe_all(made, {"gender": len(made)})
    return found


def test_a_border_colour_that_goes_with_the_value_is_found():
    found = probed(100, border=(0, 6))
    assert found.finding.verdict == FAILS
    assert found.finding.estimate > 0.97
    assert found.finding.low > confounds.AUC_LIMIT.value
    assert found.by_value.keys() == {"woman", "man"}
    differing = {row["statistic"] for row in found.statistics if row["differs"]}
    assert "brightness" in differing
    assert not differing & {"red_green", "yellow_blue"}


def test_a_trace_that_is_smaller_than_what_rerendering_does_is_reported_and_not_judged():
    rng = np.random.default_rng(7)
    made = []
    for _ in range(300):
        before = scene(rng)
        # Re-rendered with tints that the members share, but for one level in a corner.
        tints = rng.normal(0, 4, (8, 8, 3)).round().astype(int)
        shared = before.astype(int) + tints.repeat(4, 0).repeat(4, 1)
        members = np.stack([shared, shared])
        members[1, :4, :4] += 1
        members[:, 12:20, 12:20] = np.array([30, 220])[:, None, None, None]
        members = np.clip(members, 0, 255).astype(np.uint8)
        made.append(masking.mask_set("gender", ["woman", "man"], before, members, 0))
    found = confounds.probe("gender", made, 300)
    assert found.trace > 0.95
    assert found.finding.verdict != FAILS
    assert found.finding.estimate < 0.65


def test_a_clean_set_is_at_chance_although_its_middle_shows_the_value():
    found = probed(400)
    assert found.finding.verdict == HOLDS
    assert found.finding.low < 0.5 < found.finding.high
    assert not any(row["differs"] for row in found.statistics)
    assert 0.1 < found.masked < 0.3


def test_chance_is_one_half_over_many_clean_datasets():
    found = [probed(30, seed=seed).finding.estimate for seed in range(1, 9)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.08)


def test_few_sets_are_measured_and_not_judged():
    assert probed(20, border=(0, 6)).finding.verdict == INSUFFICIENT
    assert probed(20, border=(0, 6)).finding.estimate > 0.9
    assert probed(5, border=(0, 6)).finding.estimate is None


def test_the_mask_is_all_that_any_member_changed_and_a_rim():
    before = np.full((64, 64, 3), 100, np.uint8)
    members = np.stack([before, before])
    members[0, 10, 10] = 100 + masking.CHANGED  # not more than the threshold
    members[1, 30, 40, 2] = 100 + masking.CHANGED + 1
    changed = masking.changed_pixels(before, members)
    assert changed[27:34, 37:44].all()
    assert changed.sum() == 49


def test_what_changed_pixels_enclose_is_masked_too():
    before = np.full((64, 64, 3), 100, np.uint8)
    members = np.stack([before, before])
    members[1, 20:44, 20:44] = 200
    members[1, 28:36, 28:36] = 100
    changed = masking.changed_pixels(before, members)
    assert changed[17:47, 17:47].all()
    assert changed.sum() == 30 * 30


def test_what_is_masked_tells_nothing_and_what_is_left_is_kept():
    rng = np.random.default_rng(1)
    before = scene(rng)
    members = np.stack([before, before])
    members[1, 12:20, 12:20] = 255
    (one,) = [masking.mask_set("gender", ["woman", "man"], before, members)]
    assert np.abs(one.features).max() == 0


def test_members_are_told_by_value_whatever_their_order():
    before = scene(np.random.default_rng(2))
    pair = members_of(before, np.random.default_rng(3), (0, 6))
    one = masking.mask_set("gender", ["woman", "man"], before, pair)
    other = masking.mask_set("gender", ["man", "woman"], before, pair[::-1])
    assert one.values == other.values == ("man", "woman")
    assert np.array_equal(one.features, other.features)


def test_a_set_that_changed_nearly_everywhere_is_skipped_and_counted():
    before = np.zeros((32, 32, 3), np.uint8)
    assert masking.mask_set("age", ["old", "young"], before, np.stack([before, ~before])) is None
    (found,) = confounds.probe_all([*masked(40), None], {"gender": 41})
    assert found.skipped == 1
    assert found.finding.n == 40


def test_auc_within_sets_counts_ties_half():
    scores = np.zeros((2, 3, 3))
    scores[1] = np.eye(3)
    scores[1, 2, 0] = 2.0
    assert confounds.within_set_auc(scores).tolist() == [[0.5, 0.5, 0.5], [0.5, 1.0, 1.0]]


def test_no_set_is_scored_by_a_probe_that_has_seen_it():
    # Each set has a feature of its own, which a probe that saw the set would know by heart.
    sets = 40
    features = np.zeros((sets, 2, sets))
    features[range(sets), 0, range(sets)], features[range(sets), 1, range(sets)] = 1, -1
    scores = confounds.out_of_fold(features, "by heart")
    assert np.abs(scores).max() == 0
