"""Multiverse: does an audit's headline depend on how strictly pairs were filtered?

Each audited model's primary effects are computed again on the sets that stricter rules would have
kept: a higher least CITS of all members, and members that all passed at their first draw. Only
stricter rules can be had from what is stored, since an audited model sees accepted members alone:
what a looser threshold would have let in was never shown to it. Nor are sets drawn again that a
stricter rule leaves out. (Steegen et al. 2016, "Increasing transparency through a multiverse
analysis".)

A point's shift from the headline is held against the headline's placebo floor, which re-rendering
alone moves an answer by. The kept sets are part of all sets, so that a shift by chance has the
point's interval times sqrt(1 - n / N), the finite population correction (Cochran 1977, chapter 2).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cf_lab_assets.audits import effects
from cf_lab_assets.audits.answers import Answers, read_answers
from cf_lab_assets.audits.association import audit_of
from cf_lab_assets.audits.declaration import AuditConfig, Endpoint
from cf_lab_assets.audits.instrument.findings import (
    FAILS,
    INSUFFICIENT,
    Finding,
    Limit,
    gap_verdict,
)
from cf_lab_assets.audits.results import Result

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = "cf-lab/multiverse/1"
STEP = 0.05
ANY_DRAW, FIRST_DRAW = "any draw", "first draw"
RULES = (ANY_DRAW, FIRST_DRAW)
UNIT = "cosine"
ORIGIN = "the headline's placebo floor: what re-rendering alone moves an answer by"
# The curve shows no p; as few as a declaration allows are computed.
PERMUTATIONS = 199
# Share of the headline's sets that a point must keep for its shift to be expected to be small.
LEAST_KEPT = 0.5
# Scores are kept to four decimals, in single precision.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Point:
    """A primary effect under one rule.

    Attributes:
        model: the audited model.
        endpoint: name of the primary endpoint.
        rule: which draws of members count.
        threshold: least CITS of all members.
        n_sets: that are left.
        estimate, ci_low, ci_high, placebo_floor: as the audit has them; None where there are too
            few sets.
        shift: of the estimate from the headline.
    """

    model: str
    endpoint: str
    rule: str
    threshold: float
    n_sets: int
    estimate: float | None
    ci_low: float | None
    ci_high: float | None
    placebo_floor: float | None
    shift: Finding

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "shift": self.shift.as_dict()}


def grid(accepted: float) -> list[float]:
    """Thresholds from the one that was used upwards, then in steps of `STEP` below 1."""
    first = math.floor(accepted / STEP + ROUNDING) + 1
    return [accepted, *(round(step * STEP, 6) for step in range(first, round(1 / STEP)))]


def strictness(pairs: pa.Table) -> dict[str, tuple[float, bool]]:
    """Of each set the least CITS of its members, and whether all passed at their first draw.

    Args:
        pairs: the dataset's, with set_id, cits and draw.
    """
    found = pairs.group_by("set_id").aggregate([("cits", "min"), ("draw", "max")])
    columns = (found[name].to_pylist() for name in ("set_id", "cits_min", "draw_max"))
    return {name: (float(cits), draw == 0) for name, cits, draw in zip(*columns, strict=True)}


def curve(
    responses: pa.Table, sets: Mapping[str, tuple[float, bool]], accepted: float
) -> list[Point]:
    """An audited model's primary effects under stricter and stricter rules.

    Args:
        responses: as `association.respond` wrote them; the declaration is taken from them.
        sets: of `strictness`.
        accepted: the threshold that the sets were accepted by; at it nothing is left out.

    Returns:
        One point for each endpoint, rule and threshold; the first of an endpoint is the headline.

    Raises:
        AuditError: the responses carry no declaration.
    """
    audit = audit_of(responses)
    config = AuditConfig.model_validate(audit["declaration"])
    light = config.model_copy(update={"permutations": min(PERMUTATIONS, config.permutations)})
    answers = read_answers(responses, config)
    return [
        point
        for endpoint in config.primary
        for point in _points(
            audit["model"]["name"], answers[endpoint.attribute], endpoint, light, sets, accepted
        )
    ]


def _points(
    model: str,
    answers: Answers,
    endpoint: Endpoint,
    config: AuditConfig,
    sets: Mapping[str, tuple[float, bool]],
    accepted: float,
) -> Iterator[Point]:
    alone = config.model_copy(update={"primary": (endpoint,)})
    cits = np.array([sets[name][0] for name in answers.names])[answers.sets]
    at_once = np.array([sets[name][1] for name in answers.names], dtype=bool)[answers.sets]
    headline: Result = {}
    for rule in RULES:
        for threshold in grid(accepted):
            kept = (cits >= threshold - ROUNDING) | (threshold == accepted)
            if rule == FIRST_DRAW:
                kept &= at_once
            (result,) = effects.primary_effects(answers.only(kept), alone)
            headline = headline or result
            shift = _shift(f"{model}, {endpoint.name}, {rule}, {threshold:g}", headline, result)
            yield Point(
                model,
                endpoint.name,
                rule,
                threshold,
                n_sets=result["n_sets"],
                estimate=_float(result.get("estimate")),
                ci_low=_float(result.get("ci_low")),
                ci_high=_float(result.get("ci_high")),
                placebo_floor=_float(result.get("placebo_floor")),
                shift=shift,
            )


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _shift(subject: str, headline: Result, result: Result) -> Finding:
    """How far a point lies from the headline, against its placebo floor."""
    floor, sets = headline.get("placebo_floor"), result["n_sets"]
    limit = Limit(float(floor or 0.0), UNIT, ORIGIN)
    if result.get("estimate") is None or floor is None:
        return Finding("shift", subject, sets, None, None, None, limit, INSUFFICIENT)
    shift = float(result["estimate"] - headline["estimate"])
    part = math.sqrt(max(0.0, 1 - sets / headline["n_sets"]))
    low, high = (
        shift + part * float(result[end] - result["estimate"]) for end in ("ci_low", "ci_high")
    )
    verdict = gap_verdict(shift, low, high, limit.value)
    return Finding("shift", subject, sets, shift, low, high, limit, verdict)


def judged(points: Sequence[Point]) -> list[Finding]:
    """The shifts that tell: those that fail, and those of points that keep enough sets.

    Where few sets are left no shift can be told from chance, and on every grid some threshold is
    that strict: such a point stays in the curve and decides nothing unless it fails. A model's
    endpoint of which no other point is left counts once, as insufficient.
    """
    found = []
    for _, group in itertools.groupby(points, key=lambda point: (point.model, point.endpoint)):
        headline, *others = group
        enough = LEAST_KEPT * headline.n_sets
        known = [
            point.shift
            for point in others
            if point.estimate is not None
            and (point.n_sets >= enough or point.shift.verdict == FAILS)
        ]
        found += known or [replace(headline.shift, verdict=INSUFFICIENT)]
    return found


def as_document(points: Sequence[Point], dataset_hash: str, accepted: float) -> dict[str, Any]:
    """JSON-ready; the same responses give the same document."""
    return {
        "schema": SCHEMA,
        "dataset_hash": dataset_hash,
        "accepted_at": accepted,
        "note": "Looser thresholds than the one that sets were accepted by can't be computed: the "
        "audited models have answered for accepted members alone.",
        "points": [point.as_dict() for point in points],
    }
