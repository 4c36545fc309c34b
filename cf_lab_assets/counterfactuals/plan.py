"""The edit plan: which edits each source pair gets.

For every chosen attribute of a source, one edit to each of the attribute's other values; and
one placebo, which asks the editor for the values that are there already. The placebo stands in
a counterfactual set for the source's own value, so that all members went through the same
editor, and its distance from the source picture is the noise floor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cf_lab_assets.counterfactuals.rewrite import CannotRewrite, named_value, rewrite
from cf_lab_assets.starter.text import instruction
from cf_lab_assets.starter.world import ATTRIBUTES

COUNTERFACTUAL, PLACEBO = "counterfactual", "placebo"


@dataclass(frozen=True)
class Edit:
    """One row of the plan; see `Refusal` for what could not be planned."""

    edit_id: str
    source_id: str
    kind: str
    attribute: str | None
    from_values: dict[str, str]
    to_values: dict[str, str]
    caption: str
    instruction: str
    explanation: str


@dataclass(frozen=True)
class Refusal:
    """A counterfactual set that can't be made, with the reason."""

    source_id: str
    attribute: str
    reason: str
    detail: str


@dataclass
class Plan:
    """Edits in the order of their sources, and what was refused."""

    edits: list[Edit] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


def known_values(source: Mapping[str, Any]) -> dict[str, str]:
    """What is known of a source's attributes: as delivered, else as its caption says."""
    given = dict(source["attributes"] or {})
    values = {}
    for attribute in ATTRIBUTES:
        value = given.get(attribute) or named_value(source["caption"], attribute)
        if value:
            values[attribute] = value
    return values


def plan_edits(sources: Iterable[Mapping[str, Any]], attributes: Sequence[str]) -> Plan:
    """Plan the edits of source pairs.

    Args:
        sources: rows of ``sources/pairs``.
        attributes: which attributes to vary, names of the taxonomy.

    Raises:
        ValueError: an attribute is not in the taxonomy.
    """
    for attribute in attributes:
        if attribute not in ATTRIBUTES:
            raise ValueError(
                f"attribute {attribute!r} is not in the taxonomy; use some of {list(ATTRIBUTES)}"
            )
    plan = Plan()
    for source in sources:
        values = known_values(source)
        contradiction = _contradiction(source["caption"], values)
        if contradiction:
            plan.refusals += [
                Refusal(source["source_id"], attribute, "caption_contradicts", contradiction)
                for attribute in attributes
            ]
            continue
        edits = [
            edit
            for attribute in attributes
            for edit in _edits_of(source, attribute, values, plan.refusals)
        ]
        if edits:
            plan.edits += [_placebo(source, values), *edits]
    return plan


def _contradiction(caption: str, values: Mapping[str, str]) -> str | None:
    """What metadata and caption disagree about: nothing of such a source can be trusted."""
    for attribute, own in values.items():
        named = named_value(caption, attribute)
        if named not in (None, own):
            return f"metadata says {attribute} {own!r} and the caption {caption!r} says {named!r}"
    return None


def _edits_of(
    source: Mapping[str, Any], attribute: str, values: dict[str, str], refusals: list[Refusal]
) -> list[Edit]:
    source_id, caption = source["source_id"], source["caption"]
    own = values.get(attribute)
    if own is None:
        detail = f"neither the metadata nor the caption {caption!r} says the {attribute}"
        refusals.append(Refusal(source_id, attribute, "value_unknown", detail))
        return []
    edits = []
    for value in ATTRIBUTES[attribute]:
        if value == own:
            continue
        try:
            rewritten = rewrite(caption, attribute, value)
        except CannotRewrite as error:
            refusals.append(Refusal(source_id, attribute, error.reason, str(error)))
            return []
        to_values = {**values, attribute: value}
        edits.append(
            Edit(
                edit_id=f"{source_id}-{attribute}-{value}",
                source_id=source_id,
                kind=COUNTERFACTUAL,
                attribute=attribute,
                from_values=values,
                to_values=to_values,
                caption=rewritten.caption,
                instruction=instruction(to_values),
                explanation=rewritten.explanation,
            )
        )
    return edits


def _placebo(source: Mapping[str, Any], values: dict[str, str]) -> Edit:
    return Edit(
        edit_id=f"{source['source_id']}-placebo",
        source_id=source["source_id"],
        kind=PLACEBO,
        attribute=None,
        from_values=values,
        to_values=values,
        caption=source["caption"],
        instruction=instruction(values),
        explanation="placebo: the same values, drawn again",
    )
