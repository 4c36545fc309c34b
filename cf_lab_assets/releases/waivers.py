"""A named person's word that a release may be published although a gate fails, until a day.

A waiver is for one gate, and counts only where the release's own signed report shows it, so that
nobody reads a report without learning of it. After its last day the gate counts as failed again,
also on the release that is current.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from cf_lab_assets.releases.gates import GATES
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from cf_lab_resources.catalog import Catalog, Waiver

MAXIMUM_TEXT = 500


class WaiverRefused(LabError):
    """A waiver can't be given so; the message says why and what to do."""


def grant(catalog: Catalog, gate: str, person: str, reason: str, until: date) -> Waiver:
    """Keep a waiver.

    Args:
        catalog: where to.
        gate: name of a gate that may be waived.
        person: who answers for it.
        reason: why.
        until: the last day, UTC, on which it counts.

    Raises:
        WaiverRefused: The gate is none or can't be waived, a text is empty or too long, or the day
            is past.
    """
    waivable = [one.name for one in GATES if one.waivable]
    if gate not in waivable:
        known = gate in {one.name for one in GATES}
        why = "guards against damage and can't be waived" if known else "is not a gate"
        raise WaiverRefused(f"{gate!r} {why}; waivable are {' and '.join(waivable)}")
    person, reason = _text("--by", person), _text("--reason", reason)
    today = datetime.now(UTC).date()
    if until < today:
        raise WaiverRefused(f"--until {until} is past; today is {today}: name a day to come")
    catalog.migrate()
    return catalog.grant_waiver(gate, person, reason, until)


def _text(option: str, text: str) -> str:
    text = text.strip()
    if not text or len(text) > MAXIMUM_TEXT or not text.isprintable():
        raise WaiverRefused(
            f"{option} must be one line of at most {MAXIMUM_TEXT} printable characters"
        )
    return text
