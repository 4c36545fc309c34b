"""Time a set and peak memory from edit plan to dataset, as a batch grows.

    python -m cf_lab_tests.benchmarks.growth [--folder /dev/shm]

Starter portraits, three sets each. ``real`` draws and judges with the starter models; ``fake`` in
their place paints a flat picture and accepts by a hash, so that what is left is what the lab does
beside its models, at sizes that the models would take hours for. Plan, chunks, pictures, tables,
replay and dataset are the lab's own in both. Each size runs in a fresh process, whose peak is its
own; time begins when its models are loaded, a small batch was made and the batch was planned once,
since a caption that was read before is not read again and large batches repeat more of them.
Sources are taken in by another process beforehand. The sizes take turns, and a size's time is the
median of its rounds: the least would favour the small ones, which find a quiet second more easily
than a large one finds quiet minutes. ``--folder`` says where the bucket lies: ext4's share of the
time was seen to treble from one round to the next, once folders had been deleted, so that the lab's
own growth is only seen in memory. Below the table stand the line of seconds over sets that fits
best, by least squares of relative deviations, and how far the sizes are off it.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from cf_lab_assets.counterfactuals import (
    dataset,
    drawing,
    generation,
    planning,
    replay,
    rounds,
    tables,
)
from cf_lab_assets.counterfactuals.plan import Planner
from cf_lab_assets.counterfactuals.rewrite import Rewriter
from cf_lab_assets.counterfactuals.scores import Calibration, Pair
from cf_lab_assets.counterfactuals.taxonomy import default_taxonomy
from cf_lab_assets.models import artifacts
from cf_lab_assets.sources.ingest import ingest
from cf_lab_assets.starter import world
from cf_lab_assets.starter.portraits import write_image_folder
from cf_lab_resources.bucket import Bucket, open_bucket
from cf_lab_resources.engine.editors import Drawing, EditorSettings, Member
from cf_lab_tests.benchmarks.planning import peak_memory

BATCH = "growing"
ATTRIBUTES = list(world.ATTRIBUTES)
SETTINGS = EditorSettings()
WARM_SOURCES = 8
FAKE_ACCEPTED = 0.9
SCORES = dict.fromkeys(("sim_0", "sim_1", "sim_dir", "sim_img", "preservation"), 0.5)


@dataclass(frozen=True)
class Measured:
    """Seconds of the wall and of the processor, sets planned and accepted, MiB at the peak."""

    wall: float
    processor: float
    sets: int
    accepted: int
    peak: float


def share(text: str) -> float:
    """A number in [0, 1) by a text's hash."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


class FakeEditor:
    """Paints each member in one colour, by the hash of what is asked."""

    size = 64
    strategy, draws_whole_sets = "instruction", False

    def draw(self, drawings: Sequence[Drawing]) -> list[list[Image.Image]]:
        """See `Editor`."""
        return [[self._paint(one, member) for member in one.members] for one in drawings]

    def _paint(self, drawing: Drawing, member: Member) -> Image.Image:
        named = f"{drawing.set_id}/{drawing.draw}/{member.caption}"
        colour = hashlib.sha256(named.encode()).digest()
        picture = Image.new("RGB", (self.size, self.size), tuple(colour[:3]))
        picture.putpixel((0, 0), tuple(colour[3:6]))
        return picture

    def describe(self) -> dict[str, Any]:
        """See `Editor`."""
        return {"pipeline": "fake", "reproducibility": "exact"}


class FakeJudge:
    """Accepts a fixed share of what it is shown, by the picture's hash."""

    calibration = Calibration(0.0, 0.0, 0.0, 0.0, 0.0, threshold=0.5)

    def score(self, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
        """See `Judge`."""
        accepted = [share(str(pair.candidate.tobytes()[:6])) < FAKE_ACCEPTED for pair in pairs]
        return [{**SCORES, "cits": 0.9 if good else 0.1, "missed": []} for good in accepted]


def load_real() -> generation.Loaded:
    """The starter models."""
    return generation.Loaded(artifacts.load_editor(SETTINGS), artifacts.load_judge(), "real")


def load_fake() -> generation.Loaded:
    """What stands in for them."""
    editor: Any = FakeEditor()
    judge: Any = FakeJudge()
    return generation.Loaded(editor, judge, "fake")


ENGINES: Mapping[str, Callable[[], generation.Loaded]] = {"real": load_real, "fake": load_fake}


def deliver(url: str, sources: int) -> None:
    """Take portraits into an empty bucket."""
    with tempfile.TemporaryDirectory() as folder:
        portraits = Path(folder) / "portraits"
        write_image_folder(portraits, sources, seed=4)
        ingest(portraits, BATCH, open_bucket(url), world.ATTRIBUTES)


@cache
def rewriter() -> Rewriter:
    """The process's own, which remembers captions."""
    return Rewriter(default_taxonomy())


def plan(bucket: Bucket) -> int:
    """Plan the batch; how many sets."""
    planner = Planner(rewriter(), ATTRIBUTES)
    planning.write_plan(bucket, BATCH, planner, None, {})
    return len(ATTRIBUTES) * rounds.planned_sources(bucket, BATCH)


def draw(bucket: Bucket, models: generation.Loaded, max_draws: int, chunk_sources: int) -> int:
    """What the step `draw_and_score` does, without Dagster; how many sets were accepted."""
    generator = generation.Generator(bucket, BATCH, lambda: models, {}, SETTINGS, max_draws)
    with tables.staged(*drawing.TABLES) as staged:
        draws = drawing.Drawing(generator, staged, chunk_sources)
        for _ in rounds.draw_batch(bucket, BATCH, draws, None):
            pass
        dataset.write_made_with(bucket, BATCH, {}, {})
        for table in drawing.TABLES:
            staged.put(bucket, BATCH, table)
        found = replay.replay(bucket, draws.drawn.to_replay, models.editor, models.engine)
        if not found.passed:
            raise AssertionError(f"replay: {found}")
        return staged.count("accepted_sets")


def measure(engine: str, warm: str, url: str) -> Measured:
    """From edit plan to dataset, in this process, after the same of a small batch."""
    models = ENGINES[engine]()
    make(open_bucket(warm), models)
    plan(open_bucket(url))
    wall, processor = time.perf_counter(), time.process_time()
    sets, accepted = make(open_bucket(url), models)
    return Measured(
        time.perf_counter() - wall, time.process_time() - processor, sets, accepted, peak_memory()
    )


def make(bucket: Bucket, models: generation.Loaded) -> tuple[int, int]:
    """Plan, draw and make the dataset; sets planned and accepted."""
    limits, sets = generation.GenerationSettings(), plan(bucket)
    accepted = draw(bucket, models, limits.max_draws, limits.chunk_sources)
    dataset.build_dataset(bucket, [BATCH])
    return sets, accepted


def alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        given = pool.apply(work, arguments)
        pool.close()
        pool.join()
    return given


def measure_fresh(engine: str, sets: int, within: Path | None) -> Measured:
    """From edit plan to dataset, in a fresh process and an empty bucket."""
    with tempfile.TemporaryDirectory(dir=within) as folder:
        warm, url = (f"file://{folder}/{name}" for name in ("warm", "growing"))
        alone(deliver, warm, WARM_SOURCES)
        alone(deliver, url, -(-sets // len(ATTRIBUTES)))
        measured: Measured = alone(measure, engine, warm, url)
    return measured


def medians(engine: str, sizes: Sequence[int], rounds: int, within: Path | None) -> list[Measured]:
    """The median round of each size, the sizes by turns; of an even number the faster."""
    found: dict[int, list[Measured]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            found[size].append(measure_fresh(engine, size, within))
    return [sorted(found[size], key=lambda one: one.wall)[(rounds - 1) // 2] for size in sizes]


def main() -> None:
    """Print a row a size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--real", type=int, nargs="*", default=[100, 300, 1000], metavar="SETS")
    parser.add_argument("--fake", type=int, nargs="*", default=[100, 1000, 10_000], metavar="SETS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    console = Console()
    table = Table("engine", title="from edit plan to dataset, one process")
    for column in ("sets", "accepted", "seconds", "ms a set", "ms cpu", "off the line", "MiB"):
        table.add_column(column, justify="right")
    lines = []
    for engine in ENGINES:
        rows = medians(engine, getattr(chosen, engine), chosen.rounds, chosen.folder)
        if not rows:
            continue
        start, slope = line([one.sets for one in rows], [one.wall for one in rows])
        lines.append(f"{engine}: {start:.1f} s and {1000 * slope:.2f} ms a set")
        for one in rows:
            table.add_row(
                engine,
                f"{one.sets:,}",
                f"{one.accepted:,}",
                f"{one.wall:.1f}",
                f"{1000 * one.wall / one.sets:.2f}",
                f"{1000 * one.processor / one.sets:.2f}",
                f"{one.wall / (start + slope * one.sets) - 1:+.1%}",
                f"{one.peak:.0f}",
            )
    console.print(table)
    console.print("\n".join(lines))


def line(sets: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Start and slope of the line whose relative deviations have the least squares."""
    weights = 1 / np.asarray(seconds)
    columns = np.stack([weights, np.asarray(sets) * weights], axis=1)
    (start, slope), *_ = np.linalg.lstsq(columns, np.ones(len(sets)), rcond=None)
    return float(start), float(slope)


if __name__ == "__main__":
    main()
