"""How often an edit is drawn before its set is given up, by the acceptance seen so far."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from cf_lab_assets.counterfactuals.attribute_sets import value_of

# The share of edits that may be given up although a further draw would have been accepted, were
# all edits of a direction alike.
MISSED = 0.01


class Budget:
    """Draws allowed to an edit, by the rate at which draws of its direction were accepted.

    With a rate p, all but a share `MISSED` of alike edits are accepted within log(MISSED) /
    log(1 - p) draws. Where nothing was seen the rate is taken as a half, the mean of a uniform
    prior; it is the posterior's mean after that.
    """

    def __init__(self, max_draws: int) -> None:
        """Begin with nothing seen.

        Args:
            max_draws: of any edit, however rarely its direction is accepted.
        """
        self._most = max_draws
        self._drawn: Counter[tuple[str, str]] = Counter()
        self._accepted: Counter[tuple[str, str]] = Counter()

    def of(self, edit: Mapping[str, Any]) -> int:
        """Draws allowed to an edit, at least one."""
        name = _direction(edit)
        rate = (self._accepted[name] + 1) / (self._drawn[name] + 2)
        return max(1, min(self._most, math.ceil(math.log(MISSED) / math.log1p(-rate))))

    def record(self, edits: Iterable[Mapping[str, Any]], rows: Iterable[Mapping[str, Any]]) -> None:
        """Take in what became of edits: their candidate rows."""
        names = {edit["edit_id"]: _direction(edit) for edit in edits}
        for row in rows:
            self._drawn[names[row["edit_id"]]] += 1
            self._accepted[names[row["edit_id"]]] += bool(row["accepted"])


def _direction(edit: Mapping[str, Any]) -> tuple[str, str]:
    attribute = edit["attribute"]
    return ("", "") if attribute is None else (attribute, value_of(edit["to_values"], attribute))
