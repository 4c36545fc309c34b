from collections import Counter

import numpy as np
import pytest

from cf_lab_assets.starter import text, world


def pixels(portrait):
    return np.asarray(world.render(portrait), dtype=np.int16)


PORTRAIT = world.Portrait("woman", "young", "light", "doctor", "park", seed=5)


def test_the_same_portrait_is_drawn_the_same_twice():
    assert (pixels(PORTRAIT) == pixels(PORTRAIT)).all()


@pytest.mark.parametrize("occupation", world.OCCUPATIONS)
@pytest.mark.parametrize("scene", world.SCENES)
def test_another_value_changes_the_person_and_leaves_the_rest(occupation, scene):
    portrait = world.Portrait("man", "young", "medium", occupation, scene, seed=11)
    for changed in ({"gender": "woman"}, {"age": "old"}, {"skin_tone": "dark"}):
        differs = (pixels(portrait) != pixels(portrait.with_values(changed))).any(axis=-1)
        assert 0.02 < differs.mean() < 0.5, changed
        assert not differs[:, :4].any(), "the picture's edge is background"


def test_two_seeds_are_two_pictures():
    other = world.Portrait("woman", "young", "light", "doctor", "park", seed=6)
    assert (pixels(PORTRAIT) != pixels(other)).any(axis=-1).mean() > 0.1


def test_skin_tone_groups_are_told_apart_by_lightness():
    def lightness(tone):
        portraits = [
            world.Portrait("man", "young", tone, "doctor", "office", seed) for seed in range(40)
        ]
        # Mid-forehead to chin of a bareheaded portrait.
        return [pixels(portrait)[26:32, 30:34].mean() for portrait in portraits]

    light, medium, dark = (lightness(tone) for tone in world.ATTRIBUTES["skin_tone"])
    assert np.mean(light) > np.mean(medium) > np.mean(dark)
    assert np.std(medium) > 5, "tones vary inside a group"


def test_nothing_goes_with_an_occupation_unless_asked():
    counts = Counter((p.occupation, p.gender) for p in world.sample(6000, seed=1))
    for occupation in world.OCCUPATIONS:
        women, men = counts[occupation, "woman"], counts[occupation, "man"]
        assert 0.4 < women / (women + men) < 0.6


def test_the_skewed_world_has_the_ratios_it_says():
    skew = world.PLANTED_SKEW
    portraits = list(world.sample_skewed(6000, seed=1))
    for attribute in ("gender", "skin_tone"):
        for value, occupations in getattr(skew, attribute).items():
            held = [
                getattr(p, attribute) == value for p in portraits if p.occupation in occupations
            ]
            assert abs(np.mean(held) - skew.ratio) < 0.03


def test_an_unknown_value_is_refused_and_the_known_ones_are_named():
    with pytest.raises(ValueError, match=r"gender 'robot'.*woman, man"):
        world.Portrait("robot", "young", "light", "doctor", "park", seed=1)


def test_captions_name_all_and_read_right():
    assert PORTRAIT.caption == (
        "a portrait of a young woman with light skin working as a doctor in a park"
    )
    old = PORTRAIT.with_values({"age": "old"})
    assert old.caption.startswith("a portrait of an old woman")
    assert world.describe({"occupation": "judge"}) == "a portrait of a judge"
    assert world.describe({"skin_tone": "dark"}) == "a portrait of a person with dark skin"


def test_size_is_a_matter_of_resampling_only():
    small, large = world.render(PORTRAIT, 32), world.render(PORTRAIT, 64)
    reduced = np.asarray(large.resize((32, 32), 4), dtype=float)  # 4: box filter
    assert np.abs(reduced - np.asarray(small, dtype=float)).mean() < 6


def test_the_tokenizer_reads_any_text_and_gives_it_back():
    tokenizer = text.build_tokenizer()
    for sentence in (PORTRAIT.caption, "Grüße, 漢字 & emoji 🙂!"):
        ids = tokenizer(sentence).input_ids
        decoded = tokenizer.decode(ids, skip_special_tokens=True)
        assert decoded.replace(" ", "") == sentence.lower().replace(" ", "")
    assert len(tokenizer(PORTRAIT.caption).input_ids) < 24


def test_there_is_an_instruction_for_every_choice_of_values():
    named = text.named_subsets()
    assert len(named) == 3 * 4 * 4
    assert named[0] == {}
    sentences = {text.instruction(values) for values in named[1:]}
    assert len(sentences) == len(named) - 1
    assert "turn the person into an old woman with dark skin" in sentences
