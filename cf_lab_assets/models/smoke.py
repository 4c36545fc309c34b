"""Whether a model loads and answers: one tiny draw or embedding, whose numbers are looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cf_lab_assets.starter import world
from cf_lab_resources.errors import LabError

SENTENCE = "a portrait of a person"
SEED = 4_000_001


class SmokeTestFailed(LabError):
    """A model loads and answers with what is no answer."""


def try_model(folder: Path) -> dict[str, Any]:
    """Load a model and use it once.

    Args:
        folder: of a pipeline, an image classifier, or a model that can be audited.

    Returns:
        What it did, for people: kind, and size or dimension.

    Raises:
        LabError: it can't be loaded, or its answer holds numbers that are not finite.
    """
    if (folder / "model_index.json").exists():
        return _try_editor(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if any(str(one).endswith("ForImageClassification") for one in config.get("architectures", [])):
        return _try_classifier(folder)
    return _try_audited(folder)


def _picture() -> Any:
    return world.render(next(iter(world.sample(1, SEED))))


def _try_editor(folder: Path) -> dict[str, Any]:
    import numpy as np
    from PIL import Image

    from cf_lab_resources.engine.editors import Drawing, EditorSettings, Member, load_editor
    from cf_lab_resources.engine.licences import licence_of

    # Nothing comes of this picture: the licence is asked for where pictures are made to be used.
    accepted = licence_of(
        folder, json.loads((folder / "model_index.json").read_text())["_class_name"]
    )
    settings = EditorSettings(steps=1, batch_size=1, accepted_licence=accepted or "")
    editor = load_editor(folder, settings)
    source = _picture()
    drawing = Drawing(
        "smoke", 0, (Member(SENTENCE, SENTENCE),), source, Image.new("L", source.size, 255)
    )
    ((drawn,),) = editor.draw([drawing])
    # Latents that are not numbers become a picture of one colour, as bytes are always finite.
    if drawn.size != (editor.size, editor.size) or float(np.asarray(drawn).std()) == 0.0:
        raise SmokeTestFailed(
            f"{folder} loads and draws a picture of one colour; its weights are not to be used"
        )
    return {"kind": f"editor, {editor.strategy}", "size": editor.size}


def _try_classifier(folder: Path) -> dict[str, Any]:
    from cf_lab_resources.engine.scorers import AttributeClassifier

    logits = AttributeClassifier(folder).logits([_picture()])
    _check_finite(folder, logits)
    return {"kind": "classifier", "size": int(logits.shape[1])}


def _try_audited(folder: Path) -> dict[str, Any]:
    from cf_lab_resources.engine.loading import load_model
    from cf_lab_resources.engine.questions import ASSOCIATION, NotFinite, Question

    model = load_model(folder)
    about = model.describe()
    if ASSOCIATION in model.formats:
        _check_finite(folder, model.associate([SENTENCE])([_picture()]))
        return {"kind": about["model_type"], "size": about["dimension"]}
    question = Question(name="smoke", text="What is shown?", options=("a person", "a dog"))
    try:
        model.choose(question)([_picture()])
    except NotFinite as error:
        raise SmokeTestFailed(
            f"{folder} loads and answers with numbers that are not finite; its weights are not to "
            "be used"
        ) from error
    return {"kind": about["model_type"], "size": about["parameters"]}


def _check_finite(folder: Path, numbers: Any) -> None:
    import numpy as np

    if not np.isfinite(numbers).all():
        raise SmokeTestFailed(
            f"{folder} loads and answers with numbers that are not finite; its weights are not to "
            "be used"
        )
