"""The engine on a GPU: pictures a second of pipelines as large as the real ones, in one table.

    python -m cf_lab_tests.benchmarks.engine_gpu [--sizes sd15 sdxl] [--pictures 32] [--batch 8]

InstructPix2Pix pipelines with the architectures of Stable Diffusion 1.5 and SDXL, and seeded random
weights: speed does not depend on what the weights are, and nothing is downloaded. What draws well
is therefore not told here; `cf_lab_tests.benchmarks.engine` judges the shortcuts on the starter
editor. All ways take turns in one process, with the same weights in bfloat16, the same noise and
the same batch size; what is compiled is warmed up before any time is taken.

The ceiling is the rate of large bfloat16 matrix multiplications that this device was measured to
reach. A way's share of it counts the UNet's operations alone, as torch counts them.

Without a GPU `--device cpu --tiny` runs the same code on pipelines of a few pixels, which shows
that it works and nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from cf_lab_assets.starter import text, world
from cf_lab_resources.engine.editors import Drawing, EditorSettings, Member, load_editor

GUIDED = EditorSettings(
    steps=20, guidance_scale=7.5, image_guidance_scale=1.5, precision="bfloat16", batch_size=8
)
COMPILED = ("reduce-overhead", "max-autotune")  # diffusers' documentation names both
MEMBERS = 4  # of a set: what is edited four ways is one source
MATRIX = {"cuda": 8192, "cpu": 128}  # edge of the matrices that the ceiling is measured with
SEED = 990_001

CLIP_VOCABULARY = 49408
# unet, autoencoder, text encoders: what differs from the defaults of their classes, as published.
SD15 = (
    {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "attention_head_dim": 8,
        "cross_attention_dim": 768,
    },
    {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512},
    [{"hidden_size": 768, "intermediate_size": 3072, "layers": 12, "heads": 12}],
)
SDXL = (
    {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    {
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "sample_size": 1024,
        "scaling_factor": 0.13025,
    },
    [
        {"hidden_size": 768, "intermediate_size": 3072, "layers": 12, "heads": 12},
        {"hidden_size": 1280, "intermediate_size": 5120, "layers": 32, "heads": 20},
    ],
)
_TINY_VAE = {"block_out_channels": (8, 8), "norm_num_groups": 4, "sample_size": 16}
_TINY_TEXT = {"hidden_size": 16, "intermediate_size": 32, "layers": 2, "heads": 2}
_TINY_UNET = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
_TINY_ADDED = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 16,
}
SIZES = {"sd15": SD15, "sdxl": SDXL}
TINY = {
    "sd15": ({**_TINY_UNET, "cross_attention_dim": 16}, _TINY_VAE, [_TINY_TEXT]),
    "sdxl": ({**_TINY_UNET, "cross_attention_dim": 32, **_TINY_ADDED}, _TINY_VAE, [_TINY_TEXT] * 2),
}


@dataclass
class Way:
    """A way to draw the same pictures.

    Attributes:
        name: in the table.
        settings: what they are drawn with.
        draw: draws all of them.
        held: bytes of the device's memory that are taken while it does not draw.
        seconds: of each round.
        peak: most bytes that were taken at once.
        pictures: of the last round.
    """

    name: str
    settings: EditorSettings
    draw: Callable[[], list[Image.Image]]
    held: int = 0
    seconds: list[float] = field(default_factory=list)
    peak: int = 0
    pictures: list[Image.Image] = field(default_factory=list)

    def take_turn(self, cuda: bool) -> None:
        """Draw once, and note time and memory."""
        before = _allocated(cuda)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        self.pictures = self.draw()  # as pictures, so that the device has done its work
        self.seconds.append(time.perf_counter() - start)
        if cuda:
            self.peak = self.held + torch.cuda.max_memory_allocated() - before


def _allocated(cuda: bool) -> int:
    return torch.cuda.memory_allocated() if cuda else 0


def save_pipeline(folder: Path, sizes: tuple[dict[str, Any], ...], device: str) -> None:
    """Save an InstructPix2Pix pipeline of a size with random weights, seeded, in bfloat16."""
    import diffusers
    import transformers

    unet, vae, texts = sizes
    tokenizer = text.build_tokenizer()
    torch.manual_seed(SEED)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            parts: dict[str, Any] = {
                "unet": diffusers.UNet2DConditionModel(in_channels=8, out_channels=4, **unet),
                "vae": diffusers.AutoencoderKL(
                    down_block_types=("DownEncoderBlock2D",) * len(vae["block_out_channels"]),
                    up_block_types=("UpDecoderBlock2D",) * len(vae["block_out_channels"]),
                    latent_channels=4,
                    **vae,
                ),
            }
            for number, one in enumerate(texts):
                kind = "CLIPTextModelWithProjection" if number else "CLIPTextModel"
                name = f"_{number + 1}" if number else ""
                parts[f"text_encoder{name}"] = _text_encoder(
                    getattr(transformers, kind), tokenizer, **one
                )
                parts[f"tokenizer{name}"] = tokenizer
    finally:
        torch.set_default_dtype(torch.float32)
    xl = len(texts) > 1
    if not xl:
        parts |= {"safety_checker": None, "feature_extractor": None}
        parts["requires_safety_checker"] = False
    kind = f"StableDiffusion{'XL' if xl else ''}InstructPix2PixPipeline"
    scheduler = diffusers.EulerAncestralDiscreteScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1
    )
    pipeline = getattr(diffusers, kind)(**parts, scheduler=scheduler)
    pipeline.save_pretrained(folder, safe_serialization=True)


def _text_encoder(kind: Any, tokenizer: Any, layers: int, heads: int, **sizes: int) -> Any:
    from transformers import CLIPTextConfig

    return kind(
        CLIPTextConfig(
            vocab_size=CLIP_VOCABULARY,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=text.MAX_TOKENS,
            projection_dim=sizes["hidden_size"],
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **sizes,
        )
    )


def drawings_of(pictures: int) -> list[Drawing]:
    """Sets of portraits that are edited in several ways."""
    made = []
    for number, portrait in enumerate(world.sample(-(-pictures // MEMBERS), SEED)):
        sentences = [one.caption for one in world.sample(MEMBERS, SEED + 1 + number)]
        members = tuple(Member(one, f"turn it into {one}") for one in sentences)
        made.append(Drawing(f"s{number}", 0, members, world.render(portrait)))
    return made


def by_stock(
    pipeline: Any, settings: EditorSettings, drawings: Sequence[Drawing], size: int
) -> list[Image.Image]:
    """Draw by the pipeline's own call, from the same noise."""
    slots = [(one, member) for one in drawings for member in one.members]
    pictures: list[Image.Image] = []
    for start in range(0, len(slots), settings.batch_size):
        part = slots[start : start + settings.batch_size]
        pictures += pipeline(
            prompt=[member.instruction for _, member in part],
            image=[one.source.resize((size, size)) for one, _ in part],
            generator=[torch.Generator("cpu").manual_seed(one.seed) for one, _ in part],
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            image_guidance_scale=settings.image_guidance_scale,
        ).images
    return pictures


def by_engine(
    editor: Any, settings: EditorSettings, drawings: Sequence[Drawing]
) -> list[Image.Image]:
    """Draw by the lab's engine, which has to encode texts and sources each time anew."""
    editor.settings = settings  # an editor of its own for each shortcut would be compiled again
    editor._texts.clear()
    editor._sources.clear()
    return [picture for pictures in editor.draw(drawings) for picture in pictures]


def stock_pipeline(folder: Path, device: str, mode: str = "", channels_last: bool = True) -> Any:
    """The stock pipeline.

    Args:
        folder: of the pipeline.
        device: torch device.
        mode: of torch.compile, as diffusers' page on it advises; empty for none.
        channels_last: memory layout of the convolutions.
    """
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=torch.bfloat16
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    if channels_last:
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    if mode:
        pipeline.unet.compile(mode=mode, fullgraph=True)
    return pipeline


def ways_of(
    folder: Path, device: str, drawings: Sequence[Drawing], exact: EditorSettings
) -> tuple[list[Way], float]:
    """All ways, loaded and warmed up, and the operations of one prediction of the UNet."""
    cuda = device.startswith("cuda")
    ways: list[Way] = []

    def add(name: str, settings: EditorSettings, draw: Callable[[], Any], before: int) -> None:
        draw()
        ways.append(Way(name, settings, draw, _allocated(cuda) - before))

    before = _allocated(cuda)
    editor: Any = load_editor(folder, exact, device)
    operations, size = operations_of(editor._unet, device), editor.size
    plain = partial(by_engine, editor, exact, drawings)
    stocks = {"stock, as documented": ("", False), "stock, channels last": ("", True)}
    if cuda:
        stocks |= {f"stock, compiled, {mode}": (mode, True) for mode in COMPILED}
    for name, (mode, last) in stocks.items():
        held = _allocated(cuda)
        stock = stock_pipeline(folder, device, mode, last)
        add(name, exact, partial(by_stock, stock, exact, drawings, size), held)
    add("engine, exact", exact, plain, before)
    ways[-1].held = ways[0].held  # it was loaded first, and holds what the stock pipeline does
    if cuda:
        held, exact = _allocated(cuda), replace(exact, compiled=True)
        editor = load_editor(folder, exact, device)
        add("engine, exact, compiled", exact, partial(by_engine, editor, exact, drawings), held)
    held = ways[-1].held
    for name, settings in shortcuts(exact).items():
        add(name, settings, partial(by_engine, editor, settings, drawings), _allocated(cuda))
        ways[-1].held += held
    return ways, operations


def shortcuts(exact: EditorSettings) -> dict[str, EditorSettings]:
    """From exact settings, what saves time; the other benchmark tells what it does to quality."""
    half = replace(exact, guidance_end=0.5)
    return {
        "engine, guided in the first half of the steps": half,
        "engine, dpm++ with 8 steps": replace(exact, solver="dpm++", steps=8),
        "engine, both": replace(half, solver="dpm++", steps=8),
    }


def operations_of(unet: Any, device: str) -> float:
    """Floating-point operations of one prediction for one picture."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    config, of_text = unet.config, {}
    noisy = torch.zeros(
        1, config.in_channels, config.sample_size, config.sample_size, dtype=unet.dtype
    )
    if config.addition_embed_type:
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        of_text = {"text_embeds": torch.zeros(1, pooled), "time_ids": torch.zeros(1, 6)}
    added = {key: value.to(device, unet.dtype) for key, value in of_text.items()}
    states = torch.zeros(1, text.MAX_TOKENS, config.cross_attention_dim).to(device, unet.dtype)
    # Fused attention is not counted on every device; taken apart it is.
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        unet(noisy.to(device), torch.tensor(1, device=device), states, added_cond_kwargs=added)
    return float(counter.get_total_flops())


def predictions(settings: EditorSettings) -> int:
    """How many the UNet makes for one picture: three in a guided step, else one."""
    steps = settings.steps
    first, last = settings.guidance_start * steps, settings.guidance_end * steps
    return sum(3 if first <= number < last else 1 for number in range(steps))


def ceiling(device: str) -> float:
    """Operations a second of large bfloat16 matrix multiplications, the best of ten runs."""
    cuda = device.startswith("cuda")
    edge = MATRIX["cuda" if cuda else "cpu"]
    left, right = torch.randn(2, edge, edge, device=device, dtype=torch.bfloat16)
    best, repeats = float("inf"), 10
    for _ in range(11):  # the first one is the warm-up of the second
        start = time.perf_counter()
        for _ in range(repeats):
            left @ right
        if cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * edge**3 * repeats / best


def table_of(name: str, ways: Sequence[Way], operations: float, rate: float) -> Table:
    """One row a way; what is drawn at the same settings is compared with the stock pipeline's."""
    count = len(ways[0].pictures)
    speeds = {way.name: count / statistics.median(way.seconds) for way in ways}
    reference = max((one for one in speeds if one.startswith("stock")), key=lambda one: speeds[one])
    table = Table(
        "",
        "images/s",
        "ratio",
        "of ceiling",
        "peak GB",
        "levels off",
        title=f"{name}, {count} pictures",
    )
    table.caption = (
        f"ratio to '{reference}', the fastest stock pipeline here; {operations / 1e12:.3g} TFLOP a "
        f"prediction; the ceiling is {rate / 1e12:.4g} TFLOP/s"
    )
    stock = _levels(ways[0].pictures)
    for way in ways:
        used = speeds[way.name] * operations * predictions(way.settings)
        same = predictions(way.settings) == predictions(ways[0].settings)
        table.add_row(
            way.name,
            f"{speeds[way.name]:.3g}",
            f"{speeds[way.name] / speeds[reference]:.2f}",
            f"{used / rate:.1%}",
            f"{way.peak / 1e9:.1f}" if way.peak else "",
            f"{np.abs(_levels(way.pictures) - stock).mean():.2f}" if same else "",
        )
    return table


def _levels(pictures: Sequence[Image.Image]) -> Any:
    return np.stack([np.asarray(one, dtype=np.int16) for one in pictures])


def measure(
    name: str, device: str, tiny: bool, pictures: int, exact: EditorSettings, rounds: int
) -> Table:
    """Build a pipeline, and draw by all ways in turns."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        save_pipeline(folder, (TINY if tiny else SIZES)[name], device)
        ways, operations = ways_of(folder, device, drawings_of(pictures), exact)
        for _ in range(rounds):
            for way in ways:
                way.take_turn(device.startswith("cuda"))
    return table_of(name, ways, operations, ceiling(device))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=GUIDED.steps)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="pipelines of a few pixels")
    chosen = parser.parse_args(arguments)
    cuda = chosen.device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        parser.error(
            "there is no CUDA device here, and this measures one; --device cpu --tiny runs the "
            "same code on pipelines of a few pixels"
        )
    if not cuda and not chosen.tiny:
        parser.error("pipelines of the real sizes are for a GPU; give --tiny with --device cpu")
    if chosen.pictures % chosen.batch or chosen.batch % MEMBERS:
        parser.error(f"pictures must fill batches, and batches sets of {MEMBERS}")
    console = Console()
    device = torch.cuda.get_device_name(chosen.device) if cuda else chosen.device
    console.print(f"{device}, torch {torch.__version__}, batches of {chosen.batch}")
    exact = replace(GUIDED, batch_size=chosen.batch, steps=chosen.steps)
    for name in chosen.sizes:
        console.print(
            measure(name, chosen.device, chosen.tiny, chosen.pictures, exact, chosen.rounds)
        )


if __name__ == "__main__":
    main()
