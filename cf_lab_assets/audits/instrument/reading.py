"""What the tables of a dataset's batches say of the instrument, before any filter and after it.

Rows are read as a stream, and what stays of one is a few numbers. An edit or set that came in
several batches counts once, in the first of them, as it does in the dataset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from cf_lab_assets.counterfactuals import tables
from cf_lab_assets.counterfactuals.attribute_sets import JOIN, joined
from cf_lab_assets.counterfactuals.plan import BASE, PLACEBO
from cf_lab_assets.counterfactuals.scores import CLASSIFIER, ENCODER, Miss
from cf_lab_assets.sources.batches import stored_pairs_key

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cf_lab_resources.bucket import Bucket

Row = Mapping[str, Any]
Values = Mapping[str, str]

PLAN_COLUMNS = ("edit_id", "source_id", "kind", "attribute", "from_values", "to_values")
SOURCE_COLUMNS = ("source_id", "image_key", "attributes", "extra")
OCCUPATION = "occupation"


class FirstDraw(NamedTuple):
    """The first draw of an edit or placebo, whatever became of it.

    Attributes:
        edit_id: of the edit.
        source: number of its source.
        attribute: what it varies; "placebo" for one that changes nothing.
        start, end: the values that it leads from and to; None where unknown or nothing changes.
        values: the source's values of all known attributes.
        success: whether both scorers see the values that were asked for; None for a placebo.
        over_edit: whether a scorer sees another value of what was not to be changed.
        preservation: SSIM to the source picture where least changed.
        picture: its place in the bucket.
        before: the place of what it is compared with, the source's picture or the base's.
    """

    edit_id: str
    source: int
    attribute: str
    start: str | None
    end: str | None
    values: Values
    success: bool | None
    over_edit: bool
    preservation: float
    picture: str
    before: str | None


class OfferedSet(NamedTuple):
    """A set that was offered to the filter, or refused before it.

    Attributes:
        source: number of its source.
        attribute: what it varies.
        values: the source's known attributes.
        occupation: the source's, None where its metadata name none.
        drawn: whether it came as far as the filter.
        accepted: whether it passed.
    """

    source: int
    attribute: str
    values: Values
    occupation: str | None
    drawn: bool
    accepted: bool


@dataclass
class Readings:
    """What was read.

    Attributes:
        source_ids: the sources, by their number.
        edits: first draws.
        sets: offered sets.
        answers: by attribute, how often the candidates of a source (its number) were seen as one
            value by the classifier and as one by the encoder; every draw counts.
    """

    source_ids: list[str] = field(default_factory=list)
    edits: list[FirstDraw] = field(default_factory=list)
    sets: list[OfferedSet] = field(default_factory=list)
    answers: dict[str, Counter[tuple[int, str, str]]] = field(default_factory=dict)


def read_batches(bucket: Bucket, batches: Iterable[str]) -> Readings:
    """Read the tables of a dataset's batches.

    Raises:
        BucketKeyError: a table is missing.
    """
    reader = _Reader()
    for batch in sorted(batches):
        reader.read(bucket, batch)
    return reader.found


class _Planned(NamedTuple):
    source_id: str
    kind: str
    attribute: str | None
    start: Values
    end: Values


class _Reader:
    """Reads batch after batch, and knows what earlier ones had."""

    def __init__(self) -> None:
        self.found = Readings()
        self._numbers: dict[str, int] = {}
        self._edits: set[str] = set()
        self._sets: set[str] = set()
        # Few distinct combinations of values: each is kept once.
        self._values: dict[tuple[tuple[str, str], ...], Values] = {}

    def read(self, bucket: Bucket, batch: str) -> None:
        """Take in one batch."""
        sources = {
            row["source_id"]: (
                row["image_key"],
                self._shared(row["attributes"]),
                (row["extra"] or {}).get(OCCUPATION),
            )
            for row in tables.stream_rows(bucket, stored_pairs_key(bucket, batch), SOURCE_COLUMNS)
        }
        plan = {
            row["edit_id"]: _Planned(
                row["source_id"],
                row["kind"],
                row["attribute"],
                self._shared(row["from_values"]),
                self._shared(row["to_values"]),
            )
            for row in tables.stream_rows(bucket, _key(batch, "edit_plan"), PLAN_COLUMNS)
        }
        before = {name: picture for name, (picture, _, _) in sources.items()}
        self._read_candidates(_candidates(bucket, batch), plan, before)
        known = {one.source_id: one.start for one in plan.values()}
        for table in ("accepted_sets", "rejected_sets"):
            for row in tables.stream_rows(bucket, _key(batch, table)):
                _, given, occupation = sources[row["source_id"]]
                values = known.get(row["source_id"], given)
                self._add_set(row, table == "accepted_sets", values, occupation)

    def _read_candidates(
        self,
        rows: Iterator[dict[str, Any]],
        plan: Mapping[str, _Planned],
        before: dict[str, str | None],
    ) -> None:
        new: set[str] = set()
        for row in rows:
            edit, name = plan[row["edit_id"]], row["edit_id"]
            if name in self._edits:
                continue
            new.add(name)
            misses = [miss for reason in row["reasons"] if (miss := Miss.parse(reason))]
            self._add_answers(edit, misses)
            if edit.kind == BASE and row["draw"] == 0:
                before[edit.source_id] = row["image_key"]
            elif row["draw"] == 0:
                drawn = _first_draw(row, edit, self._number(edit.source_id), misses)
                self.found.edits.append(drawn._replace(before=before[edit.source_id]))
        self._edits |= new

    def _add_answers(self, edit: _Planned, misses: Sequence[Miss]) -> None:
        """Count what both scorers saw; where a scorer misses nothing it saw what was asked for."""
        number = self._number(edit.source_id)
        seen = {(miss.scorer, miss.attribute): miss.seen for miss in misses}
        for attribute, asked in edit.end.items():
            pair = (
                seen.get((CLASSIFIER, attribute), asked),
                seen.get((ENCODER, attribute), asked),
            )
            self.found.answers.setdefault(attribute, Counter())[(number, *pair)] += 1

    def _add_set(self, row: Row, accepted: bool, values: Values, occupation: str | None) -> None:
        if row["set_id"] in self._sets:
            return
        self._sets.add(row["set_id"])
        drawn = accepted or row["stage"] == "scores"
        number = self._number(row["source_id"])
        self.found.sets.append(
            OfferedSet(number, row["attribute"], values, occupation, drawn, accepted)
        )

    def _number(self, source_id: str) -> int:
        number = self._numbers.setdefault(source_id, len(self._numbers))
        if number == len(self.found.source_ids):
            self.found.source_ids.append(source_id)
        return number

    def _shared(self, values: Values | None) -> Values:
        return self._values.setdefault(tuple(sorted((values or {}).items())), dict(values or {}))


def _key(batch: str, table: str) -> str:
    return tables.batch_key(batch, table)


def _candidates(bucket: Bucket, batch: str) -> Iterator[dict[str, Any]]:
    """Candidates with the part of their scores that is needed."""
    both = (
        tables.stream_rows(bucket, _key(batch, "candidates"), ("edit_id", "draw", "image_key")),
        tables.stream_rows(bucket, _key(batch, "pair_scores"), ("preservation", "reasons")),
    )
    for drawn, scored in zip(*both, strict=True):
        yield {**drawn, **scored}


def _first_draw(row: Row, edit: _Planned, source: int, misses: Sequence[Miss]) -> FirstDraw:
    varied = edit.attribute.split(JOIN) if edit.attribute else []
    missed = {miss.attribute for miss in misses}
    return FirstDraw(
        row["edit_id"],
        source,
        edit.attribute or PLACEBO,
        joined(edit.start, varied) if varied else None,
        joined(edit.end, varied) if varied else None,
        edit.start,
        missed.isdisjoint(varied) if varied else None,
        not missed <= set(varied),
        row["preservation"],
        row["image_key"],
        None,
    )


def as_floats(values: Iterable[float | bool | None]) -> NDArray[np.float64]:
    """Numbers or flags as floats, NaN for None."""
    import numpy as np

    return np.array([np.nan if value is None else float(value) for value in values])
