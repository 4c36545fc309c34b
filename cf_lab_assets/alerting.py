"""What people are told: checks and runs that failed, freshness that was lost, what assets report.

Each happening is told once. The sensor remembers how far it has read Dagster's event log, and goes
on only once the receiver has taken the alerts, so that a receiver that is down delays them and
loses none. Dagster's own sensor of failed runs goes on when telling fails, so it is not used. What
happened before the sensor was first switched on is not told.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from cf_lab_resources.alerts import Alert

INTERVAL_SECONDS = 30
EVENTS_A_TICK = 500
# Metadata of an observation that makes it an alert, with the alert's name as its value.
ALERT = "cf_lab/alert"
TOLD = (
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.ASSET_OBSERVATION,
    dg.DagsterEventType.FRESHNESS_STATE_CHANGE,
    dg.DagsterEventType.RUN_FAILURE,
)
NOBODY = "; CF_LAB_ALERT_URL is not set, so nobody was told"


@dg.sensor(
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells whoever is on duty, once each, of checks and runs that failed and of assets "
    "that are no longer fresh.",
)
def alert_of_failures(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Alerts for what the event log has had since the last tick."""
    storage = context.instance.event_log_storage
    if context.cursor is None:
        newest = storage.get_maximum_record_id() or 0
        return dg.SensorResult(cursor=str(newest), skip_reason="alerts begin from here on")
    after = int(context.cursor)
    records = sorted(
        (
            record
            for kind in TOLD
            for record in storage.get_event_records(
                dg.EventRecordsFilter(kind, after_cursor=after), EVENTS_A_TICK, ascending=True
            )
        ),
        key=lambda record: record.storage_id,
    )[:EVENTS_A_TICK]
    alerts = [alert for record in records for alert in alerts_of(record)]
    told = _tell(alerts)
    newest = records[-1].storage_id if records else after
    found = f"{len(alerts)} alerts of {len(records)} events"
    return dg.SensorResult(cursor=str(newest), skip_reason=found + ("" if told else NOBODY))


def alerts_of(record: dg.EventLogRecord) -> Iterator[Alert]:
    """What a person should know of an event: of most of them nothing."""
    event = record.event_log_entry.dagster_event
    if event is None:
        return
    at = datetime.datetime.fromtimestamp(record.timestamp, datetime.UTC)
    if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        yield from _of_check(event.asset_check_evaluation_data, at)
    elif event.event_type == dg.DagsterEventType.FRESHNESS_STATE_CHANGE:
        yield from _of_freshness(event.event_specific_data, at)
    elif event.event_type == dg.DagsterEventType.ASSET_OBSERVATION:
        yield from _of_observation(event.asset_observation_data.asset_observation, at)
    elif event.event_type == dg.DagsterEventType.RUN_FAILURE:
        yield from _of_run(event, record.run_id, at)


def _of_check(found: dg.AssetCheckEvaluation, at: datetime.datetime) -> Iterator[Alert]:
    from cf_lab_resources.alerts import Alert

    if found.passed:
        return
    asset = found.asset_key.to_user_string()
    yield Alert(
        name="CheckFailed",
        severity="critical" if found.severity == dg.AssetCheckSeverity.ERROR else "warning",
        at=at,
        summary=f"{found.check_name} of {asset} failed",
        description=found.description or "the check gave no reason",
        labels={"asset": asset, "check": found.check_name},
    )


def _of_freshness(change: object, at: datetime.datetime) -> Iterator[Alert]:
    from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange

    from cf_lab_resources.alerts import Alert

    if not isinstance(change, FreshnessStateChange):
        return
    severities = {FreshnessState.FAIL: "critical", FreshnessState.WARN: "warning"}
    if change.new_state not in severities:
        return
    asset = change.key.to_user_string()
    yield Alert(
        name="FreshnessLost",
        severity="critical" if change.new_state == FreshnessState.FAIL else "warning",
        at=at,
        summary=f"{asset} is no longer fresh",
        description=f"it was not made anew within its window; materialise {asset}, and look in "
        "the UI's automation page at what should have done it",
        labels={"asset": asset, "state": change.new_state.value.lower()},
    )


def _of_observation(seen: dg.AssetObservation, at: datetime.datetime) -> Iterator[Alert]:
    from cf_lab_resources.alerts import Alert

    if ALERT not in seen.metadata:
        return
    asset = seen.asset_key.to_user_string()
    yield Alert(
        name=str(seen.metadata[ALERT].value),
        severity="warning",
        at=at,
        summary=f"{asset} reports something",
        description=seen.description or "it gave no reason",
        labels={"asset": asset},
    )


def _of_run(event: dg.DagsterEvent, run_id: str, at: datetime.datetime) -> Iterator[Alert]:
    from cf_lab_resources.alerts import Alert

    yield Alert(
        name="RunFailed",
        severity="critical",
        at=at,
        summary=f"a run of {event.job_name} failed",
        description=event.message or "the run gave no reason",
        labels={"job": event.job_name, "run_id": run_id},
    )


def _tell(alerts: list[Alert]) -> bool:
    """Send alerts where a receiver is set; whether one is."""
    from cf_lab_resources.alerts import send
    from cf_lab_resources.settings import Settings

    settings = Settings.from_env()
    if settings.alert_url is not None:
        send(settings.alert_url, alerts, settings.runbook_url)
    return settings.alert_url is not None
