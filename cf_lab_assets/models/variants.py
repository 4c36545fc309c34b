"""Smaller variants of an editor, and whether they draw as well as the original.

A variant's weights are an artifact of their own, with the original's hash in their manifest. The
int8 variant is the bf16 one whose linear layers torchao quantises when it is loaded: what it writes
are classes of its own, which safetensors alone can't hold.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cf_lab_assets.models import registry
from cf_lab_assets.models.registry import Manifest
from cf_lab_resources.engine.model_sources import DiskError

if TYPE_CHECKING:
    from cf_lab_assets.counterfactuals.scores import Judge
    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.engine.editors import Editor, EditorSettings

BF16 = "bf16"
INT8 = "int8"

# What a variant may lose; the lab's own promise is quality within one per cent of the original.
MAX_CITS_LOSS = 0.01  # share of the original's mean
MAX_SUCCESS_LOSS = 0.01  # points, as a share of all edits
# Six edits each, placebo included: of 240 draws a point of success is two. Original and variant
# share sources and noise, so that what differs is the rounding.
PORTRAITS = 40
PORTRAIT_SEED = 880_001  # never trained on; training and evaluation have others


@dataclass(frozen=True)
class Quality:
    """How well an editor draws the fixed portraits.

    Attributes:
        draws: how many were judged.
        cits: their mean Counterfactual Image-Text Score.
        success: share of them in which both scorers see every value that was asked for.
    """

    draws: int
    cits: float
    success: float


@dataclass(frozen=True)
class Variant:
    """A variant of an editor, or why there is none.

    Attributes:
        name: `BF16` or `INT8`.
        state: `made`, or why not.
        manifest: of its weights; None where it was not made.
        settings: how it is drawn with; likewise.
    """

    name: str
    state: str
    manifest: Manifest | None = None
    settings: EditorSettings | None = None


def make_variants(
    bucket: Bucket, folder: Path, parent: Manifest, settings: EditorSettings
) -> list[Variant]:
    """Make all variants of an editor that can be made here.

    Args:
        bucket: keeps their weights.
        folder: the original's files.
        parent: the original.
        settings: how the original draws.

    Raises:
        DiskError: there is no room to convert the weights in.
        BucketError: the bucket failed.
    """
    try:
        with tempfile.TemporaryDirectory() as temporary:
            converted = Path(temporary) / BF16
            convert_to_bfloat16(folder, converted)
            manifest = registry.store(
                bucket,
                converted,
                None,
                parent.revision,
                licence=parent.licence,
                parent=parent.sha256,
                variant=BF16,
            )
    except OSError as error:
        raise DiskError(
            f"the bf16 variant of {parent.uri} can't be written to {tempfile.gettempdir()} "
            f"({error.strerror}); make room for {parent.total_bytes // 2:,} bytes, or set TMPDIR"
        ) from error
    half = replace(settings, precision="bfloat16")
    made = [Variant(BF16, "made", manifest, half)]
    if importlib.util.find_spec("torchao"):
        state = "made when it is loaded, from the bf16 weights"
        made.append(Variant(INT8, state, manifest, replace(half, int8=True)))
    else:
        made.append(Variant(INT8, "not made: torchao is not installed"))
    return made


def convert_to_bfloat16(folder: Path, target: Path) -> None:
    """Copy a model folder with all floating-point weights rounded to bfloat16.

    Args:
        folder: has safetensors files, each of which fits the memory.
        target: is made.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors"))
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            about = opened.metadata()
        rounded = {
            name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()
        }
        save_file(rounded, target / path.relative_to(folder), about)


def measure(editor: Editor, judge: Judge, portraits: int = PORTRAITS) -> Quality:
    """Draw every single edit of the fixed portraits once, and judge the pictures.

    Args:
        editor: of any strategy.
        judge: the lab's own.
        portraits: how many of the fixed ones.
    """
    from PIL import Image

    from cf_lab_assets.counterfactuals.scores import Pair
    from cf_lab_assets.starter import text, world
    from cf_lab_assets.starter.evaluation import tasks_of
    from cf_lab_resources.engine.editors import Drawing, Member
    from cf_lab_resources.engine.pictures import square

    tasks = tasks_of(list(world.sample(portraits, PORTRAIT_SEED)))
    sources = [square(world.render(task.source), editor.size) for task in tasks]
    everywhere = Image.new("L", (editor.size, editor.size), 255)
    members = [
        Member(task.target.caption, text.instruction(task.target.attributes)) for task in tasks
    ]
    drawings = [
        Drawing(f"quality-{index}", 0, (member,), source, everywhere)
        for index, (member, source) in enumerate(zip(members, sources, strict=True))
    ]
    scores = judge.score(
        [
            Pair(source, picture, task.source.caption, task.target.caption, task.target.attributes)
            for task, source, (picture,) in zip(tasks, sources, editor.draw(drawings), strict=True)
        ]
    )
    return Quality(
        len(scores),
        sum(row["cits"] for row in scores) / len(scores),
        sum(not row["missed"] for row in scores) / len(scores),
    )


def losses(original: Quality, variant: Quality) -> Sequence[str]:
    """What a variant loses more of than it may, one line for each measure; none is good."""
    found = []
    least = original.cits * (1 - MAX_CITS_LOSS)
    if not variant.cits >= least:  # so that a score that is no number fails too
        found.append(f"mean cits {variant.cits:.4f} is under {least:.4f}")
    least = original.success - MAX_SUCCESS_LOSS
    if not variant.success >= least:
        found.append(f"edit success {variant.success:.1%} is under {least:.1%}")
    return found
