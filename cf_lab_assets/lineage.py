"""Which columns each column is made from, asset by asset.

A leaf. A column that is not named is made from no other column, but from settings, or by chance.
"""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from cf_lab_assets import names

Source = tuple[dg.AssetKey, str]


def _of(key: dg.AssetKey, *columns: str) -> tuple[Source, ...]:
    return tuple((key, column) for column in columns)


def _same(key: dg.AssetKey, *columns: str) -> dict[str, tuple[Source, ...]]:
    return {column: _of(key, column) for column in columns}


_KNOWN = _of(names.SOURCE_PAIRS, "attributes", "caption")
_PICTURES = _of(names.CANDIDATES, "image_key")
_BEFORE = _of(names.SOURCE_PAIRS, "image_key")
_CAPTIONS = _of(names.EDIT_PLAN, "base_caption", "caption")
_SIMILARITIES = ("sim_0", "sim_1", "sim_dir", "sim_img", "preservation")

_EDIT_PLAN = {
    "edit_id": _of(names.SOURCE_PAIRS, "source_id"),
    **_same(names.SOURCE_PAIRS, "source_id"),
    "cell": _KNOWN,
    "from_values": _KNOWN,
    "to_values": _KNOWN,
    "base_caption": _KNOWN,
    "caption": _KNOWN,
    "instruction": _KNOWN,
    "explanation": _KNOWN,
}
_CANDIDATES = {
    **_same(names.EDIT_PLAN, "edit_id", "source_id"),
    "noise_seed": _of(names.EDIT_PLAN, "edit_id"),
    "image_key": (*_BEFORE, *_of(names.EDIT_PLAN, "instruction", "caption", "to_values")),
    "image_sha256": (*_BEFORE, *_of(names.EDIT_PLAN, "instruction", "caption", "to_values")),
    "engine": _of(names.MODEL_ARTIFACTS, "sha256"),
}
_PAIR_SCORES = {
    **_same(names.CANDIDATES, "edit_id", "source_id", "draw"),
    "sim_0": (*_BEFORE, *_of(names.EDIT_PLAN, "base_caption")),
    "sim_1": (*_PICTURES, *_of(names.EDIT_PLAN, "caption")),
    "sim_dir": (*_PICTURES, *_BEFORE, *_CAPTIONS),
    "sim_img": (*_PICTURES, *_BEFORE),
    "preservation": (*_PICTURES, *_BEFORE),
    "cits": (*_PICTURES, *_BEFORE, *_CAPTIONS),
    "accepted": (*_PICTURES, *_of(names.EDIT_PLAN, "to_values")),
    "reasons": (*_PICTURES, *_of(names.EDIT_PLAN, "to_values")),
}
_ACCEPTED_SETS = {
    "set_id": _of(names.EDIT_PLAN, "source_id", "attribute"),
    **_same(names.EDIT_PLAN, "source_id", "attribute"),
    "from_value": _of(names.EDIT_PLAN, "from_values"),
    "members": _of(names.PAIR_SCORES, "edit_id", "draw", "accepted"),
}
_DATASET = {
    "pair_id": _of(names.ACCEPTED_SETS, "set_id", "members"),
    **_same(names.ACCEPTED_SETS, "set_id", "source_id", "attribute"),
    "value": _of(names.EDIT_PLAN, "to_values"),
    "values": _of(names.EDIT_PLAN, "to_values"),
    "is_placebo": _of(names.EDIT_PLAN, "kind"),
    **_same(names.EDIT_PLAN, "caption", "instruction", "explanation"),
    **_same(names.CANDIDATES, "image_key", "image_sha256", "noise_seed", "engine"),
    "source_image_key": _of(names.SOURCE_PAIRS, "image_key"),
    "source_image_sha256": _of(names.SOURCE_PAIRS, "image_sha256"),
    "source_caption": _of(names.SOURCE_PAIRS, "caption"),
    "occupation": _of(names.SOURCE_PAIRS, "attributes", "extra"),
    "batch": _of(names.SOURCE_PAIRS, "batch"),
    **_same(names.PAIR_SCORES, *_SIMILARITIES, "cits", "edit_id", "draw"),
}
_PACKAGED = (
    "caption source_caption pair_id set_id source_id batch attribute value values is_placebo "
    "instruction explanation image_sha256 source_image_sha256 occupation sim_0 sim_1 sim_dir "
    "sim_img preservation cits edit_id draw noise_seed engine"
).split()
_ESTIMATES = (
    "estimate ci_low ci_high p q mde placebo_floor no_effect in_top verdict reasons against_limit"
).split()

_RESPONSES = {
    **_same(names.DATASET, "pair_id", "set_id", "source_id", "attribute", "value"),
    **_same(names.DATASET, "is_placebo", "values"),
    **dict.fromkeys(
        ("score", "prediction", "answer", "outcome", "likelihoods", "failure"),
        _of(names.DATASET, "image_key", "source_image_key"),
    ),
}


def _bias_metrics(responses: dg.AssetKey) -> dict[str, tuple[Source, ...]]:
    answers = _of(responses, "score", "prediction", "outcome")
    groups = _of(responses, "set_id", "attribute", "value", "is_placebo", "values")
    return {
        **_same(responses, "attribute", "value", "format"),
        "n_sets": _of(responses, "set_id"),
        "placebo_sets": _of(responses, "set_id", "is_placebo"),
        **dict.fromkeys(_ESTIMATES, (*answers, *groups)),
    }


MADE_FROM: Mapping[dg.AssetKey, Mapping[str, tuple[Source, ...]]] = {
    names.EDIT_PLAN: _EDIT_PLAN,
    names.CANDIDATES: _CANDIDATES,
    names.PAIR_SCORES: _PAIR_SCORES,
    names.ACCEPTED_SETS: _ACCEPTED_SETS,
    names.DATASET: _DATASET,
    names.PACKAGE: {
        **_same(names.DATASET, *_PACKAGED),
        "image": _of(names.DATASET, "image_key"),
        "source_image": _of(names.DATASET, "source_image_key"),
        "signed_sha256": _of(names.DATASET, "image_sha256"),
    },
    **dict.fromkeys(names.RESPONSES.values(), _RESPONSES),
    **{key: _bias_metrics(names.RESPONSES[model]) for model, key in names.BIAS_METRICS.items()},
    names.BIAS_REPORT: {
        column: tuple((key, column) for key in names.BIAS_METRICS.values())
        for column in ("attribute", "value", "n_sets", *_ESTIMATES)
    },
    names.RELEASE_CANDIDATE: {
        "id": _of(names.DATASET, "pair_id"),
        **_same(names.DATASET, "set_id", "image_sha256"),
        "record": _of(
            names.DATASET,
            *("pair_id", "set_id", "caption", "value", "values", "image_sha256", "cits"),
        ),
    },
    names.RELEASE_CURRENT: _same(
        names.RELEASE_CANDIDATE, "release_id", "id", "set_id", "image_sha256", "record"
    ),
}
