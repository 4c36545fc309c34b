"""Audited models that embed: any transformers folder with one space for texts and pictures.

CLIP and SigLIP layouts and their relatives load the same way: `AutoModel` with
`get_image_features` and `get_text_features`, `AutoTokenizer`, and the image processor that the
folder names. Nothing is downloaded, and weights are safetensors or they are refused.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_resources.engine.contract import Ask, Audited, AuditedModelError
from cf_lab_resources.engine.families import families
from cf_lab_resources.engine.folders import check_folder, folder_files, folder_hash
from cf_lab_resources.engine.processors import image_processor_class
from cf_lab_resources.engine.questions import ASSOCIATION

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL import Image

TEXT_BATCH = 256
# SigLIP was trained on texts padded to full length without a mask; padded otherwise, its
# embeddings differ from the published ones.
PADDED_TO_FULL_LENGTH = ("siglip", "siglip2")


@dataclass(frozen=True)
class AuditedModel(Audited):
    """A loaded model with its preprocessing; made by `load_audited`.

    Attributes:
        folder: where it was loaded from.
        model_type: transformers' name of the architecture, such as `clip`.
        device: where it runs.
        dimension: length of an embedding.
    """

    formats = (ASSOCIATION,)

    folder: Path
    model_type: str
    device: str
    dimension: int
    _model: Any = field(repr=False)
    _tokenizer: Any = field(repr=False)
    _processor: Any = field(repr=False)

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit-norm embeddings of texts, float32 of shape (len(texts), dimension)."""
        import numpy as np
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(texts), TEXT_BATCH):
                tokens = self._tokens(list(texts[start : start + TEXT_BATCH]))
                parts.append(_unit(self._model.get_text_features(**tokens)))
        return np.concatenate(parts) if parts else self._empty()

    def embed_images(self, images: Iterable[Image.Image], batch: int = 64) -> NDArray[np.float32]:
        """Unit-norm embeddings of pictures, float32 of shape (n, dimension).

        Args:
            images: pictures of any size and mode; drawn from lazily, one batch at a time.
            batch: pictures a forward pass.
        """
        import numpy as np
        import torch

        parts = []
        remaining = iter(images)
        with torch.inference_mode():
            while chunk := [image.convert("RGB") for image in itertools.islice(remaining, batch)]:
                pixels = self._processor(images=chunk, return_tensors="pt")["pixel_values"]
                pixels = pixels.to(self.device, self._model.dtype)
                parts.append(_unit(self._model.get_image_features(pixel_values=pixels)))
        return np.concatenate(parts) if parts else self._empty()

    def associate(self, prompts: Sequence[str]) -> Ask[Sequence[float]]:
        """A function that gives the cosine of each picture to each prompt, (pictures, prompts)."""
        texts = self.embed_texts(prompts)

        def ask(images: Sequence[Image.Image]) -> Sequence[Sequence[float]]:
            cosines: Any = self.embed_images(images, batch=max(1, len(images))) @ texts.T
            return list(cosines)

        return ask

    def describe(self) -> dict[str, Any]:
        """What a report says of the system under test; JSON-ready and the same on every host."""
        parameters = sum(weights.numel() for weights in self._model.parameters())
        return {
            "model_type": self.model_type,
            "families": list(families(self._model.config)),
            "architectures": list(self._model.config.architectures or []),
            "parameters": parameters,
            "dimension": self.dimension,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "image_processor": plain(self._processor.to_dict()),
            "tokenizer": type(self._tokenizer).__name__,
            "sha256": folder_hash(self.folder),
            "files": folder_files(self.folder),
        }

    def _tokens(self, texts: list[str]) -> dict[str, torch.Tensor]:
        config = getattr(self._model.config, "text_config", self._model.config)
        full_length = self.model_type in PADDED_TO_FULL_LENGTH
        tokens = self._tokenizer(
            texts,
            padding="max_length" if full_length else "longest",
            max_length=getattr(config, "max_position_embeddings", None),
            truncation=True,
            return_tensors="pt",
        )
        names = ["input_ids"] if full_length else ["input_ids", "attention_mask"]
        return {name: tokens[name].to(self.device) for name in names if name in tokens}

    def _empty(self) -> NDArray[np.float32]:
        import numpy as np

        return np.empty((0, self.dimension), np.float32)


def load_audited(folder: Path, device: str | None = None) -> AuditedModel:
    """Load a transformers folder as an audited model.

    Args:
        folder: as `save_pretrained` writes it, with image processor and tokenizer files.
        device: a torch device; by default the GPU where there is one.

    Raises:
        ModelRefused: The folder is missing, or holds a pickle or no safetensors.
        AuditedModelError: It lacks something else, or its architecture has no shared embedding
            space.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    check_folder(folder)
    config = read_config(folder)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        # Single precision on every device: scores are compared across machines.
        model = AutoModel.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, **local
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        processor = image_processor_class(folder).from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise AuditedModelError(
            f"{folder}: the model can't be loaded: {str(error).splitlines()[0]}; it needs "
            "config.json, safetensors weights, preprocessor_config.json and tokenizer files"
        ) from error
    if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
        raise AuditedModelError(
            f"{folder}: {type(model).__name__} has no get_image_features and get_text_features; "
            "only models of the CLIP and SigLIP layouts can be audited by association"
        )
    model = model.to(device).eval()
    with torch.inference_mode():
        probe = tokenizer(["a"], return_tensors="pt")["input_ids"].to(device)
        dimension = _features(model.get_text_features(input_ids=probe)).shape[-1]
    return AuditedModel(
        folder, config["model_type"], device, int(dimension), model, tokenizer, processor
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json, which names at least its `model_type`.

    Raises:
        AuditedModelError: There is none, or it is no such object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AuditedModelError(
            f"{path}: can't be read ({error}); give a folder written by save_pretrained"
        ) from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise AuditedModelError(f"{path}: names no model_type; give a transformers model folder")
    return config


def _features(output: Any) -> torch.Tensor:
    """The projected embedding, which transformers 5 wraps in an output object."""
    pooled = getattr(output, "pooler_output", None)
    return output if pooled is None else pooled


def _unit(output: Any) -> NDArray[np.float32]:
    import torch

    unit = torch.nn.functional.normalize(_features(output).float(), dim=-1)
    return unit.cpu().numpy()


def plain(value: Any) -> Any:
    """JSON-ready: enums become their names, tuples lists."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or (
        isinstance(value, str | int | float) and type(value).__module__ == "builtins"
    ):
        return value
    return getattr(value, "name", str(value))
