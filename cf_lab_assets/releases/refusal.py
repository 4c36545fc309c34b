"""What Dagster's event log says of the gates: whether the candidate may be published.

Automation waits for the gates anyway. This is asked inside `releases/current` as well, since
somebody may launch that asset by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from cf_lab_assets import names
from cf_lab_assets.faces import MEASURED
from cf_lab_assets.releases.gates import GATES

RELEASE_ID, WAIVED_UNTIL = "release_id", "waived_until"
NOT_WAIVED = "not waived"


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


def judged(instance: dg.DagsterInstance) -> list[dict[str, str]]:
    """What the latest evaluation of each gate measured, beside its limit; narrow, for people."""
    rows = []
    for gate in GATES:
        data = _evaluation(instance, gate.name)
        said = {} if data is None else {name: one.value for name, one in data.metadata.items()}
        measured = said.get(MEASURED, "not evaluated")
        passed = "no" if data is None or not data.passed else "yes"
        waived = said.get(WAIVED_UNTIL, NOT_WAIVED)
        rows.append(
            {
                "gate": gate.name,
                "measured": f"{measured:.4g}"
                if isinstance(measured, float | int)
                else str(measured),
                "limit": f"{gate.limit:g} {gate.unit}",
                "passed": passed if waived == NOT_WAIVED else f"waived until {waived}",
            }
        )
    return rows


def _evaluation(instance: dg.DagsterInstance, gate: str) -> dg.AssetCheckEvaluation | None:
    """The latest evaluation of a gate."""
    key = dg.AssetCheckKey(names.RELEASE_CANDIDATE, gate)
    # Public on the instance but not in the documentation: asked in this place only.
    record = instance.get_latest_asset_check_evaluation_record(key)
    event = record.event.dagster_event if record and record.event else None
    # A run that is under way, or was killed, has left a record that is planned only.
    if event is None or event.event_type != dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        return None
    return event.asset_check_evaluation_data


def _why(instance: dg.DagsterInstance, gate: str, candidate: Candidate) -> tuple[str, str] | None:
    data = _evaluation(instance, gate)
    if data is None:
        return "it was not evaluated, or is being evaluated", "run the checks of releases/candidate"
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
