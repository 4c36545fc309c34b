"""What can go wrong with the embedded services."""

from __future__ import annotations

from pathlib import Path

from cf_lab_resources.errors import LabError

_TAIL_LINES = 12


class EmbeddedError(LabError, RuntimeError):
    """An embedded service cannot run here; the message says why and what to do."""


def with_log(message: str, log: Path) -> EmbeddedError:
    """An error that names the log file and shows its last lines."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    except OSError:
        lines = []
    shown = "".join(f"\n    {line}" for line in lines) or "\n    (empty)"
    return EmbeddedError(f"{message}\n  log: {log}, its last lines:{shown}")
