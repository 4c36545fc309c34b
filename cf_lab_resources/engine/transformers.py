"""Instruction editing by diffusion transformers: Qwen-Image-Edit-Plus and FLUX.1 Kontext.

Their pipelines do the work; what is the lab's own is the contract: noise by set and draw, one
size, one member at a time where a pipeline takes no batch. Texts and sources are encoded anew for
each picture: next to one step of these transformers that is little.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_resources.engine.editors import Drawing, DrawingRefused, EditorSettings
from cf_lab_resources.engine.folders import ModelRefused
from cf_lab_resources.engine.pictures import square
from cf_lab_resources.engine.pipeline import PipelineEditor, Slot, generator, quantise

if TYPE_CHECKING:
    from PIL import Image

LONGEST = 512  # tokens that these pipelines read by default
OWN_SIZE = 1024
# These pipelines' own calls have no place for the first ones, and texts of all lengths would have
# the transformer compiled over and over.
UNSUPPORTED = ("solver", "guidance_start", "guidance_end", "image_guidance_scale", "compiled")


class TransformerEditor(PipelineEditor):
    """Changes what an instruction says in a source picture, by a pipeline's own call."""

    strategy = "instruction"

    def __init__(self, folder: Path, settings: EditorSettings, device: str | None = None) -> None:
        """Load the pipeline; see `PipelineEditor`.

        Raises:
            ModelRefused: a part is missing or damaged, or a setting is one that can't be followed.
        """
        for name in UNSUPPORTED:
            if getattr(settings, name) != getattr(EditorSettings, name):
                raise ModelRefused(
                    f"{folder} is drawn with by its pipeline's own call, which can't follow the "
                    f"setting {name}; leave it at {getattr(EditorSettings, name)!r}"
                )
        super().__init__(folder, settings, device)
        self.max_tokens = min(self.max_tokens, LONGEST)
        self.size = settings.size or OWN_SIZE
        if settings.int8:
            quantise(self._pipeline.transformer)
        patch = 2 * int(self._pipeline.vae_scale_factor)
        if self.size % patch:
            raise ModelRefused(
                f"size {self.size} is no multiple of {patch}, the edge of what the transformer "
                "takes for one token"
            )

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
    """`QwenImageEditPlusPipeline`, which reads a list of pictures as references of one prompt."""

    def __init__(self, folder: Path, settings: EditorSettings, device: str | None = None) -> None:
        """See `TransformerEditor`; the pipeline draws one picture at once."""
        super().__init__(folder, replace(settings, batch_size=1), device)

    def _parts(self, folder: Path) -> dict[str, Any]:
        from transformers import Qwen2Tokenizer, Qwen2VLImageProcessorPil

        place = folder / "processor"
        pictures = Qwen2VLImageProcessorPil.from_pretrained(place, local_files_only=True)
        tokenizer = Qwen2Tokenizer.from_pretrained(place, local_files_only=True)
        return {"processor": picture_processor(pictures, tokenizer)}

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


def picture_processor(pictures: Any, tokenizer: Any) -> Any:
    """Qwen's processor without its part for videos, which would need torchvision.

    Args:
        pictures: transformers' PIL-backed image processor; torchvision's pixels differ from its.
        tokenizer: Qwen's.
    """
    from transformers import Qwen2VLProcessor

    class PictureProcessor(Qwen2VLProcessor):
        # From these arguments' names transformers tells which parts there have to be.
        def __init__(self, image_processor: Any, tokenizer: Any) -> None:
            super().__init__(image_processor, tokenizer)

    return PictureProcessor(pictures, tokenizer)
