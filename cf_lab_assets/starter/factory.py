"""Making the starter models: recipes, stages, and the manifest that goes with the weights.

Each stage reads what earlier ones wrote below one folder and writes its own model there, so
that stages can be assets and can be made again one by one. The weights that ship with the
package were made with the stages and numbers of `FULL`, one stage at a time, on two CPU cores in
bfloat16; another machine is expected to end in models of the same quality, not in the same bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_assets.models.artifacts import CALIBRATION, FOLDERS, MANIFEST, WEIGHTS
from cf_lab_assets.starter import world
from cf_lab_resources.engine.folders import file_hash, folder_files

if TYPE_CHECKING:
    from cf_lab_assets.starter.scenes import Scenes
    from cf_lab_assets.starter.training import Report

__all__ = ["FULL", "SMALL", "WEIGHTS", "Recipe", "Stage", "train_all"]

AUTOENCODER = ".work/autoencoder"
METRICS = ".work/metrics"
EXAMPLES = ".work/editor.png"  # what the editor makes of portraits that it has not seen
EDITOR, SIGLIP, RESNET = "editor", "scorer-siglip", "scorer-resnet"
BALANCED, SKEWED = "audited-balanced", "audited-skewed"
SAY_EVERY = 50
# Peak learning rates of the stages that go on with a trained model.
DECODER_RATE, POLISH_RATE = 1e-3, 5e-4

Say = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """How long one model is trained, on what.

    Attributes:
        steps: optimiser steps.
        batch: pictures or pairs a step.
        seed: of weights, batches and noise.
        portraits: (count, seed) of each lot of portraits or scenes it sees.
    """

    steps: int
    batch: int
    seed: int
    portraits: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Recipe:
    """All stages, and how much the models are tested on.

    ``decoder`` goes on with the autoencoder's decoder alone, ``polish`` with the editor at a
    lower rate.
    """

    autoencoder: Stage
    decoder: Stage
    editor: Stage
    polish: Stage
    siglip: Stage
    resnet: Stage
    balanced: Stage
    skewed: Stage
    test_portraits: int
    test_sources: int


FULL = Recipe(
    autoencoder=Stage(2600, 16, 0, ((3500, 1),)),
    decoder=Stage(700, 16, 5, ((3500, 1),)),
    editor=Stage(2800, 48, 0, ((3500, 1), (1700, 2))),
    polish=Stage(520, 48, 1, ((3500, 1), (1700, 2))),
    siglip=Stage(1500, 64, 2, ((12_000, 11),)),
    resnet=Stage(1000, 64, 1, ((12_000, 11),)),
    balanced=Stage(1200, 96, 4, ((12_000, 22),)),
    skewed=Stage(1200, 96, 3, ((12_000, 21),)),
    test_portraits=2000,
    test_sources=300,
)
_TRY = Stage(2, 4, 0, ((6, 1),))
SMALL = Recipe(_TRY, _TRY, _TRY, _TRY, _TRY, _TRY, _TRY, _TRY, test_portraits=8, test_sources=2)


class Course:
    """How training goes: said in lines, and kept as mean losses of every `SAY_EVERY` steps.

    Attributes:
        losses: by model, steps and the mean loss of those before it.
    """

    def __init__(self, say: Say) -> None:
        self.say = say
        self.losses: dict[str, list[tuple[int, float]]] = {}

    def report(self, name: str, steps: int) -> Report:
        """A report for the training of one model in so many steps."""
        recent: list[float] = []
        kept = self.losses.setdefault(name, [])

        def report(step: int, loss: float) -> None:
            recent.append(loss)
            if (step + 1) % SAY_EVERY == 0 or step + 1 == steps:
                mean = sum(recent) / len(recent)
                recent.clear()
                kept.append((step + 1, mean))
                self.say(f"{name}: step {step + 1} of {steps}, loss {mean:.4f}")

        return report


def _scenes(lots: Sequence[tuple[int, int]]) -> Scenes:
    import numpy as np

    from cf_lab_assets.starter.scenes import Scenes, render_scenes

    rendered = [render_scenes(world.sample(count, seed), seed) for count, seed in lots]
    return Scenes(
        np.concatenate([part.images for part in rendered]),
        np.concatenate([part.values for part in rendered]),
        [portrait for part in rendered for portrait in part.portraits],
    )


def _record(folder: Path, model: str, stage: Stage, **metrics: Any) -> None:
    path = folder / METRICS / f"{model}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"training": asdict(stage), "metrics": metrics}))


def train_autoencoder(folder: Path, recipe: Recipe, course: Course) -> dict[str, float]:
    """Train the editor's autoencoder on every picture of its scenes."""
    import torch

    from cf_lab_assets.starter import autoencoder

    stage = recipe.autoencoder
    images = torch.from_numpy(_scenes(stage.portraits).images).flatten(0, 1)
    report = course.report("autoencoder", stage.steps)
    vae = autoencoder.train(images, stage.steps, stage.batch, stage.seed, report)
    autoencoder.standardise(vae, images[::97])
    more = recipe.decoder
    report = course.report("decoder", more.steps)
    autoencoder.train(
        images,
        more.steps,
        more.batch,
        more.seed,
        report,
        peak_rate=DECODER_RATE,
        vae=vae,
        decoder_only=True,
    )
    unseen = torch.from_numpy(_scenes([(max(2, recipe.test_sources // 8), 99)]).images)
    error = autoencoder.reconstruction_error(vae, unseen.flatten(0, 1))
    vae.save_pretrained(folder / AUTOENCODER, safe_serialization=True)
    return {"reconstruction error on unseen pictures": error}


def train_editor(folder: Path, recipe: Recipe, course: Course) -> dict[str, float]:
    """Train the editor on all pairs of its scenes, in the autoencoder's latents."""
    import torch
    from diffusers import AutoencoderKL

    from cf_lab_assets.starter import autoencoder, editor, text

    stage = recipe.editor
    vae = AutoencoderKL.from_pretrained(folder / AUTOENCODER, use_safetensors=True).eval()
    scenes = _scenes(stage.portraits)
    latents = autoencoder.encode(vae, torch.from_numpy(scenes.images).flatten(0, 1))
    torch.manual_seed(stage.seed)
    tokenizer = text.build_tokenizer()
    unet, encoder = editor.build_unet(), editor.build_text_encoder(tokenizer)
    for name, part, rate in (
        ("editor", stage, editor.PEAK_RATE),
        ("editor's polish", recipe.polish, POLISH_RATE),
    ):
        editor.train(
            unet,
            encoder,
            tokenizer,
            latents,
            scenes.values,
            part.steps,
            part.batch,
            part.seed,
            course.report(name, part.steps),
            rate,
        )
    shutil.rmtree(folder / EDITOR, ignore_errors=True)
    editor.save(folder / EDITOR, vae, unet, encoder, tokenizer)
    _record(folder, EDITOR, stage)
    return {}


def train_scorers(folder: Path, recipe: Recipe, course: Course) -> dict[str, float]:
    """Train both scorers on portraits of the balanced world."""
    import torch

    from cf_lab_assets.starter import perception

    stage = recipe.resnet
    classifier = _seeded(stage, perception.build_classifier)
    pictures = perception.pictures_of(_portraits(stage, world.sample))
    report = course.report("classifier", stage.steps)
    perception.train_classifier(classifier, pictures, stage.steps, stage.batch, stage.seed, report)
    unseen = perception.pictures_of(world.sample(recipe.test_portraits, 12))
    accuracy = perception.classifier_accuracy(classifier, unseen)
    perception.save(folder / RESNET, classifier, with_tokenizer=False)
    _record(folder, RESNET, stage, accuracy=accuracy)
    stage = recipe.siglip
    encoder = _seeded(stage, perception.build_siglip)
    report = course.report("siglip", stage.steps)
    perception.train_contrastive(
        encoder, pictures, stage.steps, stage.batch, stage.seed, report, as_scorer=True
    )
    with torch.inference_mode():
        zero_shot = perception.zero_shot_accuracy(encoder, unseen)
    perception.save(folder / SIGLIP, encoder, with_tokenizer=True)
    _record(folder, SIGLIP, stage, zero_shot_accuracy=zero_shot)
    return {f"classifier accuracy, {name}": value for name, value in accuracy.items()}


def train_audited(folder: Path, recipe: Recipe, course: Course) -> dict[str, float]:
    """Train the two audited models: the same recipe, in a balanced and in a skewed world."""
    from cf_lab_assets.starter import perception

    unseen = perception.pictures_of(world.sample(recipe.test_portraits, 12))
    measured = {}
    for name, stage, sampler in (
        (BALANCED, recipe.balanced, world.sample),
        (SKEWED, recipe.skewed, world.sample_skewed),
    ):
        model = _seeded(stage, perception.build_clip)
        pictures = perception.pictures_of(_portraits(stage, sampler))
        perception.train_contrastive(
            model,
            pictures,
            stage.steps,
            stage.batch,
            stage.seed,
            course.report(name, stage.steps),
            covered=perception.COVERED,
        )
        accuracy = perception.zero_shot_accuracy(model, unseen)
        perception.save(folder / name, model, with_tokenizer=True)
        skew = asdict(world.PLANTED_SKEW) if name == SKEWED else None
        _record(folder, name, stage, zero_shot_accuracy=accuracy, planted_skew=skew)
        measured[f"{name}: occupation"] = accuracy["occupation"]
    return measured


def _portraits(stage: Stage, sampler: Callable[..., Any]) -> list[world.Portrait]:
    return [portrait for count, seed in stage.portraits for portrait in sampler(count, seed)]


def _seeded(stage: Stage, build: Callable[[], Any]) -> Any:
    import torch

    torch.manual_seed(stage.seed)
    return build()


def finish(folder: Path, recipe: Recipe, course: Course) -> dict[str, float]:
    """Calibrate the CITS, measure the editor, and write the manifest of all models."""
    from cf_lab_assets.counterfactuals.scores import Judge
    from cf_lab_assets.models.artifacts import zero_shot_prompts
    from cf_lab_assets.starter import evaluation
    from cf_lab_assets.starter.calibration import calibrate, unfitted
    from cf_lab_resources.engine.audited import load_audited
    from cf_lab_resources.engine.editors import EditorSettings, load_editor
    from cf_lab_resources.engine.scorers import AttributeClassifier

    editor = load_editor(folder / EDITOR, EditorSettings())
    classifier = AttributeClassifier(folder / RESNET)
    judge = Judge(load_audited(folder / SIGLIP), classifier, unfitted(), zero_shot_prompts())
    fitted = calibrate(editor, judge, count=max(4, recipe.test_sources))
    course.say(f"calibration: {fitted.metrics}")
    (folder / CALIBRATION).write_text(
        json.dumps({**fitted.calibration.as_dict(), "metrics": fitted.metrics}, indent=1) + "\n"
    )
    measured = evaluation.evaluate(
        recipe.test_sources, folder / EXAMPLES, models=lambda: (editor, classifier)
    )
    course.say(measured.table())
    write_manifest(folder, recipe, measured)
    return {f"success, {name}": score.success for name, score in measured.scores.items()}


def write_manifest(folder: Path, recipe: Recipe, measured: Any) -> None:
    """Hashes of all files, recipes, seeds and metrics, as one JSON file."""
    models = {}
    for name in FOLDERS.values():
        record = json.loads((folder / METRICS / f"{name}.json").read_text())
        models[name] = {"files": folder_files(folder / name), **record}
    scores = {name: asdict(score) for name, score in measured.scores.items()}
    models[EDITOR]["metrics"] = {"test sources": recipe.test_sources, "edits": scores}
    models[EDITOR]["further training"] = {
        name: asdict(getattr(recipe, name)) for name in ("autoencoder", "decoder", "polish")
    }
    manifest = {
        "about": "small models of a schematic test world; no pictures of people were used",
        "attributes": world.ATTRIBUTES,
        "models": models,
        "calibration": file_hash(folder / CALIBRATION),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


STAGES: dict[str, Callable[[Path, Recipe, Course], dict[str, float]]] = {
    "autoencoder": train_autoencoder,
    "editor": train_editor,
    "scorers": train_scorers,
    "audited_models": train_audited,
    "manifest": finish,
}


def train_all(folder: Path, recipe: Recipe, say: Say) -> None:
    """Run every stage in order, and put the result in the folder's place when it is whole."""
    staged = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    for name, stage in STAGES.items():
        say(f"starter/{name}")
        stage(staged, recipe, Course(say))
    shutil.rmtree(staged / ".work")
    replaced = folder.with_name(f".{folder.name}.old")
    if folder.exists():
        folder.rename(replaced)
    staged.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)
