"""Alerts to whoever is on duty: posted to Alertmanager, or to any URL that takes the same JSON.

One POST holds a list, as Alertmanager's API v2 has it (`POST /api/v2/alerts`): of each alert its
`labels`, by which the receiver tells it from others, `annotations` for people, and `startsAt`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from cf_lab_resources.errors import LabError

SECONDS = 10.0
MAXIMUM_TEXT = 2000
RUNBOOK = "deploy/RUNBOOK.md"

Severity = Literal["critical", "warning"]


class AlertError(LabError):
    """The receiver does not answer or refuses; the alerts were not delivered."""


@dataclass(frozen=True)
class Alert:
    """Something that a person should look at.

    Attributes:
        name: what happened, one word for each kind.
        severity: "critical" where what is served is concerned or work stands still.
        at: when it happened, with its zone.
        summary: one sentence.
        description: what was found and what to do.
        labels: what it happened to; with the name they identify the alert.
    """

    name: str
    severity: Severity
    at: datetime
    summary: str
    description: str
    labels: dict[str, str] = field(default_factory=dict)

    def to_json(self, runbook_url: str | None = None) -> dict[str, Any]:
        """As Alertmanager's API v2 takes it."""
        return {
            "labels": {"alertname": self.name, "severity": self.severity, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description[:MAXIMUM_TEXT],
                "runbook_url": runbook(self.name, runbook_url),
            },
            "startsAt": self.at.isoformat(),
        }


def runbook(section: str, url: str | None = None) -> str:
    """Where a section of the runbook is read; its heading's anchor is its name in small letters.

    Args:
        section: an alert's name, or another heading.
        url: of the runbook, `CF_LAB_RUNBOOK_URL`; the file's path in the source tree where None.
    """
    return f"{url or RUNBOOK}#{section.lower().replace(' ', '-')}"


def send(url: str, alerts: Sequence[Alert], runbook_url: str | None = None) -> None:
    """Post alerts together; nothing where there are none.

    Args:
        url: of the receiver.
        alerts: to be told.
        runbook_url: where people read the runbook, which each alert links to.

    Raises:
        AlertError: The receiver does not answer, or answers with anything but 2xx.
    """
    if not alerts:
        return
    import httpx

    receiver = urlsplit(url).netloc.rpartition("@")[2]  # a webhook's path may be its password
    try:
        told = [one.to_json(runbook_url) for one in alerts]
        answer = httpx.post(url, json=told, timeout=SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise AlertError(
            f"{receiver} does not answer: {type(error).__name__}; check that the receiver of "
            "alerts runs and that CF_LAB_ALERT_URL is right"
        ) from error
    if not answer.is_success:
        raise AlertError(
            f"{receiver} refused {len(alerts)} alerts with status {answer.status_code}; check "
            "that CF_LAB_ALERT_URL takes the alerts of Alertmanager's API v2"
        )
