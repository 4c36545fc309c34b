"""Planning a batch: sources in, edit plan, refusals and quotas out, all as streams.

Nothing of a source is kept once it is written but its count in a cell, so that ten million rows
are planned in the memory of a few thousand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals import dataset, tables
from cf_lab_assets.counterfactuals.attribute_sets import joined, value_of
from cf_lab_assets.counterfactuals.plan import COUNTERFACTUAL, Edit, Planner, SourcePlan
from cf_lab_assets.counterfactuals.targets import (
    SamplingPlan,
    Target,
    read_sampling,
    sampling_key,
)
from cf_lab_assets.sources.batches import stored_pairs_key
from cf_lab_assets.starter.world import ATTRIBUTES

if TYPE_CHECKING:
    from cf_lab_resources.bucket import Bucket

SAMPLE = 8
# The tables of a plan; it is there once the last of them is.
PARTS = ("refused_edits", "edit_plan")


@dataclass
class Planned:
    """What a plan came to.

    Attributes:
        edits: how many there are, placebos among them.
        refused: sets by reason.
        asked: edits by what is varied and the value that is asked for, placebos left out.
        world: sources by cell.
        offered: sets that can be drawn, by attribute set and cell.
        sample: the first edits.
        sampling: the quotas; None where everything is drawn.
    """

    edits: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    world: Counter[str] = field(default_factory=Counter)
    offered: Counter[tuple[str, str]] = field(default_factory=Counter)
    sample: list[Edit] = field(default_factory=list)
    sampling: SamplingPlan | None = None

    def count(self, planned: SourcePlan) -> None:
        """Take in one source."""
        self.edits += len(planned.edits)
        self.refused.update(refusal.reason for refusal in planned.refusals)
        self.asked.update(
            (edit.attribute, value_of(edit.to_values, edit.attribute))
            for edit in planned.edits
            if edit.attribute is not None
        )
        if len(self.sample) < SAMPLE:
            self.sample += planned.edits[: SAMPLE - len(self.sample)]
        if planned.cell is None:
            return
        self.world[planned.cell] += 1
        varied = {e.attribute for e in planned.edits if e.kind == COUNTERFACTUAL}
        self.offered.update((str(attribute), planned.cell) for attribute in varied)


def write_plan(
    bucket: Bucket,
    batch: str,
    planner: Planner,
    target: Target | None,
    models: Mapping[str, Any],
) -> Planned:
    """Plan a stored batch; a plan that is there already is not written again.

    Args:
        bucket: holds the batch; the plan goes there.
        batch: the source batch.
        planner: plans sources.
        target: of the accepted sets; None draws everything.
        models: behind candidates and scores; only batches made with the same are evidence of
            acceptance rates.

    Raises:
        TargetError: the target does not fit the batch.
    """
    made = Planned()
    with tables.staged(*PARTS) as staged:
        sources = tables.stream_rows(bucket, stored_pairs_key(bucket, batch))
        stream_plan(sources, planner, staged, made)
        made.sampling = _sampling(bucket, batch, planner, target, models, made)
        stored = read_sampling(bucket, batch)
        same = _identity(stored) == _identity(made.sampling)
        if same and not any(staged.differs(bucket, batch, table) for table in PARTS):
            return made
        # What was accepted under another plan must not be read with this one, and a run that is
        # killed must not leave parts of two plans: there is none until the last part is written.
        bucket.delete(tables.batch_key(batch, table) for table in ("accepted_sets", "edit_plan"))
        if made.sampling:
            bucket.put_bytes(sampling_key(batch), made.sampling.to_json())
        else:
            bucket.delete([sampling_key(batch), tables.batch_key(batch, "quotas")])
        for table in PARTS:
            staged.put(bucket, batch, table)
    return made


def stream_plan(sources: Any, planner: Planner, staged: tables.Staged, made: Planned) -> None:
    """Plan a stream of sources into staged tables ``edit_plan`` and ``refused_edits``."""
    for planned in planner.plan(sources):
        made.count(planned)
        for edit in planned.edits:
            staged.add("edit_plan", _row(edit))
        for refusal in planned.refusals:
            staged.add("refused_edits", _row(refusal))


def _row(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def _identity(sampling: SamplingPlan | None) -> str | None:
    return sampling.identity() if sampling else None


def _sampling(
    bucket: Bucket,
    batch: str,
    planner: Planner,
    target: Target | None,
    models: Mapping[str, Any],
    made: Planned,
) -> SamplingPlan | None:
    if target is None:
        return None
    shares = target.shares(made.world, ATTRIBUTES)
    attributes = [varied.name for varied in planner.sets]
    fresh = SamplingPlan.make(target, attributes, shares, made.offered)
    stored = read_sampling(bucket, batch)
    if stored and stored.identity() == fresh.identity():
        # Evidence is taken once: what later batches show must not change this one's sets.
        return stored
    fresh.believe(evidence(bucket, batch, target.over, models))
    return fresh


def evidence(
    bucket: Bucket, batch: str, over: tuple[str, ...], models: Mapping[str, Any]
) -> dict[tuple[str, str], tuple[int, int]]:
    """Sets drawn and accepted by attribute set and cell, in other batches of the same models."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for other in dataset.finished_batches(bucket):
        if other == batch or dataset.read_made_with(bucket, other)["models"] != models:
            continue
        if not bucket.exists(tables.batch_key(other, "acceptance")):
            continue
        for row in tables.read_rows(bucket, other, "acceptance"):
            cell = joined(row["values"], over)
            if cell is not None:
                drawn, accepted = found.get((row["attribute"], cell), (0, 0))
                found[row["attribute"], cell] = (drawn + row["drawn"], accepted + row["accepted"])
    return found
