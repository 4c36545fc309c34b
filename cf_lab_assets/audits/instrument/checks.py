"""Checks of the instrument: propositions about editor, filter, scorers and headline.

None of them blocks. What they find belongs beside every number that the instrument helped to make,
and whether such numbers may be published is decided by people who have read it. A check that found
something fails as an error; one that could not tell fails as a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from cf_lab_assets import faces, names

if TYPE_CHECKING:
    from cf_lab_assets.audits.instrument.document import Instrument
    from cf_lab_assets.audits.instrument.findings import Finding

EDITOR = "the_editor_is_even"
FILTER = "the_filter_is_even"
CONFOUNDS = "sets_are_not_confounded"
SCORERS = "scorers_agree"
HEADLINE = "the_headline_holds_across_thresholds"

INSTRUMENT_CHECKS = [
    dg.AssetCheckSpec(name, asset=names.INSTRUMENT, description=description)
    for name, description in (
        (
            EDITOR,
            "First draws are alike in success, over-edit, preservation, realism and skin tone "
            "drift whoever the source shows, and in both directions.",
        ),
        (
            FILTER,
            "Sets are accepted about as often whoever the source shows, and no group or "
            "occupation that was offered is lost.",
        ),
        (
            CONFOUNDS,
            "With all changed pixels masked, a probe can't tell the members of a set apart by more "
            "than re-rendering does.",
        ),
        (SCORERS, "Two scorers of different architecture see the same values."),
    )
]
MULTIVERSE_CHECKS = [
    dg.AssetCheckSpec(
        HEADLINE,
        asset=names.MULTIVERSE,
        description="Primary effects stay within their placebo floor of the headline when pairs "
        "are filtered more strictly.",
    )
]

SHOWN = 20


def instrument_results(instrument: Instrument) -> list[dg.AssetCheckResult]:
    """The results of the checks of `audits/instrument`."""
    found = instrument.filter
    lost = {"lost": dg.MetadataValue.json(found.lost[:SHOWN]), "lost_cells": len(found.lost)}
    ratio: dict[str, Any] = {"ratio": "insufficient"}
    if found.ratio:
        ratio = {"ratio": dg.MetadataValue.json(list(found.ratio)), "least": found.least}
        ratio["most"] = found.most
    return [
        result(EDITOR, instrument.gaps, examined_sources=instrument.examined),
        result(
            FILTER,
            found.comparisons,
            [f"nothing is left of {cell}" for cell in found.lost],
            **lost,
            **ratio,
        ),
        result(
            CONFOUNDS,
            [one.finding for one in instrument.probes],
            trace_auc=dg.MetadataValue.json(
                {one.attribute: one.trace for one in instrument.probes}
            ),
            differing=dg.MetadataValue.json(_differing(instrument)),
            examined_sources=instrument.examined,
        ),
        result(SCORERS, [one.kappa for one in instrument.agreements]),
    ]


def _differing(instrument: Instrument) -> list[str]:
    """The simple statistics that differ outside the masks, as sentences."""
    return [
        f"{one.attribute} {row['value']}: {row['statistic']} {row['estimate']:+.2f} levels"
        for one in instrument.probes
        for row in one.statistics
        if row["differs"]
    ]


def result(
    name: str, findings: Sequence[Finding], losses: Sequence[str] = (), **more: Any
) -> dg.AssetCheckResult:
    """One check's result: passed only if every finding holds and nothing was lost.

    Args:
        name: of the check.
        findings: each held against its own limit; the metadata show those nearest to it or beyond.
        losses: what is amiss besides, as sentences; certain, and so no matter of an interval.
        more: further metadata.
    """
    from cf_lab_assets.audits.instrument.findings import (
        FAILS,
        HOLDS,
        INSUFFICIENT,
        overall,
        ranked,
    )

    order = ranked(findings)
    verdict = overall(one.verdict for one in findings)
    first = order[0] if order else None
    counts = {word: sum(one.verdict == word for one in findings) for word in (FAILS, INSUFFICIENT)}
    error, warning = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        check_name=name,
        passed=verdict == HOLDS and not losses,
        severity=error if verdict == FAILS else warning,
        metadata={
            "verdict": verdict,
            **_against(first),
            **counts,
            "compared": len(findings),
            **more,
            **_table(order[:SHOWN]),
        },
        description="; ".join([_sentence(verdict, first, len(findings)), *losses[:SHOWN]]),
    )


def _against(first: Finding | None) -> dict[str, Any]:
    """What was measured of one finding, and its limit."""
    if first is None:
        return {**faces.held_against("insufficient", "none", "none"), "limit_from": "none"}
    measured = "insufficient" if first.estimate is None else first.estimate
    return {
        **faces.held_against(measured, first.limit.value, first.limit.unit),
        "limit_from": first.limit.origin,
    }


def _table(findings: Sequence[Finding]) -> dict[str, Any]:
    if not findings:
        return {}
    records = [dg.TableRecord(one.as_dict()) for one in findings]
    return {"findings": dg.MetadataValue.table(records)}


def _sentence(verdict: str, first: Finding | None, compared: int) -> str:
    if first is None or first.estimate is None:
        return f"insufficient: none of {compared} comparisons could be made"
    interval = "" if first.low is None else f" [{first.low:.3g}, {first.high:.3g}]"
    return (
        f"{verdict}; of {compared}, nearest to its limit or beyond: {first.measure} of "
        f"{first.subject} {first.estimate:.3g}{interval}, limit {first.limit.value:.3g} "
        f"{first.limit.unit}, n {first.n}"
    )
