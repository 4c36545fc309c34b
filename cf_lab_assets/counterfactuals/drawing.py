"""Drawing sources in chunks: what becomes of each set is written as it comes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cf_lab_assets.counterfactuals import tables
from cf_lab_assets.counterfactuals.acceptance import accept_sets, by_source, of_one_draw
from cf_lab_assets.counterfactuals.generation import Generator
from cf_lab_assets.counterfactuals.parity import Acceptance
from cf_lab_assets.counterfactuals.replay import MOST, Candidate, is_chosen
from cf_lab_assets.counterfactuals.shelf import Shelf

Row = dict[str, Any]
# A source pair and edits of it, its placebo or base first.
Work = tuple[Row, list[Row]]

# What a batch's drawing writes; a batch counts as finished once the last is there.
TABLES = (
    "candidates",
    "pair_scores",
    "acceptance",
    "directions",
    "quotas",
    "rejected_sets",
    "accepted_sets",
)
# Kind of the rows that a shelf keeps: candidates of a source's placebo or base.
FIRSTS = "firsts"
# Sources that a contact sheet shows.
SHOWN = 6
# Of a histogram, each as wide as the others, from 0 to 1.
CITS_BINS = 20


def sets_of(edits: Sequence[Row]) -> Iterator[list[Row]]:
    """The edits of each set of one source, without its placebo."""
    for _, members in itertools.groupby(edits[1:], key=lambda edit: edit["attribute"]):
        yield list(members)


@dataclass
class Drawn:
    """What has come of a batch so far, beside the tables.

    Attributes:
        acceptance: sets and edits that were drawn and accepted.
        sources: that were drawn; in rounds, as often as they were.
        candidates, accepted_candidates: rows of candidates.
        cits: the sum of theirs.
        cits_bins: how many of them have a CITS in each of `CITS_BINS`, by what is varied.
        shown: the first sources with edits and candidates, for people to look at.
        rejections: reasons of the first rejected sets.
        to_replay: the candidates that are drawn again for comparison, the first among them.
    """

    acceptance: Acceptance = field(default_factory=Acceptance)
    sources: int = 0
    candidates: int = 0
    accepted_candidates: int = 0
    cits: float = 0.0
    cits_bins: dict[str, list[int]] = field(default_factory=dict)
    shown: list[tuple[Row, list[Row], list[Row]]] = field(default_factory=list)
    rejections: list[list[str]] = field(default_factory=list)
    to_replay: list[Candidate] = field(default_factory=list)


class Drawing:
    """Draws sources in chunks, and writes what comes of them into staged tables."""

    def __init__(self, generator: Generator, staged: tables.Staged, chunk_sources: int) -> None:
        """Settle where chunks come from and rows go.

        Args:
            generator: makes or reads chunks.
            staged: tables candidates, pair_scores, accepted_sets and rejected_sets.
            chunk_sources: sources a chunk.
        """
        self._generator, self._staged, self._size = generator, staged, chunk_sources
        self.drawn = Drawn()

    def draw(
        self, work: Iterable[Work], shelf: Shelf | None = None
    ) -> Iterator[list[tuple[Row, bool]]]:
        """Draw sources, a chunk at a time.

        Args:
            work: sources with the edits that are to be drawn.
            shelf: keeps the candidates of placebos and bases where sources come back for other
                sets; placebos on it are not drawn again.

        Yields:
            For each chunk the first edit of each of its sets, and whether the set was accepted.
        """
        sources = iter(work)
        while chunk := list(itertools.islice(sources, self._size)):
            yield self._draw_chunk(chunk, shelf)

    def _draw_chunk(self, chunk: Sequence[Work], shelf: Shelf | None) -> list[tuple[Row, bool]]:
        ids = [source["source_id"] for source, _ in chunk]
        known = [one for one in ids if shelf and shelf.has(FIRSTS, one)]
        before = {one: shelf.get(FIRSTS, one)["rows"] for one in known} if shelf else {}
        pending = [
            edit for _, edits in chunk for edit in edits if self._is_open(edit, edits, before)
        ]
        rows = self._generator.rows(pending, {source["source_id"]: source for source, _ in chunk})
        # A base that other sets of its source had before comes out the same again.
        old = {(row["edit_id"], row["draw"]) for made in before.values() for row in made}
        new = [row for row in rows if (row["edit_id"], row["draw"]) not in old]
        self._count(new)
        self._bin(new, {edit["edit_id"]: edit for _, edits in chunk for edit in edits})
        self.drawn.sources += len(chunk)
        made, outcomes = by_source(new), []
        for source, edits in chunk:
            name = source["source_id"]
            own = [*before.get(name, []), *made.get(name, [])]
            if shelf:
                first = [row for row in own if row["edit_id"] == edits[0]["edit_id"]]
                shelf.replace(FIRSTS, name, {"rows": first})
            self._choose(source, edits, made.get(name, []))
            outcomes += self._take(source, edits, own)
        return outcomes

    @staticmethod
    def _is_open(edit: Row, edits: Sequence[Row], before: Mapping[str, list[Row]]) -> bool:
        """Whether an edit is to be drawn: nothing is, of a source whose placebo has failed."""
        made = before.get(edit["source_id"])
        if made is None or of_one_draw(edits):
            return True
        return edit is not edits[0] and any(row["accepted"] for row in made)

    def _take(
        self, source: Row, edits: Sequence[Row], rows: Sequence[Row]
    ) -> list[tuple[Row, bool]]:
        accepted, rejected = accept_sets(edits, rows)
        for row in accepted:
            self._staged.add("accepted_sets", row)
        for row in rejected:
            self._reject(row)
        self._count_directions(edits, rows)
        names = {row["attribute"] for row in accepted}
        outcomes = [(members[0], members[0]["attribute"] in names) for members in sets_of(edits)]
        for edit, was_accepted in outcomes:
            self.drawn.acceptance.add_set(edit["attribute"], edit["from_values"], was_accepted)
        if len(self.drawn.shown) < SHOWN:
            self.drawn.shown.append((source, list(edits), list(rows)))
        return outcomes

    def _count_directions(self, edits: Sequence[Row], rows: Sequence[Row]) -> None:
        """Count the edits that were drawn; what is drawn from captions alone edits nothing."""
        if of_one_draw(edits):
            return
        good = {row["edit_id"] for row in rows if row["accepted"]}
        drawn = {row["edit_id"] for row in rows}
        for edit in edits[1:]:
            if edit["edit_id"] in drawn:
                self.drawn.acceptance.add_edit(edit, edit["edit_id"] in good)

    def _choose(self, source: Row, edits: Sequence[Row], rows: Sequence[Row]) -> None:
        chosen, by_id = self.drawn.to_replay, {edit["edit_id"]: edit for edit in edits}
        base = edits[0] if of_one_draw(edits) else None
        for row in rows:
            if len(chosen) < MOST and (not chosen or is_chosen(row["edit_id"], row["draw"])):
                chosen.append(Candidate(source, by_id[row["edit_id"]], row, base))

    def _count(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._staged.add("candidates", row)
            self._staged.add("pair_scores", row)
            self.drawn.accepted_candidates += row["accepted"]
            self.drawn.cits += row["cits"]
        self.drawn.candidates += len(rows)

    def _bin(self, rows: Sequence[Row], edits: Mapping[str, Row]) -> None:
        for row in rows:
            edit = edits[row["edit_id"]]
            empty = [0] * CITS_BINS
            bins = self.drawn.cits_bins.setdefault(edit["attribute"] or edit["kind"], empty)
            bins[min(int(row["cits"] * CITS_BINS), CITS_BINS - 1)] += 1

    def refuse(self, refusal: Row) -> None:
        """Take a set that could not be planned, a row of ``refused_edits``, as rejected."""
        self._reject(
            {
                "set_id": f"{refusal['source_id']}-{refusal['attribute']}",
                "source_id": refusal["source_id"],
                "attribute": refusal["attribute"],
                "stage": "plan",
                "reasons": [f"{refusal['reason']}: {refusal['detail']}"],
            }
        )

    def finish(self, quotas: Iterable[Row]) -> None:
        """Write the tables that are known only at the end."""
        for table, rows in (
            ("acceptance", self.drawn.acceptance.set_rows()),
            ("directions", self.drawn.acceptance.edit_rows()),
            ("quotas", quotas),
        ):
            for row in rows:
                self._staged.add(table, row)

    def _reject(self, row: Row) -> None:
        self._staged.add("rejected_sets", row)
        if len(self.drawn.rejections) < SHOWN:
            self.drawn.rejections.append(row["reasons"])
