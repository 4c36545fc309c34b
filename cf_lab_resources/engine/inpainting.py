"""Inpainting: only the region that a mask names is drawn anew, the rest keeps its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cf_lab_resources.engine.editors import Drawing, DrawingRefused
from cf_lab_resources.engine.folders import ModelRefused
from cf_lab_resources.engine.latent import Branch, LatentEditor
from cf_lab_resources.engine.pictures import square
from cf_lab_resources.engine.pipeline import Slot

if TYPE_CHECKING:
    import torch
    from PIL import Image


class InpaintingEditor(LatentEditor):
    """Draws the masked region of a source picture as the caption says."""

    strategy = "inpainting"

    def _check_unet(self, folder: Path) -> None:
        latents = int(self._vae.config.latent_channels)
        if self._unet.config.in_channels != 2 * latents + 1:
            raise ModelRefused(
                f"{folder}: the UNet takes {self._unet.config.in_channels} channels; one that "
                f"inpaints takes {2 * latents + 1}: noisy latents, mask and what is not masked"
            )

    def _check(self, drawing: Drawing) -> None:
        if drawing.source is None or drawing.mask is None:
            raise DrawingRefused(f"{drawing.set_id} needs a source picture and a mask of it")
        if drawing.source.size != drawing.mask.size:
            raise DrawingRefused(
                f"{drawing.set_id}: the mask is {drawing.mask.size} pixels large, its source "
                f"{drawing.source.size}"
            )

    def _draw_batch(self, slots: Sequence[Slot]) -> list[Image.Image]:
        from PIL import Image

        return [
            Image.composite(drawn, *self._fitted(slot.drawing))
            for slot, drawn in zip(slots, super()._draw_batch(slots), strict=True)
        ]

    def _branches(self, slots: Sequence[Slot]) -> tuple[list[Branch], list[Branch]]:
        import torch

        texts = self._encoded([slot.member.caption for slot in slots])
        known: dict[int, torch.Tensor] = {}
        for slot in slots:
            if id(slot.drawing) not in known:
                known[id(slot.drawing)] = self._channels(slot.drawing)
        channels = torch.stack([known[id(slot.drawing)] for slot in slots])
        plain = [Branch(1.0, texts, channels)]
        scale = self.settings.guidance_scale
        if scale <= 1.0:
            return plain, plain
        none = [self._no_text()] * len(slots)
        return plain, [Branch(scale, texts, channels), Branch(1.0 - scale, none, channels)]

    def _channels(self, drawing: Drawing) -> torch.Tensor:
        """Mask and latents of what is not masked, (1 + channels, h, w)."""
        import numpy as np
        import torch
        from PIL import Image

        source, mask = self._fitted(drawing)
        grey = Image.new("RGB", source.size, (127, 127, 127))  # zero, between -1 and 1
        latents = self._encode_picture(Image.composite(grey, source, mask)) * (
            self._vae.config.scaling_factor
        )
        hole = torch.from_numpy(np.array(mask))[None, None].to(self.device, self._dtype) / 255.0
        hole = torch.nn.functional.interpolate(hole, size=latents.shape[-2:])[0]
        return torch.cat([hole, latents])

    def _fitted(self, drawing: Drawing) -> tuple[Image.Image, Image.Image]:
        """Source and mask at the editor's size, the mask black or white."""
        assert drawing.source is not None
        assert drawing.mask is not None
        mask = square(drawing.mask.convert("L"), self.size)
        return (
            square(drawing.source, self.size).convert("RGB"),
            mask.point(lambda level: 255 if level > 127 else 0),
        )
