"""Responses as blocks of numbers: one for each attribute, matched rows by values by prompts.

A matched row is a scene of which nothing but the attribute differs between its members. A set
that varies one attribute is one row; a set that crosses several has a row for each combination
of the other attributes' values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cf_lab_assets.audits.declaration import AuditConfig
from cf_lab_resources.engine.questions import ASSOCIATION

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """One attribute's scores.

    Attributes:
        attribute: its name; that of an intersection is joined by `+`.
        values: its declared values.
        sets: (rows,), number of the counterfactual set that a row belongs to.
        members: (rows, values, prompts), NaN where a row has no such member.
        placebo: (rows,), index of the value that the row's placebo shows, -1 where there is none.
        sources: (rows, prompts), the source picture's scores, NaN where unknown.
        within: by other attribute, (rows,), the value that all members of a row share; None
            where it is not known.
        names: by number of a set, its set_id; empty where nobody asks for it.
    """

    attribute: str
    values: tuple[str, ...]
    sets: Integers
    members: Floats
    placebo: Integers
    sources: Floats
    within: Mapping[str, NDArray[np.object_]] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        """How many sets there are."""
        return len(np.unique(self.sets))

    def only(self, rows: NDArray[np.bool_]) -> Answers:
        """Some of the rows; sets are numbered anew, without gaps."""
        known, sets = np.unique(self.sets[rows], return_inverse=True)
        within = {name: values[rows] for name, values in self.within.items()}
        return Answers(
            self.attribute,
            self.values,
            sets,
            self.members[rows],
            self.placebo[rows],
            self.sources[rows],
            within,
            tuple(self.names[number] for number in known) if self.names else (),
        )

    @property
    def complete(self) -> Answers:
        """The rows that hold every value."""
        return self.only(np.all(np.isfinite(self.members), axis=(1, 2)))

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Of each prompt whether all members have one score, (prompts,); True where none has."""
        low = np.where(np.isnan(self.members), np.inf, self.members).min(
            axis=(0, 1), initial=np.inf
        )
        high = np.where(np.isnan(self.members), -np.inf, self.members).max(
            axis=(0, 1), initial=-np.inf
        )
        return ~(high > low)

    @property
    def swapped(self) -> Floats:
        """Members with each placebo's scores replaced by those of its source picture."""
        known = (self.placebo >= 0) & np.isfinite(self.sources).all(axis=1)
        rows = np.flatnonzero(known)
        members = self.members.copy()
        members[rows, self.placebo[rows]] = self.sources[rows]
        return members

    def differences(self, before: int, after: int, weights: Floats) -> tuple[Integers, Floats]:
        """Score of one value's member less that of another's, for the sets with both.

        A set that has several rows counts with their mean, so that each set counts the same.

        Args:
            before: index of the value that is subtracted.
            after: index of the other.
            weights: of prompts, (prompts, t).

        Returns:
            The sets' numbers, (n,), and the differences, (n, t).
        """
        difference = self.members[:, after] - self.members[:, before]
        return self._by_set(difference, weights)

    def placebo_differences(self, weights: Floats) -> tuple[Integers, Floats]:
        """Size of the placebo's score less the source picture's, as `differences` gives them."""
        rows = np.arange(len(self.sets))
        difference = self.members[rows, self.placebo] - self.sources
        difference[self.placebo < 0] = np.nan
        return self._by_set(difference, weights, sizes=True)

    @property
    def placebo_sets(self) -> int:
        """How many sets have a placebo with its source."""
        sets, _ = self.placebo_differences(np.ones((self.members.shape[2], 1)))
        return len(sets)

    def _by_set(
        self, rows: Floats, weights: Floats, sizes: bool = False
    ) -> tuple[Integers, Floats]:
        whole = np.isfinite(rows).all(axis=1)
        values = rows[whole] @ weights
        return set_means(np.abs(values) if sizes else values, self.sets[whole])


def set_means(values: Floats, sets: Integers) -> tuple[Integers, Floats]:
    """The distinct sets in order, (n,), and the mean of each one's rows, (n, t)."""
    known, index, counts = np.unique(sets, return_inverse=True, return_counts=True)
    if len(known) == len(sets):
        return known, values[np.argsort(index)]
    sums = np.zeros((len(known), values.shape[1]))
    np.add.at(sums, index, values)
    return known, sums / counts[:, None]


def read_answers(responses: pa.Table, config: AuditConfig) -> dict[str, Answers]:
    """The responses as one block of numbers per declared attribute; row order is immaterial.

    Of the formats only association has a score for each occupation; a missing score is NaN.
    """
    import pyarrow.compute as pc

    responses = responses.filter(pc.equal(responses["format"], ASSOCIATION))
    prompts = _codes(responses["prompt"], config.occupations)
    responses = responses.filter(prompts >= 0)
    prompts = prompts[prompts >= 0]
    is_source = pc.equal(responses["role"], "source").to_numpy(zero_copy_only=False)
    scores = responses["score"].to_numpy().astype(np.float64)

    source_ids, source_rows = _sorted_codes(responses["source_id"])
    sources = np.full((len(source_ids), len(config.occupations)), np.nan)
    sources[source_rows[is_source], prompts[is_source]] = scores[is_source]

    answers = {}
    for attribute, values in config.attributes.items():
        here = pc.fill_null(pc.equal(responses["attribute"], attribute), False)
        mask = here.to_numpy(zero_copy_only=False) & ~is_source
        part = responses.filter(mask)
        codes = _codes(part["value"], values)
        set_ids, set_rows = _sorted_codes(part["set_id"])  # a row each: one attribute varies
        declared = codes >= 0
        members = np.full((len(set_ids), len(values), len(config.occupations)), np.nan)
        cells = (set_rows[declared], codes[declared], prompts[mask][declared])
        members[cells] = scores[mask][declared]
        placebo = np.full(len(set_ids), -1)
        marked = part["is_placebo"].to_numpy(zero_copy_only=False).astype(bool) & declared
        placebo[set_rows[marked]] = codes[marked]
        owner = np.full(len(set_ids), -1)
        owner[set_rows] = source_rows[mask]
        first = np.unique(set_rows, return_index=True)[1]
        within = held_fixed(part["values"].take(first).to_pylist(), attribute)
        sets = np.arange(len(set_ids))
        answers[attribute] = Answers(
            attribute, values, sets, members, placebo, sources[owner], within, tuple(set_ids)
        )
    return answers


def held_fixed(
    members: Sequence[Sequence[tuple[str, str]] | None], attribute: str
) -> dict[str, NDArray[np.object_]]:
    """The other attributes' values by row, from those of one member each, (attribute, value)."""
    rows = [dict(member or ()) for member in members]
    others = sorted({name for row in rows for name in row} - set(attribute.split("+")))
    return {name: np.array([row.get(name) for row in rows], dtype=object) for name in others}


def _codes(column: Any, known: Sequence[str]) -> Integers:
    """Index of each entry among known words, -1 where it is none of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.index_in(column, value_set=pa.array(known, pa.string()))
    return pc.fill_null(found, -1).to_numpy().astype(np.int64)


def _sorted_codes(column: Any) -> tuple[list[str], Integers]:
    """The distinct words in order, and the index of each entry among them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    words = pc.unique(column).drop_null().sort()
    if not isinstance(words, pa.Array):
        words = words.combine_chunks()
    found = pc.index_in(column, value_set=words)
    return words.to_pylist(), pc.fill_null(found, -1).to_numpy().astype(np.int64)
