"""Whole sets from captions alone, as SocialCounterfactuals draws them (Howard et al. 2024).

All members of a set start from the same noise, get the same noise at each step, and share the
self-attention of the first member for the first steps; so they show one scene. The share of
those steps and the guidance are drawn anew for each draw.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_resources.engine.batching import Batches
from cf_lab_resources.engine.editors import Drawing, DrawingRefused, EditorSettings
from cf_lab_resources.engine.folders import ModelRefused
from cf_lab_resources.engine.latent import Branch, LatentEditor
from cf_lab_resources.engine.pipeline import Slot

if TYPE_CHECKING:
    import torch
    from PIL import Image


class SharedSelfAttention:
    """A self-attention processor that gives a set's first member's attention to all its members.

    The attention map is the softmax of queries and keys, so that it is shared by sharing these,
    and the map itself is never held: fused attention does the rest.

    Attributes:
        of: for each place of the batch, the place whose attention it takes; None for its own.
    """

    def __init__(self) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        self.of: torch.Tensor | None = None
        self._plain = AttnProcessor2_0()

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Attend; the arguments are those of diffusers' processors."""
        import torch

        if self.of is None:
            found: torch.Tensor = self._plain(
                attn, hidden_states, encoder_hidden_states, attention_mask, *args, **kwargs
            )
            return found
        batch, length, _ = hidden_states.shape
        branches = batch // len(self.of)
        places = torch.cat([self.of + branch * len(self.of) for branch in range(branches)])
        query, key = (linear(hidden_states)[places] for linear in (attn.to_q, attn.to_k))
        query, key, value = (
            one.reshape(batch, length, attn.heads, -1).transpose(1, 2)
            for one in (query, key, attn.to_v(hidden_states))
        )
        attended = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        attended = attended.transpose(1, 2).reshape(batch, length, -1)
        return attn.to_out[1](attn.to_out[0](attended)) / attn.rescale_output_factor


class CaptionEditor(LatentEditor):
    """Draws the members of a set from their captions, as one scene."""

    strategy = "captions"

    def __init__(self, folder: Path, settings: EditorSettings, device: str | None = None) -> None:
        """See `LatentEditor`."""
        super().__init__(folder, settings, device)
        self._batches = Batches(settings.batch_size, smallest=2)  # a member beside its first
        self._shared = SharedSelfAttention()
        self._unet.set_attn_processor(
            {
                name: self._shared if ".attn1." in name else processor
                for name, processor in self._unet.attn_processors.items()
            }
        )

    def _check_unet(self, folder: Path) -> None:
        if self._unet.config.in_channels != self._vae.config.latent_channels:
            raise ModelRefused(
                f"{folder}: the UNet takes {self._unet.config.in_channels} channels; one that "
                f"draws from captions takes {self._vae.config.latent_channels}"
            )

    def _check(self, drawing: Drawing) -> None:
        if not drawing.members:
            raise DrawingRefused(f"{drawing.set_id} has no member")

    def _draw_batch(self, slots: Sequence[Slot]) -> list[Image.Image]:
        """See `PipelineEditor`; a set that goes over several batches has its first one in each."""
        import torch

        slots, extra = _with_first(slots)
        begins = [at for at, slot in enumerate(slots) if slot.number == 0]
        firsts = [begins[bisect.bisect(begins, at) - 1] for at in range(len(slots))]
        shares = [self._share(slot.drawing) * self.settings.steps for slot in slots]

        def share(step: int) -> None:
            of = [
                first if step < share else at
                for at, (first, share) in enumerate(zip(firsts, shares, strict=True))
            ]
            shared = any(first != at for at, first in enumerate(of))
            self._shared.of = torch.tensor(of, device=self.device) if shared else None

        with torch.inference_mode():
            return self._decode(self._denoised(slots, share))[extra:]

    def _share(self, drawing: Drawing) -> float:
        return random.Random(drawing.seed).uniform(self.settings.share_from, self.settings.share_to)

    def _guidance(self, drawing: Drawing) -> float:
        more = random.Random(drawing.seed + 1).uniform(0.0, self.settings.guidance_spread)
        return self.settings.guidance_scale + more

    def _branches(self, slots: Sequence[Slot]) -> tuple[list[Branch], list[Branch]]:
        import torch

        texts = self._encoded([slot.member.caption for slot in slots])
        plain = [Branch(1.0, texts)]
        if self.settings.guidance_scale + self.settings.guidance_spread <= 1.0:
            return plain, plain
        scales = torch.tensor([self._guidance(slot.drawing) for slot in slots])
        scales = scales.view(-1, 1, 1, 1).to(self.device, self._dtype)
        none = [self._no_text()] * len(slots)
        return plain, [Branch(scales, texts), Branch(1.0 - scales, none)]


def _with_first(slots: Sequence[Slot]) -> tuple[list[Slot], int]:
    """A batch of as many slots that begins with a set's first member, and how many were added."""
    slots = list(slots)
    if slots[0].number == 0:
        return slots, 0
    return [Slot(slots[0].drawing, 0), *slots[:-1]], 1
