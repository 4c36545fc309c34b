"""The instrument and the multiverse as assets; what is measured is in the siblings.

Annotations are evaluated here: Dagster does not resolve the string form of a resource's.
"""

from typing import TYPE_CHECKING, Any

import dagster as dg

from cf_lab_assets import names
from cf_lab_assets.audits import store
from cf_lab_assets.audits.instrument import checks
from cf_lab_assets.audits.signature import sha256
from cf_lab_assets.counterfactuals import tables
from cf_lab_assets.failures import RETRIES, readable
from cf_lab_resources.dagster import BucketResource

if TYPE_CHECKING:
    from cf_lab_assets.audits.instrument.document import Instrument

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
    """Whether editor, filter and scorers are even enough to audit others with: one document."""
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
            "dagster/row_count": len(measured.gaps),
            "dagster/uri": opened.url(key),
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
    from cf_lab_assets.audits.figures import data_uri
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
    plot = data_uri(plots.gap_forest(measured.largest_gaps))
    return {
        "cells": dg.MetadataValue.table(cells[:MAX_CELLS]) if cells else "nothing was drawn",
        "plot": dg.MetadataValue.md(f"![largest gaps]({plot})"),
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
    """The audited models' primary effects by how strictly pairs are filtered."""
    from cf_lab_assets.audits.declaration import canonical_json
    from cf_lab_assets.audits.figures import data_uri
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
    plot = plots.multiverse_curves(points) if points else b""
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(points),
            "dagster/uri": opened.url(key),
            "dataset_hash": dataset_hash,
            "accepted_at": accepted,
            "plot": dg.MetadataValue.md(f"![effects by threshold]({data_uri(plot)})"),
        },
        data_version=dg.DataVersion(sha256(written)),
        check_results=[
            checks.result(checks.HEADLINE, multiverse.judged(points), points=len(points))
        ],
    )
