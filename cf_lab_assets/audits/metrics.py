"""Bias metrics of one audited model, from its responses or from anyone's table of scores.

All are over counterfactual sets, and each is defined in the module that computes it: signed
paired effects, primary, secondary and in strata (`effects`), rankings (`rankings`), comparisons
within sets (`comparisons`), and decisions (`decisions`).

Policies, which every result is bound to:

zero: a value that is absent from the top K has Skew -inf, as the definition says, and so has
    MinSkew; it's written as the string "-inf" and is never 0 and never smoothed.
ties: pictures tied at the cut share the places left over equally, which is the expectation
    over random orders; exactly K places are given.
missing: an effect uses the sets that hold both values; a ranking uses the sets that hold all
    declared values, so that every value has the same share of the pool. What is left out is
    counted.
small: under `minimum_sets` sets a result is "insufficient": it is listed with its n, without
    numbers, and belongs to no family. So does what is "undefined", such as 0 / 0, with the reason.

The *placebo floor* of a statistic says how much it moves when nothing but the rendering
changes. For an effect it is the upper 95 % bootstrap bound of the mean of |f(placebo) -
f(source)|: the size of rendering noise on one picture, not of its mean, which would cancel out
and let any large enough sample cross it. For a ranking it is the same bound of the change
when each set's placebo gives its place in the pool to the source picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cf_lab_assets.audits import comparisons, decisions, effects, rankings, statistics
from cf_lab_assets.audits.answers import Answers, read_answers
from cf_lab_assets.audits.association import audit_of
from cf_lab_assets.audits.declaration import AuditConfig
from cf_lab_assets.audits.generative import generative_results
from cf_lab_assets.audits.layout import answers_of, decisions_of, intersections, query_by_query
from cf_lab_assets.audits.results import (
    CHANCE,
    FLOOR,
    FOUND,
    INTERVAL,
    NO_FLOOR,
    NOT_FOUND,
    PRIMARY,
    SCHEMA,
    Result,
)
from cf_lab_assets.audits.table import PREDICTION, SCORE, ScoreTable
from cf_lab_resources.engine.questions import ASSOCIATION

if TYPE_CHECKING:
    import pyarrow as pa


def compute(responses: pa.Table) -> dict[str, Any]:
    """All metrics of one audited model, as JSON-ready data.

    Args:
        responses: as `association.respond` wrote them; the declaration is taken from them.

    Returns:
        The document at `audits/<dataset>/<model>/metrics.json`; the same responses give the
        same document.

    Raises:
        AuditError: The responses carry no declaration.
    """
    audit = audit_of(responses)
    config = AuditConfig.model_validate(audit["declaration"])
    answers = read_answers(responses, config)
    associates = ASSOCIATION in audit.get("formats", [ASSOCIATION])
    results = score_results(answers, config) if associates else []
    results += generative_results(responses, config)
    results += _unasked(results, answers, config)
    judge(results, config)
    return {
        "schema": SCHEMA,
        "model": audit["model"],
        "dataset_hash": audit["dataset_hash"],
        "declaration": audit["declaration"],
        "declaration_hash": audit["declaration_hash"],
        "prompts": audit["prompts"],
        "counts": {name: counts_of(one) for name, one in answers.items()},
        "undeclared": _undeclared(responses, config),
        "results": [_plain(result) for result in results],
    }


def _unasked(
    results: list[Result], answers: Mapping[str, Answers], config: AuditConfig
) -> list[Result]:
    """Primary endpoints that no format of the model answers: insufficient, and not left out."""
    known = {one["endpoint"] for one in results if one["family"] == PRIMARY}
    missing = tuple(one for one in config.primary if one.name not in known)
    left = config.model_copy(update={"primary": missing})
    return [
        one
        for attribute in config.attributes
        for one in effects.primary_effects(answers[attribute], left)
    ]


def score_results(answers: Mapping[str, Answers], config: AuditConfig) -> list[Result]:
    """Every metric of scores, for all of the answers; verdicts are given by `judge`."""
    results: list[Result] = []
    for part in (
        effects.primary_effects,
        effects.secondary_effects,
        effects.stratum_effects,
        rankings.skews,
        comparisons.comparisons,
    ):
        for name, one in answers.items():
            # Within strata an intersection of two would be one of three.
            if part is not effects.stratum_effects or name in config.attributes:
                results += part(one, config)
    return results


def table_answers(table: ScoreTable, config: AuditConfig) -> dict[str, Answers]:
    """A table's scores by attribute."""
    one_by_one = query_by_query(table)
    groups = _groups(table, config)
    return {"+".join(names): answers_of(table, names, one_by_one) for names in groups}


def _groups(table: ScoreTable, config: AuditConfig) -> list[list[str]]:
    """Each attribute, and each intersection of two that has not too many values."""
    return [[name] for name in config.attributes] + intersections(table, config.attributes)


def table_results(
    table: ScoreTable, answers: Mapping[str, Answers], config: AuditConfig
) -> list[Result]:
    """Every metric of a table, for each attribute and each intersection of two, with verdicts.

    Args:
        table: for its decisions.
        answers: its scores, of `table_answers`.
        config: the declaration.
    """
    results = score_results(answers, config) if SCORE in table.has else []
    if not results:
        for name in config.attributes:
            results += effects.primary_effects(answers[name], config)
    if PREDICTION in table.has:
        for names in _groups(table, config):
            results += decisions.decision_metrics(decisions_of(table, names), config, None)
    judge(results, config)
    return [_plain(result) for result in results]


def judge(results: list[Result], config: AuditConfig) -> None:
    """Give each result its q within its family and its verdict, in place.

    "found" takes three things: the interval excludes the value of no effect, the distance
    from it exceeds the placebo floor, and q is below alpha.
    """
    families: dict[str, list[Result]] = {}
    for result in results:
        if "verdict" not in result:
            families.setdefault(result["family"], []).append(result)
    for family in families.values():
        q = statistics.benjamini_hochberg(np.array([result["p"] for result in family]))
        for result, value in zip(family, q, strict=True):
            result["q"] = value
            result["family_size"] = len(family)
            result["reasons"] = _objections(result, config)
            result["verdict"] = NOT_FOUND if result["reasons"] else FOUND


def _objections(result: Result, config: AuditConfig) -> list[str]:
    nothing, floor = result["no_effect"], result["placebo_floor"]
    reasons = []
    if result["ci_low"] <= nothing <= result["ci_high"]:
        reasons.append(INTERVAL)
    if floor is None:
        reasons += [NO_FLOOR] if config.placebo == "required" else []
    elif result["estimate"] == nothing or not abs(result["estimate"] - nothing) > floor:
        reasons.append(FLOOR)
    if not result["q"] < config.alpha:
        reasons.append(CHANCE)
    return reasons


def counts_of(answers: Answers) -> dict[str, Any]:
    """Sets, complete rows, placebos, and members by value."""
    present = np.all(np.isfinite(answers.members), axis=2)
    return {
        "sets": len(answers),
        "complete_sets": len(answers.complete),
        "placebo_sets": answers.placebo_sets,
        "members": {
            value: int(present[:, index].sum()) for index, value in enumerate(answers.values)
        },
    }


def _undeclared(responses: pa.Table, config: AuditConfig) -> list[str]:
    """Attributes and values that the dataset holds and the declaration does not."""
    members = responses.select(["attribute", "value"]).group_by(["attribute", "value"])
    pairs = members.aggregate([]).to_pylist()
    return sorted(
        f"{row['attribute']}={row['value']}"
        for row in pairs
        if row["attribute"] is not None
        and row["value"] not in config.attributes.get(row["attribute"], ())
    )


def _plain(result: Result) -> Result:
    return {key: _number(value) for key, value in result.items()}


def _number(value: Any) -> Any:
    """Numbers to twelve digits; JSON has no infinity, so that one is a string, and NaN is null."""
    if not isinstance(value, float | np.floating):
        return int(value) if isinstance(value, np.integer) else value
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return float(f"{value:.12g}") + 0.0
