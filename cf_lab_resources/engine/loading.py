"""Loading a folder as the kind of audited model that it holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from cf_lab_resources.engine.audited import load_audited, read_config
from cf_lab_resources.engine.contract import Audited, AuditedModelError, reason
from cf_lab_resources.engine.folders import check_folder
from cf_lab_resources.engine.processors import picture_processor
from cf_lab_resources.engine.questions import FORCED_CHOICE, OPEN
from cf_lab_resources.engine.vlm import GenerativeModel

BATCH = 16
# A folder's own sampling has no place in an audit: greedy answers can be had again.
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty")


def load_model(folder: Path, device: str | None = None, batch: int | None = None) -> Audited:
    """Load a folder as the kind of audited model that its configuration tells.

    Args:
        folder: as `save_pretrained` writes it.
        device: a torch device; by default the GPU where there is one.
        batch: sequences a forward pass, of a generative model.

    Raises:
        ModelRefused: See `folders.check_folder`.
        AuditedModelError: See `audited.load_audited` and `load_generative`.
    """
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


def load_generative(folder: Path, device: str | None = None, batch: int = BATCH) -> GenerativeModel:
    """Load a transformers folder as a generative audited model.

    Args:
        folder: as `save_pretrained` writes it, with processor, image processor and tokenizer.
        device: a torch device; by default the GPU where there is one.
        batch: sequences a forward pass.

    Raises:
        ModelRefused: The folder is missing, or holds a pickle, code, or no safetensors.
        AuditedModelError: It lacks something else, or reads the prompt in an encoder.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    check_folder(folder)
    config = read_config(folder)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            # Large models fit a GPU only in their own precision, which few CPUs compute in.
            dtype="auto" if device.startswith("cuda") else torch.float32,
        )
        processor = picture_processor(folder, model.config)
    except (OSError, ValueError, ImportError, TypeError, AttributeError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise AuditedModelError(
            f"{folder}: the model can't be loaded: {said}; it needs config.json, safetensors "
            "weights, and the files of processor, image processor and tokenizer"
        ) from error
    if model.config.is_encoder_decoder:
        raise AuditedModelError(
            f"{folder}: {type(model).__name__} reads the prompt in an encoder; only models whose "
            "answer follows the prompt in one row of tokens can be audited"
        )
    for name in SAMPLING:
        setattr(model.generation_config, name, None)
    loaded = GenerativeModel(
        folder, config["model_type"], device, batch, model.to(device).eval(), processor
    )
    return replace(loaded, formats=_formats(loaded, processor))


def _formats(model: GenerativeModel, processor: Any) -> tuple[str, ...]:
    """What it can be asked in, tried out on a grey picture."""
    place = getattr(processor, "image_token", None)
    if place and place not in model.prompt("?"):
        raise AuditedModelError(
            f"{model.folder}: its chat template leaves out the picture ({place} is not in it); "
            "save the processor with a template for pictures"
        )
    try:
        return (FORCED_CHOICE, OPEN) if model.scores_options() else (OPEN,)
    except (ValueError, TypeError, RuntimeError) as error:
        raise AuditedModelError(
            f"{model.folder}: the model loads and fails on a grey picture and a word "
            f"({reason(error)}); look whether its processor and weights belong together"
        ) from error
