"""The bias report: one document over all audited models of a dataset.

The same metrics give the same body, byte for byte. The report's identity is the hash of its body,
which holds no time stamp; date, version, run and history stand beside it, and the signature covers
both (see `signature`). Its form is published as a JSON Schema, `report.schema.json`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cf_lab_assets.audits import history, wording
from cf_lab_assets.audits.about import About
from cf_lab_assets.audits.declaration import AuditConfig, canonical_json
from cf_lab_assets.audits.errors import AuditError
from cf_lab_assets.audits.metric_definitions import definitions
from cf_lab_assets.audits.sentences import headlines, in_order
from cf_lab_assets.audits.signature import sha256

SCHEMA = "cf-lab/bias-report/3"
SCHEMA_FILE = Path(__file__).with_name("report.schema.json")
SOFTWARE = (
    "multimodal-counterfactual-lab",
    "numpy",
    "scipy",
    "torch",
    "transformers",
    "pillow",
    "pyarrow",
    "matplotlib",
)
DECODING = (
    "nothing is sampled: association scores come from embeddings or an adapter, forced choices "
    "from likelihoods in all cyclic orders of the options, open answers are decoded greedily"
)
# Earlier reports whose numbers are shown beside the new ones.
SHOWN_REPORTS = 12


@dataclass(frozen=True)
class Material:
    """What a report is made of besides the metrics.

    Attributes:
        data: what is said of the data: `data.of_dataset` or `data.of_table`.
        about: what whoever answers for the audit says of it.
        systems: by audited model, what is known besides its metrics' own account of it.
        limitations: of this kind of audit, besides those of every report.
        examples: of `examples.examples_of`.
        impact_ratios: rows of `impact.COLUMNS`.
        calibration: what the auditor found of planted biases of known size; None if not calibrated.
        instrument_checks: of editor, filter and confounds; None where there were none.
        waivers: of gates that a release of this report may fail: `waiver_id`, `gate`, `person`,
            `reason` and `until`, the last day as ISO.
    """

    data: Mapping[str, Any]
    about: About = field(default_factory=About)
    systems: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    limitations: Sequence[str] = ()
    examples: Sequence[Mapping[str, Any]] = ()
    impact_ratios: Sequence[Mapping[str, Any]] = ()
    calibration: Mapping[str, Any] | None = None
    instrument_checks: Mapping[str, Any] | None = None
    waivers: Sequence[Mapping[str, Any]] = ()


def build(
    metrics: Sequence[Mapping[str, Any]],
    material: Material,
    date: str,
    earlier: Sequence[Mapping[str, Any]] = (),
    run_id: str | None = None,
) -> dict[str, Any]:
    """The report as JSON-ready data, not signed yet.

    Args:
        metrics: one document of `metrics.compute` or `table_audit.audit_table` for each model.
        material: what else it is made of.
        date: when the report was first made, ISO; stands outside the hashed body.
        earlier: reports that came before it, oldest first.
        run_id: of the run that makes it, under which its logs are found.

    Raises:
        AuditError: There are no metrics, or they are of different datasets or declarations.
    """
    metrics = sorted(metrics, key=lambda one: one["model"]["name"])
    _check_alike(metrics, str(material.data["dataset_hash"]))
    body = _body(metrics, material)
    digest = sha256(canonical_json(body))
    last = earlier[-1] if earlier else None
    identity = {"report_id": f"b{digest[:12]}", "date": date}
    return {
        "schema": SCHEMA,
        **identity,
        "version": 1 if last is None else int(last["version"]) + 1,
        "body_sha256": digest,
        "body": body,
        "context": {
            "run_id": run_id,
            "hardware": hardware(),
            "changes": history.changes(last, body),
            "drift": history.drift(earlier[-SHOWN_REPORTS:], body, identity),
        },
        "signatures": [],
    }


def _body(metrics: Sequence[Mapping[str, Any]], material: Material) -> dict[str, Any]:
    first, about = metrics[0], material.about
    config = AuditConfig.model_validate(first["declaration"])
    used = {result["metric"] for one in metrics for result in one["results"]}
    return {
        "intended_purpose": about.intended_purpose,
        "independence": about.independence,
        "responsible": list(about.responsible),
        "headlines": in_order([line for one in metrics for line in headlines(one)]),
        "systems_under_test": [_system(one["model"], material, config) for one in metrics],
        "prompts": first["prompts"],
        "data": {**material.data, "not_audited": first["undeclared"]},
        "attributes": {
            name: {"values": list(values), "taxonomy": "the declaration's, a short closed list"}
            for name, values in config.attributes.items()
        },
        "attribute_note": wording.ATTRIBUTE_NOTE,
        "metric_definitions": definitions(used),
        "thresholds": {
            "alpha": config.alpha,
            "minimum_sets": config.minimum_sets,
            "limits": {one.name: one.limit for one in config.primary},
            "set_by": f"{about.thresholds_set_by} (declaration {config.name!r})",
        },
        "declaration": first["declaration"],
        "declaration_hash": first["declaration_hash"],
        "results": {one["model"]["name"]: one["results"] for one in metrics},
        "examples": list(material.examples),
        "impact_ratios": {
            "statement": wording.IMPACT_RATIOS,
            "rows": list(material.impact_ratios),
        },
        "calibration": _calibration(material.calibration),
        "instrument_checks": _given(material.instrument_checks, "checked", wording.NOT_CHECKED),
        "waivers": list(material.waivers),
        "limitations": [*wording.LIMITATIONS, *material.limitations, *about.limitations],
        "residual_risks": [*wording.RESIDUAL_RISKS, *about.residual_risks],
        "legal_scope": wording.LEGAL_SCOPE,
        "software": software(),
    }


def _system(model: Mapping[str, Any], material: Material, config: AuditConfig) -> dict[str, Any]:
    """An audited model: what its owner says, then what is on record, then what was measured."""
    said = material.about.model.model_dump(mode="json")
    known = material.systems.get(model["name"], {})
    templates = said["prompt_templates"] or [config.prompt_template]
    recorded = {name: value for name, value in model.items() if value is not None}
    return {**said, **known, **recorded, "prompt_templates": templates}


def _calibration(found: Mapping[str, Any] | None) -> dict[str, Any]:
    if found is not None and found.get("passed") is False:
        return {"status": "calibration failed", "note": wording.FAILED, "found": dict(found)}
    return _given(found, "calibrated", wording.NOT_CALIBRATED)


def _given(found: Mapping[str, Any] | None, status: str, otherwise: str) -> dict[str, Any]:
    if found is None:
        return {"status": f"not {status}", "note": otherwise, "found": None}
    return {"status": status, "note": "", "found": dict(found)}


def to_json(report: Mapping[str, Any]) -> bytes:
    """The report's one spelling as JSON."""
    return canonical_json(report) + b"\n"


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every report satisfies."""
    loaded: dict[str, Any] = json.loads(SCHEMA_FILE.read_bytes())
    return loaded


def software() -> dict[str, str]:
    """Versions of what made the numbers; "not installed" for what is not here."""
    versions = {"python": platform.python_version()}
    for name in SOFTWARE:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def hardware() -> dict[str, Any]:
    """The machine on which the report was made."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
    }


def _check_alike(metrics: Sequence[Mapping[str, Any]], dataset_hash: str) -> None:
    if not metrics:
        raise AuditError("there are no bias metrics to report; materialise audits/bias_metrics")
    for one in metrics:
        if one["dataset_hash"] != dataset_hash:
            raise AuditError(
                f"metrics of {one['model']['name']} are of dataset {one['dataset_hash']}, the "
                f"report of {dataset_hash}; materialise audits/responses and audits/bias_metrics"
            )
    hashes = {one["model"]["name"]: one["declaration_hash"] for one in metrics}
    if len(set(hashes.values())) > 1:
        raise AuditError(
            f"the models were audited under different declarations ({hashes}); materialise "
            "audits/responses of all of them under one"
        )
