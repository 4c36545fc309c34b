from __future__ import annotations

from collections.abc import Sequence

import pytest

from cf_lab_assets.sources.arrivals import Arrival, Decision, Seen, decide, from_cursor, to_cursor


def arrival(mark: str = "m1", batch: str = "spring") -> Arrival:
    return Arrival(batch, mark, "ImageFolder")


class Ticks:
    """Hands each decision's memory to the next, through the cursor."""

    def __init__(self) -> None:
        self.cursor: str | None = None
        self.stored: dict[str, str] = {}

    def __call__(self, *arrivals: Arrival) -> Decision:
        decision = decide(arrivals, from_cursor(self.cursor), self.stored.get)
        self.cursor = to_cursor(decision.seen)
        return decision


@pytest.fixture
def tick() -> Ticks:
    return Ticks()


def requested(decisions: Sequence[Decision]) -> list[list[str]]:
    return [[request.batch for request in decision.requests] for decision in decisions]


def test_a_delivery_is_asked_for_once_when_it_stopped_changing(tick: Ticks) -> None:
    decisions = [tick(arrival(mark)) for mark in ("m1", "m2", "m2", "m2", "m2")]
    assert requested(decisions) == [[], [], ["spring"], [], []]


def test_a_delivery_of_no_kind_is_waited_for_then_refused_until_its_files_change(
    tick: Ticks,
) -> None:
    bare = Arrival("spring", "m1", None, "it has no metadata file", looks=3)
    waited_for = [tick(bare) for _ in range(3)]
    assert requested(waited_for) == [[], [], []]
    assert waited_for[-1].summary() == "waiting for spring to be complete"
    assert tick(bare).refused == {"spring": "it has no metadata file"}
    assert requested([tick(arrival("m2")), tick(arrival("m2"))]) == [[], ["spring"]]


def test_a_delivery_that_nothing_marks_as_complete_has_to_rest_for_longer(tick: Ticks) -> None:
    shards = [Arrival("spring", mark, "shards", looks=3) for mark in ("m1", "m1", *["m2"] * 5)]
    assert requested([tick(one) for one in shards]) == [*[[]] * 5, ["spring"], []]


def test_a_refused_delivery_is_not_asked_for_again_until_it_changes(tick: Ticks) -> None:
    assert requested([tick(arrival("m1")) for _ in range(5)]) == [[], ["spring"], [], [], []]
    assert requested([tick(arrival("m2")) for _ in range(3)]) == [[], ["spring"], []]


def test_a_name_that_no_batch_can_have_is_refused_once(tick: Ticks) -> None:
    decisions = [tick(arrival("m1", "My Photos")) for _ in range(3)]
    assert requested(decisions) == [[], [], []]
    assert [list(decision.refused) for decision in decisions] == [[], ["My Photos"], []]
    assert "'my-photos'" in decisions[2].summary()


def test_a_delivery_that_is_of_two_kinds_is_refused_once_it_stopped_changing(tick: Ticks) -> None:
    both = Arrival("spring", "m1", None, "it has shards and Parquet files; deliver them apart")
    assert tick(both).refused == {}
    assert "deliver them apart" in tick(both).refused["spring"]
    assert tick(both).refused == {}


def test_a_batch_that_is_stored_from_this_delivery_is_left_alone(tick: Ticks) -> None:
    tick.stored["spring"] = "m1"
    decisions = [tick(arrival("m1")) for _ in range(3)]
    assert requested(decisions) == [[], [], []]
    assert decisions[-1].refused == {}
    assert decisions[-1].summary() == "nothing new in incoming/"


def test_another_delivery_under_the_name_of_a_stored_batch_is_refused(tick: Ticks) -> None:
    tick.stored["spring"] = "m1"
    tick(arrival("m2"))
    decision = tick(arrival("m2"))
    assert decision.requests == ()
    assert "under another name" in decision.refused["spring"]


def test_a_delivery_that_changes_after_it_was_taken_in_is_refused(tick: Ticks) -> None:
    tick(arrival("m1"))
    tick(arrival("m1"))
    tick.stored["spring"] = "m1"
    tick(arrival("m2"))
    assert "spring" in tick(arrival("m2")).refused


def test_deliveries_do_not_wait_for_each_other(tick: Ticks) -> None:
    tick(arrival("m1", "a"), arrival("m1", "b"), arrival("m1", "Bad"))
    decision = tick(arrival("m1", "a"), arrival("m2", "b"), arrival("m1", "Bad"))
    assert requested([decision]) == [["a"]]
    assert list(decision.refused) == ["Bad"]


def test_a_delivery_that_was_removed_is_forgotten(tick: Ticks) -> None:
    tick(arrival())
    decision = tick()
    assert decision.seen == {}
    assert decision.summary() == "nothing in incoming/"


def test_the_store_is_asked_only_about_new_complete_deliveries() -> None:
    asked: list[str] = []

    def stored(batch: str) -> None:
        asked.append(batch)

    seen: dict[str, Seen] = {}
    for _ in range(4):
        seen = decide(
            [arrival("m1", "a"), Arrival("b", "m1", None, "of no kind")], seen, stored
        ).seen
    assert asked == ["a"]


@pytest.mark.parametrize("cursor", [None, "", "no json", "[]", '{"a": 1}', '{"a": {"x": 1}}'])
def test_a_cursor_that_can_not_be_read_counts_as_none(cursor: str | None) -> None:
    assert from_cursor(cursor) == {}


def test_the_cursor_survives_the_round_trip() -> None:
    seen = {"a": Seen("m", "refused", "because"), "b": Seen("n", "waiting")}
    assert from_cursor(to_cursor(seen)) == seen
