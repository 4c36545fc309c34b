"""What Stable Diffusion's and SDXL's pipelines share: texts, noise, denoising and decoding.

A guided prediction is a weighted sum of the UNet's predictions under several conditions, such as
with and without the text; the weights sum to one. Conditions of no weight are left out, which is
exact and saves their time: InstructPix2Pix's three (Brooks et al. 2022, equation 3)

    e(0, 0) + s_I (e(I, 0) - e(0, 0)) + s_T (e(I, T) - e(I, 0))

are s_T e(I, T) + (s_I - s_T) e(I, 0) + (1 - s_I) e(0, 0), and so only two where s_I is 1.
"""

from __future__ import annotations

import copy
import inspect
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cf_lab_resources.engine.editors import EditorSettings
from cf_lab_resources.engine.folders import ModelRefused
from cf_lab_resources.engine.pipeline import (
    PipelineEditor,
    Slot,
    compile_for,
    generator,
    quantise,
)

if TYPE_CHECKING:
    import torch
    from PIL import Image

TEXTS_KEPT = 4096
SOLVERS = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
}


class Text(NamedTuple):
    """An encoded sentence: states of shape (tokens, width), and SDXL's pooled one, (width,)."""

    states: torch.Tensor
    pooled: torch.Tensor | None


class Branch(NamedTuple):
    """A condition of the prediction.

    Attributes:
        weight: of its prediction in the sum; a number, or a tensor of shape (batch, 1, 1, 1).
        texts: one for each place of the batch.
        channels: what goes into the UNet beside the noisy latents, (batch, channels, h, w).
    """

    weight: float | torch.Tensor
    texts: Sequence[Text]
    channels: torch.Tensor | None = None


@dataclass(frozen=True)
class Conditions:
    """Branches that are predicted in one pass, those of no weight left out."""

    weights: tuple[float | torch.Tensor, ...]
    states: torch.Tensor
    channels: torch.Tensor | None
    added: dict[str, torch.Tensor] | None

    @classmethod
    def of(cls, branches: Sequence[Branch], size: int) -> Conditions:
        """Put branches together; `size` is the pictures', which SDXL is told."""
        import torch

        kept = [one for one in branches if torch.is_tensor(one.weight) or one.weight != 0.0]
        texts = [text for branch in kept for text in branch.texts]
        channels = [branch.channels for branch in kept if branch.channels is not None]
        states = torch.stack([text.states for text in texts])
        added = None
        pooled = [text.pooled for text in texts if text.pooled is not None]
        if pooled:
            # Original size, crop and target size (Podell et al. 2023, section 2.2).
            sizes = states.new_tensor([[size, size, 0, 0, size, size]]).expand(len(texts), -1)
            added = {"text_embeds": torch.stack(pooled), "time_ids": sizes}
        return cls(
            tuple(branch.weight for branch in kept),
            states,
            torch.cat(channels) if channels else None,
            added,
        )

    def predict(self, unet: Any, noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """The guided prediction for noisy latents, (batch, channels, h, w)."""
        import torch

        count = len(self.weights)
        inputs = torch.cat([noisy] * count) if count > 1 else noisy
        if self.channels is not None:
            inputs = torch.cat([inputs, self.channels], dim=1)
        found: torch.Tensor = unet(
            inputs,
            time,
            encoder_hidden_states=self.states,
            added_cond_kwargs=self.added,
            return_dict=False,
        )[0]
        if count == 1:
            # A compiled UNet draws into the same memory each time, and solvers keep predictions.
            return found.clone()
        parts = zip(self.weights, found.chunk(count), strict=True)
        weight, part = next(parts)
        total = weight * part
        for weight, part in parts:
            total = total + weight * part
        return total


class LatentEditor(PipelineEditor):
    """An editor with an autoencoder, a UNet and one or two CLIP text encoders."""

    def __init__(self, folder: Path, settings: EditorSettings, device: str | None = None) -> None:
        """Load the pipeline; see `PipelineEditor`.

        Raises:
            ModelRefused: a part is missing or damaged, or the UNet is of another strategy.
        """
        super().__init__(folder, settings, device)
        self._unet: Any = self._pipeline.unet
        self._vae: Any = self._pipeline.vae
        self._check_unet(folder)
        self._optimise()
        scale = int(self._pipeline.vae_scale_factor)
        self.size = settings.size or int(self._unet.config.sample_size) * scale
        if self.size % scale:
            raise ModelRefused(
                f"size {self.size} is no multiple of {scale}, the autoencoder's scale"
            )
        self._edge = self.size // scale
        self._texts: OrderedDict[str, Text] = OrderedDict()

    @abstractmethod
    def _check_unet(self, folder: Path) -> None:
        """Refuse a UNet that does not take what this strategy gives it."""

    @abstractmethod
    def _branches(self, slots: Sequence[Slot]) -> tuple[list[Branch], list[Branch]]:
        """The conditions of a batch in unguided and in guided steps."""

    def _draw_batch(self, slots: Sequence[Slot]) -> list[Image.Image]:
        import torch

        with torch.inference_mode():
            return self._decode(self._denoised(slots))

    def _denoised(
        self, slots: Sequence[Slot], before_step: Callable[[int], None] | None = None
    ) -> torch.Tensor:
        """Clean latents of a batch.

        Args:
            slots: the batch.
            before_step: called with the number of each step before it is done.
        """
        plain, guided = (Conditions.of(one, self.size) for one in self._branches(slots))
        generators = [generator(slot.drawing.seed) for slot in slots]
        solver, steps = self._solver(), self.settings.steps
        # A solver looks its steps up in tables that it keeps on the CPU: were its times on the GPU,
        # each step would wait for the device. The UNet's are brought there once.
        solver.set_timesteps(steps)
        times = solver.timesteps.to(self.device)
        latents = self._noise(generators) * solver.init_noise_sigma
        extra = (
            {"generator": generators}
            if "generator" in inspect.signature(solver.step).parameters
            else {}
        )
        first, last = self.settings.guidance_start * steps, self.settings.guidance_end * steps
        for number, time in enumerate(solver.timesteps):
            if before_step:
                before_step(number)
            conditions = guided if first <= number < last else plain
            prediction = conditions.predict(
                self._unet, solver.scale_model_input(latents, time), times[number]
            )
            latents = solver.step(prediction, time, latents, return_dict=False, **extra)[0]
        return latents

    def _noise(self, generators: Sequence[torch.Generator]) -> torch.Tensor:
        import torch

        shape = (int(self._vae.config.latent_channels), self._edge, self._edge)
        noise = [torch.randn(shape, generator=one, dtype=self._dtype) for one in generators]
        return torch.stack(noise).to(self.device)

    def _solver(self) -> Any:
        """A scheduler that has done nothing yet; those of several steps remember the last ones."""
        own = self._pipeline.scheduler
        if self.settings.solver == "own":
            return copy.deepcopy(own)
        import diffusers

        return getattr(diffusers, SOLVERS[self.settings.solver]).from_config(own.config)

    def _encoded(self, sentences: Sequence[str]) -> list[Text]:
        """Sentences as the UNet takes them; each is encoded once while it is remembered."""
        new = [one for one in dict.fromkeys(sentences) if one not in self._texts]
        if new:
            self._texts.update(zip(new, self._encode_texts(new), strict=True))
        texts = [self._texts[one] for one in sentences]
        while len(self._texts) > TEXTS_KEPT:
            self._texts.popitem(last=False)
        return texts

    def _encode_texts(self, sentences: Sequence[str]) -> list[Text]:
        """SDXL's have two encoders, whose last but one states stand side by side."""
        import torch

        pipeline = self._pipeline
        second = getattr(pipeline, "text_encoder_2", None)
        if second is None:
            states = self._encode_by(pipeline.tokenizer, pipeline.text_encoder, sentences)[0]
            return [Text(one, None) for one in states]
        encoders = [(pipeline.tokenizer, pipeline.text_encoder), (pipeline.tokenizer_2, second)]
        outputs = [
            self._encode_by(tokenizer, encoder, sentences, output_hidden_states=True)
            for tokenizer, encoder in encoders
            if encoder is not None
        ]
        states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return [Text(*one) for one in zip(states, outputs[-1][0], strict=True)]

    def _encode_by(
        self, tokenizer: Any, encoder: Any, sentences: Sequence[str], **options: bool
    ) -> Any:
        tokens = tokenizer(
            list(sentences),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)
        masked = getattr(encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask if masked else None
        return encoder(tokens.input_ids, attention_mask=mask, **options)

    def _no_text(self) -> Text:
        """What stands for no text."""
        import torch

        empty = self._encoded([""])[0]
        if not getattr(self._pipeline.config, "force_zeros_for_empty_prompt", False):
            return empty
        pooled = None if empty.pooled is None else torch.zeros_like(empty.pooled)
        return Text(torch.zeros_like(empty.states), pooled)

    def _encode_picture(self, picture: Image.Image) -> torch.Tensor:
        """The most likely latents of a picture, not scaled, (channels, h, w)."""
        import torch

        pixels = torch.from_numpy(_levels(picture)).to(self.device).permute(2, 0, 1)[None]
        pixels = (pixels.float() / 127.5 - 1.0).to(self._vae.dtype)
        latents: torch.Tensor = self._vae.encode(pixels).latent_dist.mode()[0]
        return latents.to(self._dtype)

    def _decode(self, latents: torch.Tensor) -> list[Image.Image]:
        from PIL import Image

        config = self._vae.config
        latents = latents / config.scaling_factor
        mean, deviation = (getattr(config, f"latents_{name}", None) for name in ("mean", "std"))
        if mean is not None and deviation is not None:
            shape = (1, -1, 1, 1)
            latents = latents * latents.new_tensor(deviation).view(shape)
            latents = latents + latents.new_tensor(mean).view(shape)
        images = self._vae.decode(latents.to(self._vae.dtype), return_dict=False)[0]
        if getattr(self._pipeline, "safety_checker", None) is not None:
            images, _ = self._pipeline.run_safety_checker(images, self.device, self._dtype)
        levels = (images.float() / 2 + 0.5).clamp(0, 1).mul(255).round().byte()
        return [Image.fromarray(one) for one in levels.permute(0, 2, 3, 1).cpu().numpy()]

    def _optimise(self) -> None:
        import torch

        if self.settings.channels_last:
            for part in (self._unet, self._vae):
                part.to(memory_format=torch.channels_last)
        if self._dtype is torch.float16 and self._vae.config.force_upcast:
            self._vae.float()  # it overflows in half precision
        if self.settings.int8:
            quantise(self._unet)
        if self.settings.compiled:
            compile_for(self.device, self._unet)


def _levels(picture: Image.Image) -> Any:
    import numpy as np

    return np.array(picture.convert("RGB"))
