"""Which draws make a counterfactual set, and what is drawn again.

A set is accepted whole or not at all, by one of two rules. Where a source picture makes the scene,
each member may be of another draw: the first that was accepted. Where a set is drawn from captions
alone, nothing but the noise makes its scene, and all members must be of one draw. Which rule a plan
is for is told by the first row of each source: a placebo, or a base.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cf_lab_assets.counterfactuals.attribute_sets import JOIN, joined
from cf_lab_assets.counterfactuals.plan import BASE

Row = dict[str, Any]


def base_id(source_id: str) -> str:
    """Id of the plan's row for the scene that all members of a source's sets share."""
    return f"{source_id}-{BASE}"


def of_one_draw(edits: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the members of a set must be of one draw.

    Args:
        edits: rows of the edit plan; a base is among them where it is so.
    """
    return any(edit["kind"] == BASE for edit in edits)


def by_source(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows of each source, in their order."""
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row["source_id"], []).append(row)
    return found


def sets_of_source(edits: Sequence[Row]) -> dict[str, list[Row]]:
    """The members of each set of one source, by what it varies.

    The first row of a source, placebo or base, shows the source's own values, and is so a member
    of every set of which these are known.

    Args:
        edits: rows of the edit plan, without the first row where it needs no further draw.
    """
    first = next((edit for edit in edits if edit["attribute"] is None), None)
    sets: dict[str, list[Row]] = {}
    for edit in edits:
        attribute = edit["attribute"]
        if attribute is None:
            continue
        if attribute not in sets:
            sets[attribute] = [first] if first and own_value(first, attribute) else []
        sets[attribute].append(edit)
    return sets


def own_value(edit: Mapping[str, Any], attribute: str) -> str | None:
    """The source's own value of an attribute set, None where a part of it is unknown."""
    return joined(edit["from_values"], attribute.split(JOIN))


def is_change(pair: Mapping[str, Any]) -> bool:
    """Whether a row of pairs shows a change, so that its CITS tells of quality.

    A placebo changes nothing, and the base of a set from captions is scored beside itself.
    """
    is_base = pair["instruction"] is None and pair["image_sha256"] == pair["source_image_sha256"]
    return not (pair["is_placebo"] or is_base)


def chosen_draws(
    members: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], one_draw: bool
) -> dict[str, int] | None:
    """The accepted draw of each member by edit id; None where the set is not accepted.

    Args:
        members: the edits of a set.
        rows: candidates, those of other edits too.
        one_draw: whether all must be of one.
    """
    draws: dict[str, set[int]] = {member["edit_id"]: set() for member in members}
    for row in rows:
        if row["accepted"] and row["edit_id"] in draws:
            draws[row["edit_id"]].add(row["draw"])
    if one_draw:
        common = set.intersection(*draws.values())
        return dict.fromkeys(draws, min(common)) if common else None
    return {name: min(found) for name, found in draws.items()} if all(draws.values()) else None


def to_draw(
    edits: Sequence[Row],
    rows: Sequence[Mapping[str, Any]],
    budgets: Mapping[str, int],
    draw: int,
) -> list[Row]:
    """Edits of one source whose next draw can help a set to be accepted.

    Args:
        edits: rows of the edit plan.
        rows: their candidates so far.
        budgets: draws allowed to each, by edit id.
        draw: number of the next one.
    """
    one_draw = of_one_draw(edits)
    good = {row["edit_id"] for row in rows if row["accepted"]}
    wanted: set[str] = set()
    for members in sets_of_source(edits).values():
        if chosen_draws(members, rows, one_draw):
            continue
        names = {member["edit_id"] for member in members}
        missing = names if one_draw else names - good
        if all(budgets[name] > draw for name in missing):
            wanted |= missing
    if one_draw and wanted:
        wanted.add(base_id(edits[0]["source_id"]))  # gives its scene, also where it is no member
    return [edit for edit in edits if edit["edit_id"] in wanted]


def accept_sets(
    edits: Sequence[Row], rows: Sequence[Mapping[str, Any]]
) -> tuple[list[Row], list[Row]]:
    """All-or-none acceptance of one or more sources' counterfactual sets.

    Args:
        edits: rows of the edit plan.
        rows: candidate rows of those edits.

    Returns:
        Accepted sets (set_id, source_id, attribute, from_value, members: edit_id and draw) and
        rejected sets (the same with stage and reasons instead of members). ``from_value`` is None
        where the set is drawn from captions, and nothing is edited.
    """
    accepted, rejected, one_draw = [], [], of_one_draw(edits)
    for source_id, planned in by_source(edits).items():
        for attribute, members in sets_of_source(planned).items():
            named = {
                "set_id": f"{source_id}-{attribute}",
                "source_id": source_id,
                "attribute": attribute,
                "from_value": None if one_draw else own_value(members[0], attribute),
            }
            draws = chosen_draws(members, rows, one_draw)
            if draws:
                drawn = [{"edit_id": name, "draw": draw} for name, draw in draws.items()]
                accepted.append({**named, "members": drawn})
            else:
                reasons = list(_reasons(members, rows, one_draw))
                rejected.append({**named, "stage": "scores", "reasons": reasons})
    return accepted, rejected


def _reasons(
    members: Sequence[Row], rows: Sequence[Mapping[str, Any]], one_draw: bool
) -> Iterator[str]:
    """Why each member failed, by its last draw; of one draw, by the last one of all members."""
    drawn = {(row["edit_id"], row["draw"]) for row in rows}
    names = [member["edit_id"] for member in members]
    if one_draw:
        rows = [row for row in rows if all((name, row["draw"]) in drawn for name in names)]
    last = {row["edit_id"]: row for row in rows}
    good = set() if one_draw else {row["edit_id"] for row in rows if row["accepted"]}
    for name in names:
        # Edits of a source whose placebo failed in an earlier round were not drawn at all.
        why = last[name]["reasons"] if name in last else ["not drawn"]
        if name not in good and why:
            yield f"{name}: {'; '.join(why)}"
