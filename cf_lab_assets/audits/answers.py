"""Association responses as blocks of numbers: for each attribute, sets by values by prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
        attribute: its name.
        values: its declared values.
        set_ids: sorted, one per row.
        members: (sets, values, prompts), NaN where a set has no such member.
        placebo: index of the value that each set's placebo shows, -1 where there is none.
        sources: (sets, prompts), the source picture's scores, NaN where unknown.
    """

    attribute: str
    values: tuple[str, ...]
    set_ids: list[str]
    members: Floats
    placebo: Integers
    sources: Floats

    @property
    def complete(self) -> Answers:
        """The sets that hold every value."""
        whole = np.all(np.isfinite(self.members), axis=(1, 2))
        return Answers(
            self.attribute,
            self.values,
            [self.set_ids[row] for row in np.flatnonzero(whole)],
            self.members[whole],
            self.placebo[whole],
            self.sources[whole],
        )

    @property
    def swapped(self) -> Floats:
        """Members with each placebo's scores replaced by those of its source picture."""
        known = (self.placebo >= 0) & np.isfinite(self.sources).all(axis=1)
        rows = np.flatnonzero(known)
        members = self.members.copy()
        members[rows, self.placebo[rows]] = self.sources[rows]
        return members

    def placebo_differences(self) -> Floats:
        """Score of the placebo less that of the source picture, (sets with both, prompts)."""
        rows = np.flatnonzero(self.placebo >= 0)
        difference = self.members[rows, self.placebo[rows]] - self.sources[rows]
        return difference[np.isfinite(difference).all(axis=1)]


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
        set_ids, set_rows = _sorted_codes(part["set_id"])
        declared = codes >= 0
        members = np.full((len(set_ids), len(values), len(config.occupations)), np.nan)
        cells = (set_rows[declared], codes[declared], prompts[mask][declared])
        members[cells] = scores[mask][declared]
        placebo = np.full(len(set_ids), -1)
        marked = part["is_placebo"].to_numpy(zero_copy_only=False).astype(bool) & declared
        placebo[set_rows[marked]] = codes[marked]
        owner = np.full(len(set_ids), -1)
        owner[set_rows] = source_rows[mask]
        answers[attribute] = Answers(attribute, values, set_ids, members, placebo, sources[owner])
    return answers


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
