"""What an editor does to pictures beside its task: skin lightness, and local statistics.

*Skin tone drift* is the shift of CIELAB lightness L* (D65) between source and candidate, positive
where the candidate is lighter: the median over the same pixels of both, so that hair or glasses
that an edit adds to a smaller part do not count. The pixels are those of the source picture that
lie in the window where a portrait's face is and have a colour of the skin's range of hues. No
lightness bounds the range but the darkest tenth, which tells no hue: a rule that knew light skin
better would measure the groups by different rulers. The window was
chosen on starter portraits; of 100 others in each group of skin tones, 92 in a hundred of these
pixels are skin, and of the window's skin 94 (light), 99 (medium) and 96 (dark) in a hundred are
among them. On photographs it has not been tried.

*Strangeness* is how far a picture's local statistics lie from those of the source pictures: the
36 statistics of NIQE (Mittal, Soundararajan & Bovik 2013), of contrast-normalised luminance at two
scales, with moment ratios in place of fitted shapes; the root mean square of their distances from
the sources' means, each in standard deviations of the sources. Only the diagonal of the covariance
is used, as few sources can't tell all of it. It judges no content, needs no model, and so none of
the scorers' own. An edit is charged with what it adds to the strangeness of its source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.floating]

# Where the face of a portrait is, in shares of the picture: top, bottom, left, right.
FACE = (0.30, 0.61, 0.34, 0.66)
# CIELAB hue angles of skin, degrees, with room to both sides of those of people under daylight,
# which lie about 40 to 80; chroma under 3 is grey, and has no hue.
SKIN_HUES = (20.0, 100.0)
LEAST_CHROMA = 3.0
LEAST_LIGHTNESS = 10.0
# Less skin than this share of the window and a shift is not measured.
LEAST_SKIN = 0.1
# NIQE's window.
SIGMA = 7 / 6
SCALES = 2
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
COUNT = SCALES * (2 + 4 * len(NEIGHBOURS))  # of a picture's local statistics


def lightness_shifts(before: Floats, after: Floats) -> NDArray[np.float64]:
    """Median shift of L* over the skin of the picture before.

    Args:
        before: (height, width, 3) in [0, 1].
        after: (n, height, width, 3) in [0, 1].

    Returns:
        (n,); NaN where too little skin is seen.
    """
    import numpy as np
    from skimage.color import rgb2lab

    height, width = before.shape[:2]
    top, bottom, left, right = FACE
    rows = slice(round(top * height), round(bottom * height))
    columns = slice(round(left * width), round(right * width))
    face = rgb2lab(before[rows, columns])
    skin = skin_pixels(face)
    if skin.mean() < LEAST_SKIN:
        return np.full(len(after), np.nan)
    lightness = rgb2lab(after[:, rows, columns])[..., 0]
    return np.asarray(np.median((lightness - face[..., 0])[:, skin], axis=1), np.float64)


def skin_pixels(lab: Floats) -> NDArray[np.bool_]:
    """Which pixels of a CIELAB picture have a colour that skin may have; shape without the last."""
    import numpy as np

    lightness, a, b = np.moveaxis(lab, -1, 0)
    hue = np.degrees(np.arctan2(b, a))
    low, high = SKIN_HUES
    coloured = (np.hypot(a, b) > LEAST_CHROMA) & (lightness > LEAST_LIGHTNESS)
    return np.asarray(coloured & (hue > low) & (hue < high))


def local_statistics(pictures: Floats) -> NDArray[np.float64]:
    """NIQE's statistics of each picture.

    Args:
        pictures: (n, height, width, 3) in [0, 1].

    Returns:
        (n, `COUNT`): at each of two scales, variance and shape of the normalised luminance, and for
        each of four neighbours mean, left and right spread and shape of the products.
    """
    import numpy as np

    luminance = pictures @ np.array([0.299, 0.587, 0.114], dtype=pictures.dtype) * 255.0
    found = []
    for scale in range(SCALES):
        if scale:
            luminance = _halved(luminance)
        found += _statistics(_normalised(luminance))
    return np.stack(found, axis=1).astype(np.float64)


def strangeness(
    statistics: NDArray[np.float64], reference: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance of pictures from a reference, in its standard deviations.

    Args:
        statistics: (n, s) of `local_statistics`.
        reference: (m, s), those of the source pictures.

    Returns:
        (n,); NaN for all where the reference is of fewer than two pictures.
    """
    import numpy as np

    if len(reference) < 2:
        return np.full(len(statistics), np.nan)
    spread = reference.std(axis=0, ddof=1)
    off = (statistics - reference.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    return np.asarray(np.sqrt(np.mean(off**2, axis=1)))


def _halved(pictures: Floats) -> Floats:
    import numpy as np

    height, width = (edge // 2 for edge in pictures.shape[1:])
    blocks = pictures[:, : 2 * height, : 2 * width].reshape(-1, height, 2, width, 2)
    return np.asarray(blocks.mean(axis=(2, 4)))


def _normalised(luminance: Floats) -> Floats:
    """Luminance less its local mean, over its local spread and one level (equation 1)."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    sigmas = (0, SIGMA, SIGMA)
    mean = gaussian_filter(luminance, sigmas)
    square = gaussian_filter(luminance * luminance, sigmas)
    spread = np.sqrt(np.maximum(square - mean * mean, 0))
    return np.asarray((luminance - mean) / (spread + 1.0))


def _statistics(normalised: Floats) -> list[Floats]:
    import numpy as np

    edges = (1, 2)
    variance = (normalised**2).mean(edges)
    found = [variance, _ratio(np.abs(normalised).mean(edges) ** 2, variance)]
    for down, right in NEIGHBOURS:
        products = normalised * np.roll(normalised, (down, right), axis=edges)
        left = np.sqrt((np.minimum(products, 0) ** 2).mean(edges))
        above = np.sqrt((np.maximum(products, 0) ** 2).mean(edges))
        shape = _ratio(np.abs(products).mean(edges) ** 2, (products**2).mean(edges))
        found += [products.mean(edges), left, above, shape]
    return found


def _ratio(over: Floats, under: Floats) -> Floats:
    import numpy as np

    return np.asarray(np.divide(over, under, out=np.zeros_like(over), where=under > 0))
