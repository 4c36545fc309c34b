"""Time of a refresh for one new batch, stage by stage, as a lab's history grows.

    python -m cf_lab_tests.benchmarks.refreshing [--folder /dev/shm]

A lab of its own, with its own Postgres, Redis, bucket and Dagster instance, takes batch after batch
and release after release by the lab's own command, `pipeline.run`. At each of ``--history``, as
batches:releases, the refresh which one more batch causes is measured ``--rounds`` times, each in a
fresh process that ends with a new current release and a backup. Painter and judge of `growth` stand
in for editor and scorers, whose work is that of the new batch alone; ``--real`` takes the starter
models. The audited models are the starter's in both.

Two things grow with a history: what is remembered (partitions, runs, events, releases, objects in
the bucket), and the dataset, which holds all batches. To tell one from the other, a second lab has
the few batches and releases of the first line and the sets of the last: its batches are larger.

A stage is a step of a Dagster run, with its seconds of the wall and of this process's processor;
``between`` is what is left: Dagster's own work between steps, and the command's. What servers do is
in the wall's seconds only. Each number is the median of the rounds. Of a busy machine only the
processor's seconds are worth something.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import dagster as dg
from rich.console import Console
from rich.table import Table

from cf_lab_assets import pipeline
from cf_lab_assets.counterfactuals import assets as counterfactuals
from cf_lab_assets.definitions import build_defs
from cf_lab_assets.instance import open_instance
from cf_lab_assets.sources.ingest import ingest
from cf_lab_assets.starter import world
from cf_lab_assets.starter.portraits import write_image_folder
from cf_lab_resources import embedded
from cf_lab_resources.bucket import Bucket, open_bucket
from cf_lab_resources.catalog import Catalog, open_catalog
from cf_lab_resources.settings import Settings
from cf_lab_tests.benchmarks import growth

BETWEEN, WHOLE = "between", "whole"
LIMIT = 1.1


class Seconds(NamedTuple):
    """Of the wall and of this process's processor."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> Seconds:
        """On both clocks."""
        return cls(time.perf_counter(), time.process_time())

    def __add__(self, other: Seconds) -> Seconds:  # type: ignore[override]
        return Seconds(self.wall + other.wall, self.processor + other.processor)

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall - other.wall, self.processor - other.processor)


class Size(NamedTuple):
    """A history: batches of so many portraits, and releases."""

    batches: int
    releases: int
    portraits: int


@dataclass(frozen=True)
class Lab:
    """What a command has open."""

    definitions: dg.Definitions
    instance: dg.DagsterInstance
    bucket: Bucket
    catalog: Catalog


@contextlib.contextmanager
def opened(home: Path, real: bool) -> Iterator[Lab]:
    """The lab of a home, as a command opens it."""
    os.environ["CF_LAB_HOME"] = str(home)
    settings = Settings.from_env()
    if not real:
        counterfactuals._load = lambda *_: growth.load_fake()
    with embedded.running(settings) as endpoints:
        os.environ.update(endpoints.environ())
        with (
            open_instance(settings, endpoints) as instance,
            open_catalog(endpoints.postgres_url) as catalog,
        ):
            catalog.migrate()
            yield Lab(build_defs(), instance, open_bucket(endpoints.bucket_url), catalog)


def deliver(lab: Lab, number: int, portraits: int) -> None:
    """Take in a batch of portraits that no other batch has."""
    with tempfile.TemporaryDirectory() as folder:
        source, batch = Path(folder) / "portraits", f"batch-{number:04d}"
        write_image_folder(source, portraits, seed=1000 + number)
        ingest(source, batch, lab.bucket, world.ATTRIBUTES)


def grow(home: Path, real: bool, done: Size, wanted: Size) -> None:
    """Deliver batches, with a release after every so many, until there are as many of both."""
    with opened(home, real) as lab:
        number = done.batches
        for release in range(done.releases, wanted.releases):
            share = (release + 1 - done.releases) / (wanted.releases - done.releases)
            until = done.batches + round(share * (wanted.batches - done.batches))
            for one in range(number, until):
                deliver(lab, one, wanted.portraits)
            number = until
            refresh(lab)


class Stopwatch(logging.Handler):
    """Wall and processor seconds of each step that runs in this process, told by its events."""

    def __init__(self) -> None:
        super().__init__()
        self.took: dict[str, list[Seconds]] = defaultdict(list)
        self._began: dict[str, Seconds] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Note when a step began or ended."""
        event = (getattr(record, "dagster_meta", None) or {}).get("dagster_event")
        if event is None or not event.step_key:
            return
        if event.is_step_start:
            self._began[event.step_key] = Seconds.now()
        elif event.is_step_success:
            self.took[event.step_key].append(Seconds.now() - self._began.pop(event.step_key))


def refresh(lab: Lab) -> dict[str, Seconds]:
    """Bring the current release up to date; seconds by stage, and `WHOLE`."""
    logger, watch = logging.getLogger("cf_lab.run"), Stopwatch()
    logger.handlers[:] = [watch]
    start = Seconds.now()
    pipeline.run(lab.definitions, lab.instance, lab.bucket, lab.catalog, lambda line: None)
    whole = Seconds.now() - start
    stages = {stage: sum(times, Seconds(0, 0)) for stage, times in watch.took.items()}
    between = whole - sum(stages.values(), Seconds(0, 0))
    return {**stages, BETWEEN: between, WHOLE: whole}


def measure(home: Path, real: bool, number: int, portraits: int) -> dict[str, Seconds]:
    """One more batch and its refresh; seconds by stage."""
    with opened(home, real) as lab:
        deliver(lab, number, portraits)
        return refresh(lab)


def medians(rounds: Sequence[Mapping[str, Seconds]]) -> dict[str, Seconds]:
    """Of each stage; one that a round lacks took no time in it."""
    none = Seconds(0, 0)
    stages = {stage for one in rounds for stage in one}
    return {
        stage: Seconds(
            *(statistics.median(one.get(stage, none)[clock] for one in rounds) for clock in (0, 1))
        )
        for stage in stages
    }


def lab_of(
    home: Path, sizes: Sequence[Size], chosen: argparse.Namespace, console: Console
) -> list[dict[str, Seconds]]:
    """Let one lab grow from size to size; the refresh at each."""
    found, done = [], Size(0, 0, 0)
    for size in sizes:
        console.print(f"{size.batches} batches of {size.portraits}, {size.releases} releases")
        growth.alone(grow, home, chosen.real, done, size)
        # The small batch that is measured is the same everywhere, and part of what follows.
        rounds = [
            growth.alone(measure, home, chosen.real, size.batches + one, chosen.portraits)
            for one in range(chosen.rounds)
        ]
        found.append(medians(rounds))
        done = Size(size.batches + chosen.rounds, size.releases + chosen.rounds, size.portraits)
    return found


def main() -> None:
    """Print a row a stage, and how much longer the whole takes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--history", nargs="+", default=["5:2", "200:50"], metavar="N:RELEASES")
    parser.add_argument("--portraits", type=int, default=6, help="of a batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--real", action="store_true", help="the starter models draw and judge")
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    sizes = [Size(*map(int, one.split(":")), chosen.portraits) for one in chosen.history]
    few, many = sizes[0], sizes[-1]
    large = few._replace(portraits=round(many.portraits * many.batches / few.batches))
    console = Console()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        columns = lab_of(Path(folder) / "growing", sizes, chosen, console)
        columns += lab_of(Path(folder) / "large", [large], chosen, console)
    titles = [f"{one.batches} batches, {one.releases} releases" for one in sizes]
    console.print(table(columns, [*titles, f"{few.batches} batches of the last one's sets"]))
    first, last, beside = (column[WHOLE] for column in (columns[0], columns[-2], columns[-1]))
    for clock in Seconds._fields:
        seconds = [getattr(one, clock) for one in (first, last, beside)]
        console.print(
            f"{clock}: {seconds[1] / seconds[0] - 1:+.1%} from the first to the last, of it "
            f"{(seconds[2] - seconds[0]) / seconds[0]:+.1%} by the size of the dataset; at most "
            f"{LIMIT - 1:.0%} is wanted"
        )


def table(columns: Sequence[Mapping[str, Seconds]], titles: Sequence[str]) -> Table:
    """A row a stage, those first whose processor's seconds grow most."""
    made = Table("stage", title="a refresh of one new batch: seconds, and processor's")
    for title in titles:
        made.add_column(title, justify="right")
    none = Seconds(0, 0)

    def growing(stage: str) -> float:
        first, last = (columns[place].get(stage, none) for place in (0, len(titles) - 2))
        return last.processor - first.processor

    stages = {stage for column in columns for stage in column}
    for stage in sorted(stages, key=growing, reverse=True):
        cells = (column.get(stage, none) for column in columns)
        made.add_row(stage, *(f"{one.wall:.1f}  {one.processor:.2f}" for one in cells))
    return made


if __name__ == "__main__":
    main()
