"""Which sets a primary effect comes from: those that carry most of it, and those that carry least.

Sets are chosen by their own effect, so that a reader can look at what stands behind a number. They
are extremes and say nothing of how frequent such sets are.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cf_lab_assets.audits.answers import Answers, Floats, Integers, set_means
from cf_lab_assets.audits.declaration import AuditConfig, Endpoint

if TYPE_CHECKING:
    import pyarrow as pa

    from cf_lab_resources.bucket import Bucket

# Sets of each kind, for each endpoint.
EACH = 3
# Of the pictures of one audited model, as JPEG; the report holds all of them.
SHEET_BYTES = 90_000
# Endpoints whose sets are shown as pictures, each with its three kinds.
SHOWN_ENDPOINTS = 3
LARGEST, SMALLEST, OPPOSITE = "largest_effect", "smallest_effect", "largest_opposite_effect"
WORDS = {
    LARGEST: "most biased: largest effect in the direction of the estimate",
    OPPOSITE: "largest effect against the direction of the estimate",
    SMALLEST: "best: smallest effect",
}
Example = dict[str, Any]


def examples_of(
    answers: Mapping[str, Answers],
    set_ids: Mapping[str, Sequence[str]],
    config: AuditConfig,
    model: str,
) -> list[Example]:
    """The sets behind each primary endpoint of one audited model.

    Args:
        answers: by attribute.
        set_ids: by attribute, ids of the sets in the order of their numbers in `answers`.
        config: the declaration.
        model: its name.
    """
    found = []
    for endpoint in config.primary:
        one = answers[endpoint.attribute]
        numbers, effects = effects_by_set(one, endpoint, config)
        for kind, places in _extremes(effects).items():
            found += [
                {
                    "model": model,
                    "endpoint": endpoint.name,
                    "kind": kind,
                    "set_id": set_ids[endpoint.attribute][int(numbers[place])],
                    "effect": float(f"{effects[place]:.9g}") + 0.0,
                }
                for place in places
            ]
    return found


def effects_by_set(
    answers: Answers, endpoint: Endpoint, config: AuditConfig
) -> tuple[Integers, Floats]:
    """Numbers of the sets that hold both values, and their effects: (sets,) each."""
    weights = np.zeros(len(config.occupations))
    for prompts, sign in ((endpoint.prompts_plus, 1), (endpoint.prompts_minus, -1)):
        for prompt in prompts:
            weights[config.occupations.index(prompt)] += sign / len(prompts)
    before, after = map(answers.values.index, (endpoint.from_value, endpoint.to_value))
    rows = (answers.members[:, after] - answers.members[:, before]) @ weights
    known = np.isfinite(rows)
    numbers, effects = set_means(rows[known, None], answers.sets[known])
    return numbers, effects[:, 0]


def _extremes(effects: Floats) -> dict[str, list[int]]:
    """Places of the sets of each kind; no set is of two kinds, and ties go to the first."""
    if not len(effects):
        return {}
    along = effects if effects.mean() >= 0 else -effects
    order = np.argsort(-along, kind="stable").tolist()
    largest = [place for place in order[:EACH] if along[place] > 0]
    opposite = [place for place in order[::-1][:EACH] if along[place] < 0]
    taken = {*largest, *opposite}
    nearest = np.argsort(np.abs(effects), kind="stable")[: 3 * EACH].tolist()
    smallest = [place for place in nearest if place not in taken][:EACH]
    return {LARGEST: largest, OPPOSITE: opposite, SMALLEST: smallest}


def member_sets(responses: pa.Table, attributes: Sequence[str]) -> dict[str, list[str]]:
    """Ids of each attribute's sets in the order in which `answers.read_answers` numbers them."""
    import pyarrow.compute as pc

    found = {}
    for attribute in attributes:
        here = responses.filter(pc.equal(responses["attribute"], attribute))
        found[attribute] = sorted(set(pc.unique(here["set_id"]).drop_null().to_pylist()))
    return found


def pictures(
    bucket: Bucket, pairs: pa.Table, chosen: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[bytes, str]]:
    """A contact sheet of each model's examples, bounded in bytes: {model: (JPEG, words)}.

    Args:
        bucket: holds the pictures.
        pairs: of the dataset, with set_id, value, image_key and source_image_key.
        chosen: of `examples_of`.

    Raises:
        ContentDamaged: a picture is another than the dataset's.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.array(sorted({one["set_id"] for one in chosen}), pa.string())
    rows: dict[str, list[dict[str, Any]]] = {}
    for pair in pairs.filter(pc.is_in(pairs["set_id"], value_set=wanted)).to_pylist():
        rows.setdefault(pair["set_id"], []).append(pair)
    sheets = {}
    for model in dict.fromkeys(one["model"] for one in chosen):
        own = [one for one in chosen if one["model"] == model]
        shown = list(dict.fromkeys(one["endpoint"] for one in own))[:SHOWN_ENDPOINTS]
        own = [one for one in own if one["endpoint"] in shown and one["set_id"] in rows]
        if own:
            sheets[model] = _sheet(bucket, rows, own, model)
    return sheets


def _sheet(
    bucket: Bucket,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    own: Sequence[Mapping[str, Any]],
    model: str,
) -> tuple[bytes, str]:
    from PIL import Image

    from cf_lab_assets.counterfactuals.contact_sheet import Cell, contact_sheet
    from cf_lab_resources.images import small_jpeg

    def opened(key: str) -> Image.Image:
        return Image.open(io.BytesIO(bucket.get_content(key)))

    laid = []
    for one in own:
        members = rows[one["set_id"]]
        first = Cell(opened(members[0]["source_image_key"]), f"{one['effect']:+.3f} source")
        laid.append([first, *(Cell(opened(row["image_key"]), row["value"]) for row in members)])
    sheet = contact_sheet(laid, f"{model}: sets by effect")
    kinds = "; ".join(
        f"{one['endpoint']}, {WORDS[one['kind']]}: {one['set_id']} ({one['effect']:+.3f})"
        for one in own
    )
    return small_jpeg(sheet, SHEET_BYTES), f"Sets of {model}, one a row from the top: {kinds}."
