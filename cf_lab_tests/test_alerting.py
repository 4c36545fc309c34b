"""Alerts against a receiver of our own over real HTTP: each happening once, none lost."""

from __future__ import annotations

import datetime
import itertools
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange

from cf_lab_assets import alerting
from cf_lab_resources.alerts import RUNBOOK, Alert, AlertError, send

KEY = dg.AssetKey(["releases", "current"])
NOW = datetime.datetime(2026, 11, 28, 6, 0, tzinfo=datetime.UTC)


class Receiver:
    """Keeps what is posted to it, and answers with a status that a test may change."""

    def __init__(self) -> None:
        self.status = 200
        self.alerts: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver.status == 200:
                    receiver.alerts += json.loads(body)
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/api/v2/alerts"

    def names(self) -> list[tuple[str, str]]:
        return [(one["labels"]["alertname"], one["labels"]["severity"]) for one in self.alerts]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    found = Receiver()
    thread = threading.Thread(target=found.server.serve_forever)
    thread.start()
    monkeypatch.setenv("CF_LAB_ALERT_URL", found.url)
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def evaluate(instance: dg.DagsterInstance, passed: bool, severity: Any = "ERROR") -> None:
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=KEY,
            check_name="every_gate_still_holds",
            passed=passed,
            metadata={},
            severity=dg.AssetCheckSeverity[severity],
            description="no_hash_mismatch: images/ab is missing",
        )
    )


def tick(instance: dg.DagsterInstance, cursor: str | None) -> dg.SensorResult:
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    found = alerting.alert_of_failures(context)
    assert isinstance(found, dg.SensorResult)
    return found


def test_a_failing_check_is_told_once_and_what_was_before_is_not(
    receiver: Receiver, instance: dg.DagsterInstance
) -> None:
    evaluate(instance, passed=False)
    cursor = tick(instance, None).cursor
    assert receiver.alerts == []
    evaluate(instance, passed=True)
    evaluate(instance, passed=False)
    evaluate(instance, passed=False, severity="WARN")
    cursor = tick(instance, cursor).cursor
    assert receiver.names() == [("CheckFailed", "critical"), ("CheckFailed", "warning")]
    told = receiver.alerts[0]
    assert told["labels"]["asset"] == "releases/current"
    assert told["labels"]["check"] == "every_gate_still_holds"
    assert "images/ab is missing" in told["annotations"]["description"]
    assert datetime.datetime.fromisoformat(told["startsAt"]).tzinfo is not None
    tick(instance, cursor)
    assert len(receiver.alerts) == 2


def test_a_receiver_that_is_down_delays_alerts_and_loses_none(
    receiver: Receiver, instance: dg.DagsterInstance
) -> None:
    cursor = tick(instance, None).cursor
    evaluate(instance, passed=False)
    receiver.status = 503
    with pytest.raises(AlertError, match="status 503"):
        tick(instance, cursor)
    receiver.status = 200
    tick(instance, cursor)
    assert receiver.names() == [("CheckFailed", "critical")]


def test_lost_freshness_is_told_and_regained_freshness_is_not(
    receiver: Receiver, instance: dg.DagsterInstance
) -> None:
    cursor = tick(instance, None).cursor
    states = [FreshnessState.PASS, FreshnessState.WARN, FreshnessState.FAIL, FreshnessState.PASS]
    for before, after in itertools.pairwise(states):
        instance._report_runless_asset_event(  # the daemon's own way
            FreshnessStateChange(
                key=KEY, new_state=after, previous_state=before, state_change_timestamp=0.0
            )
        )
    tick(instance, cursor)
    assert receiver.names() == [("FreshnessLost", "warning"), ("FreshnessLost", "critical")]


def test_many_failures_are_told_over_several_ticks(
    receiver: Receiver, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerting, "EVENTS_A_TICK", 2)
    cursor = tick(instance, None).cursor
    for _ in range(5):
        evaluate(instance, passed=False)
    for _ in range(4):
        cursor = tick(instance, cursor).cursor
    assert len(receiver.alerts) == 5


def test_a_failed_run_is_told_also_by_a_receiver_that_was_down(
    receiver: Receiver, instance: dg.DagsterInstance
) -> None:
    @dg.op
    def fails() -> None:
        raise dg.Failure("the disk is full; make room", allow_retries=False)

    @dg.job
    def doomed() -> None:
        fails()

    cursor = tick(instance, None).cursor
    result = doomed.execute_in_process(instance=instance, raise_on_error=False)
    receiver.status = 503
    with pytest.raises(AlertError, match="status 503"):
        tick(instance, cursor)
    receiver.status = 200
    cursor = tick(instance, cursor).cursor
    tick(instance, cursor)
    assert receiver.names() == [("RunFailed", "critical")]
    assert receiver.alerts[0]["labels"]["job"] == "doomed"
    assert receiver.alerts[0]["labels"]["run_id"] == result.run_id


def test_what_an_asset_reports_is_told_where_it_says_so(
    receiver: Receiver, instance: dg.DagsterInstance
) -> None:
    cursor = tick(instance, None).cursor
    for metadata in ({"rows": 3}, {alerting.ALERT: "ReleaseWithdrawn", "rows": 3}):
        seen = dg.AssetObservation(KEY, description="r1 was withdrawn", metadata=metadata)
        instance.report_runless_asset_event(seen)
    cursor = tick(instance, cursor).cursor
    tick(instance, cursor)
    assert receiver.names() == [("ReleaseWithdrawn", "warning")]
    assert receiver.alerts[0]["annotations"]["description"] == "r1 was withdrawn"


def test_every_alert_leads_to_its_section_of_the_runbook(
    receiver: Receiver, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(alerting.__file__).parents[1]
    sources = [path.read_text() for path in (root / "cf_lab_assets").rglob("*.py")]
    named = {
        name
        for text in sources
        for name in re.findall(r'(?:Alert\(\s*name=|\bALERT: )"(\w+)"', text)
    }
    assert {"CheckFailed", "FreshnessLost", "RunFailed", "ReleaseWithdrawn"} <= named
    headings = re.findall(r"^## (.+)$", (root / RUNBOOK).read_text(), re.MULTILINE)
    assert named <= set(headings)
    cursor = tick(instance, None).cursor
    evaluate(instance, passed=False)
    tick(instance, cursor)
    assert receiver.alerts[0]["annotations"]["runbook_url"] == "deploy/RUNBOOK.md#checkfailed"
    monkeypatch.setenv("CF_LAB_RUNBOOK_URL", "https://wiki.example.org/runbook")
    tick(instance, cursor)
    told = receiver.alerts[1]["annotations"]["runbook_url"]
    assert told == "https://wiki.example.org/runbook#checkfailed"


def test_without_a_receiver_the_sensor_says_that_nobody_was_told(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CF_LAB_ALERT_URL", raising=False)
    cursor = tick(instance, None).cursor
    evaluate(instance, passed=False)
    reason = tick(instance, cursor).skip_reason
    assert isinstance(reason, dg.SkipReason)
    assert "nobody was told" in str(reason.skip_message)


def test_an_error_names_the_receiver_and_keeps_the_webhooks_secret() -> None:
    alert = Alert("Test", "warning", NOW, "s", "d")
    with pytest.raises(AlertError, match=r"127\.0\.0\.1:1 does not answer") as found:
        send("http://user:hidden@127.0.0.1:1/hooks/secret", [alert])
    assert "hidden" not in str(found.value)
    assert "secret" not in str(found.value)
