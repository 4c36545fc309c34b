"""Confound probe: is the attribute written where no edit was asked for?

Of each accepted set the pixels that any member changed against the source picture are masked, in
all members alike, and a probe guesses each member's value from what is left. What it is shown are
plain numbers and no scorer's embedding: the means of a grid over the picture, and brightness,
contrast, sharpness and colour. Each set's mean is taken off, so that the scene, which the members
share, tells nothing, and a trace as small as one grey level is not drowned by it.

The probe is a ridge regression on the values (for two values the linear discriminant of Fisher
1936), cross-validated by set: members of one set are never on both sides. Its AUC is taken within
sets: the probability that it ranks the member of a value above another member of the same set, ties
counting half; 0.5 is chance, exactly, since members that look alike are exchangeable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cf_lab_assets.audits import statistics
from cf_lab_assets.audits.instrument.comparisons import DRAWS, LEVEL, SEED, simultaneous_halves
from cf_lab_assets.audits.instrument.findings import (
    INSUFFICIENT,
    Finding,
    Limit,
    ceiling_verdict,
    number,
)

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

FOLDS = 5
# Weight of the ridge beside features of variance one: about as many features as sets must be
# weighed where datasets are small.
RIDGE = 1.0
# Fewer sets than this and nothing is judged: each fold would be tried on five or less.
LEAST_SETS = 30
# Fewer than this and nothing is measured: two sets a fold.
LEAST_PROBED = 2 * FOLDS

AUC_LIMIT = Limit(
    0.6,
    "AUC within sets",
    "the lab's choice: a standardised difference of 0.36, between what Cohen (1988) calls small "
    "and medium; about 100 sets can tell it from 0.5",
)


@dataclass(frozen=True)
class MaskedSet:
    """What is left of one set's members.

    Attributes:
        attribute: what the set varies.
        values: of the members, in order; each once.
        features: (members, grid cells and statistics), less their mean over the members.
        left: share of the picture that no member changed.
    """

    attribute: str
    values: tuple[str, ...]
    features: NDArray[np.float32]
    left: float


@dataclass(frozen=True)
class Probe:
    """What the probe found of one attribute.

    Attributes:
        finding: its AUC against the limit.
        by_value: AUC of each value against the others.
        statistics: rows by statistic and value: how far the value's members lie from the mean of
            their sets, in grey levels, with simultaneous interval.
        masked: mean share of the picture that is masked.
        skipped: sets that had too little left, or lack a value.
    """

    attribute: str
    finding: Finding
    by_value: dict[str, float]
    statistics: list[dict[str, Any]]
    masked: float
    skipped: int


def changed_pixels(before: Pixels, members: Pixels) -> Flags:
    """Where any member differs from the picture before, grown by `DILATION`.

    Args:
        before: (height, width, 3).
        members: (n, height, width, 3).

    Returns:
        (height, width).
    """
    from scipy.ndimage import maximum_filter

    off = np.abs(members.astype(np.int16) - before).max(axis=(0, 3)) > CHANGED
    reach = round(DILATION * before.shape[0])
    return np.asarray(maximum_filter(off, size=2 * reach + 1))


def mask_set(
    attribute: str, values: Sequence[str], before: Pixels, members: Pixels
) -> MaskedSet | None:
    """What is left of a set's members; None where it is too little.

    Args:
        attribute: what the set varies.
        values: one for each member.
        before: the source picture, (height, width, 3).
        members: (n, height, width, 3).
    """
    left = ~changed_pixels(before, members)
    if left.mean() < LEAST_LEFT:
        return None
    features = np.concatenate([_grid(members, left), _statistics(members, left)], axis=1)
    centred = (features - features.mean(axis=0)).astype(np.float32)
    order = np.argsort(np.array(values))
    named = tuple(values[index] for index in order)
    return MaskedSet(attribute, named, centred[order], float(left.mean()))


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


def probe_all(sets: Sequence[MaskedSet | None], offered: Mapping[str, int]) -> list[Probe]:
    """Probe each attribute.

    Args:
        sets: masked sets, in a fixed order; None for one with too little left.
        offered: by attribute, how many sets were to be masked.
    """
    return [
        probe(name, [one for one in sets if one and one.attribute == name], offered[name])
        for name in sorted(offered)
    ]


def probe(attribute: str, sets: Sequence[MaskedSet], offered: int) -> Probe:
    """Guess members' values from what is left of their pictures; see the module."""
    most = max((one.values for one in sets), key=len, default=())
    whole = [one for one in sets if one.values == most]
    count, skipped = len(whole), offered - len(whole)
    masked = 1 - float(np.mean([one.left for one in whole])) if whole else 0.0
    if count < LEAST_PROBED or len(most) < 2:
        nothing = Finding("auc", attribute, count, None, None, None, AUC_LIMIT, INSUFFICIENT)
        return Probe(attribute, nothing, {}, [], masked, skipped)
    features = np.stack([one.features for one in whole]).astype(np.float64)
    by_set = within_set_auc(out_of_fold(features, attribute))
    rng = statistics.generator(SEED, "instrument/auc", attribute)
    samples = statistics.bootstrap_means(by_set.mean(axis=1, keepdims=True), DRAWS, rng)
    low, high = (float(end[0]) for end in statistics.percentile_interval(samples, LEVEL))
    verdict = ceiling_verdict(low, high, AUC_LIMIT.value) if count >= LEAST_SETS else INSUFFICIENT
    mean = float(by_set.mean())
    return Probe(
        attribute,
        Finding("auc", attribute, count, mean, low, high, AUC_LIMIT, verdict),
        dict(zip(most, map(float, by_set.mean(axis=0)), strict=True)),
        list(_differences(attribute, most, features[:, :, -len(STATISTICS) :])),
        masked,
        skipped,
    )


def out_of_fold(features: Floats, label: str) -> Floats:
    """Scores of each member for each value, by a probe that was fitted without its set.

    Args:
        features: (sets, members, f), member v of each set showing value v, less the sets' means.
        label: of the random numbers that divide the sets into folds.

    Returns:
        (sets, members, values).
    """
    sets, members, _ = features.shape
    spread = features.std(axis=(0, 1))
    # What does not vary at all, as where a cell of the grid is masked in all sets, tells nothing;
    # rounding alone would be scaled up otherwise.
    used = spread > 1e-3
    scaled = features[:, :, used] / spread[used]
    wanted = np.eye(members) - 1 / members
    folds = statistics.generator(SEED, "instrument/folds", label).permutation(sets) % FOLDS
    products = np.stack([_products(scaled[folds == fold], wanted) for fold in range(FOLDS)])
    total, own = products.sum(axis=0), scaled.shape[2]
    scores = np.zeros((sets, members, members))
    for fold in range(FOLDS):
        rest = total - products[fold]
        ridge = RIDGE * members * (folds != fold).sum() * np.eye(own)
        weights = np.linalg.solve(rest[:, :own] + ridge, rest[:, own:])
        scores[folds == fold] = scaled[folds == fold] @ weights
    return scores


def _products(features: Floats, wanted: Floats) -> Floats:
    """X'X and X'Y side by side, (f, f + values)."""
    rows = features.reshape(-1, features.shape[2])
    answers = np.tile(wanted, (len(features), 1))
    return rows.T @ np.concatenate([rows, answers], axis=1)


def within_set_auc(scores: Floats) -> Floats:
    """Of each set and value, the share of other members that the value's own is ranked above.

    Args:
        scores: (sets, members, values), member v showing value v.

    Returns:
        (sets, values); ties count half.
    """
    own = np.diagonal(scores, axis1=1, axis2=2)[:, None, :]
    above = (own > scores) + 0.5 * (own == scores)
    members = scores.shape[1]
    # A member is tied with itself.
    return (above.sum(axis=1) - 0.5) / (members - 1)


def _differences(
    attribute: str, values: Sequence[str], centred: Floats
) -> Iterator[dict[str, Any]]:
    """How far each value's members lie from their sets' means, statistic by statistic."""
    flat = centred.transpose(0, 2, 1).reshape(len(centred), -1)
    rng = statistics.generator(SEED, "instrument/statistics", attribute)
    estimates = flat.mean(axis=0)
    samples = statistics.bootstrap_means(flat, DRAWS, rng)
    halves = simultaneous_halves(estimates, samples)
    places = ((statistic, value) for statistic in STATISTICS for value in values)
    for (statistic, value), estimate, half in zip(places, estimates, halves, strict=True):
        yield {
            "statistic": statistic,
            "value": value,
            "estimate": number(estimate),
            "low": number(estimate - half),
            "high": number(estimate + half),
            "differs": bool(abs(estimate) > half),
        }
