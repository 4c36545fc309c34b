"""The models that the lab works with, by name, and the manifest that vouches for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_assets.starter import world
from cf_lab_resources.engine.folders import file_hash, folder_files, folder_hash
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from cf_lab_assets.counterfactuals.scores import Judge
    from cf_lab_resources.engine.editors import Editor, EditorSettings

WEIGHTS = Path(__file__).parent.parent / "starter" / "weights"
MANIFEST = "manifest.json"
CALIBRATION = "calibration.json"

EDITOR = "starter-editor"
ENCODER = "starter-siglip"
CLASSIFIER = "starter-resnet"
FOLDERS = {
    EDITOR: "editor",
    ENCODER: "scorer-siglip",
    CLASSIFIER: "scorer-resnet",
    "starter-balanced": "audited-balanced",
    "starter-skewed": "audited-skewed",
}


class ModelUnknown(LabError):
    """A model name that the lab does not know."""


class ModelDamaged(LabError):
    """Model files that are not the ones the manifest vouches for."""


@dataclass(frozen=True)
class Artifact:
    """A model folder that was found intact.

    Attributes:
        name: the lab's name for it.
        folder: where it lies.
        sha256: hash of the folder's files and their names.
        bytes: size of all its files.
    """

    name: str
    folder: Path
    sha256: str
    bytes: int


def model_folder(name: str) -> Path:
    """The folder of a model.

    Raises:
        ModelUnknown: no model has this name.
    """
    if name not in FOLDERS:
        raise ModelUnknown(f"no model is named {name!r}; known are {', '.join(FOLDERS)}")
    return WEIGHTS / FOLDERS[name]


def starter_manifest() -> dict[str, Any]:
    """What is on record of the starter models: file hashes, training, metrics, seeds."""
    loaded: dict[str, Any] = json.loads((WEIGHTS / MANIFEST).read_text())
    return loaded


def verify(name: str) -> Artifact:
    """Compare a model's files with the manifest.

    Raises:
        ModelUnknown: no model has this name.
        ModelDamaged: a file is missing, added or changed.
    """
    folder = model_folder(name)
    if name == ENCODER and calibration_hash() != starter_manifest()["calibration"]:
        raise ModelDamaged(
            f"{WEIGHTS / CALIBRATION} differs from the manifest; restore it from the repository"
        )
    expected = starter_manifest()["models"][FOLDERS[name]]["files"]
    found = folder_files(folder)
    if found != expected:
        differing = sorted(
            path for path in {*found, *expected} if found.get(path) != expected.get(path)
        )
        raise ModelDamaged(
            f"model {name}: {', '.join(differing)} in {folder} differ from the manifest; "
            "restore them from the repository, or run `make train-starter` to make them again"
        )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Artifact(name, folder, folder_hash(folder), size)


def calibration_hash() -> str:
    """SHA-256 of the CITS's calibration, which decides what is accepted."""
    return file_hash(WEIGHTS / CALIBRATION)


def generation_models() -> dict[str, dict[str, str]]:
    """Name, hash and family of the models behind candidates and scores, by role."""
    families = {"editor": "stable-diffusion", "encoder": "siglip", "classifier": "resnet"}
    names = {"editor": EDITOR, "encoder": ENCODER, "classifier": CLASSIFIER}
    return {
        role: {
            "name": name,
            "sha256": folder_hash(model_folder(name)),
            "family": families[role],
        }
        for role, name in names.items()
    }


def zero_shot_prompts() -> dict[str, dict[str, str]]:
    """The text that stands for each value of each attribute in zero-shot detection."""
    return {
        attribute: {value: world.describe({attribute: value}) for value in values}
        for attribute, values in world.ATTRIBUTES.items()
    }


def load_editor(settings: EditorSettings) -> Editor:
    """The editor, ready to draw."""
    from cf_lab_resources.engine.editors import load_editor

    return load_editor(model_folder(EDITOR), settings)


def load_judge() -> Judge:
    """Both scorers with the calibration that was fitted for them."""
    from cf_lab_assets.counterfactuals.scores import Calibration, Judge
    from cf_lab_resources.engine.audited import load_audited
    from cf_lab_resources.engine.scorers import AttributeClassifier

    return Judge(
        load_audited(model_folder(ENCODER)),
        AttributeClassifier(model_folder(CLASSIFIER)),
        Calibration.load(WEIGHTS / CALIBRATION),
        zero_shot_prompts(),
    )
