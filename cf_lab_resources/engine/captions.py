"""Whole sets from captions alone, as SocialCounterfactuals draws them (Howard et al. 2024).

All members of a set start from the same noise, get the same noise at each step, and share the
self-attention of the first member for the first steps; so they show one scene. The share of
those steps and the guidance are drawn anew for each draw.
"""

from __future__ import annotations

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


class Sharing:
    """Which sets of the batch share their first member's self-attention at this step.

    Attributes:
        members: of each set; they lie side by side in the batch.
        active: for each set of the batch, a bool tensor; None while none shares.
        everywhere: whether all do.
    """

    def __init__(self) -> None:
        self.members = 1
        self.active: torch.Tensor | None = None
        self.everywhere = False

    def begin(self, members: int) -> None:
        """Begin a batch."""
        self.members, self.active, self.everywhere = members, None, False

    def set_active(self, active: Sequence[bool], device: str) -> None:
        """Say which sets share from now on."""
        import torch

        self.everywhere = all(active)
        self.active = torch.tensor(active, device=device) if any(active) else None


class SharedSelfAttention:
    """A self-attention processor that gives a set's first member's attention to all its members.

    The attention map is the softmax of queries and keys, so that it is shared by sharing these,
    and the map itself is never held: fused attention does the rest.
    """

    def __init__(self, sharing: Sharing) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        self._sharing = sharing
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

        sharing = self._sharing
        if sharing.active is None:
            found: torch.Tensor = self._plain(
                attn, hidden_states, encoder_hidden_states, attention_mask, *args, **kwargs
            )
            return found
        batch, length, width = hidden_states.shape
        sets = hidden_states.view(-1, sharing.members, length, width)
        looking = sets[:, :1] if sharing.everywhere else sets
        query, key = (self._of_first(linear(looking), sets) for linear in (attn.to_q, attn.to_k))
        value = attn.to_v(hidden_states)
        query, key, value = (
            one.reshape(batch, length, attn.heads, -1).transpose(1, 2)
            for one in (query, key, value)
        )
        attended = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        attended = attended.transpose(1, 2).reshape(batch, length, -1)
        return attn.to_out[1](attn.to_out[0](attended)) / attn.rescale_output_factor

    def _of_first(self, projected: torch.Tensor, sets: torch.Tensor) -> torch.Tensor:
        """Of each set the first member's, for all members where the set shares."""
        import torch

        shape = (*sets.shape[:3], projected.shape[-1])
        first = projected[:, :1].expand(shape)
        if self._sharing.everywhere:
            return first
        assert self._sharing.active is not None
        branches = len(sets) // len(self._sharing.active)
        active = self._sharing.active.repeat(branches)[:, None, None, None]
        return torch.where(active, first, projected)


class CaptionEditor(LatentEditor):
    """Draws the members of a set from their captions, as one scene."""

    strategy = "captions"

    def __init__(self, folder: Path, settings: EditorSettings, device: str | None = None) -> None:
        """See `LatentEditor`."""
        super().__init__(folder, settings, device)
        self._sharing = Sharing()
        self._unet.set_attn_processor(
            {
                name: SharedSelfAttention(self._sharing) if ".attn1." in name else processor
                for name, processor in self._unet.attn_processors.items()
            }
        )
        self._batches_by_members: dict[int, Batches] = {}

    def draw(self, drawings: Sequence[Drawing]) -> list[list[Image.Image]]:
        """See `Editor.draw`; sets of as many members are drawn together."""
        for drawing in drawings:
            self._check(drawing)
        drawn: dict[int, list[Image.Image]] = {}
        for members in dict.fromkeys(len(drawing.members) for drawing in drawings):
            places = [at for at, one in enumerate(drawings) if len(one.members) == members]
            batches = self._batches_by_members.setdefault(
                members, Batches(max(1, self.settings.batch_size // max(1, members)))
            )
            made = batches.run([drawings[at] for at in places], self._draw_sets)
            drawn |= zip(places, made, strict=True)
        return [drawn[at] for at in range(len(drawings))]

    def _check_unet(self, folder: Path) -> None:
        if self._unet.config.in_channels != self._vae.config.latent_channels:
            raise ModelRefused(
                f"{folder}: the UNet takes {self._unet.config.in_channels} channels; one that "
                f"draws from captions takes {self._vae.config.latent_channels}"
            )

    def _check(self, drawing: Drawing) -> None:
        if not drawing.members:
            raise DrawingRefused(f"{drawing.set_id} has no member")

    def _draw_sets(self, drawings: Sequence[Drawing]) -> list[list[Image.Image]]:
        import torch

        slots = [Slot(drawing, member) for drawing in drawings for member in drawing.members]
        members = len(drawings[0].members)
        shares = [self._share(drawing) * self.settings.steps for drawing in drawings]
        self._sharing.begin(members)

        def share(step: int) -> None:
            self._sharing.set_active([step < share for share in shares], self.device)

        with torch.inference_mode():
            pictures = self._decode(self._denoised(slots, share))
        return [pictures[at : at + members] for at in range(0, len(slots), members)]

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
