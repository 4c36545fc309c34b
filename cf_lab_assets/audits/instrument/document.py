"""All that was measured of the instrument, as one document and as findings by proposition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cf_lab_assets.audits.instrument import (
    appearance,
    confounds,
    editor_parity,
    examination,
    filter_parity,
    masking,
)
from cf_lab_assets.audits.instrument.agreement import KAPPA_LIMIT, Agreement, agreement
from cf_lab_assets.audits.instrument.comparisons import DRAWS, LEVEL, SEED, Compared
from cf_lab_assets.audits.instrument.confounds import Probe
from cf_lab_assets.audits.instrument.filter_parity import FilterParity
from cf_lab_assets.audits.instrument.findings import Finding, Limit, plain, ranked
from cf_lab_assets.audits.instrument.reading import Readings, read_batches

if TYPE_CHECKING:
    from cf_lab_resources.bucket import Bucket

SCHEMA = "cf-lab/instrument/1"
NOTE = (
    "Attribute values are prompted or perceived, never identity. Edit success, over-edit and "
    "preservation are of the first draw of each edit, before any filter, and of all sources; "
    "realism, skin tone drift and confounds are of a sample of sources."
)


@dataclass(frozen=True)
class Instrument:
    """What was measured.

    Attributes:
        editor: by measure.
        filter: acceptance of sets.
        probes: by what the sets vary.
        agreements: of the two scorers, by attribute.
        sources: in the dataset's batches.
        examined: of which pictures were looked at.
    """

    editor: Mapping[str, Compared]
    filter: FilterParity
    probes: list[Probe]
    agreements: list[Agreement]
    sources: int
    examined: int

    @property
    def gaps(self) -> list[Finding]:
        """The editor's gaps, of all measures."""
        return [gap for one in self.editor.values() for gap in one.gaps]

    @property
    def largest_gaps(self) -> list[Finding]:
        """Of each measure the gap that is farthest towards its limit or beyond."""
        return [one for each in self.editor.values() for one in ranked(each.gaps)[:1]]


def measure(
    bucket: Bucket, batches: Iterable[str], pairs: Iterable[Mapping[str, Any]]
) -> Instrument:
    """Measure the instrument that made a dataset.

    Args:
        bucket: holds tables and pictures.
        batches: the dataset's.
        pairs: the dataset's, with `examination.PAIR_COLUMNS`.

    Raises:
        BucketKeyError: a table or picture is missing.
    """
    readings = read_batches(bucket, batches)
    return judge(readings, examination.examine(bucket, readings, pairs))


def judge(readings: Readings, examined: examination.Examined) -> Instrument:
    """The same from what was read and seen."""
    return Instrument(
        editor_parity.editor_parity(readings, examined.realism, examined.drift),
        filter_parity.filter_parity(readings.sets),
        confounds.probe_all(examined.sets, examined.offered),
        [agreement(name, counts) for name, counts in sorted(readings.answers.items())],
        len(readings.source_ids),
        examined.sources,
    )


def as_document(instrument: Instrument, dataset_hash: str) -> dict[str, Any]:
    """JSON-ready; the same inputs give the same document."""
    found = instrument.filter
    return {
        "schema": SCHEMA,
        "dataset_hash": dataset_hash,
        "note": NOTE,
        "sources": instrument.sources,
        "examined_sources": instrument.examined,
        "method": _method(),
        "limits": _limits(),
        "editor": {
            name: {
                "cells": plain([asdict(cell) for cell in one.cells]),
                "gaps": [gap.as_dict() for gap in one.gaps],
            }
            for name, one in instrument.editor.items()
        },
        "filter": {
            "cells": found.cells,
            "comparisons": [one.as_dict() for one in found.comparisons],
            "least_accepted": found.least,
            "most_accepted": found.most,
            "ratio": plain(found.ratio),
            "lost": found.lost,
        },
        "confounds": [_probe(one) for one in instrument.probes],
        "agreement": [_agreement(one) for one in instrument.agreements],
    }


def _method() -> dict[str, Any]:
    return {
        "interval_level": LEVEL,
        "intervals": "cluster bootstrap over sources; gaps of a measure simultaneously (max-T)",
        "bootstrap_draws": DRAWS,
        "seed": SEED,
        "skin_window": list(appearance.FACE),
        "changed_pixel_levels": masking.CHANGED,
        "mask_grows_by": masking.DILATION,
        "least_picture_left": masking.LEAST_LEFT,
        "folds": confounds.FOLDS,
    }


def _limits() -> dict[str, Any]:
    limits: dict[str, Limit] = {
        **editor_parity.MEASURES,
        "acceptance": filter_parity.RATIO_LIMIT,
        "auc": confounds.AUC_LIMIT,
        "kappa": KAPPA_LIMIT,
    }
    return {name: asdict(limit) for name, limit in limits.items()}


def _probe(one: Probe) -> dict[str, Any]:
    return {
        "attribute": one.attribute,
        "auc": one.finding.as_dict(),
        "trace_auc": plain(one.trace),
        "auc_by_value": plain(one.by_value),
        "statistics": one.statistics,
        "masked_share": plain(one.masked),
        "skipped_sets": one.skipped,
    }


def _agreement(one: Agreement) -> dict[str, Any]:
    return {
        "attribute": one.attribute,
        "candidates": one.candidates,
        "values": list(one.values),
        "classifier_by_encoder": one.table,
        "share": plain(one.share),
        "kappa": one.kappa.as_dict(),
    }
