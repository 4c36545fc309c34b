"""Acceptance parity: whether sets are accepted alike whoever the source shows and what is asked.

Acceptance that differs between groups skews what a dataset can say about them. Two comparisons
are made: of source groups (the shares of sets accepted, by the source's value of an attribute)
and of directions (the shares of edits accepted, a to b against b to a).
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cf_lab_assets.counterfactuals.attribute_sets import JOIN, joined, value_of

# Of acceptance rates, the lower to the higher. The four-fifths rule of the US Uniform Guidelines
# on Employee Selection Procedures (29 CFR 1607.4 D) is used as a convention, and is no law here.
RATIO_LIMIT = 0.8
# Fewer sets or edits than this on one side are "insufficient": at equal shares of one half, the
# interval of the gap would reach from -0.24 to 0.24.
LEAST_COMPARED = 30
# Error rate of all comparisons of one check together; each has its Bonferroni part.
ERROR_RATE = 0.05

EQUAL, UNEQUAL, INSUFFICIENT = "equal", "unequal", "insufficient"

Count = tuple[int, int]  # drawn and accepted


class Acceptance:
    """What was drawn and accepted: sets by their source's values, edits by their direction."""

    def __init__(self) -> None:
        self._sets: dict[tuple[str, tuple[tuple[str, str], ...]], list[int]] = {}
        self._edits: dict[tuple[str, str, str], list[int]] = {}

    def add_set(self, attribute: str, values: Mapping[str, str], accepted: bool) -> None:
        """Count a set by what it varies and the values of its source."""
        count = self._sets.setdefault((attribute, tuple(sorted(values.items()))), [0, 0])
        count[0] += 1
        count[1] += accepted

    def add_edit(self, edit: Mapping[str, Any], accepted: bool) -> None:
        """Count an edit, a row of the plan that is no placebo, by its direction."""
        attribute = edit["attribute"]
        direction = (
            attribute,
            value_of(edit["from_values"], attribute),
            value_of(edit["to_values"], attribute),
        )
        count = self._edits.setdefault(direction, [0, 0])
        count[0] += 1
        count[1] += accepted

    def set_rows(self) -> list[dict[str, Any]]:
        """Rows of the table ``acceptance``."""
        return [
            {"attribute": attribute, "values": dict(values), "drawn": drawn, "accepted": accepted}
            for (attribute, values), (drawn, accepted) in sorted(self._sets.items())
        ]

    def by_value(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Accepted and drawn sets, by what they vary and the source's own value of it."""
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for (attribute, values), (drawn, accepted) in sorted(self._sets.items()):
            key = attribute, joined(dict(values), attribute.split(JOIN)) or "unknown"
            before = found.get(key, (0, 0))
            found[key] = (before[0] + accepted, before[1] + drawn)
        return found

    def edit_rows(self) -> list[dict[str, Any]]:
        """Rows of the table ``directions``."""
        return [
            {
                "attribute": attribute,
                "from_value": from_value,
                "to_value": to_value,
                "drawn": drawn,
                "accepted": accepted,
            }
            for (attribute, from_value, to_value), (drawn, accepted) in sorted(self._edits.items())
        ]


@dataclass(frozen=True)
class Comparison:
    """Two acceptance rates side by side.

    Attributes:
        attribute: what the sets or edits vary.
        first, second: names of the groups or directions.
        drawn, accepted: of each.
        gap: the first's rate less the second's; None where one side has nothing.
        low, high: Newcombe's interval of the gap; None likewise.
        ratio: the lower rate to the higher; None where nothing was accepted on both sides.
        verdict: equal, unequal or insufficient.
    """

    attribute: str
    first: str
    second: str
    drawn: tuple[int, int]
    accepted: tuple[int, int]
    gap: float | None
    low: float | None
    high: float | None
    ratio: float | None
    verdict: str


def newcombe_interval(first: Count, second: Count, level: float) -> tuple[float, float]:
    """Interval of the difference of two shares (Newcombe 1998, method 10), from Wilson's intervals.

    Args:
        first: drawn and accepted.
        second: likewise.
        level: of the interval.
    """
    from cf_lab_assets.audits.statistics import wilson_interval

    (n1, k1), (n2, k2) = first, second
    low1, high1 = wilson_interval(k1, n1, level)
    low2, high2 = wilson_interval(k2, n2, level)
    p1, p2 = k1 / n1, k2 / n2
    low = p1 - p2 - math.hypot(p1 - low1, high2 - p2)
    high = p1 - p2 + math.hypot(high1 - p1, p2 - low2)
    return low, high


def compare(
    attribute: str, first: tuple[str, Count], second: tuple[str, Count], level: float
) -> Comparison:
    """Compare two groups' acceptance.

    Unequal are rates whose ratio is under `RATIO_LIMIT` while the interval of their gap leaves
    zero out: far apart, and not by chance.
    """
    (name1, (n1, k1)), (name2, (n2, k2)) = first, second
    gap = low = high = ratio = None
    if n1 and n2:
        gap = k1 / n1 - k2 / n2
        low, high = newcombe_interval((n1, k1), (n2, k2), level)
        ratio = min(k1 / n1, k2 / n2) / max(k1 / n1, k2 / n2) if k1 or k2 else None
    if min(n1, n2) < LEAST_COMPARED or ratio is None or low is None or high is None:
        verdict = INSUFFICIENT
    elif ratio < RATIO_LIMIT and not low <= 0 <= high:
        verdict = UNEQUAL
    else:
        verdict = EQUAL
    return Comparison(attribute, name1, name2, (n1, n2), (k1, k2), gap, low, high, ratio, verdict)


def source_groups(rows: Iterable[Mapping[str, Any]]) -> list[Comparison]:
    """Every pair of an attribute's values, by the sets of sources that show them.

    Only sets that vary the same are compared: a sampled batch may hold more of the harder ones of
    one group than of another.

    Args:
        rows: of the table ``acceptance``.
    """
    groups: dict[tuple[str, str], dict[str, Count]] = defaultdict(dict)
    for row in rows:
        for attribute, value in row["values"].items():
            group = groups[row["attribute"], attribute]
            drawn, accepted = group.get(f"{attribute} {value}", (0, 0))
            group[f"{attribute} {value}"] = (drawn + row["drawn"], accepted + row["accepted"])
    pairs = [
        (varied, first, second)
        for (varied, _), values in groups.items()
        for first, second in itertools.combinations(values.items(), 2)
    ]
    return _compare_all(pairs)


def directions(rows: Iterable[Mapping[str, Any]]) -> list[Comparison]:
    """Every direction against its opposite.

    Args:
        rows: of the table ``directions``.
    """
    counts = {
        (row["attribute"], row["from_value"], row["to_value"]): (row["drawn"], row["accepted"])
        for row in rows
    }
    found = sorted({(name, *sorted((start, end))) for name, start, end in counts})
    pairs = [
        (
            name,
            (f"{one} to {other}", counts.get((name, one, other), (0, 0))),
            (f"{other} to {one}", counts.get((name, other, one), (0, 0))),
        )
        for name, one, other in found
    ]
    return _compare_all(pairs)


def _compare_all(
    pairs: Sequence[tuple[str, tuple[str, Count], tuple[str, Count]]],
) -> list[Comparison]:
    level = 1 - ERROR_RATE / max(len(pairs), 1)
    return [compare(attribute, first, second, level) for attribute, first, second in pairs]
