"""What the lab is set to: variables, gates and their waivers, keys of the API, and what is kept.

Nothing secret leaves this module: addresses are shown without passwords and queries, files as
their paths, and of keys what their list shows.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cf_lab_assets.releases.gates import GATES
from cf_lab_assets.releases.pointer import ROLLBACK_WINDOW
from cf_lab_assets.releases.retention import KEPT
from cf_lab_resources import settings
from cf_lab_resources.engine.audited_uris import AuditedUri
from cf_lab_resources.settings import Settings, redact

if TYPE_CHECKING:
    from cf_lab_resources.catalog import Waiver
    from cf_lab_resources.catalog.api_keys import ApiKey

REVIEW = "configuration"
PREFIX = "CF_LAB_"
KNOWN = sorted(value for name, value in vars(settings).items() if name.endswith("_VARIABLE"))
SET, DEFAULT, FOREIGN = "set", "default", "not a setting"
# A review is made once a month: what ends before the next one must be seen in this one.
MONTH = timedelta(days=31)

Row = dict[str, Any]

COLUMNS = {
    "variables": {
        "name": ("string", "of the environment variable"),
        "state": (
            "string",
            f"{SET} (also by the lab itself, which tells its processes where its embedded services "
            f"are), {DEFAULT}, or {FOREIGN} (misspelt, or read by others)",
        ),
        "value": ("string", "that counts, without passwords; of a file its path"),
    },
    "gates": {
        "name": ("string", "of the gate"),
        "limit": ("float", "that what is measured is held against"),
        "unit": ("string", "of the limit"),
        "waivable": ("bool", "whether a person may let a release through although it fails"),
        "waived": ("string", "whether that is so today, until when, and by whom"),
    },
    "api_keys": {
        "id": ("string", "of the key, its first eight digits"),
        "name": ("string", "whose it is, or what for"),
        "scopes": ("string", "what it opens"),
        "state": ("string", "valid, expired or revoked"),
        "age_days": ("int", "whole days since it was made"),
        "days_left": ("int", "whole days in which it will still open; 0 where it doesn't"),
    },
    "retention": {
        "what": ("string", "is kept"),
        "kept": ("float", "how many, or how long"),
        "unit": ("string", "of it"),
    },
}


def variables(environ: Mapping[str, str] = os.environ) -> list[Row]:
    """Every variable of the lab with the value that counts, and others named like them.

    Raises:
        SettingsError: A value is malformed; the message does not hold it.
    """
    found = Settings.from_env(environ)
    rows = [
        {
            "name": name,
            "state": SET if environ.get(name, "").strip() else DEFAULT,
            "value": _shown(name, found),
        }
        for name in KNOWN
    ]
    foreign = sorted(name for name in environ if name.startswith(PREFIX) and name not in KNOWN)
    return rows + [{"name": name, "state": FOREIGN, "value": "not shown"} for name in foreign]


def _shown(variable: str, found: Settings) -> str:
    """A setting's value without anything secret in it."""
    name = variable.removeprefix(PREFIX).lower()
    value = getattr(found, name if hasattr(found, name) else f"{name}_file")
    if value is None:
        return "none"
    if variable == settings.ALERT_VARIABLE:  # the path of a webhook may be its password
        parts = urlsplit(value)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/***"
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return ", ".join(_audited(one) for one in value)
    return redact(value) if "://" in value else str(value)


def _audited(one: AuditedUri) -> str:
    return str(dataclasses.replace(one, uri=redact(one.uri)))


def gates(waivers: Sequence[Waiver], today: date) -> list[Row]:
    """Every gate with its limit, and who has waived it today."""
    given = {one.gate: one for one in waivers if one.counts_on(today)}
    return [
        {
            "name": gate.name,
            "limit": gate.limit,
            "unit": gate.unit,
            "waivable": gate.waivable,
            "waived": f"until {given[gate.name].until}, by {given[gate.name].person}"
            if gate.name in given
            else "no",
        }
        for gate in GATES
    ]


def api_keys(keys: Sequence[ApiKey], now: datetime) -> list[Row]:
    """Every key that was ever made, with its age and what is left of it."""
    return [
        {
            "id": one.key_id,
            "name": one.name,
            "scopes": ", ".join(one.scopes),
            "state": one.state(now),
            "age_days": (now - one.created_at).days,
            "days_left": (one.expires_at - now).days if one.state(now) == "valid" else 0,
        }
        for one in keys
    ]


def ending(keys: Sequence[ApiKey], now: datetime) -> list[ApiKey]:
    """Valid keys that end within a month."""
    return [one for one in keys if one.state(now) == "valid" and one.expires_at - now <= MONTH]


def retention() -> list[Row]:
    """What is kept for how long, where that is a constant of the lab."""
    from cf_lab_resources.api.access import DAYS, MAXIMUM_DAYS

    return [
        {"what": what, "kept": kept, "unit": unit}
        for what, kept, unit in (
            ("records of superseded releases", KEPT, "releases"),
            (
                "cached records of the release before",
                ROLLBACK_WINDOW / timedelta(days=1),
                "days after a release",
            ),
            ("a key of the lookup API, where nothing else is said", DAYS, "days"),
            ("a key of the lookup API, at most", MAXIMUM_DAYS, "days"),
        )
    ]


def review(
    waivers: Sequence[Waiver],
    keys: Sequence[ApiKey],
    environ: Mapping[str, str] = os.environ,
    now: datetime | None = None,
) -> dict[str, list[Row]]:
    """All of it, by part, with the columns of `COLUMNS`.

    Args:
        waivers: all that were ever given.
        keys: all that were ever made.
        environ: the variables that are reviewed.
        now: with its zone; the clock's time if None.

    Raises:
        SettingsError: A variable is malformed.
    """
    now = now or datetime.now(UTC)
    return {
        "variables": variables(environ),
        "gates": gates(waivers, now.astimezone(UTC).date()),
        "api_keys": api_keys(keys, now),
        "retention": retention(),
    }
