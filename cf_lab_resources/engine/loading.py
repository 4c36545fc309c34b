"""Which kind of audited model a folder holds."""

from __future__ import annotations

from pathlib import Path

from cf_lab_resources.engine.audited import load_audited, read_config
from cf_lab_resources.engine.contract import Audited


def load_model(folder: Path, device: str | None = None, batch: int | None = None) -> Audited:
    """Load a folder as the kind of audited model that its configuration tells.

    Args:
        folder: as `save_pretrained` writes it.
        device: a torch device; by default the GPU where there is one.
        batch: sequences a forward pass, of a generative model.

    Raises:
        ModelRefused: See `folders.check_folder`.
        AuditedModelError: See `audited.load_audited` and `vlm.load_generative`.
    """
    from cf_lab_resources.engine.vlm import BATCH, load_generative

    if is_generative(folder):
        return load_generative(folder, device, batch or BATCH)
    return load_audited(folder, device)


def is_generative(folder: Path) -> bool:
    """Whether a folder's model answers in text.

    Told by its class where the configuration names one, since BLIP, for instance, is a `model_type`
    of both kinds.

    Raises:
        AuditedModelError: See `audited.read_config`.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as GENERATIVE,
    )

    config = read_config(folder)
    named = config.get("architectures")
    if not named:
        return config["model_type"] in GENERATIVE
    return bool(set(map(str, named)) & set(GENERATIVE.values()))
