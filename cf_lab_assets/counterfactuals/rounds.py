"""Drawing a batch: everything that is planned, or round by round what the sampler asks for.

The plan and the pairs are read as streams, side by side, and what comes of them is written row
group by row group. In rounds, a pass over the plan picks the sets of the round.
"""

from __future__ import annotations

import itertools
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from cf_lab_assets.counterfactuals import tables
from cf_lab_assets.counterfactuals.drawing import Drawing, Work, sets_of
from cf_lab_assets.counterfactuals.shelf import Shelf
from cf_lab_assets.sources.batches import stored_pairs_key
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from cf_lab_assets.counterfactuals.targets import SamplingPlan
    from cf_lab_resources.bucket import Bucket


class StalePlan(LabError):
    """An edit plan of other sources than the batch has now."""


def planned_work(bucket: Bucket, batch: str) -> Iterator[Work]:
    """Each planned source with its edits, in the order of the pairs, in flat memory.

    Raises:
        StalePlan: the plan names a source that the batch has not.
    """
    pairs = tables.stream_rows(bucket, stored_pairs_key(bucket, batch))
    edits = tables.stream_rows(bucket, tables.batch_key(batch, "edit_plan"))
    for source_id, planned in itertools.groupby(edits, key=lambda edit: edit["source_id"]):
        pair = next((pair for pair in pairs if pair["source_id"] == source_id), None)
        if pair is None:
            raise StalePlan(
                f"the edit plan of batch {batch!r} names source {source_id}, which the batch has "
                "not; materialise counterfactuals/edit_plan again"
            )
        yield pair, list(planned)


def planned_sources(bucket: Bucket, batch: str) -> int:
    """How many sources are planned."""
    edits = tables.stream_rows(bucket, tables.batch_key(batch, "edit_plan"), ["source_id"])
    return sum(1 for _ in itertools.groupby(edits, key=lambda edit: edit["source_id"]))


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
    sampler = sampling.sampler
    with tempfile.TemporaryDirectory() as folder, closing(Shelf(Path(folder) / "rows")) as shelf:
        while (more := sampler.next_round()).any():
            wanted = {
                position
                for cell, start, count in zip(order, sampler.drawn, more, strict=True)
                for position in cell[int(start) : int(start + count)]
            }
            accepted = np.zeros_like(more)
            for outcomes in drawing.draw(_chosen(work(), wanted), shelf):
                for edit, was_accepted in outcomes:
                    accepted[places[edit["attribute"], edit["cell"]]] += was_accepted
                yield
            sampler.record(more, accepted)


def _shuffled(
    sampling: SamplingPlan, work: Iterable[Work], places: Mapping[tuple[str, str], int]
) -> list[list[int]]:
    """Places of each cell's sets in the order in which they are drawn, by the target's seed."""
    import numpy as np

    positions = [array("q") for _ in places]
    planned = (members[0] for _, edits in work for members in sets_of(edits))
    for position, edit in enumerate(planned):
        positions[places[edit["attribute"], edit["cell"]]].append(position)
    rng = np.random.default_rng(sampling.target.seed)
    return [rng.permutation(np.array(cell, np.int64)).tolist() for cell in positions]


def _chosen(work: Iterable[Work], wanted: set[int]) -> Iterator[Work]:
    """The wanted sets of each source, with its placebo or base before them."""
    place = itertools.count()
    for source, edits in work:
        chosen = [edit for members in sets_of(edits) if next(place) in wanted for edit in members]
        if chosen:
            yield source, [edits[0], *chosen]
