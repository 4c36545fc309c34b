"""The edit plan: which edits each source pair gets.

For every attribute set (one attribute, or an intersection) of a source, one edit to each of its
other values; and one placebo, which asks the editor for the values that are there already. The
placebo stands in a counterfactual set for the source's own value, so that all members went
through the same editor, and its distance from the source picture is the noise floor.

An editor that draws from captions alone edits nothing. There the caption is all that counts of a
source, whether or not it came with a picture; the first row is no placebo but the base, whose
scene all members share, and where the caption leaves a value open each value is a member.

All members of a set are rewritten from one base caption, which names the source's own values of
what is varied also where the delivered caption did not: no member says more than another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals.attribute_sets import (
    JOIN,
    AttributeSet,
    joined,
    parse_all,
    value_of,
)
from cf_lab_assets.counterfactuals.rewrite import CannotRewrite
from cf_lab_assets.sources.rows import MASK, MASK_KEY
from cf_lab_assets.starter.text import instruction
from cf_lab_assets.starter.world import ATTRIBUTES

if TYPE_CHECKING:
    from cf_lab_assets.counterfactuals.rewrite import Rewriter
    from cf_lab_resources.engine.editors import Strategy

COUNTERFACTUAL, PLACEBO, BASE = "counterfactual", "placebo", "base"
FIRST = {
    PLACEBO: "placebo: the same values, drawn again",
    BASE: "base: the scene that all members share",
}
# What a source may lack beside its caption.
LACKS = {
    "no_picture": "the installed editor edits pictures, and this source is a caption; "
    "CF_LAB_EDITOR can name one that draws whole sets from captions, such as a Stable Diffusion "
    "pipeline",
    "no_mask": "the installed editor changes what a mask shows in white, and this source has none; "
    f"deliver one, named by the column `{MASK}` of an ImageFolder, or use another editor",
}


@dataclass(frozen=True, slots=True)
class Edit:
    """One row of the plan; see `Refusal` for what could not be planned."""

    edit_id: str
    source_id: str
    strategy: Strategy
    kind: str
    attribute: str | None
    cell: str
    from_values: dict[str, str]
    to_values: dict[str, str]
    base_caption: str
    caption: str
    instruction: str | None
    explanation: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A counterfactual set that can't be made, with the reason."""

    source_id: str
    attribute: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """What is planned for one source.

    Attributes:
        source_id: of the source.
        cell: the source's values of what a target distribution is over, in written form; None
            where one of them is unknown, or they can't be told apart in it.
        edits: placebo or base first; empty where nothing could be planned.
        refusals: one for each set that can't be made.
    """

    source_id: str
    cell: str | None
    edits: list[Edit]
    refusals: list[Refusal]


class _Refused(Exception):
    """Why a set can't be made: a reason code and a sentence."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A source with what is known of it.

    Attributes:
        source_id: of the source.
        caption: as delivered.
        cell: its values of what the target is over, in written form; None where one is unknown.
        lacks: what the editor needs of it and it has not, a key of `LACKS`.
        named: by attribute, the value that the caption names; without those it names none of.
        known: by attribute, the value as delivered, else as named.
        shown: the known values that the editor can draw.
    """

    source_id: str
    caption: str
    cell: str | None
    lacks: str | None
    named: dict[str, str]
    known: dict[str, str]
    shown: dict[str, str]


class Planner:
    """Plans source after source; keeps nothing of those it has planned."""

    def __init__(
        self,
        rewriter: Rewriter,
        attributes: Sequence[str],
        drawable: Mapping[str, Sequence[str]] = ATTRIBUTES,
        over: Sequence[str] = (),
        strategy: Strategy = "instruction",
    ) -> None:
        """Settle what is varied.

        Args:
            rewriter: of captions.
            attributes: attribute sets in their written form, such as ``gender+age``.
            drawable: the values that the installed editor can draw, by attribute.
            over: attributes or extra columns whose values are a source's cell; a source that
                lacks one of them is refused.
            strategy: of the installed editor.

        Raises:
            AttributeUnknown: an attribute can't be drawn, or none is named.
        """
        self.sets = parse_all(attributes, drawable)
        self._rewriter, self._drawable, self._over = rewriter, drawable, tuple(over)
        self._strategy = strategy
        self._varied = [
            attribute
            for attribute in drawable
            if any(attribute in varied.attributes for varied in self.sets)
        ]

    def plan(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[SourcePlan]:
        """Plan sources, rows of ``sources/pairs``, one at a time and in their order."""
        for row in rows:
            source = self._read(row)
            no_cell = self._no_cell(source.cell)
            cell = None if no_cell else source.cell
            planned = SourcePlan(source.source_id, cell, [], [])
            contradiction = _contradiction(source)
            if contradiction:
                self._refuse_all(planned, "caption_contradicts", contradiction)
            elif source.lacks:
                self._refuse_all(planned, source.lacks, LACKS[source.lacks])
            elif no_cell:
                self._refuse_all(planned, *no_cell)
            else:
                self._plan_one(source, planned)
            yield planned

    def _read(self, row: Mapping[str, Any]) -> _Source:
        given, caption = row["attributes"] or {}, row["caption"]
        named, known = {}, {}
        for attribute in self._drawable:
            said = self._rewriter.named_value(caption, attribute)
            if said:
                named[attribute] = said
            if value := given.get(attribute) or said:
                known[attribute] = value
        shown = {name: value for name, value in known.items() if value in self._drawable[name]}
        cell = joined({**(row["extra"] or {}), **known}, self._over)
        return _Source(row["source_id"], caption, cell, self._lacks(row), named, known, shown)

    @property
    def _from_captions(self) -> bool:
        return self._strategy == "captions"

    def _lacks(self, row: Mapping[str, Any]) -> str | None:
        if self._from_captions:
            return None
        if row["image_key"] is None:
            return "no_picture"
        has_mask = MASK_KEY in (row["extra"] or {})
        return "no_mask" if self._strategy == "inpainting" and not has_mask else None

    def _no_cell(self, cell: str | None) -> tuple[str, str] | None:
        """Why a source is in no cell of the target: a reason code and a sentence."""
        over = ", ".join(self._over)
        if cell is None:
            return "cell_unknown", f"the target is over {over}, and one of them is unknown"
        if len(self._over) > 1 and cell.count(JOIN) >= len(self._over):
            return (
                "cell_ambiguous",
                f"the target is over {over}, and a value in {cell!r} holds the {JOIN!r} that joins "
                "them; write the value without it, or have the target over one name alone",
            )
        return None

    def _refuse_all(self, planned: SourcePlan, reason: str, detail: str) -> None:
        planned.refusals.extend(
            Refusal(planned.source_id, varied.name, reason, detail) for varied in self.sets
        )

    def _plan_one(self, source: _Source, planned: SourcePlan) -> None:
        base, unsaid = self._base_caption(source)
        for varied in self.sets:
            try:
                self._refuse_unfit(varied, source, unsaid)
                planned.edits.extend(self._edits(varied, source, base))
            except _Refused as refused:
                reason, detail = refused.args
                planned.refusals.append(Refusal(planned.source_id, varied.name, reason, detail))
        if planned.edits:
            planned.edits.insert(0, self._first(source, base))

    def _base_caption(self, source: _Source) -> tuple[str, dict[str, CannotRewrite]]:
        """The caption that names all known values of what is varied, and what it could not say."""
        missing = {
            attribute: source.shown[attribute]
            for attribute in self._varied
            if attribute in source.shown and attribute not in source.named
        }
        if not missing:
            return source.caption, {}
        try:
            return self._rewriter.rewrite(source.caption, missing).caption, {}
        except CannotRewrite:
            base, unsaid = source.caption, {}
        # One by one, so that none is refused for what another's value runs into.
        for attribute, value in missing.items():
            try:
                base = self._rewriter.rewrite(base, {attribute: value}).caption
            except CannotRewrite as error:
                unsaid[attribute] = error
        return base, unsaid

    def _refuse_unfit(
        self, varied: AttributeSet, source: _Source, unsaid: Mapping[str, CannotRewrite]
    ) -> None:
        """Raises `_Refused` where the set can't be made of this source."""
        for attribute in varied.attributes:
            own = source.known.get(attribute)
            if own is None and not self._from_captions:
                raise _Refused(
                    "value_unknown",
                    f"neither the metadata nor the caption {source.caption!r} says the {attribute}",
                )
            if own is not None and attribute not in source.shown:
                raise _Refused(
                    "value_not_drawable",
                    f"the source's {attribute} {own!r} can't be drawn by the installed editor; it "
                    f"draws {', '.join(self._drawable[attribute])}",
                )
            if attribute in unsaid:
                raise _Refused(unsaid[attribute].reason, str(unsaid[attribute]))

    def _edits(self, varied: AttributeSet, source: _Source, base: str) -> list[Edit]:
        """Edits to all members but the source's own; of an unknown own value, to all."""
        edits = []
        for member in varied.members():
            changed = {
                name: value for name, value in member.items() if source.shown.get(name) != value
            }
            if not changed:
                continue
            try:
                made = self._rewriter.rewrite(base, changed)
            except CannotRewrite as error:
                raise _Refused(error.reason, str(error)) from error
            to_values = {**source.shown, **member}
            edits.append(
                Edit(
                    edit_id=f"{source.source_id}-{varied.name}-{value_of(member, varied.name)}",
                    source_id=source.source_id,
                    strategy=self._strategy,
                    kind=COUNTERFACTUAL,
                    attribute=varied.name,
                    cell=source.cell or "",
                    from_values=source.shown,
                    to_values=to_values,
                    base_caption=base,
                    caption=made.caption,
                    instruction=self._told(to_values, made.caption),
                    explanation=made.explanation,
                )
            )
        return edits

    def _first(self, source: _Source, base: str) -> Edit:
        """The placebo, or the base of an editor that edits nothing."""
        kind = BASE if self._from_captions else PLACEBO
        return Edit(
            edit_id=f"{source.source_id}-{kind}",
            source_id=source.source_id,
            strategy=self._strategy,
            kind=kind,
            attribute=None,
            cell=source.cell or "",
            from_values=source.shown,
            to_values=source.shown,
            base_caption=base,
            caption=base,
            instruction=self._told(source.shown, base),
            explanation=FIRST[kind],
        )

    def _told(self, values: Mapping[str, str], caption: str) -> str | None:
        """What the editor is told to do: nothing where it draws from the caption alone."""
        if self._from_captions:
            return None
        return caption if self._strategy == "inpainting" else instruction(values)


def _contradiction(source: _Source) -> str | None:
    """What metadata and caption disagree about: nothing of such a source can be trusted."""
    for attribute, own in source.known.items():
        named = source.named.get(attribute, own)
        if named != own:
            return (
                f"metadata says {attribute} {own!r} and the caption {source.caption!r} says "
                f"{named!r}"
            )
    return None
