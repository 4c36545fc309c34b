"""Confound probe: is the attribute written where no edit was asked for?

Of each accepted set what any member changed is masked (see `masking`), and a probe guesses each
member's value from what is left.

The probe is a ridge regression on the values (for two values the linear discriminant of Fisher
1936), cross-validated by set: members of one set are never on both sides. Its AUC is taken within
sets: the probability that it ranks the member of a value above another member of the same set, ties
counting half; 0.5 is chance, exactly, since members that look alike are exchangeable.

Members of a set are drawn from the same noise, so that next to nothing but the edit tells them
apart, and a trace of a tenth of a grey level, which no audited model answers to, would be found
like a red border. So each member is moved by as much as re-rendering alone moves a picture, which
the placebos tell: what is judged is the AUC of traces that rise over this noise floor. The AUC
without it is reported beside as ``trace``. The noise floor came after the probe had been seen to
call the starter editor's sets confounded by a tenth of a level; with it, one attribute still is.
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
from cf_lab_assets.audits.instrument.masking import STATISTICS, MaskedSet

Floats = NDArray[np.float64]

FOLDS = 5
# Weight of the ridge beside features of variance one: about as many features as sets must be
# weighed where datasets are small.
RIDGE = 1.0
# Fewer sets than this and nothing is judged: each fold would be tried on five or less.
LEAST_SETS = 30
# Fewer than this and nothing is measured: two sets a fold.
LEAST_PROBED = 2 * FOLDS

# Times that members are moved by noise: their AUC is averaged, so that its draw counts little.
REPEATS = 10

AUC_LIMIT = Limit(
    0.6,
    "AUC within sets",
    "the lab's choice: a standardised difference of 0.36, between what Cohen (1988) calls small "
    "and medium; about 100 sets can tell it from 0.5",
)


@dataclass(frozen=True)
class Probe:
    """What the probe found of one attribute.

    Attributes:
        finding: its AUC over the noise floor, against the limit.
        trace: its AUC without the noise floor; None where nothing was measured.
        by_value: AUC of each value against the others.
        statistics: rows by statistic and value: how far the value's members lie from the mean of
            their sets, in grey levels, with simultaneous interval.
        masked: mean share of the picture that is masked.
        skipped: sets that had too little left, or lack a value.
    """

    attribute: str
    finding: Finding
    trace: float | None
    by_value: dict[str, float]
    statistics: list[dict[str, Any]]
    masked: float
    skipped: int


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
        return Probe(attribute, nothing, None, {}, [], masked, skipped)
    features = np.stack([one.features for one in whole]).astype(np.float64)
    trace = within_set_auc(out_of_fold(features, attribute))
    blurred = (_blurred(features, whole, f"{attribute}/{one}") for one in range(REPEATS))
    by_set = np.mean([within_set_auc(out_of_fold(one, attribute)) for one in blurred], axis=0)
    rng = statistics.generator(SEED, "instrument/auc", attribute)
    samples = statistics.bootstrap_means(by_set.mean(axis=1, keepdims=True), DRAWS, rng)
    low, high = (float(end[0]) for end in statistics.percentile_interval(samples, LEVEL))
    verdict = ceiling_verdict(low, high, AUC_LIMIT.value) if count >= LEAST_SETS else INSUFFICIENT
    mean = float(by_set.mean())
    return Probe(
        attribute,
        Finding("auc", attribute, count, mean, low, high, AUC_LIMIT, verdict),
        float(trace.mean()),
        dict(zip(most, map(float, by_set.mean(axis=0)), strict=True)),
        list(_differences(attribute, most, features[:, :, -len(STATISTICS) :])),
        masked,
        skipped,
    )


def _blurred(features: Floats, sets: Sequence[MaskedSet], label: str) -> Floats:
    """Features moved by what re-rendering does to pictures, less the sets' means.

    Each member is moved by placebo less source picture of a set drawn at random, with a random
    sign: as a whole, so that what re-rendering does to neighbouring cells stays together.
    """
    known = [one.floor for one in sets if one.floor is not None]
    if not known:
        return features
    floors, shape = np.array(known, dtype=np.float64), features.shape[:2]
    rng = statistics.generator(SEED, "instrument/floor", label)
    signs = rng.choice((-1.0, 1.0), size=shape)
    blurred = features + floors[rng.integers(len(floors), size=shape)] * signs[..., None]
    return np.asarray(blurred - blurred.mean(axis=1, keepdims=True))


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
