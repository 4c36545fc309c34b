"""Training of the starter editor's autoencoder (an `AutoencoderKL`, factor 4, 4 channels)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cf_lab_assets.starter.training import Report, half_precision, minimise, training_device

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL

CHANNELS = (24, 48, 64)
LATENT_CHANNELS = 4
# Spread of the posterior, held fixed: the decoder learns to bear what the editor gets wrong.
POSTERIOR_DEVIATION = 0.1
PRIOR_WEIGHT = 2e-4
EDGE_WEIGHT = 1.0


def build() -> AutoencoderKL:
    """An untrained autoencoder whose posterior has one fixed deviation."""
    import torch
    from diffusers import AutoencoderKL

    levels = len(CHANNELS)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    with torch.no_grad():
        vae.quant_conv.weight[LATENT_CHANNELS:] = 0.0
        vae.quant_conv.bias[LATENT_CHANNELS:] = 2 * math.log(POSTERIOR_DEVIATION)
    return vae


def loss(output: torch.Tensor, target: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of pixels and of their differences, and a weak pull to zero.

    Args:
        output: reconstruction, (batch, 3, height, width), in [-1, 1].
        target: the picture, same shape and range.
        means: posterior means, (batch, channels, height / 4, width / 4).
    """
    error = output - target
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + EDGE_WEIGHT * edges + PRIOR_WEIGHT * means.square().mean()


def train(
    images: torch.Tensor,
    steps: int,
    batch: int,
    seed: int,
    report: Report,
    *,
    peak_rate: float = 2e-3,
    vae: AutoencoderKL | None = None,
    decoder_only: bool = False,
) -> AutoencoderKL:
    """Train an autoencoder, or go on training one.

    Args:
        images: uint8 pictures, (count, 3, size, size).
        steps: optimiser steps.
        batch: pictures a step.
        seed: for weights, batches and noise.
        report: called with (step, loss) every step.
        peak_rate: highest learning rate of the one-cycle schedule.
        vae: goes on from these weights.
        decoder_only: leave the encoder, and so all latents, as they are.

    Returns:
        The autoencoder with weights averaged over the last part of training.
    """
    import torch

    torch.manual_seed(seed)
    device = training_device()
    vae = (vae or build()).to(device).train()
    images = images.to(device)
    for part in (vae.encoder, vae.quant_conv):
        part.requires_grad_(not decoder_only)

    def step_loss() -> torch.Tensor:
        chosen = torch.randint(len(images), (batch,)).to(device)
        target = images[chosen].float().div_(127.5).sub_(1.0)
        target = target.flip(-1) if torch.rand(()) < 0.5 else target
        with half_precision():
            posterior = vae.encode(target).latent_dist
            means = posterior.mean
            noise = posterior.std.detach() * torch.randn_like(means)
            output = vae.decode(means + noise).sample
        return loss(output.float(), target, means.float())

    def keep_deviation() -> None:
        if vae.quant_conv.weight.grad is not None:
            vae.quant_conv.weight.grad[LATENT_CHANNELS:] = 0.0
            vae.quant_conv.bias.grad[LATENT_CHANNELS:] = 0.0

    minimise(
        step_loss,
        [weight for weight in vae.parameters() if weight.requires_grad],
        steps,
        report,
        peak_rate=peak_rate,
        weight_decay=1e-4,
        averaging=0.998,
        after_backward=keep_deviation,
    )
    return vae.eval().cpu()


def standardise(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Fold the latents' mean and deviation into the autoencoder: afterwards they are 0 and 1.

    Diffusion wants unit variance, and the pipelines do not scale the conditioning latents.

    Args:
        vae: changed in place; what it reconstructs stays the same.
        images: uint8 sample, (count, 3, size, size).
    """
    import torch

    with torch.no_grad():
        latents = encode(vae, images)
        mean = latents.mean(dim=(0, 2, 3))
        deviation = latents.std(dim=(0, 2, 3))
        quant, post = vae.quant_conv, vae.post_quant_conv
        own = slice(0, LATENT_CHANNELS)
        quant.weight[own] /= deviation[:, None, None, None]
        quant.bias[own] = (quant.bias[own] - mean) / deviation
        quant.bias[LATENT_CHANNELS:] -= 2 * deviation.log()
        post.bias += post.weight[:, :, 0, 0] @ mean
        post.weight *= deviation[None, :, None, None]


def encode(vae: AutoencoderKL, images: torch.Tensor, batch: int = 256) -> torch.Tensor:
    """Posterior means of uint8 pictures, float32, (count, channels, size / 4, size / 4)."""
    import torch

    with torch.inference_mode():
        parts = [
            vae.encode(part.float().div(127.5).sub(1.0)).latent_dist.mean
            for part in images.split(batch)
        ]
    return torch.cat(parts)


def reconstruction_error(vae: AutoencoderKL, images: torch.Tensor, batch: int = 64) -> float:
    """Mean absolute error of uint8 pictures, encoded and decoded, on a 0-1 scale."""
    import torch

    total = 0.0
    with torch.inference_mode():
        for part in images.split(batch):
            output = vae.decode(encode(vae, part)).sample.clamp(-1, 1)
            total += ((output + 1) / 2 - part / 255).abs().mean().item() * len(part)
    return total / len(images)
