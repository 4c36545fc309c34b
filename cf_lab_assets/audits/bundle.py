"""The files of a report, made and signed together: page, JSON, CSVs and summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cf_lab_assets.audits import exports, page, signature
from cf_lab_assets.audits.report import to_json

if TYPE_CHECKING:
    from cf_lab_resources.credentials.keys import SigningKey

REPORT_HTML, REPORT_JSON = "report.html", signature.REPORT_JSON
RESULTS_CSV, IMPACT_CSV, SUMMARY = "results.csv", "impact_ratios.csv", "summary.md"


@dataclass(frozen=True)
class Pictures:
    """What a page shows besides plots.

    Attributes:
        contact_sheet: a PNG of sets of the dataset.
        examples: of `examples.pictures`.
    """

    contact_sheet: bytes | None = None
    examples: Mapping[str, tuple[bytes, str]] = field(default_factory=dict)


def files(
    report: Mapping[str, Any],
    key: SigningKey,
    day: str,
    pictures: Pictures | None = None,
    before: Mapping[str, Any] | None = None,
    beside: Mapping[str, bytes] | None = None,
) -> dict[str, bytes]:
    """A report's files by name, its JSON last, which holds the signature over all of them.

    Args:
        report: of `report.build`.
        key: that signs it.
        day: of signing, ISO.
        pictures: for the page.
        before: the report's JSON as it was written before, whose signature stays where it can.
        beside: other files that belong to it.
    """
    body, shown = report["body"], pictures or Pictures()
    signer = signature.signer_of(key)
    made = {
        REPORT_HTML: page.render(report, signer, shown.contact_sheet, shown.examples).encode(),
        RESULTS_CSV: exports.results_csv(body),
        IMPACT_CSV: exports.impact_ratios_csv(body),
        SUMMARY: exports.summary(report).encode(),
        **(beside or {}),
    }
    return {**made, REPORT_JSON: to_json(signature.signed(report, key, made, day, before))}


def kept(report: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """The report with date, version and context of its first making, so that no byte changes."""
    if before is None or before.get("body_sha256") != report["body_sha256"]:
        return dict(report)
    return {**report, **{name: before[name] for name in ("date", "version", "context")}}
