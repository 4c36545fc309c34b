"""Whether the candidate may be published, by what Dagster's event log says of its gates.

Automation waits for the gates anyway. This is asked inside `releases/current` as well, since
somebody may launch that asset by hand. And: which errors may be gone when a step is tried again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from cf_lab_assets import names
from cf_lab_assets.releases.gates import GATES
from cf_lab_resources.errors import LabError

RELEASE_ID, WAIVED_UNTIL = "release_id", "waived_until"


@dataclass(frozen=True)
class Refusal:
    """A gate that keeps the candidate from being published."""

    gate: str
    why: str
    remedy: str


@dataclass(frozen=True)
class Candidate:
    """The candidate's latest materialization: which release it staged, and where in the log."""

    release_id: str
    storage_id: int


def failure(error: LabError) -> dg.Failure:
    """The failure of a step; tried again only where a store did not answer."""
    from cf_lab_resources.bucket import BucketError, BucketKeyError
    from cf_lab_resources.catalog import CatalogUnavailable

    passing = isinstance(error, CatalogUnavailable) or (
        isinstance(error, BucketError) and not isinstance(error, BucketKeyError)
    )
    return dg.Failure(str(error), allow_retries=passing)


def latest_candidate(instance: dg.DagsterInstance) -> Candidate | None:
    """The candidate staged last; None where there is none."""
    records = instance.fetch_materializations(names.RELEASE_CANDIDATE, limit=1).records
    if not records or records[0].asset_materialization is None:
        return None
    metadata = records[0].asset_materialization.metadata
    return Candidate(str(metadata[RELEASE_ID].value), records[0].storage_id)


def refusals(instance: dg.DagsterInstance, candidate: Candidate) -> list[Refusal]:
    """The gates that did not pass on just this materialization of the candidate."""
    found = [(gate.name, _why(instance, gate.name, candidate)) for gate in GATES]
    return [Refusal(name, *why) for name, why in found if why is not None]


def _why(instance: dg.DagsterInstance, gate: str, candidate: Candidate) -> tuple[str, str] | None:
    key = dg.AssetCheckKey(names.RELEASE_CANDIDATE, gate)
    # Public on the instance but not in the documentation: asked in this place only.
    record = instance.get_latest_asset_check_evaluation_record(key)
    event = record.event.dagster_event if record and record.event else None
    # A run that is under way, or was killed, has left a record that is planned only.
    if event is None or event.event_type != dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        return "it was not evaluated, or is being evaluated", "run the checks of releases/candidate"
    data = event.asset_check_evaluation_data
    target = data.target_materialization_data
    if target is None or target.storage_id != candidate.storage_id:
        return (
            "its latest evaluation is of an older candidate",
            "run the checks of releases/candidate again",
        )
    if not data.passed:
        return (
            data.description or "it failed",
            "mend what it found and materialise releases/candidate anew",
        )
    waived = data.metadata.get(WAIVED_UNTIL)
    today = datetime.now(UTC).date().isoformat()
    # "not waived" sorts after every day.
    if waived is not None and str(waived.value) < today:
        return (
            f"it failed, and its waiver ended on {waived.value}",
            "run the checks of releases/candidate again, or have it waived anew",
        )
    return None
