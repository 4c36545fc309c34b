"""Skew-aware sampling: which sets to draw so that the accepted ones meet a target distribution.

A target distribution over cells becomes quotas of accepted sets. Cells differ in how often a
drawn set is accepted, and by how much is not known, so the sampler works in rounds: from what was
accepted so far it takes a Beta posterior of each cell's acceptance rate, and draws as many sets as
will, with little risk, not overshoot the cell's quota. What can't be met is reported cell by cell.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]
    Floats = NDArray[np.float64]

# Jeffreys' prior of a share: Beta(1/2, 1/2).
PRIOR = 0.5
# How boldly a round is cut. With these values the distance stays under 0.005 and the draws
# within 1.05 of the oracle's, in at most 22 rounds, over the layouts and six seeds of
# `cf_lab_tests.benchmarks.sampling`, rates that triple meanwhile among them. Bolder ones save up
# to five rounds and overshoot where rates rise; more timid ones only add rounds.
# Standard deviations of a round's accepted sets that are kept below what the round aims at:
CAUTION = 1.64
# the share of a cell's shortfall that a round aims at:
STEP = 0.7
# what a round may at most draw, as a multiple of the draws that have shown the cell's rate:
GROWTH = 1.0
# what the first round draws where nothing is known, in multiples of the quota:
FIRST = 0.5
# and what evidence of earlier rounds still counts for in the next.
MEMORY = 0.3
# What a cell may overshoot its quota by, without which the last sets would take a round each:
# a set, two where the quota has hundreds, and half of the distance aimed at, 0.01, beyond.
ALLOWED_SETS, FEW, ALLOWED_SHARE = (1.0, 2.0), 0.01, 0.005
# Most draws that earlier batches' evidence of a cell counts for: enough to aim the first round,
# little enough to be overruled by it.
EVIDENCE_DRAWS = 100.0
# A cell is given up when its acceptance rate is surely (upper end of the 95 % interval) lower.
LEAST_ACCEPTANCE = 0.001

SHOWN_WEIGHTS = 8  # in a message

MET, NO_SOURCES, BUDGET_SPENT, TOO_LOW, OPEN = (
    "met",
    "no_sources",
    "budget_spent",
    "acceptance_too_low",
    "open",
)


class TargetError(LabError):
    """A target distribution that says nothing or contradicts itself; the message says where."""


def proportions(weights: Sequence[float] | Floats, of: str) -> Floats:
    """Weights, (n,), as shares that add up to 1.

    Args:
        weights: not negative, not all zero.
        of: what a message says they are of.

    Raises:
        TargetError: the weights are negative, not finite or all zero.
    """
    given = np.asarray(weights, dtype=np.float64)
    if not np.isfinite(given).all() or (given < 0).any() or not given.any():
        raise TargetError(
            f"the weights of {of} must be finite, not negative and not all zero: "
            f"{', '.join(map(str, given[:SHOWN_WEIGHTS]))}"
        )
    # By the largest first: the sum of many weights may overflow where none of them does.
    scaled = given / given.max()
    return scaled / scaled.sum()


def quotas(weights: Sequence[float] | Floats, total: int) -> Counts:
    """Whole numbers in proportion to weights, by the method of largest remainders (Hamilton).

    Args:
        weights: (cells,), not negative, not all zero.
        total: what the quotas add up to.

    Returns:
        (cells,), each less than one away from its exact share; of equal remainders the earlier
        cell's counts more.

    Raises:
        TargetError: the weights are negative, not finite or all zero.
    """
    exact = proportions(weights, "a target") * total
    floors = np.floor(exact).astype(np.int64)
    missing = total - int(floors.sum())
    order = np.argsort(floors - exact, kind="stable")
    floors[order[:missing]] += 1
    return floors


def independent(marginals: Mapping[str, Mapping[str, float]]) -> dict[tuple[str, ...], float]:
    """The joint distribution of attributes that are independent, by cell.

    Args:
        marginals: for each attribute the weight of each value.

    Raises:
        TargetError: an attribute's weights are negative, not finite or all zero.
    """
    shares = []
    for attribute, weights in marginals.items():
        values = proportions(list(weights.values()), attribute)
        shares.append(dict(zip(weights, values.tolist(), strict=True)))
    return {
        cell: float(np.prod([share[value] for share, value in zip(shares, cell, strict=True)]))
        for cell in itertools.product(*shares)
    }


def total_variation(counts: Counts, target: Sequence[float] | Counts | Floats) -> float:
    """Total variation distance, half the L1 distance, of two distributions given as weights.

    1 where nothing was counted, the largest distance there is.
    """
    weights = np.asarray(target, dtype=np.float64)
    if not counts.sum():
        return 1.0
    return float(np.abs(counts / counts.sum() - weights / weights.sum()).sum() / 2)


@dataclass
class Sampler:
    """What is wanted of each cell and what came of it so far; all arrays have shape (cells,).

    The whole state is in the fields, and `next_round` depends on nothing else: a sampler that was
    written by `as_dict` and read back goes on as the one that was not.

    Attributes:
        quota: accepted sets that are wanted.
        offered: sets that can be drawn.
        budget: most sets that may be drawn in all; None for no bound.
        drawn: sets drawn.
        accepted: of those, sets accepted.
        seen_drawn, seen_accepted: the same as evidence of the acceptance rate: fading with rounds,
            and holding what earlier batches have shown.
        rounds: how many rounds were recorded.
    """

    quota: Counts
    offered: Counts
    budget: int | None = None
    drawn: Counts = field(default_factory=lambda: np.empty(0, np.int64))
    accepted: Counts = field(default_factory=lambda: np.empty(0, np.int64))
    seen_drawn: Floats = field(default_factory=lambda: np.empty(0))
    seen_accepted: Floats = field(default_factory=lambda: np.empty(0))
    rounds: int = 0

    def __post_init__(self) -> None:
        for name in ("drawn", "accepted", "seen_drawn", "seen_accepted"):
            if not len(getattr(self, name)):
                setattr(self, name, np.zeros(len(self.quota), getattr(self, name).dtype))

    def believe(self, drawn: Counts, accepted: Counts) -> None:
        """Take the counts of earlier batches as evidence of the cells' acceptance rates."""
        weight = np.minimum(1.0, EVIDENCE_DRAWS / np.maximum(drawn, 1))
        self.seen_drawn = self.seen_drawn + weight * drawn
        self.seen_accepted = self.seen_accepted + weight * accepted

    def next_round(self) -> Counts:
        """How many sets to draw of each cell next; all zero when nothing more can be done.

        With a cell's rate distributed as Beta(a, b), its accepted sets of n draws have mean n m
        and variance m (1 - m) (n (1 - r) + n^2 r), m = a / (a + b) and r = 1 / (a + b + 1) (the
        beta-binomial distribution). n is the largest for which mean and `CAUTION` standard
        deviations stay within `STEP` of the shortfall and the allowance, which is the lesser root
        of a quadratic equation, within `GROWTH`.
        """
        short = np.maximum(self.quota - self.accepted, 0)
        allowed = np.maximum(np.clip(FEW * self.quota, *ALLOWED_SETS), ALLOWED_SHARE * self.quota)
        room = STEP * short + allowed
        a = self.seen_accepted + PRIOR
        b = self.seen_drawn - self.seen_accepted + PRIOR
        mean, correlation = a / (a + b), 1 / (a + b + 1)
        spread = CAUTION**2 * mean * (1 - mean)
        square = mean**2 - spread * correlation
        linear = 2 * room * mean + spread * (1 - correlation)
        root = np.sqrt(linear**2 - 4 * square * room**2)
        most = np.maximum(GROWTH * np.maximum(self.drawn, self.seen_drawn), FIRST * self.quota + 1)
        wanted = np.maximum(np.minimum(2 * room**2 / (linear + root), most), 1).astype(np.int64)
        draws = np.where(
            (short > 0) & ~self._hopeless(), np.minimum(wanted, self.offered - self.drawn), 0
        )
        left = None if self.budget is None else max(self.budget - int(self.drawn.sum()), 0)
        if left is None or draws.sum() <= left:
            return draws
        return quotas(draws, left)

    def record(self, drawn: Counts, accepted: Counts) -> None:
        """Take in what came of a round."""
        self.drawn = self.drawn + drawn
        self.accepted = self.accepted + accepted
        fade = np.where(drawn > 0, MEMORY, 1.0)
        self.seen_drawn = fade * self.seen_drawn + drawn
        self.seen_accepted = fade * self.seen_accepted + accepted
        self.rounds += 1

    def _hopeless(self) -> NDArray[np.bool_]:
        from scipy.special import betaincinv

        highest = betaincinv(
            self.accepted + PRIOR,
            self.drawn - self.accepted + PRIOR,
            np.full(len(self.quota), 0.975),
        )
        return np.asarray(highest < LEAST_ACCEPTANCE)

    def outcomes(self) -> list[str]:
        """For each cell, whether its quota is met or why not."""
        spent = self.budget is not None and int(self.drawn.sum()) >= self.budget
        hopeless = self._hopeless()
        found = []
        for cell in range(len(self.quota)):
            if self.accepted[cell] >= self.quota[cell]:
                found.append(MET)
            elif self.drawn[cell] >= self.offered[cell]:
                found.append(NO_SOURCES)
            elif hopeless[cell]:
                found.append(TOO_LOW)
            else:
                found.append(BUDGET_SPENT if spent else OPEN)
        return found

    def as_dict(self) -> dict[str, Any]:
        """The whole state, JSON-compatible."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Sampler:
        """The inverse of `as_dict`."""
        kinds = {"seen_drawn": np.float64, "seen_accepted": np.float64}
        fields: dict[str, Any] = {
            name: np.array(value, kinds.get(name, np.int64)) if isinstance(value, list) else value
            for name, value in stored.items()
        }
        return cls(**fields)
