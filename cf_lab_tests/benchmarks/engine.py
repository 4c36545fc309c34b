"""The engine against the stock diffusers pipeline: pictures a second, and cost per accepted set.

    python -m cf_lab_tests.benchmarks.engine [--sources 12] [--draws 10] [--device cpu]

On the starter editor and unseen starter portraits, each source with its placebo and all its edits.
Both sides run by turns in one process, with the same weights, precision, device and threads; the
stock pipeline with the layout and the batch size that are fastest for it. Quality is that of the
lab's own judge: mean CITS of counterfactuals, and the share in which both scorers see all values.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from cf_lab_assets.counterfactuals import generation
from cf_lab_assets.counterfactuals.scores import Judge, Pair
from cf_lab_assets.models import artifacts
from cf_lab_assets.starter import text, world
from cf_lab_assets.starter.evaluation import PLACEBO, Task, tasks_of
from cf_lab_resources.bucket import open_bucket
from cf_lab_resources.engine.editors import (
    Drawing,
    Editor,
    EditorSettings,
    Member,
    load_editor,
    noise_seed,
)
from cf_lab_resources.engine.pictures import encode

SEED = 770_001  # of portraits that nothing was trained on
STOCK_BATCHES = (8, 32)
GUIDED = EditorSettings(steps=20, guidance_scale=3.0, image_guidance_scale=1.5)
PLAIN = EditorSettings(steps=20)
DEFAULT = EditorSettings()
# Named shortcuts from the guided setting: what each saves, and what it does to the pictures.
SHORTCUTS = {
    "guidance in the first half of the steps": replace(GUIDED, guidance_end=0.5),
    "dpm++ with 8 steps": replace(GUIDED, solver="dpm++", steps=8),
    "no guidance": PLAIN,
    "no guidance, 2 steps (the default)": DEFAULT,
}


@dataclass(frozen=True)
class Asked:
    """One edit of one source; a source's placebo comes before its other edits."""

    source_id: str
    source: Image.Image
    task: Task

    @property
    def member(self) -> Member:
        """As editors are asked for it."""
        return Member(self.task.target.caption, text.instruction(self.task.target.attributes))

    def pair(self, candidate: Image.Image) -> Pair:
        """As judges are asked."""
        source, target = self.task.source, self.task.target
        return Pair(self.source, candidate, source.caption, target.caption, target.attributes)


def edits_of(count: int) -> list[Asked]:
    """Placebo and all single edits of some portraits."""
    made = []
    for number, portrait in enumerate(world.sample(count, SEED)):
        source = world.render(portrait)
        made += [Asked(f"s{number}", source, task) for task in tasks_of([portrait])]
    return made


def by_engine(editor: Editor, asked: Sequence[Asked], draw: int = 0) -> list[Image.Image]:
    """Draw by the lab's engine."""
    groups: dict[str, list[Asked]] = {}
    for one in asked:
        groups.setdefault(one.source_id, []).append(one)
    drawn = editor.draw(
        [
            Drawing(name, draw, tuple(one.member for one in group), group[0].source)
            for name, group in groups.items()
        ]
    )
    return [picture for pictures in drawn for picture in pictures]


def by_stock(
    pipeline: Any, settings: EditorSettings, asked: Sequence[Asked], draw: int = 0
) -> list[Image.Image]:
    """Draw by the pipeline's own call, from the same noise."""
    import torch

    pictures: list[Image.Image] = []
    for start in range(0, len(asked), settings.batch_size):
        part = asked[start : start + settings.batch_size]
        pictures += pipeline(
            prompt=[one.member.instruction for one in part],
            image=[one.source for one in part],
            generator=[
                torch.Generator("cpu").manual_seed(noise_seed(one.source_id, draw)) for one in part
            ],
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            image_guidance_scale=settings.image_guidance_scale,
        ).images
    return pictures


def stock_pipeline(folder: Path, device: str) -> Any:
    """The pipeline as its documentation advises: inference mode, convolutions channels last."""
    import torch
    from diffusers import StableDiffusionInstructPix2PixPipeline

    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=dtype
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    return pipeline


def timed(work: Callable[[], list[Image.Image]]) -> tuple[float, list[Image.Image]]:
    """Seconds and pictures."""
    start = time.perf_counter()
    pictures = work()
    return time.perf_counter() - start, pictures


def quality(
    judge: Judge, asked: Sequence[Asked], drawn: Sequence[Image.Image]
) -> tuple[float, float]:
    """Mean CITS and share of edits that both scorers see, of counterfactuals."""
    rows = judge.score([one.pair(picture) for one, picture in zip(asked, drawn, strict=True)])
    edits = [row for row, one in zip(rows, asked, strict=True) if one.task.kind != PLACEBO]
    return (
        statistics.mean(row["cits"] for row in edits),
        statistics.mean(not row["missed"] for row in edits),
    )


def engine_alone(
    console: Console, folder: Path, asked: list[Asked], device: str, rounds: int
) -> None:
    """Pictures a second at equal settings, and with shortcuts."""
    judge = artifacts.load_judge()
    stock = stock_pipeline(folder, device)
    table = Table("", "images/s", "ratio", "CITS", "success", title="engine alone")
    equal = Table("setting", "stock", "engine", "ratio", "largest difference of levels")
    for name, settings in (
        ("default: 2 steps, no guidance", DEFAULT),
        ("20 steps, no guidance", PLAIN),
        ("20 steps, guidance 3.0 and 1.5", GUIDED),
    ):
        editor = load_editor(folder, settings, device)
        seconds: dict[str, list[float]] = {"engine": []}
        pictures: dict[str, list[Image.Image]] = {}
        for _ in range(rounds):
            for batch in STOCK_BATCHES:
                own = replace(settings, batch_size=batch)
                took, pictures["stock"] = timed(lambda: by_stock(stock, own, asked))  # noqa: B023
                seconds.setdefault(f"stock {batch}", []).append(took)
            took, pictures["engine"] = timed(lambda: by_engine(editor, asked))  # noqa: B023
            seconds["engine"].append(took)
        rates = {key: len(asked) / min(times) for key, times in seconds.items()}
        best = max(rate for key, rate in rates.items() if key != "engine")
        off = max(
            int(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).max())
            for a, b in zip(pictures["stock"], pictures["engine"], strict=True)
        )
        equal.add_row(
            name, f"{best:.1f}", f"{rates['engine']:.1f}", f"{rates['engine'] / best:.2f}", str(off)
        )
        if settings is GUIDED:
            cits, success = quality(judge, asked, pictures["stock"])
            table.add_row("stock, guided", f"{best:.1f}", "1.00", f"{cits:.3f}", f"{success:.1%}")
            reference = best
    console.print(equal)
    for name, settings in SHORTCUTS.items():
        editor = load_editor(folder, settings, device)
        took, drawn = min(
            (timed(lambda: by_engine(editor, asked)) for _ in range(rounds)),  # noqa: B023
            key=lambda one: one[0],
        )
        rate = len(asked) / took
        cits, success = quality(judge, asked, drawn)
        ratio = f"{rate / reference:.2f}"
        table.add_row(name, f"{rate:.1f}", ratio, f"{cits:.3f}", f"{success:.1%}")
    console.print(table)


def accepted_sets(asked: Sequence[Asked], good: Sequence[bool]) -> int:
    """Sets of which every member, and the placebo of the source, has an accepted draw."""
    whole: dict[tuple[str, str], bool] = {}
    for one, is_good in zip(asked, good, strict=True):
        name = one.source_id, one.task.kind
        whole[name] = whole.get(name, True) and is_good
    return sum(
        ok and whole[source, PLACEBO] for (source, kind), ok in whole.items() if kind != PLACEBO
    )


def cost_per_set(
    console: Console, folder: Path, asked: list[Asked], device: str, draws: int
) -> None:
    """Seconds an accepted set: fixed draws and a filter, against draws until accepted."""
    judge = artifacts.load_judge()
    stock, threshold = stock_pipeline(folder, device), judge.calibration.threshold
    by_stock(stock, replace(DEFAULT, batch_size=STOCK_BATCHES[-1]), asked)  # the first is slow
    start = time.perf_counter()
    good = [False] * len(asked)
    for draw in range(draws):
        drawn = by_stock(stock, replace(DEFAULT, batch_size=STOCK_BATCHES[-1]), asked, draw)
        rows = judge.score([one.pair(picture) for one, picture in zip(asked, drawn, strict=True)])
        good = [
            was or (not row["missed"] and row["cits"] >= threshold)
            for was, row in zip(good, rows, strict=True)
        ]
    reference = time.perf_counter() - start, accepted_sets(asked, good)
    with tempfile.TemporaryDirectory() as scratch:
        bucket = open_bucket(Path(scratch).as_uri())
        models = generation.Loaded(load_editor(folder, DEFAULT, device), judge, "")
        by_engine(models.editor, asked)
        start = time.perf_counter()
        lab = _drawn_until_accepted(bucket, models, asked)
        ours = time.perf_counter() - start, lab
    table = Table("procedure", "seconds", "accepted sets", "s a set", "cheaper by", title="cost")
    for name, (seconds, sets) in (
        (f"stock pipeline, {draws} draws of each edit, then filter", reference),
        ("lab, draws until accepted", ours),
    ):
        each = seconds / max(sets, 1)
        ratio = reference[0] / max(reference[1], 1) / each
        table.add_row(name, f"{seconds:.1f}", str(sets), f"{each:.3f}", f"{ratio:.1f}")
    console.print(table)


def _drawn_until_accepted(bucket: Any, models: generation.Loaded, asked: Sequence[Asked]) -> int:
    """Sets accepted by the lab's own step, a chunk of sources at a time."""
    edits, sources = [], {}
    for number, one in enumerate(asked):
        if one.source_id not in sources:
            key = bucket.put_content("images", encode(one.source), ".png")
            sources[one.source_id] = {"image_key": key, "extra": {}}
        edits.append(
            {
                "edit_id": f"e{number}",
                "source_id": one.source_id,
                "attribute": None if one.task.kind == PLACEBO else one.task.kind,
                "from_values": one.task.source.attributes,
                "to_values": one.task.target.attributes,
                "base_caption": one.task.source.caption,
                "caption": one.member.caption,
                "instruction": one.member.instruction,
            }
        )
    generator = generation.Generator(
        bucket, "benchmark", lambda: models, {}, DEFAULT, generation.GenerationSettings().max_draws
    )
    good: dict[str, bool] = {}
    size = generation.GenerationSettings().chunk_sources
    names = list(sources)
    for start in range(0, len(names), size):
        chunk = set(names[start : start + size])
        for row in generator.rows([e for e in edits if e["source_id"] in chunk], sources):
            good[row["edit_id"]] = good.get(row["edit_id"], False) or row["accepted"]
    return accepted_sets(asked, [good.get(edit["edit_id"], False) for edit in edits])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=int, default=12)
    parser.add_argument("--draws", type=int, default=10, help="of the reference, for each edit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    console, folder = Console(), artifacts.model_folder(artifacts.EDITOR)
    asked = edits_of(chosen.sources)
    console.print(f"{len(asked)} pictures of {chosen.sources} sources, on {chosen.device}")
    engine_alone(console, folder, asked, chosen.device, chosen.rounds)
    cost_per_set(console, folder, asked, chosen.device, chosen.draws)


if __name__ == "__main__":
    main()
