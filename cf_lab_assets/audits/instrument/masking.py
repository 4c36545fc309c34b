"""Masked sets: what is left of a set's members where none of them was changed, as plain numbers.

The pixels that any member changed against the source picture are made grey in all members alike.
What is left is described by the means of a grid over the picture, and by brightness, contrast,
sharpness and colour; no scorer's embedding is used. Each set's mean is taken off, so that the
scene, which the members share, tells nothing, and a trace as small as one grey level is not drowned
by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Flags = NDArray[np.bool_]

# Grey levels of 255 by which a channel must differ for a pixel to count as changed. An editor's
# autoencoder moves every pixel a little: the starter editor's placebos by 3.3 levels on average.
CHANGED = 16
# The mask grows by this share of the picture's edge (3 of 64 pixels): what is drawn has soft edges.
DILATION = 3 / 64
# Less of the picture than this left and a set is left out, and counted.
LEAST_LEFT = 0.1
GREY = 128
GRID = 8
STATISTICS = ("brightness", "contrast", "sharpness", "red_green", "yellow_blue", "saturation")


@dataclass(frozen=True)
class MaskedSet:
    """What is left of one set's members.

    Attributes:
        attribute: what the set varies.
        values: of the members, in order; each once.
        features: (members, grid cells and statistics), less their mean over the members.
        left: share of the picture that no member changed.
        floor: (grid cells and statistics,), the placebo's less the source picture's: what
            re-rendering alone does there; None without a placebo.
    """

    attribute: str
    values: tuple[str, ...]
    features: NDArray[np.float32]
    left: float
    floor: NDArray[np.float32] | None


def changed_pixels(before: Pixels, members: Pixels) -> Flags:
    """Where a member differs from the picture before, grown by `DILATION`, and what that encloses.

    A spot amid changed hair or skin that happens to keep its colour belongs to the edit.

    Args:
        before: (height, width, 3).
        members: (n, height, width, 3).

    Returns:
        (height, width).
    """
    from scipy.ndimage import binary_fill_holes, maximum_filter

    off = np.abs(members.astype(np.int16) - before).max(axis=(0, 3)) > CHANGED
    reach = round(DILATION * before.shape[0])
    return np.asarray(binary_fill_holes(maximum_filter(off, size=2 * reach + 1)))


def mask_set(
    attribute: str,
    values: Sequence[str],
    before: Pixels,
    members: Pixels,
    placebo: int | None = None,
) -> MaskedSet | None:
    """What is left of a set's members; None where it is too little.

    Args:
        attribute: what the set varies.
        values: one for each member.
        before: the source picture, (height, width, 3).
        members: (n, height, width, 3).
        placebo: which member is the placebo; None where none is.
    """
    left = ~changed_pixels(before, members)
    if left.mean() < LEAST_LEFT:
        return None
    pictures = np.concatenate([before[None], members])
    every = np.concatenate([_grid(pictures, left), _statistics(pictures, left)], axis=1)
    source, features = every[0].astype(np.float32), every[1:].astype(np.float32)
    order = np.argsort(np.array(values))
    return MaskedSet(
        attribute,
        tuple(values[index] for index in order),
        (features - features.mean(axis=0))[order],
        float(left.mean()),
        None if placebo is None else features[placebo] - source,
    )


def _grid(members: Pixels, left: Flags) -> Floats:
    """Means of a grid's cells, masked pixels being grey; (n, cells * 3)."""
    shown = np.where(left[..., None], members, GREY).astype(np.float64)
    rows, columns = (np.linspace(0, edge, GRID + 1).astype(int) for edge in left.shape)
    sums = np.add.reduceat(np.add.reduceat(shown, rows[:-1], axis=1), columns[:-1], axis=2)
    sizes = np.outer(np.diff(rows), np.diff(columns))
    return (sums / sizes[..., None]).reshape(len(members), -1)


def _statistics(members: Pixels, left: Flags) -> Floats:
    """`STATISTICS` of what is left, in grey levels; (n, statistics)."""
    pixels = members[:, left].astype(np.float64)
    red, green, blue = np.moveaxis(pixels, -1, 0)
    luminance = members @ np.array([0.299, 0.587, 0.114])
    bright = luminance[:, left]
    return np.stack(
        [
            bright.mean(axis=1),
            bright.std(axis=1),
            _sharpness(luminance, left),
            (red - green).mean(axis=1),
            ((red + green) / 2 - blue).mean(axis=1),
            (pixels.max(axis=2) - pixels.min(axis=2)).mean(axis=1),
        ],
        axis=1,
    )


def _sharpness(luminance: Floats, left: Flags) -> Floats:
    """Mean difference of neighbours that are both left."""
    across = np.abs(np.diff(luminance, axis=2))[:, left[:, 1:] & left[:, :-1]]
    down = np.abs(np.diff(luminance, axis=1))[:, left[1:] & left[:-1]]
    both = np.concatenate([across, down], axis=1)
    return both.mean(axis=1) if both.shape[1] else np.zeros(len(luminance))
