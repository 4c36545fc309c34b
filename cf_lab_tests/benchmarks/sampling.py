"""Draws, distance to the target and rounds of skew-aware sampling on simulated acceptance rates.

The oracle knows every acceptance rate: it draws until the expected accepted sets reach the quota.
Peers: draws spread evenly over all cells until every quota is met, and 100 draws a wanted set, the
fixed budget of SocialCounterfactuals. Run it as ``python -m cf_lab_tests.benchmarks.sampling``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cf_lab_assets.counterfactuals import sampling

ACCEPTED = 20_000
FIXED_DRAWS = 100
ENDLESS = np.iinfo(np.int64).max // 4


@dataclass(frozen=True)
class Layout:
    """A world to sample from: target weights, and acceptance rates that may drift.

    Attributes:
        name: for the table.
        target: (cells,) weights.
        start: (cells,) acceptance rates of each cell's first draw.
        end: (cells,) rates that they drift to, linearly over the oracle's draws.
    """

    name: str
    target: NDArray[np.float64]
    start: NDArray[np.float64]
    end: NDArray[np.float64]

    def rate(self, drawn: NDArray[np.int64], span: NDArray[np.int64]) -> NDArray[np.float64]:
        """The rates after so many draws of each cell."""
        part = np.minimum(drawn / np.maximum(span, 1), 1.0)
        return self.start + part * (self.end - self.start)

    def span(self, quota: NDArray[np.int64]) -> NDArray[np.int64]:
        """The oracle's draws of each cell: drifting linearly, the mean rate is that halfway."""
        return np.ceil(quota / ((self.start + self.end) / 2)).astype(np.int64)


def layouts(seed: int) -> Iterator[Layout]:
    """Layouts of 6 to 84 cells with rates of 1 % to 90 %."""
    rng = np.random.default_rng(seed)
    for cells in (6, 12, 28, 84):
        even = np.full(cells, 1.0)
        spread = np.exp(rng.uniform(np.log(0.01), np.log(0.9), cells))
        yield Layout("all at 1 %", even, even * 0.01, even * 0.01)
        yield Layout("all at 90 %", even, even * 0.9, even * 0.9)
        yield Layout("1 % to 90 %, mixed", even, spread, spread)
        yield Layout("mixed, skewed target", rng.uniform(0.2, 5.0, cells), spread, spread)
        one = np.where(np.arange(cells) == 0, 0.01, 0.9)
        yield Layout("one cell at 1 %", even, one, one)
        falling = np.maximum(spread / 3, 0.01)
        yield Layout("falling to a third", even, spread, falling)
        yield Layout("rising from a third", even, falling, spread)


@dataclass(frozen=True)
class Outcome:
    """Draws in units of the oracle's, total variation distance, accepted sets and rounds."""

    draws: float
    distance: float
    accepted: int
    rounds: int


def accept(
    layout: Layout,
    span: NDArray[np.int64],
    drawn: NDArray[np.int64],
    more: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Accepted sets of ``more`` draws after ``drawn``; within a round, at the mean rate."""
    return rng.binomial(more, layout.rate(drawn + more // 2, span))


def simulate(layout: Layout, seed: int, total: int = ACCEPTED) -> Outcome:
    """Skew-aware sampling of a layout, from no knowledge to the last quota."""
    quota = sampling.quotas(layout.target, total)
    span = layout.span(quota)
    rng = np.random.default_rng(seed)
    sampler = sampling.Sampler(quota, np.full(len(quota), ENDLESS))
    while (more := sampler.next_round()).any():
        sampler.record(more, accept(layout, span, sampler.drawn, more, rng))
    return _outcome(layout, sampler.drawn, sampler.accepted, span, sampler.rounds)


def evenly(layout: Layout, seed: int, total: int = ACCEPTED) -> Outcome:
    """The same number of draws for every cell, a hundredth of the quota a time, until all met."""
    quota = sampling.quotas(layout.target, total)
    span = layout.span(quota)
    rng = np.random.default_rng(seed)
    drawn, accepted = np.zeros_like(quota), np.zeros_like(quota)
    step = np.full_like(quota, max(total // len(quota) // 100, 1))
    rounds = 0
    while (accepted < quota).any():
        accepted += accept(layout, span, drawn, step, rng)
        drawn += step
        rounds += 1
    return _outcome(layout, drawn, accepted, span, rounds)


def fixed(layout: Layout, seed: int, total: int = ACCEPTED) -> Outcome:
    """A fixed number of draws for every wanted set, in proportion to the target."""
    quota = sampling.quotas(layout.target, total)
    span, nothing = layout.span(quota), np.zeros_like(quota)
    more = FIXED_DRAWS * quota
    accepted = accept(layout, span, nothing, more, np.random.default_rng(seed))
    return _outcome(layout, more, accepted, span, 1)


def _outcome(
    layout: Layout,
    drawn: NDArray[np.int64],
    accepted: NDArray[np.int64],
    span: NDArray[np.int64],
    rounds: int,
) -> Outcome:
    return Outcome(
        float(drawn.sum() / span.sum()),
        sampling.total_variation(accepted, layout.target),
        int(accepted.sum()),
        rounds,
    )


PEERS: dict[str, Callable[[Layout, int], Outcome]] = {
    "skew-aware": simulate,
    "evenly until met": evenly,
    "100 draws a set": fixed,
}


def main() -> None:
    """Print the worst of several seeds for each layout, number of cells and peer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    table = Table(title=f"{ACCEPTED:,} accepted sets wanted; worst of {seeds} seeds")
    for column in ("rates", "cells", "sampler", "draws / oracle", "TV", "accepted", "rounds"):
        table.add_column(column, justify="left" if column in ("rates", "sampler") else "right")
    worlds = [list(layouts(seed)) for seed in range(seeds)]
    for index, first in enumerate(worlds[0]):
        for peer, run in PEERS.items():
            outcomes = [run(world[index], seed) for seed, world in enumerate(worlds)]
            worst = max(outcomes, key=lambda outcome: outcome.draws)
            table.add_row(
                first.name if peer == "skew-aware" else "",
                str(len(first.target)) if peer == "skew-aware" else "",
                peer,
                f"{worst.draws:.3f}",
                f"{max(outcome.distance for outcome in outcomes):.4f}",
                f"{worst.accepted:,}",
                str(max(outcome.rounds for outcome in outcomes)),
            )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
