"""Editors by diffusers' pipelines: loading, precision, and what is on record of them."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from abc import abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cf_lab_resources.engine.batching import Batches
from cf_lab_resources.engine.editors import (
    Drawing,
    Editor,
    EditorSettings,
    Member,
    pipeline_class,
)
from cf_lab_resources.engine.folders import ModelRefused, quieten_libraries

if TYPE_CHECKING:
    import torch
    from PIL import Image


class Slot(NamedTuple):
    """A place in a batch: one member of one draw, by its number in it."""

    drawing: Drawing
    number: int

    @property
    def member(self) -> Member:
        """Which member."""
        return self.drawing.members[self.number]


class PipelineEditor(Editor):
    """An editor that works with the parts of a diffusers pipeline."""

    def __init__(self, folder: Path, settings: EditorSettings, device: str | None = None) -> None:
        """Load the pipeline; see `editors.load_editor`, which has checked the folder.

        Raises:
            ModelRefused: a part is missing or damaged.
        """
        import torch

        self.settings = settings
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = _dtype(settings.precision, self.device)
        self._pipeline = self._load(folder).to(self.device)
        self.max_tokens = int(self._pipeline.tokenizer.model_max_length)
        self._batches = Batches(settings.batch_size)

    def draw(self, drawings: Sequence[Drawing]) -> list[list[Image.Image]]:
        """See `Editor.draw`."""
        for drawing in drawings:
            self._check(drawing)
        slots = [
            Slot(drawing, number)
            for drawing in drawings
            for number, _ in enumerate(drawing.members)
        ]
        pictures = iter(self._batches.run(slots, self._draw_batch))
        return [[next(pictures) for _ in drawing.members] for drawing in drawings]

    def count_tokens(self, sentence: str) -> int:
        """See `Editor.count_tokens`."""
        return len(self._pipeline.tokenizer(sentence).input_ids)

    def describe(self) -> dict[str, Any]:
        """See `Editor.describe`."""
        import diffusers
        import torch
        import transformers

        return {
            "pipeline": type(self._pipeline).__name__,
            "strategy": self.strategy,
            "solver": type(self._solver()).__name__,
            "precision": str(self._dtype).removeprefix("torch."),
            "device": _device_kind(self.device),
            "reproducibility": "tolerance" if self.device.startswith("cuda") else "exact",
            "batch_size": self.settings.batch_size,
            "libraries": {
                "torch": torch.__version__,
                "diffusers": diffusers.__version__,
                "transformers": transformers.__version__,
                "python": platform.python_version(),
                **({"torchao": version("torchao")} if self.settings.int8 else {}),
            },
        }

    def _load(self, folder: Path) -> Any:
        quieten_libraries()  # before the import below, which warns of packages we do without
        import diffusers

        kind = getattr(diffusers, pipeline_class(folder))
        try:
            pipeline = kind.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=self._dtype,
                **self._parts(folder),
            )
        except Exception as error:  # each library has errors of its own for a damaged file
            raise ModelRefused(
                f"{folder} can't be loaded as a {kind.__name__}: "
                f"{(str(error).splitlines() or [type(error).__name__])[0]}"
            ) from error
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _parts(self, folder: Path) -> dict[str, Any]:
        """Parts of the pipeline that the library's own loading can't load as they are needed."""
        return {}

    @abstractmethod
    def _check(self, drawing: Drawing) -> None:
        """Refuse a drawing that lacks what is needed."""

    @abstractmethod
    def _draw_batch(self, slots: Sequence[Slot]) -> list[Image.Image]:
        """The pictures of one batch, or of the first of its slots; see `Batches.run`."""

    def _solver(self) -> Any:
        """The scheduler that is used."""
        return self._pipeline.scheduler


def quantise(model: Any) -> None:
    """Keep the weights of a model's linear layers as int8; it goes on reckoning in its precision.

    Raises:
        ModelRefused: torchao is not installed.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise ModelRefused(
            "int8 needs the package torchao; install the lab with its extra int8, or leave the "
            "option out"
        ) from error
    quantize_(model, Int8WeightOnlyConfig())


def compile_for(device: str, model: Any) -> None:
    """Have a model compiled by torch when it is first called, anew for each shape of its inputs.

    Raises:
        ModelRefused: there is no C++ compiler.
    """
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise ModelRefused(
            f"compiled needs a C++ compiler, and there is no {compiler}; install one, name it in "
            "CXX, or leave the option out"
        )
    # Batches have few shapes, and code for any shape is slower. CUDA graphs spare the launches.
    mode = "reduce-overhead" if device.startswith("cuda") else "default"
    model.compile(mode=mode, dynamic=False)


def _dtype(precision: str, device: str) -> torch.dtype:
    import torch

    if precision != "auto":
        found: torch.dtype = getattr(torch, precision)
        return found
    if not device.startswith("cuda"):
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _device_kind(device: str) -> str:
    """What a result may depend on: the processor's architecture, or the GPU's name."""
    import torch

    if device.startswith("cuda"):
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"{device} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def generator(seed: int) -> torch.Generator:
    """A source of noise; on the CPU also for CUDA, so that it is the same on every device."""
    import torch

    return torch.Generator("cpu").manual_seed(seed)
