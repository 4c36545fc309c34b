"""Which deliveries in `incoming/` are complete, decided from what several looks at it saw.

A delivery counts as complete when neither the names nor the sizes of its files have changed for
some looks. Of an ImageFolder the deliverer puts the pictures below `incoming/<batch>/` first and
the metadata file last, so that one look suffices, which finds that file whole. Tar shards, Parquet
files and caption sets have no file that says so: whoever takes longer than all their looks to put
the next file there gets a batch of those that are there. As long is waited until a folder that is
of no kind is refused. Each state of a delivery is asked for once: one that is refused is looked at
again only when its files change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Literal

from cf_lab_assets.sources.batches import check_batch_name
from cf_lab_assets.sources.refusals import DeliveryRefused

State = Literal["waiting", "requested", "stored", "refused"]


@dataclass(frozen=True)
class Arrival:
    """What lies below `incoming/<batch>/`.

    Attributes:
        batch: The name of the folder.
        fingerprint: Of the names and sizes of its files.
        kind: Which kind of delivery it is, None as long as it is of none.
        problem: Why it can't be taken as it is.
        looks: How many looks in a row must find it unchanged.
    """

    batch: str
    fingerprint: str
    kind: str | None
    problem: str = ""
    looks: int = 1


@dataclass(frozen=True)
class Seen:
    """What was made of a delivery when it looked like this.

    Attributes:
        fingerprint: Of its files.
        state: What was made of it.
        why: Where it was refused, the reason.
        unchanged: Where it is waited for, how many looks found it as the look before did.
    """

    fingerprint: str
    state: State
    why: str = ""
    unchanged: int = 0


@dataclass(frozen=True)
class Decision:
    """What to do about the deliveries.

    Attributes:
        requests: Deliveries to take in now.
        refused: Those found wrong just now, with the reason.
        seen: All deliveries, to be handed in next time.
    """

    requests: tuple[Arrival, ...]
    refused: dict[str, str] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)

    def summary(self) -> str:
        """One line on what is waited for and what was refused."""
        if not self.seen:
            return "nothing in incoming/"
        waiting = sorted(name for name, seen in self.seen.items() if seen.state == "waiting")
        lines = [f"waiting for {', '.join(waiting)} to be complete"] if waiting else []
        lines += [
            f"incoming/{name} refused: {seen.why}"
            for name, seen in sorted(self.seen.items())
            if seen.state == "refused"
        ]
        return "; ".join(lines) or "nothing new in incoming/"


def decide(
    arrivals: Iterable[Arrival],
    seen: dict[str, Seen],
    stored_delivery: Callable[[str], str | None],
) -> Decision:
    """Decides on every delivery.

    Args:
        arrivals: What lies in `incoming/` now.
        seen: From the decision before.
        stored_delivery: The fingerprint of the delivery that a batch was stored from, None where
            no such batch is stored; asked only for deliveries that are complete and new.
    """
    requests, refused, now = [], {}, {}
    for arrival in arrivals:
        before = seen.get(arrival.batch)
        judged = _judge(arrival, before, stored_delivery)
        now[arrival.batch] = judged
        if judged == before:
            continue
        if judged.state == "requested":
            requests.append(arrival)
        elif judged.state == "refused":
            refused[arrival.batch] = judged.why
    return Decision(tuple(requests), refused, now)


def _judge(
    arrival: Arrival, before: Seen | None, stored_delivery: Callable[[str], str | None]
) -> Seen:
    mark = arrival.fingerprint
    if before is None or before.fingerprint != mark:
        return Seen(mark, "waiting")
    if before.state != "waiting":
        return before
    unchanged = before.unchanged + 1
    if unchanged < arrival.looks:
        return Seen(mark, "waiting", unchanged=unchanged)
    try:
        check_batch_name(arrival.batch)
    except DeliveryRefused as error:
        return Seen(mark, "refused", str(error))
    if arrival.problem:
        return Seen(mark, "refused", arrival.problem)
    stored = stored_delivery(arrival.batch)
    if stored == mark:
        return Seen(mark, "stored")
    if stored is not None:
        why = (
            f"batch {arrival.batch!r} is stored from another delivery and never changes; deliver "
            "this one under another name"
        )
        return Seen(mark, "refused", why)
    return Seen(mark, "requested")


def to_cursor(seen: dict[str, Seen]) -> str:
    """The cursor that stands for what was seen."""
    return json.dumps({name: asdict(value) for name, value in sorted(seen.items())})


def from_cursor(cursor: str | None) -> dict[str, Seen]:
    """The inverse of `to_cursor`; a cursor that can't be read counts as none.

    Starting over costs one look: batches that are stored are told from the bucket.
    """
    try:
        return {name: Seen(**value) for name, value in json.loads(cursor or "{}").items()}
    except (AttributeError, TypeError, ValueError):
        return {}
