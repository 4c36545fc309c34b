"""What is claimed of a packaged picture: in its Content Credentials, and in the sidecar.

A packaged picture is most often a source picture that an editor drew again, so the credentials
open the source and edit it. By IPTC's vocabulary of digital source types that is
`compositeWithTrainedAlgorithmicMedia`, edited with generative AI, also where the source is
itself a drawing by an algorithm: the lab knows how it edited, not how a source came to be.
Source pictures are passed on as they came, unsigned: the lab did not make them. A picture that
was drawn from its caption alone was told no instruction and has no source: it is created, and
`trainedAlgorithmicMedia`. What it is scored beside is the base of its set, a picture of the lab's
own, which is named by its hash and is no source.

Attribute values are what the editor was asked for, so they stand in the sidecar and the rows as
prompted values. The credentials carry hashes, seeds and the instruction.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from cf_lab_resources import __version__
from cf_lab_resources.credentials.pictures import GENERATOR, Verdict

EDITED, CREATED = "c2pa.edited", "c2pa.created"
_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype"
SOURCE_TYPES = {
    EDITED: f"{_TYPES}/compositeWithTrainedAlgorithmicMedia",
    CREATED: f"{_TYPES}/trainedAlgorithmicMedia",
}
# Whoever trains on an audit's pictures can no longer be audited with them; everything else is up
# to the licence.
TRAINING_MINING = {
    "cawg.ai_training": {"use": "notAllowed"},
    "cawg.ai_generative_training": {"use": "notAllowed"},
    "cawg.ai_inference": {"use": "allowed"},
    "cawg.data_mining": {"use": "allowed"},
}
# Entity-specific names of parameters; C2PA leaves the map open.
PAIR_ID, PICTURE_SHA256, SOURCE_SHA256, BASE_SHA256 = (
    f"cf_lab.{name}"
    for name in ("pair_id", "image_sha256", "source_image_sha256", "base_image_sha256")
)


def action_of(row: Mapping[str, Any]) -> str:
    """How a picture came about: `EDITED`, or `CREATED` where it was drawn from its caption."""
    return CREATED if row["instruction"] is None else EDITED


def credentials(row: Mapping[str, Any], editor: Mapping[str, Any]) -> dict[str, Any]:
    """c2pa's manifest definition of a pair's picture.

    Args:
        row: of the dataset's pairs.
        editor: name and hash of the model that drew it, and what else is known of it.
    """
    action = action_of(row)
    return {
        "title": f"{row['pair_id']}.png",
        "assertions": [
            {
                "label": "c2pa.actions.v2",
                "data": {
                    "actions": [
                        {
                            "action": action,
                            "description": row["instruction"] or row["caption"],
                            "digitalSourceType": SOURCE_TYPES[action],
                            "softwareAgent": _agent(editor),
                            "parameters": _parameters(row),
                        }
                    ]
                },
            },
            {"label": "cawg.training-mining", "data": {"entries": TRAINING_MINING}},
        ],
    }


def form(editor: Mapping[str, Any]) -> str:
    """A hash of all that credentials say whatever the row: wording, names, versions, the editor."""
    texts = ("pair_id", "caption", "image_sha256", "source_image_sha256", "edit_id", "instruction")
    blank: dict[str, Any] = {**dict.fromkeys(texts, ""), "draw": 0, "noise_seed": 0}
    said = [credentials(row, editor) for row in (blank, {**blank, "instruction": None})]
    document = json.dumps([GENERATOR, source_title(blank), said], sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()


def _agent(editor: Mapping[str, Any]) -> dict[str, str]:
    found = {"name": editor.get("name", "unknown editor"), "version": editor.get("sha256")}
    return {name: str(value) for name, value in found.items() if value}


def _parameters(row: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        PAIR_ID: row["pair_id"],
        PICTURE_SHA256: row["image_sha256"],
        (SOURCE_SHA256 if action_of(row) == EDITED else BASE_SHA256): row["source_image_sha256"],
        "cf_lab.edit_id": row["edit_id"],
        "cf_lab.draw": row["draw"],
        "cf_lab.noise_seed": row["noise_seed"],
    }
    return {name: value for name, value in found.items() if value is not None}


def source_title(row: Mapping[str, Any]) -> str:
    """What a source is called as an ingredient; its hash, as it has no other name."""
    return f"{row['source_image_sha256']}.png"


def contradictions(verdict: Verdict, row: Mapping[str, Any]) -> list[str]:
    """Where intact credentials do not say what they must of a row's picture."""
    action = action_of(row)
    done = verdict.action(action)
    said = done.get("parameters", {})
    before = row["source_image_sha256"]
    source, base = (before, None) if action == EDITED else (None, before)
    faults = [
        f"the credentials are of {name} {said.get(key)!r}"
        for name, key, value in (
            ("pair", PAIR_ID, row["pair_id"]),
            ("picture", PICTURE_SHA256, row["image_sha256"]),
            ("source", SOURCE_SHA256, source),
            ("base", BASE_SHA256, base),
        )
        if said.get(key) != value
    ]
    parents = [source_title(row)] if action == EDITED else []
    if verdict.parents != parents:
        faults.append(f"their parents are {verdict.parents}, not {parents}")
    if done.get("digitalSourceType") != SOURCE_TYPES[action]:
        faults.append(f"they do not say that the picture was {action[5:]} with generative AI")
    return faults


def sidecar(
    row: Mapping[str, Any], manifest: Mapping[str, Any], file: str, signed_sha256: str
) -> dict[str, Any]:
    """A picture's provenance as one JSON-compatible record.

    Args:
        row: of the dataset's pairs.
        manifest: the dataset's.
        file: which Parquet file of the package holds the picture.
        signed_sha256: of the picture with its credentials.
    """
    scores = ("sim_0", "sim_1", "sim_dir", "sim_img", "preservation", "cits")
    edited = action_of(row) == EDITED
    return {
        "pair_id": row["pair_id"],
        "set_id": row["set_id"],
        "file": file,
        "signed_sha256": signed_sha256,
        "image_sha256": row["image_sha256"],
        "source": {
            "source_id": row["source_id"],
            "image_sha256": row["source_image_sha256"] if edited else None,
            "caption": row["source_caption"],
            "batch": row["batch"],
            "batch_sha256": manifest["batches"].get(row["batch"]),
        },
        "base_image_sha256": None if edited else row["source_image_sha256"],
        "edit": {
            name: row[name]
            for name in (
                "edit_id",
                "attribute",
                "value",
                "values",
                "is_placebo",
                "caption",
                "instruction",
                "explanation",
            )
        },
        "draw": row["draw"],
        "noise_seed": row["noise_seed"],
        "digital_source_type": SOURCE_TYPES[action_of(row)],
        "models": manifest["models"],
        "settings": manifest["config"]["settings"].get(row["batch"]),
        "scores": {name: number(row[name]) for name in scores},
        "dataset": manifest["content_hash"],
        "lab_version": __version__,
    }


def number(value: float | None) -> float | None:
    """A score as JSON has it: float32 has seven digits, and NaN is no JSON."""
    return None if value is None or math.isnan(value) else round(value, 6)
