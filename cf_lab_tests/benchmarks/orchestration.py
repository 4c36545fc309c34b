"""What Dagster adds to a partition's run: the step through an instance, against its bare calls.

    python -m cf_lab_tests.benchmarks.orchestration [--sources 240] [--rounds 1]

``dagster`` runs the partition's real step (candidates, scores, sets and their checks) on an
instance with its own SQLite files; ``engine`` makes the same calls without Dagster, the parts that
the asset computes for its metadata left out. Both load the starter models and take a fresh bucket
with the same portraits, by turns, each in a process of its own whose imports are not counted. The
ratio is that of the least times, as other work on the machine only adds; processor seconds, which
that disturbs less, stand beside.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable

import dagster as dg
from rich.console import Console
from rich.table import Table

from cf_lab_assets import names
from cf_lab_assets.counterfactuals import generation
from cf_lab_assets.counterfactuals.assets import draw_and_score
from cf_lab_resources.bucket import open_bucket
from cf_lab_resources.dagster import BucketResource
from cf_lab_tests.benchmarks import growth

LIMIT = 1.1


def by_dagster(url: str) -> None:
    """A run of the step."""
    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        instance.add_dynamic_partitions(str(names.SOURCE_BATCHES.name), [growth.BATCH])
        dg.materialize(
            [draw_and_score],
            instance=instance,
            partition_key=growth.BATCH,
            resources={"bucket": BucketResource(url=url)},
        )


def by_engine(url: str) -> None:
    """The same calls."""
    limits = generation.GenerationSettings()
    growth.draw(open_bucket(url), growth.load_real(), limits.max_draws, limits.chunk_sources)


WAYS: dict[str, Callable[[str], None]] = {"engine": by_engine, "dagster": by_dagster}


def seconds(way: str, warm: str, url: str) -> tuple[float, float]:
    """Of the wall and of the processor, in this process, after the same of a small batch."""
    for one in (warm, url):
        growth.plan(open_bucket(one))
        wall, processor = time.perf_counter(), time.process_time()
        WAYS[way](one)
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    """Print each time and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--sources", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=1)
    chosen = parser.parse_args()
    took: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(chosen.rounds):
        for way in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                warm, url = (f"file://{folder}/{name}" for name in ("warm", "batch"))
                growth.alone(growth.deliver, warm, growth.WARM_SOURCES)
                growth.alone(growth.deliver, url, chosen.sources)
                took[way].append(growth.alone(seconds, way, warm, url))
    table = Table("way", "seconds", "processor", title=f"a partition of {chosen.sources} sources")
    for way, times in took.items():
        table.add_row(
            way, *(", ".join(f"{one:.1f}" for one in column) for column in zip(*times, strict=True))
        )
    console = Console()
    console.print(table)
    walls, processors = (
        min(one[column] for one in took["dagster"]) / min(one[column] for one in took["engine"])
        for column in (0, 1)
    )
    console.print(
        f"dagster takes {walls:.3f} of the engine's time, {processors:.3f} of the processor's; at "
        f"most {LIMIT} is wanted"
    )


if __name__ == "__main__":
    main()
