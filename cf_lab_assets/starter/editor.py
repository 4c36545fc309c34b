"""Training of the starter editor: an InstructPix2Pix on the starter world's own pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_assets.starter import text, world
from cf_lab_assets.starter.training import Report, half_precision, minimise, training_device

if TYPE_CHECKING:
    import numpy as np
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from numpy.typing import NDArray
    from transformers import CLIPTextModel, CLIPTokenizer

CHANNELS = (64, 128)
TEXT_WIDTH = 64
PEAK_RATE = 1.2e-3
# Share of steps in which a changed attribute's unchanged neighbours are named too.
NAME_UNCHANGED = 0.8
DROP_TEXT = 0.04
DROP_IMAGE = 0.04


def build_unet() -> UNet2DConditionModel:
    """An untrained UNet that takes noisy and conditioning latents, 8 channels in all."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=world.SIZE // 4,
        in_channels=8,
        out_channels=4,
        # Attention at the coarser level only: at the finer it doubles the cost of a step.
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=CHANNELS,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # diffusers reads this as the number of heads
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained two-layer CLIP text encoder for the starter tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=text.MAX_TOKENS,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_scheduler() -> DDIMScheduler:
    """v-prediction down to pure noise, so that few steps from pure noise are enough."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def named_index(values: NDArray[np.int64], named: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Row of `text.named_subsets` that names ``values`` where ``named`` is true.

    Args:
        values: attribute value indices, (count, attributes).
        named: which attributes the instruction names, (count, attributes).
    """
    import numpy as np

    index = np.zeros(len(values), dtype=np.int64)
    for column, options in enumerate(world.ATTRIBUTES.values()):
        index = index * (len(options) + 1) + np.where(named[:, column], values[:, column] + 1, 0)
    return index


def draw_batch(
    values: NDArray[np.int64], batch: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Random training pairs.

    Args:
        values: attribute value indices of every picture, (scenes, members, attributes).
        batch: how many pairs.
        rng: where randomness comes from.

    Returns:
        Flat picture indices of sources and of targets, and each pair's row of
        `text.named_subsets`; all of shape (batch,).
    """
    import numpy as np

    scenes, members, attributes = values.shape
    scene = rng.integers(scenes, size=batch)
    source, target = rng.integers(members, size=(2, batch))
    changed = values[scene, source] != values[scene, target]
    named = changed | (rng.random((batch, attributes)) < NAME_UNCHANGED)
    rows = named_index(values[scene, target], named)
    rows = np.where(rng.random(batch) < DROP_TEXT, 0, rows)
    return scene * members + source, scene * members + target, rows


def train(
    unet: UNet2DConditionModel,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    latents: torch.Tensor,
    values: NDArray[np.int64],
    steps: int,
    batch: int,
    seed: int,
    report: Report,
    peak_rate: float = PEAK_RATE,
) -> None:
    """Train the editor's UNet and text encoder together, in place.

    At the end the weights are an average over the last part of training.

    Args:
        unet: as `build_unet` makes it, or trained before.
        encoder: as `build_text_encoder` makes it, or trained before.
        tokenizer: as `text.build_tokenizer` makes it.
        latents: standardised latents of every picture, (scenes * members, 4, h, w).
        values: attribute value indices, (scenes, members, attributes).
        steps: optimiser steps.
        batch: pairs a step.
        seed: for pairs and noise.
        report: called with (step, loss) every step.
        peak_rate: highest learning rate of the one-cycle schedule.
    """
    import numpy as np
    import torch

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    device = training_device()
    scheduler = build_scheduler()
    unet.to(device).train()
    encoder.to(device).train()
    latents = latents.to(device)
    sentences = [text.instruction(named) if named else "" for named in text.named_subsets()]
    tokens = tokenizer(
        sentences, padding="max_length", max_length=text.MAX_TOKENS, return_tensors="pt"
    ).input_ids.to(device)

    def step_loss() -> torch.Tensor:
        source, target, rows = draw_batch(values, batch, rng)
        clean, condition = latents[target], latents[source]
        condition = condition * (torch.rand(batch, 1, 1, 1) >= DROP_IMAGE).to(device)
        # More of the noisy steps: there the edit is decided, the rest only polishes.
        times = (torch.rand(batch).sqrt() * 1000).long().clamp(max=999).to(device)
        noise = torch.randn(clean.shape).to(device)
        noisy = scheduler.add_noise(clean, noise, times)
        goal = scheduler.get_velocity(clean, noise, times)
        distinct, inverse = (torch.from_numpy(a) for a in np.unique(rows, return_inverse=True))
        with half_precision():
            states = encoder(tokens[distinct]).last_hidden_state[inverse]
            velocity = unet(torch.cat([noisy, condition], dim=1), times, states).sample
        return (velocity.float() - goal).square().mean()

    minimise(
        step_loss,
        [*unet.parameters(), *encoder.parameters()],
        steps,
        report,
        peak_rate=peak_rate,
        weight_decay=1e-3,
        averaging=0.998,
    )
    unet.eval().cpu()
    encoder.eval().cpu()


def save(
    folder: Path,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
) -> None:
    """Write a `StableDiffusionInstructPix2PixPipeline` folder, half precision, safetensors."""
    import torch

    build_pipeline(vae, unet, encoder, tokenizer).to(dtype=torch.float16).save_pretrained(
        folder, safe_serialization=True
    )
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        # diffusers notes where a part was loaded from, which is nobody else's business.
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n")


def build_pipeline(
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
) -> Any:
    """The parts as one pipeline; no safety checker, since drawings have nothing to check."""
    from diffusers import StableDiffusionInstructPix2PixPipeline

    return StableDiffusionInstructPix2PixPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
