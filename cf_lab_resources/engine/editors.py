"""Editors: diffusion pipelines that draw the members of counterfactual sets.

All have one contract, whatever their pipeline: draws of sets in, a picture for each member out.
Which strategy serves a pipeline folder is told by its own `model_index.json`. The noise of a draw
comes from its set's id and its number alone, and batches have one fixed shape, so that a picture
is the same in whichever order and company it is drawn.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cf_lab_resources.engine.folders import ModelRefused, check_folder
from cf_lab_resources.engine.licences import check_licence
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from PIL import Image

Strategy = Literal["instruction", "captions", "inpainting"]
Solver = Literal["own", "ddim", "dpm++", "euler", "unipc"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class EditorSettings:
    """How an editor draws; part of every dataset's configuration.

    What saves time is named here, and its effect on pictures is measured:
    `cf_lab_tests.benchmarks.engine` prints that of steps, solver and guidance, the asset
    ``models/optimised`` that of bfloat16 and int8; tests hold compiled pictures, and those of
    another batch size or memory layout, within one level of 255.

    Attributes:
        steps: denoising steps.
        guidance_scale: classifier-free guidance by the text; 1 is none.
        image_guidance_scale: guidance by the source picture; 1 is none.
        guidance_start, guidance_end: the part of the steps that is guided, as shares of them; the
            others need one prediction instead of two or three (Kynkaanniemi et al. 2024, "Applying
            guidance in a limited interval").
        solver: the pipeline's own scheduler, or another that reads the same configuration.
        batch_size: members drawn at once; a fixed batch keeps results reproducible.
        size: width and height of pictures in pixels; 0 is the pipeline's own.
        precision: of the weights; ``auto`` is single on the CPU and half on a GPU.
        channels_last: memory layout of the convolutions.
        compiled: whether the UNet is compiled by torch, which needs a C++ compiler and, at the
            first pictures of each shape, minutes.
        int8: weight-only quantisation of the linear layers of UNet or transformer; needs torchao.
        share_from, share_to: drawing from captions alone, bounds of the share of steps in which
            the first member's self-attention is given to all; each draw takes one in between.
        guidance_spread: drawing from captions alone, what each draw adds at most to the guidance
            scale.
        accepted_licence: name of a non-commercial licence that the user has accepted.
    """

    steps: int = 2
    guidance_scale: float = 1.0
    image_guidance_scale: float = 1.0
    batch_size: int = 8
    size: int = 0
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    solver: Solver = "own"
    precision: Precision = "auto"
    channels_last: bool = True
    compiled: bool = False
    int8: bool = False
    share_from: float = 0.1
    share_to: float = 0.9
    guidance_spread: float = 0.0
    accepted_licence: str = ""


@dataclass(frozen=True)
class Member:
    """One member of a set that is to be drawn.

    Attributes:
        caption: what its picture shows.
        instruction: what is to be changed in the source picture.
    """

    caption: str
    instruction: str


@dataclass(frozen=True)
class Drawing:
    """One draw of a counterfactual set, or of several that share one scene.

    Attributes:
        set_id: of the scene, such as the source's; with ``draw``, what the noise is made from,
            which all members share.
        draw: counts the attempts at the set, from 0.
        members: those to draw. An editor that draws from captions takes the first for the one
            whose scene the others share.
        source: the source picture; None for an editor that draws from captions.
        mask: for inpainting, white where the picture may change; of the source's size.
    """

    set_id: str
    draw: int
    members: tuple[Member, ...]
    source: Image.Image | None = None
    mask: Image.Image | None = None

    @property
    def seed(self) -> int:
        """Of the noise."""
        return noise_seed(self.set_id, self.draw)


class DrawingRefused(LabError):
    """A drawing lacks what its editor needs; the message says what."""


def noise_seed(set_id: str, draw: int) -> int:
    """The seed of a draw's noise: the first 63 bits of a hash of set and draw."""
    digest = hashlib.sha256(f"{set_id}/{draw}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Editor(ABC):
    """Draws the members of counterfactual sets.

    Attributes:
        strategy: how.
        size: width and height of its pictures, in pixels.
        max_tokens: longest sentence that its text encoder reads, in tokens.
    """

    strategy: Strategy
    size: int
    max_tokens: int

    @property
    def draws_whole_sets(self) -> bool:
        """Whether members belong together only where they are of one draw.

        So it is where nothing but the noise makes the scene; where a source picture does, each
        member can be drawn again by itself.
        """
        return self.strategy == "captions"

    @abstractmethod
    def draw(self, drawings: Sequence[Drawing]) -> list[list[Image.Image]]:
        """Draw sets.

        Args:
            drawings: any number, of any number of members.

        Returns:
            For each drawing an RGB picture of ``size`` x ``size`` pixels a member, in their order.

        Raises:
            DrawingRefused: a drawing lacks a source picture or mask that the editor needs.
            OutOfMemory: not even one member at a time fits the device.
        """

    @abstractmethod
    def count_tokens(self, sentence: str) -> int:
        """Tokens of a sentence, begin and end included."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What makes its pictures what they are; JSON-ready.

        Pipeline, solver, precision, device, versions of libraries, and ``reproducibility``: whether
        the same draw on the same kind of device is ``exact`` to the bit or within a tolerance.
        """


# Pipeline class of a `model_index.json` -> strategy, module and class of the editor.
EDITORS: dict[str, tuple[Strategy, str, str]] = {
    "StableDiffusionInstructPix2PixPipeline": ("instruction", "instruction", "InstructionEditor"),
    "StableDiffusionXLInstructPix2PixPipeline": ("instruction", "instruction", "InstructionEditor"),
    "QwenImageEditPlusPipeline": ("instruction", "transformers", "QwenEditor"),
    "FluxKontextPipeline": ("instruction", "transformers", "FluxKontextEditor"),
    "StableDiffusionPipeline": ("captions", "captions", "CaptionEditor"),
    "StableDiffusionXLPipeline": ("captions", "captions", "CaptionEditor"),
    "StableDiffusionInpaintPipeline": ("inpainting", "inpainting", "InpaintingEditor"),
    "StableDiffusionXLInpaintPipeline": ("inpainting", "inpainting", "InpaintingEditor"),
}


def pipeline_class(folder: Path) -> str:
    """The class that a pipeline folder names in its `model_index.json`.

    Raises:
        ModelRefused: there is no such file, it can't be read, or it asks for code of its own.
    """
    try:
        content = (folder / "model_index.json").read_bytes()
    except OSError as error:
        raise _no_pipeline(str(folder), error) from error
    return _named_class(content, str(folder))


def strategy_of(index: bytes, name: str) -> Strategy:
    """The strategy that serves a pipeline.

    Args:
        index: content of its `model_index.json`.
        name: of the pipeline, for messages.

    Raises:
        ModelRefused: the index can't be read, asks for code, or names what no strategy serves.
    """
    return _served(_named_class(index, name), name)[0]


def _served(named: str, name: str) -> tuple[Strategy, str, str]:
    if named not in EDITORS:
        raise ModelRefused(
            f"{name} holds a {named}, which no strategy serves; known are {', '.join(EDITORS)}"
        )
    return EDITORS[named]


def _named_class(index: bytes, name: str) -> str:
    try:
        named = json.loads(index)["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise _no_pipeline(name, error) from error
    # ["pipeline", "MyPipeline"] names a module of the folder, which would be run.
    if not isinstance(named, str):
        raise ModelRefused(f"{name} asks for code of its own ({named}), which is never run")
    return named


def _no_pipeline(name: str, error: Exception) -> ModelRefused:
    return ModelRefused(
        f"{name} is no pipeline folder: model_index.json is missing or names no class ({error}); "
        "give the folder of a pipeline saved by diffusers"
    )


def load_editor(folder: Path, settings: EditorSettings, device: str | None = None) -> Editor:
    """Load the editor that serves a pipeline folder.

    Args:
        folder: as a pipeline's ``save_pretrained`` writes it.
        settings: how to draw.
        device: torch device; by default CUDA where there is one, else the CPU.

    Raises:
        ModelRefused: the folder is missing, damaged, holds pickles or code, or is of a pipeline
            that no strategy serves.
        LicenceRefused: its licence forbids commercial use and was not accepted by name.
    """
    import importlib

    check_folder(folder)
    named = pipeline_class(folder)
    _, module, name = _served(named, str(folder))
    check_licence(folder, named, settings.accepted_licence)
    found = importlib.import_module(f"cf_lab_resources.engine.{module}")
    editor: Editor = getattr(found, name)(folder, settings, device)
    return editor
