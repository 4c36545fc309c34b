"""Training of the starter models that look at pictures: scorers and audited models.

The two scorers differ in architecture from each other and from the audited models, so that no
model is judged by its own kind: one of SigLIP layout and a convolutional classifier of
attributes. The audited models are CLIPs; they differ from each other only in the world that
they were shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_assets.starter import text, world
from cf_lab_assets.starter.training import Report, half_precision, minimise, training_device

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from transformers import CLIPModel, PreTrainedModel, ResNetForImageClassification, SiglipModel

FACTORS: dict[str, tuple[str, ...]] = {
    **world.ATTRIBUTES,
    "occupation": world.OCCUPATIONS,
    "scene": world.SCENES,
}
PATCH = 8
WIDTH = 96
# How often a caption of the training set names a factor.
NAMES_FACTOR = 0.5
# Share of pictures whose clothes and headwear are covered in training, so that a model must
# look at more than these, as it must in photographs.
COVERED = 0.4


@dataclass(frozen=True)
class Pictures:
    """Pictures with what they show.

    Attributes:
        images: uint8, (count, 3, size, size).
        factors: indices into the values of `FACTORS`, (count, 5).
    """

    images: torch.Tensor
    factors: torch.Tensor


def pictures_of(
    portraits: Iterable[world.Portrait], progress: Callable[[Any], Any] = iter
) -> Pictures:
    """Render portraits for training or testing."""
    import numpy as np
    import torch

    from cf_lab_assets.starter.scenes import pixels

    listed = list(portraits)
    factors = [[o.index(getattr(p, name)) for name, o in FACTORS.items()] for p in listed]
    images = np.stack([pixels(portrait) for portrait in progress(listed)])
    return Pictures(torch.from_numpy(images), torch.tensor(factors))


def build_siglip() -> SiglipModel:
    """The untrained first scorer."""
    import math

    import torch
    from transformers import SiglipConfig, SiglipModel

    shared = {"hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_attention_heads": 4}
    tokenizer = text.build_tokenizer()
    model = SiglipModel(
        SiglipConfig(
            text_config={
                **shared,
                "num_hidden_layers": 2,
                "vocab_size": len(tokenizer),
                "max_position_embeddings": text.CAPTION_TOKENS,
                "projection_size": WIDTH,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            },
            vision_config={
                **shared,
                "num_hidden_layers": 3,
                "image_size": world.SIZE,
                "patch_size": PATCH,
            },
        )
    )
    # CLIP's start: from 1, where transformers starts, the scale takes too long to grow.
    with torch.no_grad():
        model.logit_scale.fill_(math.log(14.3))
        model.logit_bias.zero_()
    return model


def build_clip() -> CLIPModel:
    """An untrained audited model."""
    from transformers import CLIPConfig, CLIPModel

    shared = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": 4}
    tokenizer = text.build_tokenizer()
    return CLIPModel(
        CLIPConfig(
            text_config={
                **shared,
                "num_hidden_layers": 2,
                "vocab_size": len(tokenizer),
                "max_position_embeddings": text.MAX_TOKENS,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            },
            vision_config={
                **shared,
                "num_hidden_layers": 3,
                "image_size": world.SIZE,
                "patch_size": PATCH,
            },
            projection_dim=64,
        )
    )


def labels() -> list[str]:
    """The classifier's outputs: "gender: woman", "gender: man", "age: young", ..."""
    return [f"{name}: {value}" for name, values in world.ATTRIBUTES.items() for value in values]


def build_classifier() -> ResNetForImageClassification:
    """The untrained second scorer: one output for each value of each attribute."""
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=32,
            hidden_sizes=[32, 64, 96],
            depths=[1, 1, 1],
            layer_type="basic",
            downsample_in_first_stage=False,
            id2label=dict(enumerate(labels())),
            label2id={label: index for index, label in enumerate(labels())},
        )
    )


def caption_batch(
    factors: NDArray[np.int64], rng: np.random.Generator, complete: float
) -> tuple[list[str], NDArray[np.bool_]]:
    """Captions that name some of each picture's factors, and which picture each one fits.

    Args:
        factors: indices into `FACTORS`, (batch, 5).
        rng: where randomness comes from.
        complete: share of captions that name every factor.

    Returns:
        One caption a picture, and a (batch, batch) matrix: picture i shows all that caption j
        names.
    """
    import numpy as np

    named = rng.random(factors.shape) < NAMES_FACTOR
    # A quarter of the captions name the occupation alone, the way prompts of audits do.
    alone = rng.random(len(factors)) < 0.25
    occupation = list(FACTORS).index("occupation")
    named[alone] = np.arange(factors.shape[1]) == occupation
    named[rng.random(len(factors)) < complete] = True
    captions = [
        world.describe(
            {
                name: FACTORS[name][index]
                for name, index, says in zip(FACTORS, row, mask, strict=True)
                if says
            }
        )
        for row, mask in zip(factors, named, strict=True)
    ]
    fits = ((factors[:, None] == factors[None]) | ~named[None]).all(axis=-1)
    return captions, fits


def augmented(images: torch.Tensor, covered: float) -> torch.Tensor:
    """Pictures as the models see them in training, in [-1, 1].

    Shifted by up to three pixels, half of them blurred as an autoencoder blurs, a little
    brighter or darker, and some with clothes and headwear covered by a flat colour.

    Args:
        images: uint8, (batch, 3, size, size).
        covered: share of pictures with clothes and headwear covered.
    """
    import torch

    pixels = images.float().div(127.5).sub(1.0)
    batch, _, size, _ = pixels.shape
    across, down = torch.randint(-3, 4, (2,)).tolist()
    pixels = pixels.roll((down, across), dims=(-2, -1))
    soft = torch.nn.functional.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
    share = torch.rand(batch, 1, 1, 1) * (torch.rand(batch, 1, 1, 1) < 0.5)
    pixels = pixels + (soft - pixels) * share * 0.8
    pixels = pixels + 0.1 * (torch.rand(batch, 1, 1, 1) - 0.5) + 0.02 * torch.randn_like(pixels)
    hidden = torch.zeros(batch, 1, size, size, dtype=torch.bool)
    rows = torch.rand(batch) < covered
    hidden[rows, :, int(0.68 * size) :] = True
    hidden[rows, :, : int(0.27 * size)] = True
    return torch.where(hidden, 2 * torch.rand(batch, 3, 1, 1) - 1, pixels).clamp(-1, 1)


def train_contrastive(
    model: SiglipModel | CLIPModel,
    pictures: Pictures,
    steps: int,
    batch: int,
    seed: int,
    report: Report,
    covered: float = 0.0,
    as_scorer: bool = False,
    peak_rate: float = 1e-3,
) -> None:
    """Train picture and text encoders together, in place, on pictures and captions that fit.

    The loss is the softmax over the batch in both directions (Radford et al. 2021), its target
    spread over all that fit. A scorer must tell every value from a bare prompt, so it also
    learns to choose each factor's value among the prompts that name one value alone.

    Args:
        model: untrained, of SigLIP or CLIP layout.
        pictures: what it sees.
        steps: optimiser steps.
        batch: pictures and captions a step.
        seed: for batches and augmentation (weights are drawn by whoever built the model).
        report: called with (step, loss) every step.
        covered: share of pictures with clothes and headwear covered.
        as_scorer: learn from prompts too, and from more captions that name everything.
        peak_rate: highest learning rate.
    """
    import numpy as np
    import torch
    from torch.nn import functional

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    device = training_device()
    tokenize = _tokenize_for(model)
    prompts = [prompt for group in factor_prompts().values() for prompt in group]
    sizes = [len(values) for values in FACTORS.values()]
    model.to(device).train()

    def step_loss() -> torch.Tensor:
        chosen = torch.from_numpy(rng.integers(len(pictures.images), size=batch))
        factors = pictures.factors[chosen]
        captions, fits = caption_batch(factors.numpy(), rng, complete=0.25 if as_scorer else 0.0)
        tokens = tokenize(captions + prompts if as_scorer else captions)
        with half_precision():
            logits = model(
                pixel_values=augmented(pictures.images[chosen], covered).to(device),
                **{name: value.to(device) for name, value in tokens.items()},
            ).logits_per_image.float()
        by_caption, by_prompt = logits[:, :batch], logits[:, batch:]
        target = torch.from_numpy(fits).float().to(device)
        loss = functional.cross_entropy(by_caption, target / target.sum(1, keepdim=True))
        columns = target.T / target.T.sum(1, keepdim=True)
        loss = (loss + functional.cross_entropy(by_caption.T, columns)) / 2
        if as_scorer:
            for column, part in enumerate(by_prompt.split(sizes, dim=1)):
                loss = loss + functional.cross_entropy(part, factors[:, column].to(device))
        return loss

    _minimise(model, step_loss, steps, report, peak_rate)


def factor_prompts() -> dict[str, list[str]]:
    """For each factor, the captions that name one of its values and nothing else."""
    return {
        name: [world.describe({name: value}) for value in values]
        for name, values in FACTORS.items()
    }


def _tokenize_for(
    model: SiglipModel | CLIPModel,
) -> Callable[[list[str]], dict[str, torch.Tensor]]:
    """How a model's texts become tokens; SigLIP reads its last position, so it is padded full."""
    tokenizer = text.build_tokenizer()
    length = model.config.text_config.max_position_embeddings
    siglip = model.config.model_type == "siglip"

    def tokenize(sentences: list[str]) -> dict[str, torch.Tensor]:
        tokens = tokenizer(
            sentences,
            padding="max_length" if siglip else "longest",
            truncation=True,
            max_length=length,
            return_tensors="pt",
        )
        names = ["input_ids"] if siglip else ["input_ids", "attention_mask"]
        return {name: tokens[name] for name in names}

    return tokenize


def train_classifier(
    model: ResNetForImageClassification,
    pictures: Pictures,
    steps: int,
    batch: int,
    seed: int,
    report: Report,
) -> ResNetForImageClassification:
    """Train the attribute classifier: a softmax over the values of each attribute."""
    import torch
    from torch.nn import functional

    torch.manual_seed(seed)
    device = training_device()
    model.to(device).train()
    sizes = [len(values) for values in world.ATTRIBUTES.values()]

    def step_loss() -> torch.Tensor:
        chosen = torch.randint(len(pictures.images), (batch,))
        with half_precision():
            logits = model(augmented(pictures.images[chosen], 0.0).to(device)).logits.float()
        truth = pictures.factors[chosen].to(device)
        parts = [
            functional.cross_entropy(part, truth[:, column])
            for column, part in enumerate(logits.split(sizes, dim=1))
        ]
        return torch.stack(parts).sum()

    _minimise(model, step_loss, steps, report, peak_rate=3e-3)
    return model


def _minimise(
    model: PreTrainedModel,
    step_loss: Callable[[], torch.Tensor],
    steps: int,
    report: Report,
    peak_rate: float,
) -> None:
    minimise(
        step_loss,
        model.parameters(),
        steps,
        report,
        peak_rate=peak_rate,
        weight_decay=0.02,
        averaging=0.99,
    )
    model.eval().cpu()


def classifier_accuracy(
    model: ResNetForImageClassification, pictures: Pictures
) -> dict[str, float]:
    """Share of pictures whose value is named rightly, for each attribute."""
    import torch

    sizes = [len(values) for values in world.ATTRIBUTES.values()]
    with torch.inference_mode():
        logits = torch.cat(
            [model(part.float().div(127.5).sub(1.0)).logits for part in pictures.images.split(256)]
        )
    return {
        name: float((part.argmax(1) == pictures.factors[:, column]).float().mean())
        for column, (name, part) in enumerate(
            zip(world.ATTRIBUTES, logits.split(sizes, dim=1), strict=True)
        )
    }


def save(folder: Path, model: PreTrainedModel, with_tokenizer: bool) -> None:
    """Write a transformers folder: half-precision safetensors, image processor, tokenizer."""
    import torch
    from transformers import CLIPImageProcessorPil

    model.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    edge = {"height": world.SIZE, "width": world.SIZE}
    CLIPImageProcessorPil(
        size=edge, crop_size=edge, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(folder)
    if with_tokenizer:
        text.build_tokenizer().save_pretrained(folder)


def zero_shot_accuracy(
    model: SiglipModel | CLIPModel, pictures: Pictures, batch: int = 256
) -> dict[str, float]:
    """Share of pictures whose nearest prompt names the right value, for each factor."""
    import torch

    tokenize = _tokenize_for(model)
    result = {}
    for column, (name, prompts) in enumerate(factor_prompts().items()):
        tokens = tokenize(prompts)
        right = 0
        with torch.inference_mode():
            for images, factors in zip(
                pictures.images.split(batch), pictures.factors.split(batch), strict=True
            ):
                pixels = images.float().div(127.5).sub(1.0)
                logits = model(pixel_values=pixels, **tokens).logits_per_image
                right += int((logits.argmax(1) == factors[:, column]).sum())
        result[name] = right / len(pictures.images)
    return result
