"""Editors: diffusion pipelines that draw candidates from source pictures and instructions.

The noise of a candidate comes from its edit's id and its draw alone, so that a candidate is
the same in whichever order and company it is drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_resources.engine.folders import (
    ModelRefused,
    check_folder,
    quieten_libraries,
)
from cf_lab_resources.engine.pictures import square

if TYPE_CHECKING:
    import torch
    from PIL import Image


@dataclass(frozen=True)
class EditorSettings:
    """How an editor draws; part of every dataset's configuration.

    Attributes:
        steps: denoising steps.
        guidance_scale: classifier-free guidance by the instruction; 1 is none.
        image_guidance_scale: guidance by the source picture; 1 is none.
        batch_size: candidates drawn at once; a fixed batch keeps results reproducible.
    """

    steps: int = 2
    guidance_scale: float = 1.0
    image_guidance_scale: float = 1.0
    batch_size: int = 32


@dataclass(frozen=True)
class Drawing:
    """One candidate to draw.

    Attributes:
        edit_id: with ``draw``, what the noise is made from.
        draw: counts the attempts at one edit, from 0.
        source: the source picture.
        instruction: what to change.
    """

    edit_id: str
    draw: int
    source: Image.Image
    instruction: str


def noise_seed(edit_id: str, draw: int) -> int:
    """The seed of a draw's noise: the first 63 bits of a hash of edit and draw."""
    digest = hashlib.sha256(f"{edit_id}/{draw}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class InstructionEditor:
    """An InstructPix2Pix pipeline of any size."""

    def __init__(self, folder: Path, settings: EditorSettings, device: str | None = None) -> None:
        """Load the pipeline.

        Args:
            folder: as written by ``StableDiffusionInstructPix2PixPipeline.save_pretrained``.
            settings: how to draw.
            device: torch device; by default CUDA where there is one, else the CPU.

        Raises:
            ModelRefused: the folder is missing, holds pickles or is another kind of pipeline.
        """
        check_folder(folder)
        quieten_libraries()  # before the import below, which warns of packages we do without
        import torch
        from diffusers import StableDiffusionInstructPix2PixPipeline

        self.settings = settings
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.float32 if self.device == "cpu" else torch.float16
        try:
            self._pipeline: Any = StableDiffusionInstructPix2PixPipeline.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=dtype
            ).to(self.device)
        except (OSError, ValueError) as error:
            raise ModelRefused(
                f"{folder} is no InstructPix2Pix pipeline that can be loaded: {error}"
            ) from error
        self._pipeline.set_progress_bar_config(disable=True)
        config = self._pipeline.unet.config
        self.size = int(config.sample_size) * int(self._pipeline.vae_scale_factor)

    def count_tokens(self, sentence: str) -> int:
        """Tokens of a sentence, begin and end included."""
        return len(self._pipeline.tokenizer(sentence).input_ids)

    @property
    def max_tokens(self) -> int:
        """Longest sentence that the text encoder reads, in tokens."""
        return int(self._pipeline.tokenizer.model_max_length)

    def draw(self, drawings: Sequence[Drawing]) -> list[Image.Image]:
        """Draw candidates, in the order asked for.

        Args:
            drawings: any number; they are drawn in batches of ``settings.batch_size``.

        Returns:
            One RGB picture of ``size`` x ``size`` pixels a drawing.
        """
        size = self.settings.batch_size
        pictures: list[Image.Image] = []
        for start in range(0, len(drawings), size):
            pictures += self._draw_batch(drawings[start : start + size])
        return pictures

    def _draw_batch(self, drawings: Sequence[Drawing]) -> list[Image.Image]:
        result = self._pipeline(
            prompt=[drawing.instruction for drawing in drawings],
            image=[square(drawing.source, self.size) for drawing in drawings],
            generator=[self._generator(drawing) for drawing in drawings],
            num_inference_steps=self.settings.steps,
            guidance_scale=self.settings.guidance_scale,
            image_guidance_scale=self.settings.image_guidance_scale,
        )
        return list(result.images)

    def _generator(self, drawing: Drawing) -> torch.Generator:
        import torch

        # On the CPU also for CUDA: the same noise on every device.
        return torch.Generator("cpu").manual_seed(noise_seed(drawing.edit_id, drawing.draw))
