import numpy as np

from cf_lab_assets.audits.instrument import appearance
from cf_lab_assets.starter import world
from cf_lab_resources.engine.pictures import as_array


def test_lightness_shifts_are_those_of_skin_alone():
    portraits = list(world.sample(6, seed=3))
    for portrait in portraits:
        before = as_array([world.render(portrait)])[0]
        tones = [
            world.render(portrait.with_values({"skin_tone": tone}))
            for tone in world.ATTRIBUTES["skin_tone"]
        ]
        light, medium, dark = appearance.lightness_shifts(before, as_array(tones))
        assert light > medium > dark
        assert 0 in (light, medium, dark)
        # A lighter background is no lighter skin.
        brighter = before.copy()
        brighter[:6] = 1.0
        assert appearance.lightness_shifts(before, brighter[None])[0] == 0


def test_without_skin_in_the_window_no_shift_is_measured():
    grey = np.full((64, 64, 3), 0.5, np.float32)
    assert np.isnan(appearance.lightness_shifts(grey, grey[None])).all()


def test_blur_and_noise_are_stranger_than_the_pictures_themselves():
    from scipy.ndimage import gaussian_filter

    pictures = as_array([world.render(one) for one in world.sample(24, seed=4)])
    rng = np.random.default_rng(5)
    blurred = gaussian_filter(pictures, (0, 1.5, 1.5, 0))
    noisy = np.clip(pictures + rng.normal(0, 0.05, pictures.shape).astype(np.float32), 0, 1)
    statistics = [appearance.local_statistics(one) for one in (pictures, blurred, noisy)]
    assert statistics[0].shape == (24, appearance.COUNT)
    own, blur, noise = (appearance.strangeness(one, statistics[0]).mean() for one in statistics)
    assert own < 1.01
    assert blur > own + 0.5
    assert noise > own + 0.5


def test_one_source_is_no_reference():
    assert np.isnan(appearance.strangeness(np.zeros((3, 4)), np.zeros((1, 4)))).all()
