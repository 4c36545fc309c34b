"""The engine against the stock diffusers pipeline: pictures a second, and cost per accepted set.

    python -m cf_lab_tests.benchmarks.engine [--sources 8] [--judged 40] [--draws 100]

On the starter editor and unseen starter portraits, each source with its placebo and all its edits.
Both sides run by turns in one process, with the same weights, precision, device and threads, each
with the batch size that is fastest for it. Eight sources have 48 pictures, which fill the batches
of both sides; the engine fills up an unfinished one with copies, so that pictures stay the same.
Quality is that of the lab's own judge, on more sources: mean CITS of counterfactuals, and the
share in which both scorers see all values. The procedure that the lab's is compared with draws a
fixed number of candidates of each edit and filters them, a hundred in SocialCounterfactuals
(Howard et al. 2024).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
BATCHES = (8, 48)
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


def fastest(
    work: dict[str, Callable[[], list[Image.Image]]], rounds: int
) -> tuple[dict[str, float], dict[str, list[Image.Image]]]:
    """Least seconds and pictures of each way, all by turns; the first round takes no time."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    pictures: dict[str, list[Image.Image]] = {}
    for number in range(rounds + 1):
        for name, draw in work.items():
            took, pictures[name] = timed(draw)
            if number:
                seconds[name].append(took)
    return {name: min(times) for name, times in seconds.items()}, pictures


def ways(
    folder: Path, stock: Any, settings: EditorSettings, asked: list[Asked], device: str
) -> dict[str, Callable[[], list[Image.Image]]]:
    """Both sides at each batch size."""
    made: dict[str, Callable[[], list[Image.Image]]] = {}
    for batch in BATCHES:
        own = replace(settings, batch_size=batch)
        made[f"stock {batch}"] = partial(by_stock, stock, own, asked)
        made[f"engine {batch}"] = partial(anew, load_editor(folder, own, device), asked)
    return made


def anew(editor: Editor, asked: Sequence[Asked]) -> list[Image.Image]:
    """By the engine, which has forgotten what it encoded the last time."""
    for kept in ("_sources", "_texts"):
        getattr(editor, kept).clear()
    return by_engine(editor, asked)


def engine_alone(
    console: Console,
    folder: Path,
    asked: list[Asked],
    judged: list[Asked],
    device: str,
    rounds: int,
) -> None:
    """Pictures a second at equal settings, and with shortcuts."""
    judge = artifacts.load_judge()
    stock = stock_pipeline(folder, device)
    table = Table("", "images/s", "ratio", "CITS", "success", title="shortcuts")
    equal = Table("setting", "stock", "engine", "ratio", "largest difference of levels")
    for name, settings in (
        ("default: 2 steps, no guidance", DEFAULT),
        ("20 steps, no guidance", PLAIN),
        ("20 steps, guidance 3.0 and 1.5", GUIDED),
    ):
        seconds, pictures = fastest(ways(folder, stock, settings, asked, device), rounds)
        best = {
            side: min(took for way, took in seconds.items() if way.startswith(side))
            for side in ("stock", "engine")
        }
        off = max(
            int(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).max())
            for a, b in zip(pictures["stock 48"], pictures["engine 8"], strict=True)
        )
        rates = [f"{len(asked) / best[side]:.1f}" for side in ("stock", "engine")]
        equal.add_row(name, *rates, f"{best['stock'] / best['engine']:.2f}", str(off))
    console.print(equal)
    reference = len(asked) / best["stock"]
    own = replace(GUIDED, batch_size=BATCHES[-1])
    cits, success = quality(judge, judged, by_stock(stock, own, judged))
    table.add_row("stock, guided", f"{reference:.1f}", "1.00", f"{cits:.4f}", f"{success:.1%}")
    for name, settings in SHORTCUTS.items():
        editor = load_editor(folder, settings, device)
        seconds, _ = fastest({name: partial(anew, editor, asked)}, rounds)
        rate = len(asked) / seconds[name]
        cits, success = quality(judge, judged, by_engine(editor, judged))
        ratio = f"{rate / reference:.2f}"
        table.add_row(name, f"{rate:.1f}", ratio, f"{cits:.4f}", f"{success:.1%}")
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
    own = replace(DEFAULT, batch_size=BATCHES[-1])
    by_stock(stock, own, asked)  # the first is slow
    table = Table("procedure", "seconds", "accepted sets", "s a set", "lab is cheaper by")
    start = time.perf_counter()
    good = [False] * len(asked)
    reference: dict[int, tuple[float, int]] = {}
    for draw in range(draws):
        drawn = by_stock(stock, own, asked, draw)
        rows = judge.score([one.pair(picture) for one, picture in zip(asked, drawn, strict=True)])
        good = [
            was or (not row["missed"] and row["cits"] >= threshold)
            for was, row in zip(good, rows, strict=True)
        ]
        if draw + 1 in (10, draws):
            reference[draw + 1] = time.perf_counter() - start, accepted_sets(asked, good)
    with tempfile.TemporaryDirectory() as scratch:
        bucket = open_bucket(Path(scratch).as_uri())
        models = generation.Loaded(load_editor(folder, DEFAULT, device), judge, "")
        by_engine(models.editor, asked)
        start = time.perf_counter()
        sets = _drawn_until_accepted(bucket, models, asked)
        ours = (time.perf_counter() - start) / max(sets, 1)
    for count, (seconds, accepted) in reference.items():
        each = seconds / max(accepted, 1)
        name = f"stock pipeline, {count} draws of each edit, then filter"
        table.add_row(name, f"{seconds:.1f}", str(accepted), f"{each:.3f}", f"{each / ours:.1f}")
    table.add_row("lab, draws until accepted", f"{ours * sets:.1f}", str(sets), f"{ours:.3f}", "")
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
                "strategy": "instruction",
                "kind": PLACEBO if one.task.kind == PLACEBO else "counterfactual",
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
    parser.add_argument("--sources", type=int, default=8, help="that speed is measured on")
    parser.add_argument("--judged", type=int, default=40, help="sources for quality")
    parser.add_argument("--cost", type=int, default=4, help="sources for the cost of a set")
    parser.add_argument("--draws", type=int, default=100, help="of the reference, for each edit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    console, folder = Console(), artifacts.model_folder(artifacts.EDITOR)
    asked, judged = edits_of(chosen.sources), edits_of(chosen.judged)
    console.print(
        f"{len(asked)} pictures of {chosen.sources} sources, quality of {len(judged)} pictures, on "
        f"{chosen.device}"
    )
    cost_per_set(console, folder, edits_of(chosen.cost), chosen.device, chosen.draws)
    engine_alone(console, folder, asked, judged, chosen.device, chosen.rounds)


if __name__ == "__main__":
    main()
