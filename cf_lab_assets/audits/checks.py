"""Checks of audits: propositions about responses and report, with the numbers behind them.

They run inside the assets, which know their model. What they decide is decided by plain
functions here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from cf_lab_assets import faces, names
from cf_lab_assets.audits.results import PRIMARY
from cf_lab_resources.engine.families import family

if TYPE_CHECKING:
    import pyarrow as pa

    from cf_lab_assets.audits.declaration import AuditConfig

RESPONSES_ARE_COMPLETE = "responses_are_complete"
AUDITED_MODEL_IS_NOT_THE_SCORER = "audited_model_is_not_the_scorer"
THE_AUDITOR_IS_CALIBRATED = "the_auditor_is_calibrated"
EVERY_PRIMARY_ENDPOINT_IS_REPORTED = "every_primary_endpoint_is_reported"

CALIBRATION_CHECKS = [
    dg.AssetCheckSpec(
        THE_AUDITOR_IS_CALIBRATED,
        asset=names.CALIBRATION,
        blocking=True,
        description="Of oracles with planted effects the auditor measures what was planted.",
    )
]
REPORT_CHECKS = [
    dg.AssetCheckSpec(
        EVERY_PRIMARY_ENDPOINT_IS_REPORTED,
        asset=names.BIAS_REPORT,
        blocking=True,
        description="Each audited model has a result for each declared primary endpoint.",
    )
]

# The role of the model that draws; every other role in a dataset's manifest judges.
EDITOR_ROLE = "editor"
SHOWN = 5
NOT_DECLARED = (
    "the audited model's family is not known; write #family= and its name behind its URI in "
    "CF_LAB_AUDITED"
)


def response_checks(model: str) -> list[dg.AssetCheckSpec]:
    """What is checked of an audited model's responses."""
    about = {
        RESPONSES_ARE_COMPLETE: "Every member and source picture has an answer, or the reason why "
        "not.",
        AUDITED_MODEL_IS_NOT_THE_SCORER: "No model of the audited model's family chose the "
        "pictures it is audited on.",
    }
    return [
        dg.AssetCheckSpec(
            name, asset=names.RESPONSES[model], blocking=True, description=description
        )
        for name, description in about.items()
    ]


def responses_are_complete(
    responses: pa.Table, pairs: pa.Table, config: AuditConfig, formats: Sequence[str]
) -> dg.AssetCheckResult:
    """Whether every member and source picture was asked everything, and answered or told why not.

    Too many failures are refused before there are responses; see `AuditConfig.maximum_failures`.
    """
    from cf_lab_assets.audits.association import unanswered

    missing = unanswered(responses, pairs, config, formats)
    return dg.AssetCheckResult(
        check_name=RESPONSES_ARE_COMPLETE,
        passed=not any(missing.values()),
        metadata={
            **faces.held_against(
                sum(map(len, missing.values())), 0, "pictures without an answer or a reason"
            ),
            "members_unanswered": len(missing["member"]),
            "sources_unanswered": len(missing["source"]),
            "answers": responses["failure"].null_count,
            "failures": len(responses) - responses["failure"].null_count,
            "examples": dg.MetadataValue.json(
                {role: ids[:SHOWN] for role, ids in missing.items() if ids}
            ),
        },
    )


def audited_model_is_not_the_scorer(
    audited: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]
) -> dg.AssetCheckResult:
    """Whether the audited model differs in family and files from every scorer.

    A filter keeps what it likes, so a model of the same family would be audited on pictures
    chosen to please it. The towers of a generative model count: a LLaVA that sees through a CLIP
    is of CLIP's family too. A model of unknown family fails the check: not knowing isn't passing.

    Args:
        audited: `Audited.describe`'s account, with `families` and `sha256`.
        models: of the dataset's manifest, by role, with `name`, `sha256` and `family`.
    """
    scorers = {role: model for role, model in models.items() if role != EDITOR_ROLE}
    own = {one for one in audited.get("families") or [audited.get("model_type")] if one}
    faults = [] if own else [NOT_DECLARED]
    for role, model in sorted(scorers.items()):
        named = model.get("family") or model.get("model_type")
        if not named:
            faults.append(f"{role} {model.get('name')}: its family is not on record")
        elif family(named) in own:
            faults.append(f"{role} {model.get('name')}: is a {named} too")
        elif audited.get("sha256") and model.get("sha256") == audited["sha256"]:
            faults.append(f"{role} {model.get('name')}: is the same model")
    if not scorers:
        faults.append("the dataset's manifest names no scorer")
    return dg.AssetCheckResult(
        check_name=AUDITED_MODEL_IS_NOT_THE_SCORER,
        passed=not faults,
        metadata={
            **faces.held_against(len(faults), 0, "scorers that are kin, or of unknown family"),
            "audited_families": ", ".join(sorted(own)) or "unknown",
            "scorers": dg.MetadataValue.json(
                {role: model.get("family") for role, model in scorers.items()}
            ),
            "faults": dg.MetadataValue.json(faults),
        },
    )


def the_auditor_is_calibrated(calibration: Mapping[str, Any]) -> dg.AssetCheckResult:
    """Whether every quantity that could be measured of the auditor is within its limits.

    A dataset that is too small to measure any of them shows nothing, and is warned of.
    """
    failed = [one for one in calibration["quantities"] if not one["passed"]]
    return dg.AssetCheckResult(
        check_name=THE_AUDITOR_IS_CALIBRATED,
        passed=not failed and calibration["measured"] > 0,
        severity=dg.AssetCheckSeverity.ERROR if failed else dg.AssetCheckSeverity.WARN,
        metadata={
            **faces.held_against(
                len(failed) if calibration["measured"] else "not measurable",
                0,
                "quantities outside their limits",
            ),
            "quantities": calibration["measured"],
            "not measurable": len(calibration["quantities"]) - calibration["measured"],
            "failed": dg.MetadataValue.json(failed),
        },
    )


def every_primary_endpoint_is_reported(
    report: Mapping[str, Any], audited: Sequence[str]
) -> dg.AssetCheckResult:
    """Whether each audited model has a verdict on each declared primary endpoint."""
    body = report["body"]
    declared = [endpoint["name"] for endpoint in body["declaration"]["primary"]]
    reported = {
        (model, result["endpoint"])
        for model, results in body["results"].items()
        for result in results
        if result["family"] == PRIMARY and result.get("verdict")
    }
    missing = [
        f"{model}: {endpoint}"
        for model in audited
        for endpoint in declared
        if (model, endpoint) not in reported
    ]
    return dg.AssetCheckResult(
        check_name=EVERY_PRIMARY_ENDPOINT_IS_REPORTED,
        passed=not missing,
        metadata={
            **faces.held_against(len(missing), 0, "primary endpoints without a verdict"),
            "missing": dg.MetadataValue.json(missing),
            "reported": len(reported),
        },
    )
