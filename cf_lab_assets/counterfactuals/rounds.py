"""Drawing a batch: everything that is planned, or round by round what the sampler asks for.

The plan and the pairs are read as streams, side by side, and what comes of them is written row
group by row group. In rounds, a pass over the plan picks the sets of the round.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals import tables
from cf_lab_assets.counterfactuals.generation import Generator, accept_sets
from cf_lab_assets.counterfactuals.parity import Acceptance
from cf_lab_assets.sources.batches import pairs_key

if TYPE_CHECKING:
    from cf_lab_assets.counterfactuals.targets import SamplingPlan
    from cf_lab_resources.bucket import Bucket

Row = dict[str, Any]
# A source pair and edits of it, its placebo first.
Work = tuple[Row, list[Row]]

NO_PICTURE = (
    "no_picture: the installed editor edits pictures; drawing from captions alone needs an editor "
    "that generates whole sets"
)
# What a batch's drawing writes; a batch counts as finished once the last is there.
TABLES = (
    "candidates",
    "pair_scores",
    "acceptance",
    "directions",
    "quotas",
    "rejected_sets",
    "accepted_sets",
)
# Sources that a contact sheet shows.
SHOWN = 6


def planned_work(bucket: Bucket, batch: str) -> Iterator[Work]:
    """Each planned source with its edits, in the order of the pairs, in flat memory."""
    pairs = tables.stream_rows(bucket, pairs_key(batch))
    edits = tables.stream_rows(bucket, tables.batch_key(batch, "edit_plan"))
    for source_id, planned in itertools.groupby(edits, key=lambda edit: edit["source_id"]):
        yield next(pair for pair in pairs if pair["source_id"] == source_id), list(planned)


def sets_of(edits: Sequence[Row]) -> Iterator[list[Row]]:
    """The edits of each set of one source, without its placebo."""
    for _, members in itertools.groupby(edits[1:], key=lambda edit: edit["attribute"]):
        yield list(members)


@dataclass
class Drawn:
    """What has come of a batch so far, beside the tables.

    Attributes:
        acceptance: sets and edits that were drawn and accepted.
        candidates, accepted_candidates: rows of candidates.
        cits: the sum of theirs.
        shown: the first sources with edits and candidates, for people to look at.
        rejections: reasons of the first rejected sets.
    """

    acceptance: Acceptance = field(default_factory=Acceptance)
    candidates: int = 0
    accepted_candidates: int = 0
    cits: float = 0.0
    shown: list[tuple[Row, list[Row], list[Row]]] = field(default_factory=list)
    rejections: list[list[str]] = field(default_factory=list)


class Drawing:
    """Draws sources in chunks, and writes what comes of them into staged tables."""

    def __init__(self, generator: Generator, staged: tables.Staged, chunk_sources: int) -> None:
        """Settle where chunks come from and rows go.

        Args:
            generator: makes or reads chunks.
            staged: tables candidates, pair_scores, accepted_sets and rejected_sets.
            chunk_sources: sources a chunk.
        """
        self._generator, self._staged, self._size = generator, staged, chunk_sources
        self.drawn = Drawn()

    def draw(
        self, work: Iterable[Work], placebos: dict[str, list[Row]] | None = None
    ) -> Iterator[list[tuple[Row, bool]]]:
        """Draw sources, a chunk at a time.

        Args:
            work: sources with the edits that are to be drawn.
            placebos: candidates of placebos by source; where it is given, placebos in it are not
                drawn again, and it takes in those that are drawn.

        Yields:
            For each chunk the first edit of each of its sets, and whether the set was accepted.
        """
        known = {} if placebos is None else placebos
        drawable = (one for one in work if one[0]["image_key"] is not None)
        while chunk := list(itertools.islice(drawable, self._size)):
            yield self._draw_chunk(chunk, known)
            if placebos is None:
                known.clear()

    def reject_captions(self, work: Iterable[Work]) -> None:
        """Reject the sets of sources without pictures, which `draw` passes over."""
        for source, edits in work:
            for members in sets_of(edits) if source["image_key"] is None else ():
                attribute = members[0]["attribute"]
                self._reject(
                    {
                        "set_id": f"{source['source_id']}-{attribute}",
                        "source_id": source["source_id"],
                        "attribute": attribute,
                        "stage": "draw",
                        "reasons": [NO_PICTURE],
                    }
                )

    def _draw_chunk(
        self, chunk: Sequence[Work], placebos: dict[str, list[Row]]
    ) -> list[tuple[Row, bool]]:
        pending = [
            edit for _, edits in chunk for edit in edits if self._is_open(edit, edits, placebos)
        ]
        rows = self._generator.rows(pending, {source["source_id"]: source for source, _ in chunk})
        self._count(rows)
        by_edit: dict[str, list[Row]] = {}
        for row in rows:
            by_edit.setdefault(row["edit_id"], []).append(row)
        outcomes = []
        for source, edits in chunk:
            first, *others = edits
            made = placebos.setdefault(source["source_id"], by_edit.get(first["edit_id"], []))
            own = [*made, *(row for edit in others for row in by_edit.get(edit["edit_id"], []))]
            outcomes += self._take(source, edits, own)
        return outcomes

    @staticmethod
    def _is_open(edit: Row, edits: Sequence[Row], placebos: Mapping[str, list[Row]]) -> bool:
        """Whether an edit is to be drawn: nothing is, of a source whose placebo has failed."""
        made = placebos.get(edit["source_id"])
        return made is None or (edit is not edits[0] and any(row["accepted"] for row in made))

    def _take(
        self, source: Row, edits: Sequence[Row], rows: Sequence[Row]
    ) -> list[tuple[Row, bool]]:
        accepted, rejected = accept_sets(edits, rows)
        for row in accepted:
            self._staged.add("accepted_sets", row)
        for row in rejected:
            self._reject(row)
        good = {row["edit_id"] for row in rows if row["accepted"]}
        for edit_id in {row["edit_id"]: None for row in rows}:
            edit = next(one for one in edits if one["edit_id"] == edit_id)
            if edit["attribute"] is not None:
                self.drawn.acceptance.add_edit(edit, edit_id in good)
        names = {row["attribute"] for row in accepted}
        outcomes = [(members[0], members[0]["attribute"] in names) for members in sets_of(edits)]
        for edit, was_accepted in outcomes:
            self.drawn.acceptance.add_set(edit["attribute"], edit["from_values"], was_accepted)
        if len(self.drawn.shown) < SHOWN:
            self.drawn.shown.append((source, list(edits), list(rows)))
        return outcomes

    def _count(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._staged.add("candidates", row)
            self._staged.add("pair_scores", row)
            self.drawn.accepted_candidates += row["accepted"]
            self.drawn.cits += row["cits"]
        self.drawn.candidates += len(rows)

    def refuse(self, refusal: Row) -> None:
        """Take a set that could not be planned, a row of ``refused_edits``, as rejected."""
        self._reject(
            {
                "set_id": f"{refusal['source_id']}-{refusal['attribute']}",
                "source_id": refusal["source_id"],
                "attribute": refusal["attribute"],
                "stage": "plan",
                "reasons": [f"{refusal['reason']}: {refusal['detail']}"],
            }
        )

    def finish(self, quotas: Iterable[Row]) -> None:
        """Write the tables that are known only at the end."""
        for table, rows in (
            ("acceptance", self.drawn.acceptance.set_rows()),
            ("directions", self.drawn.acceptance.edit_rows()),
            ("quotas", quotas),
        ):
            for row in rows:
                self._staged.add(table, row)

    def _reject(self, row: Row) -> None:
        self._staged.add("rejected_sets", row)
        if len(self.drawn.rejections) < SHOWN:
            self.drawn.rejections.append(row["reasons"])


def draw_batch(
    bucket: Bucket, batch: str, drawing: Drawing, sampling: SamplingPlan | None
) -> Iterator[None]:
    """Draw a batch as its plan says, and write all tables of `TABLES`.

    Args:
        bucket: holds pairs and edit plan.
        batch: the source batch.
        drawing: draws it; its staged tables are complete when this ends.
        sampling: the batch's sampling plan; its sampler is brought forward in place. None draws
            everything that is planned.

    Yields:
        After each chunk.
    """

    def work() -> Iterator[Work]:
        return planned_work(bucket, batch)

    if sampling:
        yield from draw_in_rounds(sampling, work, drawing)
    else:
        yield from (None for _ in drawing.draw(work()))
    drawing.reject_captions(work())
    for refusal in tables.stream_rows(bucket, tables.batch_key(batch, "refused_edits")):
        drawing.refuse(refusal)
    drawing.finish(sampling.rows() if sampling else ())


def draw_in_rounds(
    sampling: SamplingPlan, work: Callable[[], Iterable[Work]], drawing: Drawing
) -> Iterator[None]:
    """Draw what the sampler asks for until quotas are met or nothing more can be done.

    The sampler is brought forward in place; a run that was killed repeats its rounds from the
    chunks that were made.

    Args:
        sampling: the plan, its sampler at the start.
        work: reads the planned work from the start.
        drawing: draws it.

    Yields:
        After each chunk.
    """
    import numpy as np

    places = {cell: index for index, cell in enumerate(sampling.cells)}
    order = _shuffled(sampling, work(), places)
    sampler, placebos = sampling.sampler, dict[str, list[Row]]()
    while (more := sampler.next_round()).any():
        wanted = {
            position
            for cell, start, count in zip(order, sampler.drawn, more, strict=True)
            for position in cell[int(start) : int(start + count)]
        }
        accepted = np.zeros_like(more)
        for outcomes in drawing.draw(_chosen(work(), wanted), placebos):
            for edit, was_accepted in outcomes:
                accepted[places[edit["attribute"], edit["cell"]]] += was_accepted
            yield
        sampler.record(more, accepted)


def _drawable_sets(work: Iterable[Work]) -> Iterator[tuple[int, Row]]:
    """Each set of sources with pictures: its place in the plan, and its first edit."""
    place = itertools.count()
    for source, edits in work:
        for members in sets_of(edits):
            position = next(place)
            if source["image_key"] is not None:
                yield position, members[0]


def _shuffled(
    sampling: SamplingPlan, work: Iterable[Work], places: Mapping[tuple[str, str], int]
) -> list[list[int]]:
    """Places of each cell's sets in the order in which they are drawn, by the target's seed."""
    import numpy as np

    positions = [array("q") for _ in places]
    for position, edit in _drawable_sets(work):
        positions[places[edit["attribute"], edit["cell"]]].append(position)
    rng = np.random.default_rng(sampling.target.seed)
    return [rng.permutation(np.array(cell, np.int64)).tolist() for cell in positions]


def _chosen(work: Iterable[Work], wanted: set[int]) -> Iterator[Work]:
    """The wanted sets of each source, with its placebo before them."""
    place = itertools.count()
    for source, edits in work:
        chosen = [edit for members in sets_of(edits) if next(place) in wanted for edit in members]
        if chosen:
            yield source, [edits[0], *chosen]
