"""What a part of the instrument is held against, and what was found: numbers beside limits.

A leaf. Three verdicts: a proposition "holds" where the whole interval lies within the limit,
"fails" where it is broken and not by chance, and is "insufficient" in between, and wherever there
is too little to measure. Not knowing is neither passing nor a finding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

HOLDS, FAILS, INSUFFICIENT = "holds", "fails", "insufficient"
_ORDER = {FAILS: 0, HOLDS: 1, INSUFFICIENT: 2}
DIGITS = 6


@dataclass(frozen=True)
class Limit:
    """What is not to be exceeded, or for a floor not to be fallen short of.

    Attributes:
        value: in the unit.
        unit: of the limit and of what is measured.
        origin: where the limit is from.
        is_floor: whether what is measured must not be below it, instead of above.
    """

    value: float
    unit: str
    origin: str
    is_floor: bool = False


@dataclass(frozen=True)
class Finding:
    """One number held against its limit.

    Attributes:
        measure: what was measured.
        subject: of what.
        n: sources behind it, of two sides the smaller one's.
        estimate: None where it can't be computed.
        low, high: its interval; None likewise.
        limit: what it is held against.
        verdict: holds, fails or insufficient.
    """

    measure: str
    subject: str
    n: int
    estimate: float | None
    low: float | None
    high: float | None
    limit: Limit
    verdict: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, the limit as its bare value."""
        return plain({**asdict(self), "limit": self.limit.value, "unit": self.limit.unit})


def gap_verdict(estimate: float | None, low: float | None, high: float | None, limit: float) -> str:
    """Of a difference that must be near zero: far apart and not by chance, surely near, or else."""
    if estimate is None or low is None or high is None:
        return INSUFFICIENT
    if abs(estimate) > limit and not low <= 0 <= high:
        return FAILS
    return HOLDS if -limit <= low and high <= limit else INSUFFICIENT


def ceiling_verdict(low: float | None, high: float | None, limit: float) -> str:
    """Of a number that must not surely be above a limit."""
    if low is None or high is None:
        return INSUFFICIENT
    if low > limit:
        return FAILS
    return HOLDS if high <= limit else INSUFFICIENT


def floor_verdict(low: float | None, high: float | None, limit: float) -> str:
    """Of a number that must not surely be below a limit."""
    if low is None or high is None:
        return INSUFFICIENT
    return ceiling_verdict(-high, -low, -limit)


def overall(verdicts: Iterable[str]) -> str:
    """Fails where one does, holds where all do, else insufficient; of none, insufficient."""
    found = set(verdicts)
    if FAILS in found:
        return FAILS
    return HOLDS if found == {HOLDS} else INSUFFICIENT


def ranked(findings: Sequence[Finding]) -> list[Finding]:
    """Those that fail, those that hold, the others; each by how far they reach beyond the limit."""
    return sorted(
        findings, key=lambda one: (one.estimate is None, _ORDER[one.verdict], -_reach(one))
    )


def _reach(finding: Finding) -> float:
    """How far towards the limit and beyond, which is at 1."""
    share = abs(finding.estimate or 0.0) / abs(finding.limit.value or 1.0)
    return 1 / max(share, 1e-9) if finding.limit.is_floor else share


def number(value: Any) -> float | None:
    """A float for JSON: rounded, and None for what is missing or not finite."""
    if value is None or not math.isfinite(float(value)):
        return None
    return round(float(value), DIGITS) + 0.0


def plain(value: Any) -> Any:
    """The same with every float as `number` has it, in dictionaries and sequences too."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return number(value) if isinstance(value, float) else value
