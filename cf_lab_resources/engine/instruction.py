"""Instruction editing: InstructPix2Pix pipelines, on Stable Diffusion or SDXL, of any size."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cf_lab_resources.engine.editors import Drawing, DrawingRefused, EditorSettings
from cf_lab_resources.engine.folders import ModelRefused
from cf_lab_resources.engine.latent import Branch, LatentEditor
from cf_lab_resources.engine.pictures import square
from cf_lab_resources.engine.pipeline import Slot

if TYPE_CHECKING:
    import torch
    from PIL import Image

SOURCES_KEPT = 256


class InstructionEditor(LatentEditor):
    """Changes what an instruction says in a source picture."""

    strategy = "instruction"

    def __init__(self, folder: Path, settings: EditorSettings, device: str | None = None) -> None:
        """See `LatentEditor`."""
        super().__init__(folder, settings, device)
        self._sources: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def _check_unet(self, folder: Path) -> None:
        latents = int(self._vae.config.latent_channels)
        if self._unet.config.in_channels != 2 * latents:
            raise ModelRefused(
                f"{folder}: the UNet takes {self._unet.config.in_channels} channels; one that "
                f"edits pictures takes {2 * latents}, noisy latents and the source's"
            )

    def _check(self, drawing: Drawing) -> None:
        if drawing.source is None:
            raise DrawingRefused(f"{drawing.set_id} has no source picture, which is to be edited")

    def _branches(self, slots: Sequence[Slot]) -> tuple[list[Branch], list[Branch]]:
        import torch

        texts = self._encoded([slot.member.instruction for slot in slots])
        none = [self._no_text()] * len(slots)
        pictures = {id(slot.drawing): slot.drawing.source for slot in slots}
        latents = {key: self._source(picture) for key, picture in pictures.items()}
        sources = torch.stack([latents[id(slot.drawing)] for slot in slots])
        plain = [Branch(1.0, texts, sources)]
        by_text, by_image = self.settings.guidance_scale, self.settings.image_guidance_scale
        if by_text <= 1.0:
            return plain, plain
        return plain, [
            Branch(by_text, texts, sources),
            Branch(by_image - by_text, none, sources),
            Branch(1.0 - by_image, none, torch.zeros_like(sources)),
        ]

    def _source(self, picture: Image.Image | None) -> torch.Tensor:
        """Latents of a source, encoded once for all its members and draws."""
        assert picture is not None
        fitted = square(picture, self.size).convert("RGB")
        key = hashlib.sha256(fitted.tobytes()).digest()
        if key not in self._sources:
            self._sources[key] = self._encode_picture(fitted)
            if len(self._sources) > SOURCES_KEPT:
                self._sources.popitem(last=False)
        return self._sources[key]
