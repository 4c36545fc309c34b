"""Checks of candidates and accepted sets: replay, and acceptance parity of groups and directions.

They are evaluated by the asset itself, since that is Dagster's stable way for partitioned assets:
`SPECS` goes to the asset, `evaluate` into its result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import dagster as dg

from cf_lab_assets import faces, names
from cf_lab_assets.counterfactuals import parity, replay

SHOWN = 20  # candidates that metadata name
SOURCE_GROUPS = "source_groups_are_accepted_alike"
DIRECTIONS = "both_directions_are_accepted_alike"

RATIO = "least ratio of two acceptance rates"
REPLAY = "candidates_can_be_drawn_again"

SPECS = [
    dg.AssetCheckSpec(
        REPLAY,
        asset=names.CANDIDATES,
        description="A share of the candidates, drawn again from what is on record of them, comes "
        "out the same: to the bit on the same kind of device, within a tolerance elsewhere.",
    ),
    dg.AssetCheckSpec(
        SOURCE_GROUPS,
        asset=names.ACCEPTED_SETS,
        description="Sets that vary the same are accepted about as often whichever value of an "
        "attribute their source shows.",
    ),
    dg.AssetCheckSpec(
        DIRECTIONS,
        asset=names.ACCEPTED_SETS,
        description="Edits from one value to another are accepted about as often as those back.",
    ),
]


def evaluate_replay(result: replay.Replay) -> dg.AssetCheckResult:
    """The result of `REPLAY` for one batch."""
    return dg.AssetCheckResult(
        asset_key=names.CANDIDATES,
        check_name=REPLAY,
        passed=result.passed,
        metadata={
            **faces.held_against(
                result.worst,
                replay.TOLERANCE,
                "largest mean difference of a picture's 8-bit levels; 0 on the same device",
            ),
            "compared": result.compared,
            "identical": result.identical,
            "differing": dg.MetadataValue.json(result.differing[:SHOWN]),
            "damaged": dg.MetadataValue.json(result.damaged[:SHOWN]),
        },
    )


def evaluate(acceptance: parity.Acceptance) -> list[dg.AssetCheckResult]:
    """The results of the parity checks for one batch."""
    sets, edits = acceptance.set_rows(), acceptance.edit_rows()
    directions = _result(DIRECTIONS, parity.directions(edits))
    if sets and not edits:
        directions = dg.AssetCheckResult(
            check_name=DIRECTIONS,
            asset_key=names.ACCEPTED_SETS,
            passed=True,
            metadata=faces.held_against("not applicable", parity.RATIO_LIMIT, RATIO),
            description="not applicable: sets were drawn from captions, and nothing was edited",
        )
    return [_result(SOURCE_GROUPS, parity.source_groups(sets)), directions]


def _result(name: str, comparisons: Sequence[parity.Comparison]) -> dg.AssetCheckResult:
    """Passed only if every comparison could be made and none is unequal.

    A comparison of too few fails as a warning: not knowing is not passing, and no finding either.
    """
    verdicts = [one.verdict for one in comparisons]
    unequal = verdicts.count(parity.UNEQUAL)
    insufficient = verdicts.count(parity.INSUFFICIENT)
    known = [one for one in comparisons if one.verdict != parity.INSUFFICIENT]
    worst = min(known, key=lambda one: one.ratio or 0.0, default=None)
    severity = dg.AssetCheckSeverity.ERROR if unequal else dg.AssetCheckSeverity.WARN
    metadata: dict[str, Any] = {
        **faces.held_against(
            "insufficient" if worst is None or worst.ratio is None else worst.ratio,
            parity.RATIO_LIMIT,
            RATIO,
        ),
        "least_compared": parity.LEAST_COMPARED,
        "unequal": unequal,
        "insufficient": insufficient,
        "compared": len(comparisons),
    }
    if comparisons:
        records = [dg.TableRecord(_record(one)) for one in comparisons]
        metadata["comparisons"] = dg.MetadataValue.table(records)
    return dg.AssetCheckResult(
        check_name=name,
        asset_key=names.ACCEPTED_SETS,
        passed=bool(comparisons) and not unequal and not insufficient,
        severity=severity,
        metadata=metadata,
        description=_sentence(worst, unequal, insufficient, len(comparisons)),
    )


def _record(one: parity.Comparison) -> dict[str, Any]:
    fields = asdict(one)
    drawn, accepted = fields.pop("drawn"), fields.pop("accepted")
    counts = {
        name: f"{part} of {whole}"
        for name, part, whole in zip(
            ("first_accepted", "second_accepted"), accepted, drawn, strict=True
        )
    }
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in fields.items()}
    return {**rounded, **counts}


def _sentence(
    worst: parity.Comparison | None, unequal: int, insufficient: int, compared: int
) -> str:
    if worst is None or worst.gap is None or worst.low is None or worst.high is None:
        return f"insufficient: none of {compared} comparisons has {parity.LEAST_COMPARED} a side"
    return (
        f"{unequal} of {compared} unequal, {insufficient} insufficient; furthest apart: "
        f"{worst.attribute} {worst.first} less {worst.second} {worst.gap:+.3f} "
        f"[{worst.low:+.3f}, {worst.high:+.3f}]"
    )
