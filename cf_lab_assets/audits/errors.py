"""What goes wrong with audits."""

from __future__ import annotations

from cf_lab_resources.errors import LabError


class AuditError(LabError):
    """An audit can't be made from what it was given."""
