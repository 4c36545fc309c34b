"""A report's results for other programs and for quick reading: CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cf_lab_assets.audits import impact
from cf_lab_assets.audits.results import INSUFFICIENT, PRIMARY, UNDEFINED
from cf_lab_assets.audits.sentences import (
    AGAINST_LIMIT,
    VERDICTS,
    p_value,
    plain,
    signed,
    subject,
)

RESULT_COLUMNS = (
    "model",
    "id",
    "family",
    "metric",
    "format",
    "unit",
    "attribute",
    "value",
    "from_value",
    "to_value",
    "within",
    "prompts_plus",
    "prompts_minus",
    "endpoint",
    "n_sets",
    "placebo_sets",
    "k",
    "pool",
    "estimate",
    "ci_low",
    "ci_high",
    "ci_level",
    "ci_method",
    "p",
    "p_method",
    "q",
    "family_size",
    "mde",
    "placebo_floor",
    "no_effect",
    "limit",
    "against_limit",
    "verdict",
    "reasons",
    "why",
)
# A spreadsheet takes text that begins so for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
NO_AUDIT = "for comparison; not a Local Law 144 audit"
NUMBERS = {"estimate", "ci_low", "ci_high", "no_effect", "placebo_floor"}


def results_csv(body: Mapping[str, Any]) -> bytes:
    """Every result of every audited model, one a line.

    Lists and strata are joined by `; `. Text that a spreadsheet would take for a formula has an
    apostrophe before it.
    """
    rows = (
        {"model": model, **result}
        for model, results in body["results"].items()
        for result in results
    )
    return _csv(RESULT_COLUMNS, rows)


def impact_ratios_csv(body: Mapping[str, Any]) -> bytes:
    """The impact ratios, each line saying that it is of no Local Law 144 audit."""
    rows = ({**row, "note": NO_AUDIT} for row in body["impact_ratios"]["rows"])
    return _csv((*impact.COLUMNS, "note"), rows)


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(name, row.get(name)) for name in columns] for row in rows)
    return sink.getvalue().encode()


def _cell(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        value = "; ".join(f"{key}={one}" for key, one in value.items())
    if isinstance(value, list | tuple):
        value = "; ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and name not in NUMBERS and value.startswith(FORMULA):
        return f"'{value}"
    return value


def summary(report: Mapping[str, Any]) -> str:
    """The report in Markdown: headlines, primary endpoints, what is missing, and its scope."""
    body = report["body"]
    data = body["data"]
    lines = [
        f"# Bias report {report['report_id']}",
        "",
        f"{report['date']}, version {report['version']}; dataset `{data['dataset_hash'][:12]}`, "
        f"{data['sets']:,} counterfactual sets, {data['members']:,} {data['members_are']}.",
        "",
        *(f"- {_escaped(line['sentence'])}" for line in body["headlines"]),
        "",
        "## Primary endpoints",
        "",
        "| model | endpoint | effect | interval | floor | q | sets | limit | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
        *_primary_rows(body),
        "",
        f"{_missing(body)} All results: results.csv and report.json.",
        "",
        f"Calibration: {body['calibration']['status']}. {body['attribute_note']}",
        "",
        f"**Legal scope.** {body['legal_scope']}",
        "",
        f"Body SHA-256 `{report['body_sha256']}`.",
    ]
    return "\n".join(lines) + "\n"


def _primary_rows(body: Mapping[str, Any]) -> list[str]:
    rows = []
    for model, results in body["results"].items():
        for one in results:
            if one["family"] != PRIMARY:
                continue
            limit = one.get("limit")
            against = f"{plain(limit)}: {AGAINST_LIMIT[one['against_limit']]}" if limit else "none"
            cells = (
                model,
                subject(one),
                signed(one.get("estimate")),
                f"[{signed(one.get('ci_low'))}, {signed(one.get('ci_high'))}]",
                plain(one.get("placebo_floor")),
                p_value(one.get("q")),
                str(one["n_sets"]),
                against,
                VERDICTS[one["verdict"]],
            )
            rows.append(f"| {' | '.join(_escaped(cell) for cell in cells)} |")
    return rows


def _missing(body: Mapping[str, Any]) -> str:
    verdicts = [one["verdict"] for results in body["results"].values() for one in results]
    return (
        f"Of {len(verdicts)} results {verdicts.count(INSUFFICIENT)} are insufficient and "
        f"{verdicts.count(UNDEFINED)} undefined."
    )


def _escaped(text: str) -> str:
    for sign in "\\|<>*_`[]":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
