"""The instrument and the multiverse as assets; what is measured is in the siblings.

Annotations are evaluated here: Dagster does not resolve the string form of a resource's.
"""

from typing import TYPE_CHECKING, Any

import dagster as dg

from cf_lab_assets import faces, names
from cf_lab_assets.audits import store
from cf_lab_assets.audits.instrument import checks
from cf_lab_assets.audits.signature import sha256
from cf_lab_assets.counterfactuals import tables
from cf_lab_assets.failures import RETRIES, readable
from cf_lab_resources.dagster import BucketResource

if TYPE_CHECKING:
    from cf_lab_assets.audits.instrument.document import Instrument

_MEASURED = {
    "n": ("int", "sources behind it, of two sides the smaller one's"),
    "estimate": ("float", "in the unit; null where it can't be computed"),
    "low": ("float", "lower end of the interval"),
    "high": ("float", "upper end of the interval"),
    "limit": ("float", "that it is held against"),
    "unit": ("string", "of estimate and limit"),
    "verdict": ("string", "holds, fails or insufficient"),
}
GAPS = {
    "measure": ("string", "what was measured of first draws"),
    "subject": ("string", "the groups or directions that are compared"),
    **_MEASURED,
}
POINTS = {
    "model": ("string", "the audited model"),
    "endpoint": ("string", "name of the primary endpoint"),
    "rule": ("string", "which draws of members count"),
    "threshold": ("float", "least CITS of all members"),
    "n_sets": ("int", "that are left"),
    "estimate": ("float", "the effect; null where too few sets are left"),
    "ci_low": ("float", "lower end of its interval"),
    "ci_high": ("float", "upper end of its interval"),
    "placebo_floor": ("float", "how much re-rendering alone moves it"),
    "shift": ("object", "of the estimate from the headline, against its limit"),
}
# Cells that metadata show; the document has all.
MAX_CELLS = 200


@dg.asset(
    key=names.INSTRUMENT,
    deps=[names.DATASET, names.CANDIDATES, names.PAIR_SCORES, names.ACCEPTED_SETS],
    group_name=names.AUDITS,
    owners=names.OWNERS,
    kinds={"python", "json"},
    code_version="1",
    retry_policy=RETRIES,
    check_specs=checks.INSTRUMENT_CHECKS,
)
def instrument(bucket: BucketResource) -> dg.MaterializeResult:
    """Whether editor, filter and scorers are even enough to audit others with: one document.

    Gaps between groups of sources and between directions of edits, each held against its own
    limit. None of the checks blocks: what they find stands beside every number in the report.
    """
    from cf_lab_assets.audits.declaration import canonical_json
    from cf_lab_assets.audits.instrument import document, examination

    opened = bucket.open()
    with readable():
        dataset_hash = store.latest_dataset(opened)
        manifest = store.read_json(
            opened, store.dataset_key(dataset_hash, "manifest.json"), "counterfactuals/dataset"
        )
        key = store.dataset_key(dataset_hash, "pairs.parquet")
        pairs = tables.stream_rows(opened, key, examination.PAIR_COLUMNS)
        measured = document.measure(opened, manifest["batches"], pairs)
        key = store.instrument_key(dataset_hash)
        written = canonical_json(document.as_document(measured, dataset_hash))
        opened.put_bytes(key, written)
    return dg.MaterializeResult(
        metadata={
            **faces.tabular(
                names.INSTRUMENT, len(measured.gaps), faces.described(GAPS), opened.url(key)
            ),
            "dataset_hash": dataset_hash,
            "sources": measured.sources,
            "examined_sources": measured.examined,
            **_shown(measured),
        },
        data_version=dg.DataVersion(sha256(written)),
        check_results=checks.instrument_results(measured),
    )


def _shown(measured: "Instrument") -> dict[str, Any]:
    """What the UI shows of the document: the widest gaps, and the editor's cells as a table."""
    from cf_lab_assets.audits.instrument import plots
    from cf_lab_assets.audits.instrument.findings import number

    cells = [
        dg.TableRecord(
            {
                "measure": name,
                "edits": cell.attribute,
                "cell": cell.name,
                "sources": cell.sources,
                "mean": number(cell.estimate),
                "low": number(cell.low),
                "high": number(cell.high),
            }
        )
        for name, one in measured.editor.items()
        for cell in one.cells
    ]
    return {
        "cells": dg.MetadataValue.table(cells[:MAX_CELLS]) if cells else "nothing was drawn",
        "plot": faces.picture(plots.gap_forest(measured.largest_gaps), "largest gaps"),
    }


@dg.asset(
    key=names.MULTIVERSE,
    deps=[names.DATASET, *names.RESPONSES.values()],
    group_name=names.AUDITS,
    owners=names.OWNERS,
    kinds={"python", "json"},
    code_version="1",
    retry_policy=RETRIES,
    check_specs=checks.MULTIVERSE_CHECKS,
)
def multiverse(bucket: BucketResource) -> dg.MaterializeResult:
    """The audited models' primary effects by how strictly pairs are filtered.

    A headline that moves when only the cleanest pairs are kept would be the filter's, not the
    model's.
    """
    from cf_lab_assets.audits.declaration import canonical_json
    from cf_lab_assets.audits.instrument import multiverse, plots
    from cf_lab_assets.models.artifacts import acceptance_threshold

    opened, accepted = bucket.open(), acceptance_threshold()
    with readable():
        dataset_hash = store.latest_dataset(opened)
        pairs = store.read_table(
            opened,
            store.dataset_key(dataset_hash, "pairs.parquet"),
            "counterfactuals/dataset",
            ["set_id", "cits", "draw"],
        )
        sets = multiverse.strictness(pairs)
        points: list[multiverse.Point] = []
        for name in names.AUDITED_MODELS:
            key = store.responses_key(dataset_hash, name)
            responses = store.read_table(opened, key, f"audits/responses/{name}")
            points += multiverse.curve(responses, sets, accepted)
        key = store.multiverse_key(dataset_hash)
        written = canonical_json(multiverse.as_document(points, dataset_hash, accepted))
        opened.put_bytes(key, written)
    plot = dg.MetadataValue.md("too few sets for any primary effect")
    if any(point.estimate is not None for point in points):
        plot = faces.picture(plots.multiverse_curves(points), "effects by threshold")
    return dg.MaterializeResult(
        metadata={
            **faces.tabular(
                names.MULTIVERSE, len(points), faces.described(POINTS), opened.url(key)
            ),
            "dataset_hash": dataset_hash,
            "accepted_at": accepted,
            "plot": plot,
        },
        data_version=dg.DataVersion(sha256(written)),
        check_results=[
            checks.result(checks.HEADLINE, multiverse.judged(points), points=len(points))
        ],
    )
