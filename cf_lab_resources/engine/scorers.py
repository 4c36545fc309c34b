"""Scorers: models that judge candidates, never of an audited model's family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cf_lab_resources.engine.folders import (
    ModelRefused,
    check_folder,
    quieten_libraries,
)
from cf_lab_resources.engine.pictures import square

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

BATCH_SIZE = 128


class AttributeClassifier:
    """An image classifier whose labels read "attribute: value"."""

    def __init__(self, folder: Path) -> None:
        """Load a transformers image-classification folder.

        Raises:
            ModelRefused: the folder can't be loaded or its labels are of another form.
        """
        from transformers import AutoModelForImageClassification, CLIPImageProcessorPil

        check_folder(folder)
        quieten_libraries()
        self._model = (
            AutoModelForImageClassification.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
            .float()
            .eval()
        )
        self._processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        self.size = int(self._processor.size["height"])
        self._columns: dict[str, dict[str, int]] = {}
        for index, label in self._model.config.id2label.items():
            attribute, separator, value = str(label).partition(": ")
            if not separator:
                raise ModelRefused(
                    f'{folder}: label {label!r} is not of the form "attribute: value"'
                )
            self._columns.setdefault(attribute, {})[value] = int(index)

    @property
    def values(self) -> dict[str, tuple[str, ...]]:
        """The attributes and their values that this model can tell."""
        return {name: tuple(columns) for name, columns in self._columns.items()}

    def logits(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Raw outputs, float32, (pictures, labels)."""
        import numpy as np
        import torch

        parts = []
        for start in range(0, len(pictures), BATCH_SIZE):
            part = [square(picture, self.size) for picture in pictures[start : start + BATCH_SIZE]]
            inputs = self._processor(images=part, return_tensors="pt")
            with torch.inference_mode():
                parts.append(self._model(inputs["pixel_values"]).logits.numpy())
        return np.concatenate(parts)

    def detect(self, pictures: Sequence[Image.Image]) -> list[dict[str, str]]:
        """The most likely value of each attribute, for each picture."""
        logits = self.logits(pictures)
        detected: list[dict[str, str]] = [{} for _ in pictures]
        for attribute, columns in self._columns.items():
            names = list(columns)
            best = logits[:, list(columns.values())].argmax(axis=1)
            for found, index in zip(detected, best, strict=True):
                found[attribute] = names[int(index)]
        return detected


def zero_shot(images: NDArray[np.float32], texts: Mapping[str, NDArray[np.float32]]) -> list[str]:
    """The text nearest to each picture.

    Args:
        images: unit-norm embeddings, (pictures, d).
        texts: one unit-norm embedding a value, (d,).
    """
    import numpy as np

    names = list(texts)
    nearest = (images @ np.stack([texts[name] for name in names]).T).argmax(axis=1)
    return [names[int(index)] for index in nearest]
