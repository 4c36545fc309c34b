"""Source batches as an asset: what `ingest` stored, or stores now, of a delivery.

The work is done by the siblings; here it is given to Dagster. Which deliveries there are is
decided elsewhere: by people, or by the sensor on `incoming/`.

Annotations are evaluated here (no `__future__` import), since Dagster refuses a context whose
annotation is a string.
"""

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dagster as dg

from cf_lab_assets import faces
from cf_lab_assets.failures import RETRIES, failure
from cf_lab_assets.names import OWNERS, SOURCE_BATCHES, SOURCE_PAIRS, SOURCES
from cf_lab_assets.sources import checks
from cf_lab_resources.dagster import BucketResource
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from cf_lab_assets.sources.batches import Manifest
    from cf_lab_resources.bucket import Bucket

SHOWN_PICTURES = 12
ROWS_PER_LINE = 1000  # of the log


@dg.asset(
    key=SOURCE_PAIRS,
    partitions_def=SOURCE_BATCHES,
    group_name=SOURCES,
    owners=OWNERS,
    kinds={"python", "parquet"},
    code_version="2",
    retry_policy=RETRIES,
    check_specs=checks.SPECS,
)
def pairs(context: dg.AssetExecutionContext, bucket: BucketResource) -> dg.MaterializeResult:
    """Image-text pairs of one delivery, validated and stored by content.

    A batch that was ingested already is checked against its manifest; one that lies in
    `incoming/<batch>/` is ingested first. Rejected rows are in quarantine with a reason code. Pairs
    of a caption set have no picture.
    """
    from cf_lab_assets.sources import batches

    store, batch = bucket.open(), context.partition_key

    told = 0

    def progress(rows: int) -> None:
        nonlocal told
        if rows - told >= ROWS_PER_LINE:
            told = rows
            context.log.info(f"{rows} rows of {batch} done")

    try:
        manifest = stored_or_delivered(store, batch, progress)
        inspection = batches.inspect(store, manifest)
        metadata = _metadata(store, manifest, set(inspection.missing))
    except LabError as error:
        reason = getattr(error, "reason", type(error).__name__)
        raise failure(error, {"reason": reason}) from error
    return dg.MaterializeResult(
        metadata=metadata,
        data_version=dg.DataVersion(manifest.content_hash),
        check_results=checks.evaluate(manifest, inspection),
    )


def stored_or_delivered(
    bucket: "Bucket", batch: str, progress: Callable[[int], None] | None = None
) -> "Manifest":
    """The manifest of a stored batch, taken in from `incoming/` first where it is not stored.

    Raises:
        DeliveryRefused: It is neither stored nor delivered, or the delivery can't be taken.
        BatchBroken: Its manifest can't be read.
    """
    from cf_lab_assets.sources import batches, captions, deliveries, ingest

    manifest = batches.read_manifest(bucket, batch)
    if manifest:
        return manifest
    if batch not in dict(deliveries.delivered(bucket)):
        raise batches.not_delivered(batch)
    delivery = deliveries.in_bucket(bucket, f"{deliveries.INCOMING}/{batch}")
    return ingest.take(delivery, batch, bucket, captions.starter_rules(), progress).manifest


def _metadata(bucket: "Bucket", manifest: "Manifest", missing: set[str]) -> dict[str, Any]:
    from cf_lab_assets.sources import batches

    first = itertools.islice(batches.read_pairs(bucket, manifest.batch), SHOWN_PICTURES)
    keys = dict.fromkeys(pair.image_key for pair in first if pair.image_key)
    return {
        **faces.tabular(
            SOURCE_PAIRS,
            manifest.rows,
            faces.columns(batches.pairs_schema(), batches.PAIRS_MEANING, unique=["source_id"]),
            bucket.url(batches.pairs_key(manifest)),
        ),
        "pictures": _sheet(bucket, [key for key in keys if key not in missing]),
        "kind": manifest.kind,
        "distinct_pictures": manifest.images,
        "near_duplicates": manifest.near_duplicates,
        "quarantined": manifest.quarantined,
        "quarantined_by_reason": faces.table(
            [{"reason": r, "rows": n} for r, n in manifest.quarantined_by_reason.items()],
            {"reason": "code of why", "rows": "that were rejected for it"},
        ),
        "quarantine": bucket.url(batches.quarantine_key(manifest)),
        "stray_files": manifest.stray_files,
        "attribute_values": faces.table(
            [
                {"attribute": attribute, "value": value, "pairs": count}
                for attribute, values in manifest.attribute_values.items()
                for value, count in values.items()
            ],
            {"attribute": "", "value": "as the delivery states it", "pairs": "that show it"},
        ),
        "content_hash": manifest.content_hash,
    }


def _sheet(bucket: "Bucket", keys: list[str]) -> dg.MarkdownMetadataValue:
    from cf_lab_resources.images import as_markdown, contact_sheet

    if not keys:
        return dg.MetadataValue.md("no picture is there")
    try:
        sheet = contact_sheet([bucket.get_bytes(key) for key in keys])
    except (OSError, SyntaxError, ValueError):  # Pillow's; the check says which are damaged
        return dg.MetadataValue.md("a picture is damaged")
    return dg.MetadataValue.md(as_markdown(sheet, "first pictures of the batch"))
