"""The models that the lab works with, by name, and what vouches for their files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_assets.models import registry
from cf_lab_assets.models.registry import Manifest, ModelDamaged
from cf_lab_assets.starter import world
from cf_lab_resources.engine.folders import file_hash, folder_files, folder_hash
from cf_lab_resources.engine.model_sources import ModelUnavailable
from cf_lab_resources.engine.model_uris import FOLDER, S3, STARTER, ModelUri, parse_model_uri
from cf_lab_resources.errors import LabError
from cf_lab_resources.settings import Settings

if TYPE_CHECKING:
    from cf_lab_assets.counterfactuals.scores import Judge
    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.engine.editors import Editor, EditorSettings, Strategy

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
    """The folder of a starter model.

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
    """Compare a starter model's files with the package's manifest.

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


def acceptance_threshold() -> float:
    """Least CITS of a pair that is accepted."""
    from cf_lab_assets.counterfactuals.scores import Calibration

    return Calibration.load(WEIGHTS / CALIBRATION).threshold


def editor_uri() -> ModelUri:
    """The editor in use, which `CF_LAB_EDITOR` names."""
    return parse_model_uri(Settings.from_env().editor)


def models_in_use() -> dict[str, ModelUri]:
    """URI of every model that the lab works with, by the lab's name, the editor's first.

    Raises:
        ModelUnknown: the editor's URI names a starter model that is no editor, or an audited
            model has the name of another one.
    """
    starters = {name: ModelUri(STARTER, folder) for name, folder in FOLDERS.items()}
    editor = editor_uri()
    if editor.scheme == STARTER and editor != starters[EDITOR]:
        raise ModelUnknown(
            f"CF_LAB_EDITOR: {editor} is no editor; the starter models have one, {starters[EDITOR]}"
        )
    others = {name: uri for name, uri in starters.items() if name != EDITOR}
    audited = _audited_models()
    for name in sorted(starters.keys() & audited.keys()):
        if audited[name] != starters[name]:
            raise ModelUnknown(
                f"CF_LAB_AUDITED: {name} is {starters[name]}; give {audited[name]} another name"
            )
    return {EDITOR if editor == starters[EDITOR] else str(editor): editor, **others, **audited}


def _audited_models() -> dict[str, ModelUri]:
    """Of the audited models, those that are files."""
    audited = Settings.from_env().audited
    return {one.name: one.model for one in audited if one.model is not None}


def resolve(bucket: Bucket, name: str, announce: registry.Announce = print) -> Manifest:
    """Fetch a model in use into the bucket where it is not there yet.

    Raises:
        ModelDamaged: a starter model's files differ from the package's manifest.
        LabError: see `registry.resolve`.
    """
    if name in FOLDERS:
        verify(name)
    uri = models_in_use()[name]
    return registry.resolve(bucket, uri, Settings.from_env().models_folder, WEIGHTS, announce)


def identity(bucket: Bucket, announce: registry.Announce = print) -> dict[str, str]:
    """What tells that a model in use has changed: its hash, or the URI where that pins it.

    Args:
        bucket: keeps those that are looked at anew because nothing pins them.
        announce: called with a line for each file that is fetched.

    Raises:
        LabError: a model whose content is not pinned can't be had; see `registry.resolve`.
    """
    found = {}
    for name, uri in models_in_use().items():
        if uri.scheme in (S3, FOLDER) and not uri.revision:
            found[name] = resolve(bucket, name, announce).sha256
        else:
            found[name] = folder_hash(model_folder(name)) if name in FOLDERS else str(uri)
    found["audited models"] = ",".join(map(str, Settings.from_env().audited))
    return found


def not_fetched(uri: ModelUri) -> ModelUnavailable:
    """The error of a model that nobody has resolved."""
    return ModelUnavailable(
        f"model {uri} was not fetched yet; materialise models/artifacts, or run `cf-lab run`"
    )


def in_use_folder(name: str, bucket: Bucket | None = None) -> Path:
    """The folder of a model in use, on this machine and with verified files.

    Args:
        name: of `models_in_use`.
        bucket: has it; by default the one that is set.

    Raises:
        ModelUnavailable: it was not fetched yet.
        LabError: see `registry.local_folder`.
    """
    uri = models_in_use()[name]
    if uri.scheme == STARTER:
        return WEIGHTS / uri.path
    store = bucket or _bucket()
    return cached(store, on_record(store, uri))


def cached(bucket: Bucket, manifest: Manifest) -> Path:
    """This machine's verified copy of a model in the bucket; see `registry.local_folder`."""
    return registry.local_folder(bucket, manifest, Settings.from_env().models_folder)


def _bucket() -> Bucket:
    from cf_lab_resources.bucket import open_bucket

    return open_bucket(Settings.from_env().bucket)


def on_record(bucket: Bucket, uri: ModelUri) -> Manifest:
    """The model that a URI stands for.

    Raises:
        ModelUnavailable: it was not fetched yet.
    """
    manifest = registry.recorded(bucket, uri)
    if manifest is None:
        raise not_fetched(uri)
    return manifest


def generation_models(bucket: Bucket | None = None) -> dict[str, dict[str, str]]:
    """Name, hash and family of the models behind candidates and scores, by role.

    Args:
        bucket: has the editor where that is no starter model; by default the one that is set.

    Raises:
        ModelUnavailable: the editor was not fetched yet.
    """
    families = {"editor": "stable-diffusion", "encoder": "siglip", "classifier": "resnet"}
    names = {"editor": EDITOR, "encoder": ENCODER, "classifier": CLASSIFIER}
    models = {
        role: {
            "name": name,
            "sha256": folder_hash(model_folder(name)),
            "family": families[role],
        }
        for role, name in names.items()
    }
    editor = editor_uri()
    if editor.scheme != STARTER:
        found = on_record(bucket or _bucket(), editor)
        models["editor"] = {"name": str(editor), "sha256": found.sha256, "family": found.family}
    return models


def editor_strategy(bucket: Bucket) -> Strategy:
    """How the editor in use draws.

    Raises:
        ModelUnavailable: it was not fetched yet.
        ModelRefused: no strategy serves it.
    """
    from cf_lab_resources.engine.editors import strategy_of

    uri = editor_uri()
    if uri.scheme == STARTER:
        return strategy_of((WEIGHTS / uri.path / "model_index.json").read_bytes(), str(uri))
    index = on_record(bucket, uri).files["model_index.json"]
    return strategy_of(bucket.get_bytes(registry.file_key(index)), str(uri))


def zero_shot_prompts() -> dict[str, dict[str, str]]:
    """The text that stands for each value of each attribute in zero-shot detection."""
    return {
        attribute: {value: world.describe({attribute: value}) for value in values}
        for attribute, values in world.ATTRIBUTES.items()
    }


def load_editor(settings: EditorSettings, bucket: Bucket | None = None) -> Editor:
    """The editor in use, ready to draw; `bucket` has it, by default the one that is set."""
    from cf_lab_resources.engine.editors import load_editor

    return load_editor(in_use_folder(next(iter(models_in_use())), bucket), settings)


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
