"""Instruction editing by diffusion transformers: Qwen-Image-Edit and FLUX.1 Kontext.

Their pipelines do the work; what is the lab's own is the contract: noise by set and draw, one
size, one member at a time where a pipeline takes no batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_resources.engine.editors import Drawing, DrawingRefused, EditorSettings
from cf_lab_resources.engine.pictures import square
from cf_lab_resources.engine.pipeline import PipelineEditor, Slot, generator

if TYPE_CHECKING:
    from PIL import Image

LONGEST = 512  # tokens that these pipelines read by default
OWN_SIZE = 1024


class TransformerEditor(PipelineEditor):
    """Changes what an instruction says in a source picture, by a pipeline's own call."""

    strategy = "instruction"

    def __init__(self, folder: Path, settings: EditorSettings, device: str | None = None) -> None:
        """See `PipelineEditor`."""
        super().__init__(folder, settings, device)
        self.max_tokens = min(self.max_tokens, LONGEST)
        self.size = settings.size or OWN_SIZE

    def _check(self, drawing: Drawing) -> None:
        if drawing.source is None:
            raise DrawingRefused(f"{drawing.set_id} has no source picture, which is to be edited")

    def _draw_batch(self, slots: Sequence[Slot]) -> list[Image.Image]:
        import torch

        with torch.inference_mode():
            pictures = self._called(slots)
        return [square(picture.convert("RGB"), self.size) for picture in pictures]

    @abstractmethod
    def _called(self, slots: Sequence[Slot]) -> list[Image.Image]:
        """What the pipeline draws for a batch."""

    def _common(self) -> dict[str, Any]:
        return {
            "num_inference_steps": self.settings.steps,
            "height": self.size,
            "width": self.size,
        }

    def _source(self, slot: Slot) -> Image.Image:
        assert slot.drawing.source is not None
        return square(slot.drawing.source, self.size).convert("RGB")


class FluxKontextEditor(TransformerEditor):
    """`FluxKontextPipeline`, whose guidance is distilled into it."""

    def _called(self, slots: Sequence[Slot]) -> list[Image.Image]:
        found: list[Image.Image] = self._pipeline(
            image=[self._source(slot) for slot in slots],
            prompt=[slot.member.instruction for slot in slots],
            generator=[generator(slot.drawing.seed) for slot in slots],
            guidance_scale=self.settings.guidance_scale,
            max_area=self.size**2,
            _auto_resize=False,
            **self._common(),
        ).images
        return found


class QwenEditor(TransformerEditor):
    """`QwenImageEditPlusPipeline`, which reads a list of pictures as references of one prompt.

    It reads them by a processor of transformers' that needs torchvision, which the lab does not
    install; without it loading is refused with the library's own words.
    """

    def _called(self, slots: Sequence[Slot]) -> list[Image.Image]:
        guided = self.settings.guidance_scale > 1.0
        return [
            self._pipeline(
                image=[self._source(slot)],
                prompt=slot.member.instruction,
                negative_prompt=" " if guided else None,
                true_cfg_scale=self.settings.guidance_scale,
                generator=generator(slot.drawing.seed),
                **self._common(),
            ).images[0]
            for slot in slots
        ]
