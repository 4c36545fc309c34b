"""How often an edit is drawn before its set is given up, by the acceptance seen so far."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cf_lab_assets.counterfactuals.acceptance import by_source, of_one_draw, sets_of_source
from cf_lab_assets.counterfactuals.attribute_sets import value_of

# The share of edits that may be given up although a further draw would have been accepted, were
# all edits of a direction alike.
MISSED = 0.01

Direction = tuple[str, str]


class Budget:
    """Draws allowed to an edit, by the rate at which draws of its direction were accepted.

    With a rate p, all but a share `MISSED` of alike edits are accepted within log(MISSED) /
    log(1 - p) draws. Where nothing was seen the rate is taken as a half, the mean of a uniform
    prior; it is the posterior's mean after that. Where the members of a set must be of one draw,
    the rate is of whole sets that vary the same.
    """

    def __init__(self, max_draws: int) -> None:
        """Begin with nothing seen.

        Args:
            max_draws: of any edit, however rarely its direction is accepted.
        """
        self._most = max_draws
        self._drawn: Counter[Direction] = Counter()
        self._accepted: Counter[Direction] = Counter()

    def allowed(self, edits: Sequence[Mapping[str, Any]]) -> list[int]:
        """Draws allowed to each of a chunk's edits, at least one."""
        if of_one_draw(edits):
            # The base of all sets of a source is drawn as long as one of them is.
            names = [edit["attribute"] for edit in edits]
            return [self._most if name is None else self._of((name, "")) for name in names]
        return [self._of(_direction(edit)) for edit in edits]

    def record(self, edits: Sequence[dict[str, Any]], rows: Sequence[Mapping[str, Any]]) -> None:
        """Take in what became of a chunk's edits: their candidate rows."""
        trials = _whole_draws(edits, rows) if of_one_draw(edits) else _single_draws(edits, rows)
        for direction, accepted in trials:
            self._drawn[direction] += 1
            self._accepted[direction] += accepted

    def _of(self, direction: Direction) -> int:
        rate = (self._accepted[direction] + 1) / (self._drawn[direction] + 2)
        return max(1, min(self._most, math.ceil(math.log(MISSED) / math.log1p(-rate))))


def _single_draws(
    edits: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Direction, bool]]:
    names = {edit["edit_id"]: _direction(edit) for edit in edits}
    for row in rows:
        yield names[row["edit_id"]], bool(row["accepted"])


def _whole_draws(
    edits: Sequence[dict[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Direction, bool]]:
    good = {(row["edit_id"], row["draw"]): bool(row["accepted"]) for row in rows}
    draws = sorted({row["draw"] for row in rows})
    for planned in by_source(edits).values():
        for attribute, members in sets_of_source(planned).items():
            for draw in draws:
                if (members[-1]["edit_id"], draw) in good:
                    yield (attribute, ""), all(good[one["edit_id"], draw] for one in members)


def _direction(edit: Mapping[str, Any]) -> Direction:
    attribute = edit["attribute"]
    return ("", "") if attribute is None else (attribute, value_of(edit["to_values"], attribute))
