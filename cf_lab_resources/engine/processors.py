"""What makes a model's inputs of pictures and texts, the same with torchvision and without.

By class and not by transformers' automatic choice: that one prefers torchvision where it finds it,
and the two backends' pixels differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cf_lab_resources.engine.contract import AuditedModelError


def image_processor_class(folder: Path) -> Any:
    """The PIL-backed image processor of the kind that the folder names.

    Raises:
        AuditedModelError: The folder names none, or one without a PIL form.
    """
    import transformers

    path = folder / "preprocessor_config.json"
    if not path.exists():
        path = folder / "processor_config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AuditedModelError(
            f"{folder}: has no preprocessor_config.json; save the image processor beside the model"
        ) from error
    settings = settings.get("image_processor", settings)
    named = settings.get("image_processor_type") or settings.get("feature_extractor_type") or ""
    kind = named.removesuffix("Pil").removesuffix("Fast")
    kind = kind.removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    found = getattr(transformers, f"{kind}ImageProcessorPil", None) if kind else None
    if found is None:
        raise AuditedModelError(
            f"{path}: the image processor {named or '(none named)'} has no PIL form in "
            "transformers; name one that has, such as CLIPImageProcessor"
        )
    return found


def picture_processor(folder: Path, config: Any) -> Any:
    """A generative model's processor, without its part for videos, which would need torchvision.

    Args:
        folder: of the model.
        config: its transformers configuration.

    Raises:
        AuditedModelError: transformers knows no processor for it, or no PIL form of its pictures.
    """
    import transformers
    from transformers import AutoTokenizer
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    named = _named_processor(folder)
    kind: Any = PROCESSOR_MAPPING.get(type(config), None)
    if named:
        kind = getattr(transformers, named, None)
    if kind is None:
        raise AuditedModelError(
            f"{folder}: transformers has no processor {named or f'for {config.model_type}'}; save "
            "the model's own processor beside it"
        )

    class PictureProcessor(kind):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in kind.get_attributes() if "video" not in name]

    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    parts = {
        "image_processor": image_processor_class(folder).from_pretrained(
            folder, local_files_only=True
        ),
        "tokenizer": tokenizer,
    }
    settings, options = PictureProcessor.get_processor_dict(folder, local_files_only=True)
    arguments = [parts.get(name) for name in kind.get_attributes()]
    return PictureProcessor.from_args_and_dict(arguments, settings, **options)


def _named_processor(folder: Path) -> str | None:
    """The processor's class as the folder names it, None where it names none."""
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        path = folder / name
        if path.exists():
            named = json.loads(path.read_text(encoding="utf-8")).get("processor_class")
            if named:
                return str(named)
    return None
