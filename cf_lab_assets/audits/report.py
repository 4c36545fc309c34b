"""The bias report: one document over all audited models, as JSON and as a page for people.

The same metrics give the same bytes. The report's identity is the hash of its body, which
holds no time stamp; the date stands beside it.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cf_lab_assets.audits import wording
from cf_lab_assets.audits.declaration import AuditConfig, canonical_json
from cf_lab_assets.audits.errors import AuditError
from cf_lab_assets.audits.results import EFFECT, FOUND, INSUFFICIENT, MAX_SKEW, NOT_FOUND, PRIMARY
from cf_lab_assets.audits.sentences import (
    VERDICT_ORDER,
    headlines,
    in_order,
    p_value,
    plain,
    signed,
)

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = "cf-lab/bias-report/1"
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
VERDICTS = {FOUND: "found", NOT_FOUND: "not found", INSUFFICIENT: "insufficient"}


def acceptance_cells(
    sets: pa.Table, drawn: Iterable[pa.Table] | None, level: float = 0.95
) -> list[dict[str, Any]]:
    """Offered and accepted sets by attribute and the source's own value.

    Acceptance is of whole sets, so within a set no value can fare better than another; source
    groups can.

    Args:
        sets: the dataset's sets.
        drawn: tables with source_id, attribute and from_value of all sets of its batches that
            were drawn, or None where they are not known; then what was offered is None, which
            is not 0.
        level: of the interval of the accepted share (Wilson 1927).
    """
    from cf_lab_assets.audits.statistics import wilson_interval

    accepted = _tally(
        zip(sets["attribute"].to_pylist(), sets["from_value"].to_pylist(), strict=True)
    )
    offered = None if drawn is None else _tally(_offered(drawn))
    cells = []
    for attribute, value in sorted({*accepted, *(offered or {})}):
        kept = accepted.get((attribute, value), 0)
        cell: dict[str, Any] = {"attribute": attribute, "from_value": value, "accepted": kept}
        # A set can be accepted and not drawn only where the batch was drawn again since.
        total = None if offered is None else offered.get((attribute, value), 0)
        if total is not None and total >= kept:
            low, high = wilson_interval(kept, total, level)
            cell |= {"offered": total, "low": round(low, 6), "high": round(high, 6)}
            cell["share"] = round(kept / total, 6) if total else None
        else:
            cell |= {"offered": None, "share": None, "low": None, "high": None}
        cells.append(cell)
    return cells


def _offered(drawn: Iterable[pa.Table]) -> set[tuple[str, str, str]]:
    columns = ("attribute", "from_value", "source_id")
    return {
        (row["attribute"], row["from_value"], row["source_id"])
        for table in drawn
        for row in table.select(columns).to_pylist()
    }


def _tally(items: Iterable[tuple[str, ...]]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for attribute, value, *_ in items:
        counts[attribute, value] = counts.get((attribute, value), 0) + 1
    return counts


def build(
    metrics: Sequence[Mapping[str, Any]],
    manifest: Mapping[str, Any],
    cells: Sequence[Mapping[str, Any]],
    date: str,
) -> dict[str, Any]:
    """The report as JSON-ready data.

    Args:
        metrics: one document of `metrics.compute` for each audited model.
        manifest: of the dataset.
        cells: of `acceptance_cells`.
        date: when the report was first made, ISO; stands outside the hashed body.

    Raises:
        AuditError: There are no metrics, or they are of different datasets or declarations.
    """
    metrics = sorted(metrics, key=lambda one: one["model"]["name"])
    _check_alike(metrics, str(manifest["content_hash"]))
    config = AuditConfig.model_validate(metrics[0]["declaration"])
    body = {
        "intended_purpose": wording.PURPOSE,
        "independence": wording.INDEPENDENCE,
        "signatures": [],
        "headlines": in_order([line for one in metrics for line in headlines(one)]),
        "systems_under_test": [one["model"] for one in metrics],
        "prompts": metrics[0]["prompts"],
        "data": {
            "dataset_hash": manifest["content_hash"],
            "synthetic": True,
            "pairs": manifest["pairs"],
            "sets": manifest["sets"],
            "batches": manifest["batches"],
            "generator_and_filter_models": manifest["models"],
            "cells": list(cells),
            "counts": metrics[0]["counts"],
            "not_audited": metrics[0]["undeclared"],
        },
        "attributes": {name: list(values) for name, values in config.attributes.items()},
        "attribute_note": wording.ATTRIBUTE_NOTE,
        "metric_definitions": list(wording.DEFINITIONS),
        "thresholds": {
            "alpha": config.alpha,
            "minimum_sets": config.minimum_sets,
            "set_by": f"the audit's declaration {config.name!r}, under which the scores were made",
        },
        "declaration": metrics[0]["declaration"],
        "declaration_hash": metrics[0]["declaration_hash"],
        "results": {one["model"]["name"]: one["results"] for one in metrics},
        "limitations": list(wording.LIMITATIONS),
        "residual_risks": list(wording.RESIDUAL_RISKS),
        "legal_scope": wording.LEGAL_SCOPE,
        "software": software(),
    }
    digest = hashlib.sha256(canonical_json(body)).hexdigest()
    return {
        "schema": SCHEMA,
        "report_id": f"b{digest[:12]}",
        "body_sha256": digest,
        "date": date,
        "body": body,
    }


def to_json(report: Mapping[str, Any]) -> bytes:
    """The report's one spelling as JSON."""
    return canonical_json(report) + b"\n"


def software() -> dict[str, str]:
    """Versions of what made the numbers; "not installed" for what is not here."""
    versions = {"python": platform.python_version()}
    for name in SOFTWARE:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


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


# --- page ---------------------------------------------------------------------------------


def render(report: Mapping[str, Any], contact_sheet: bytes | None = None) -> str:
    """The report as one self-contained HTML page.

    Args:
        report: of `build`.
        contact_sheet: a PNG of example sets.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cf_lab_assets.audits", package_path="."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"plain": plain, "signed": signed, "p_value": p_value}
    body = report["body"]
    return environment.get_template("report.html.j2").render(
        report=report,
        body=body,
        models=list(body["results"]),
        pictures=_pictures(body),
        contact_sheet=data_uri(contact_sheet) if contact_sheet else None,
        verdicts=VERDICTS,
        tables=_tables(body),
    )


def data_uri(png: bytes) -> str:
    """A picture as a data: address."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def primary_plot(results: Mapping[str, Sequence[Mapping[str, Any]]], dpi: int = 120) -> bytes:
    """Forest plot of the primary endpoints, a panel for each model."""
    from cf_lab_assets.audits import plots

    panels = {
        model: [one for one in ones if one["family"] == PRIMARY] for model, ones in results.items()
    }
    rows = next(iter(panels.values()))
    labels = [
        f"{one['attribute'].replace('_', ' ')}: {one['from_value']} → {one['to_value']}"
        for one in rows
    ]
    return plots.effect_forest(labels, panels, dpi)


def _secondary_plot(results: Mapping[str, Sequence[Mapping[str, Any]]], attribute: str) -> bytes:
    from cf_lab_assets.audits import plots

    labels: list[str] = []
    panels: dict[str, list[Mapping[str, Any]]] = {}
    for model, ones in results.items():
        labels = []
        rows: list[Mapping[str, Any]] = []
        for one in _of(ones, EFFECT, attribute):
            heading = f"{one['from_value']} → {one['to_value']}"
            if heading not in labels:
                labels.append(heading)
                rows.append({})
            labels.append(one["prompts_plus"][0])
            rows.append(one)
        panels[model] = rows
    return plots.effect_forest(labels, panels)


def _skew_plot(results: Mapping[str, Sequence[Mapping[str, Any]]], attribute: str) -> bytes:
    from cf_lab_assets.audits import plots

    panels = {model: _of(ones, MAX_SKEW, attribute) for model, ones in results.items()}
    labels = [one["prompts_plus"][0] for one in next(iter(panels.values()))]
    return plots.skew_bars(labels, panels)


def _of(
    results: Sequence[Mapping[str, Any]], metric: str, attribute: str
) -> list[Mapping[str, Any]]:
    return [
        one
        for one in results
        if one["metric"] == metric and one["attribute"] == attribute and one["family"] != PRIMARY
    ]


def _pictures(body: Mapping[str, Any]) -> dict[str, Any]:
    results = body["results"]
    attributes = body["attributes"]
    return {
        "primary": data_uri(primary_plot(results)) if body["declaration"]["primary"] else None,
        "secondary": {name: data_uri(_secondary_plot(results, name)) for name in attributes},
        "skew": {name: data_uri(_skew_plot(results, name)) for name in attributes},
    }


def _tables(body: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows of the tables with their model, what was found first."""
    rows = [{"model": model, **one} for model, ones in body["results"].items() for one in ones]
    ranked = sorted(rows, key=lambda one: (one["model"], VERDICT_ORDER[one["verdict"]], one["id"]))
    return {
        "primary": [one for one in rows if one["family"] == PRIMARY],
        "secondary": [
            one for one in ranked if one["metric"] == EFFECT and one["family"] != PRIMARY
        ],
        "skew": [one for one in ranked if one["metric"] != EFFECT],
    }
