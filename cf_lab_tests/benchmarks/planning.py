"""Rows planned per second, and the memory that it takes, from a stream of synthetic sources.

Sources with captions of their own go through planner and writer as they do in the asset, each
size in a process of its own, so that its peak memory is its own. The peer keeps all edits in a
list and writes them at the end, as the lab did before. Run it as
``python -m cf_lab_tests.benchmarks.planning --rows 100000 1000000``.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from cf_lab_assets.counterfactuals import planning, tables
from cf_lab_assets.counterfactuals.plan import Edit, Planner
from cf_lab_assets.counterfactuals.rewrite import Rewriter
from cf_lab_assets.counterfactuals.taxonomy import default_taxonomy
from cf_lab_assets.starter import world

ATTRIBUTES = ["gender", "age", "skin_tone", "gender+age"]
ROWS_A_SOURCE = 1 + 1 + 2 + 2 + 5
# The peer's memory grows with the rows: no more than this many are asked of it.
MOST_IN_LISTS = 300_000


@dataclass(frozen=True)
class Measured:
    """Rows planned, seconds, and MiB of memory at the start and at the peak."""

    rows: int
    seconds: float
    before: float
    peak: float


def sources(count: int) -> Iterator[dict[str, Any]]:
    """Sources of starter portraits, each with a caption that no other has."""
    known = list(world.sample(2000, seed=9))
    for number, portrait in enumerate(itertools.islice(itertools.cycle(known), count)):
        yield {
            "source_id": f"s{number:015x}",
            "caption": f"{portrait.caption}, picture {number}",
            "attributes": portrait.attributes,
            "extra": {"occupation": portrait.occupation},
            "image_key": "objects/images/00/0.png",
        }


def planner() -> Planner:
    """A planner that has read the taxonomy."""
    made = Planner(Rewriter(default_taxonomy()), ATTRIBUTES, over=("gender", "occupation"))
    list(made.plan(sources(1)))
    return made


def peak_memory() -> float:
    """The most memory that this process has held so far, in MiB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2 ** (20 if sys.platform == "darwin" else 10)


def streamed(rows: int) -> Measured:
    """Through the planner into staged tables."""
    ready, made = planner(), planning.Planned()
    before, start = peak_memory(), time.perf_counter()
    with tables.staged("edit_plan", "refused_edits") as staged:
        planning.stream_plan(sources(rows // ROWS_A_SOURCE), ready, staged, made)
        written = staged.count("edit_plan")
    if made.edits != written or sum(made.refused.values()):
        raise AssertionError(f"{made.edits} planned, {written} written, refused: {made.refused}")
    return Measured(written, time.perf_counter() - start, before, peak_memory())


def in_lists(rows: int) -> Measured:
    """All edits in a list, then one table."""
    ready = planner()
    before, start = peak_memory(), time.perf_counter()
    edits: list[Edit] = []
    for planned in ready.plan(sources(rows // ROWS_A_SOURCE)):
        edits += planned.edits
    tables.to_bytes(tables.from_rows("edit_plan", [asdict(edit) for edit in edits]))
    return Measured(len(edits), time.perf_counter() - start, before, peak_memory())


def main() -> None:
    """Print a table of sizes and ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    table = Table(title="edit plan, one process")
    for column in ("way", "rows", "seconds", "rows/s", "MiB before", "MiB at the peak"):
        table.add_column(column, justify="left" if column == "way" else "right")
    fresh = multiprocessing.get_context("spawn")
    for rows in parser.parse_args().rows:
        for way in (streamed, in_lists):
            if way is in_lists and rows > MOST_IN_LISTS:
                continue
            with fresh.Pool(1) as pool:
                one = pool.apply(way, (rows,))
            numbers = (f"{one.rows:,}", f"{one.seconds:.0f}", f"{one.rows / one.seconds:,.0f}")
            table.add_row(way.__name__, *numbers, f"{one.before:.0f}", f"{one.peak:.0f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
