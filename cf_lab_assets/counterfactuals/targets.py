"""The target distribution of a batch's accepted sets, and the plan of how to reach it.

A cell is a source's values of what the target is over, in written form, such as ``woman+old``.
Every set that a source can get stands in its source's cell: the set's placebo shows these values,
and its other members differ from them in what the set varies. Each attribute set gets an equal
part of the total, so that no attribute is short of sets either.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from cf_lab_assets.counterfactuals.attribute_sets import JOIN
from cf_lab_assets.counterfactuals.sampling import (
    Sampler,
    TargetError,
    independent,
    proportions,
    quotas,
    total_variation,
)

if TYPE_CHECKING:
    from cf_lab_resources.bucket import Bucket

Kind = Literal["uniform", "as_the_world", "weights", "marginals"]


@dataclass(frozen=True)
class Target:
    """What the accepted sets should look like.

    Attributes:
        over: attributes, or extra columns of the sources such as occupation.
        kind: uniform over all cells; as_the_world, in the proportions of the sources; by weights
            of cells; or by marginals, which are taken as independent.
        total: accepted sets that are wanted, of all attribute sets together.
        budget: most sets that may be drawn; None for no bound.
        seed: of the order in which a cell's sources are taken.
        weights: of cells in written form, for kind weights.
        marginals: by name and value, for kind marginals.
    """

    over: tuple[str, ...]
    kind: Kind
    total: int
    budget: int | None = None
    seed: int = 0
    weights: Mapping[str, float] = field(default_factory=dict)
    marginals: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def shares(
        self, world: Mapping[str, int], values: Mapping[str, Sequence[str]]
    ) -> dict[str, float]:
        """The weight of each cell; cells of the world that are not aimed at get 0.

        Args:
            world: how many sources are in each cell.
            values: of the attributes; of other columns those count that the world has.

        Raises:
            TargetError: the target names a cell or a value that can't be, or there is no cell.
        """
        seen = [self._parts(cell) for cell in world]
        possible = {
            name: list(values.get(name) or sorted({cell[place] for cell in seen}))
            for place, name in enumerate(self.over)
        }
        cells = [JOIN.join(cell) for cell in itertools.product(*possible.values())]
        wanted = {
            "uniform": lambda: dict.fromkeys(cells, 1.0),
            "as_the_world": lambda: {cell: float(count) for cell, count in world.items()},
            "weights": lambda: self._by_weights(possible),
            "marginals": lambda: self._by_marginals(possible),
        }[self.kind]()
        if not wanted and self.kind != "weights":
            raise TargetError(
                f"no source is in a cell of the target: each lacks a value of one of "
                f"{', '.join(self.over)}; name in `over` what the sources have"
            )
        return {cell: wanted.get(cell, 0.0) for cell in sorted({*wanted, *world})}

    def _parts(self, cell: str) -> list[str]:
        """The values of a cell; one value alone may hold what joins several."""
        return cell.split(JOIN, len(self.over) - 1)

    def _by_weights(self, possible: Mapping[str, Sequence[str]]) -> dict[str, float]:
        for cell in self.weights:
            parts = self._parts(cell)
            if len(parts) != len(self.over):
                raise TargetError(
                    f"the cell {cell!r} of the target must name one value of each of "
                    f"{', '.join(self.over)}, joined by {JOIN!r}"
                )
            for name, value in zip(self.over, parts, strict=True):
                _check_value(name, value, possible[name])
        return dict(self.weights)

    def _by_marginals(self, possible: Mapping[str, Sequence[str]]) -> dict[str, float]:
        if set(self.marginals) != set(self.over):
            raise TargetError(
                f"marginals are given for {sorted(self.marginals)} and the target is over "
                f"{sorted(self.over)}; give one for each"
            )
        for name, weights in self.marginals.items():
            for value in weights:
                _check_value(name, value, possible[name])
        ordered = {name: self.marginals[name] for name in self.over}
        return {JOIN.join(cell): share for cell, share in independent(ordered).items()}


def parse_target(kind: str, **fields: Any) -> Target:
    """A target from configuration.

    Raises:
        TargetError: it is of no known kind, over nothing, or over a name twice.
    """
    if kind not in get_args(Kind):
        raise TargetError(f"target {kind!r} is none of {', '.join(get_args(Kind))}")
    over = fields["over"]
    if not over or len(set(over)) < len(over):
        raise TargetError(
            f"the target is over {list(over)}; name in `over` at least one attribute or column "
            "whose values make the cells, each once"
        )
    return Target(kind=cast(Kind, kind), **fields)


def _check_value(name: str, value: str, possible: Sequence[str]) -> None:
    if value not in possible:
        raise TargetError(
            f"the target names {name} {value!r}; there are {', '.join(possible) or 'no values'}"
        )


@dataclass
class SamplingPlan:
    """A target with the sampler that is to reach it; stored beside the edit plan.

    Attributes:
        target: what is wanted.
        cells: attribute set and cell of each of the sampler's cells.
        shares: weight of each in the target.
        sampler: quotas, what is offered, and what earlier batches have shown.
    """

    target: Target
    cells: list[tuple[str, str]]
    shares: list[float]
    sampler: Sampler

    @classmethod
    def make(
        cls,
        target: Target,
        attributes: Sequence[str],
        shares: Mapping[str, float],
        offered: Mapping[tuple[str, str], int],
    ) -> SamplingPlan:
        """Turn a target into quotas.

        Args:
            target: what is wanted.
            attributes: written forms of the attribute sets.
            shares: of `Target.shares`.
            offered: sets that can be drawn, by attribute set and cell.

        Raises:
            TargetError: no cell of the target has any weight.
        """
        import numpy as np

        cells = [(attribute, cell) for attribute in attributes for cell in shares]
        weights = [shares[cell] for _, cell in cells]
        sampler = Sampler(
            quotas(weights, target.total),
            np.array([offered.get(cell, 0) for cell in cells], np.int64),
            target.budget,
        )
        return cls(target, cells, proportions(weights, "a target").tolist(), sampler)

    def believe(self, evidence: Mapping[tuple[str, str], tuple[int, int]]) -> None:
        """Take in what earlier batches drew and accepted, by attribute set and cell."""
        import numpy as np

        counts = np.array([evidence.get(cell, (0, 0)) for cell in self.cells], np.int64)
        self.sampler.believe(counts[:, 0], counts[:, 1])

    def identity(self) -> str:
        """A hash of what is wanted and offered, whatever earlier batches have shown."""
        wanted = [
            asdict(self.target),
            self.cells,
            self.shares,
            self.sampler.quota.tolist(),
            self.sampler.offered.tolist(),
        ]
        return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()

    def rows(self) -> list[dict[str, Any]]:
        """The quota report: a row for each cell, with what could not be met and why."""
        sampler = self.sampler
        return [
            {
                "attribute": attribute,
                "cell": cell,
                "share": self.shares[index],
                "offered": int(sampler.offered[index]),
                "quota": int(sampler.quota[index]),
                "drawn": int(sampler.drawn[index]),
                "accepted": int(sampler.accepted[index]),
                "shortfall": max(int(sampler.quota[index] - sampler.accepted[index]), 0),
                "outcome": outcome,
            }
            for index, ((attribute, cell), outcome) in enumerate(
                zip(self.cells, sampler.outcomes(), strict=True)
            )
        ]

    def distance(self) -> float:
        """Total variation distance of what is accepted to the target; 1 for nothing."""
        return total_variation(self.sampler.accepted, self.shares)

    def to_json(self) -> bytes:
        """The plan as it is stored."""
        document = {
            "target": asdict(self.target),
            "cells": self.cells,
            "shares": self.shares,
            "sampler": self.sampler.as_dict(),
        }
        return json.dumps(document, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> SamplingPlan:
        """The inverse of `to_json`."""
        stored = json.loads(data)
        target = {**stored["target"], "over": tuple(stored["target"]["over"])}
        return cls(
            Target(**target),
            [(attribute, cell) for attribute, cell in stored["cells"]],
            stored["shares"],
            Sampler.from_dict(stored["sampler"]),
        )


def sampling_key(batch: str) -> str:
    """Bucket key of a batch's sampling plan."""
    return f"counterfactuals/{batch}/sampling.json"


def read_sampling(bucket: Bucket, batch: str) -> SamplingPlan | None:
    """A batch's sampling plan; None where everything is drawn."""
    key = sampling_key(batch)
    return SamplingPlan.from_json(bucket.get_bytes(key)) if bucket.exists(key) else None
