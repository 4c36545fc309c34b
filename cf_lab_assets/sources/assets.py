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
        "dagster/row_count": manifest.rows,
        "dagster/column_schema": _column_schema(),
        "dagster/uri": bucket.url(batches.pairs_key(manifest)),
        "pictures": _sheet(bucket, [key for key in keys if key not in missing]),
        "kind": manifest.kind,
        "distinct_pictures": manifest.images,
        "near_duplicates": manifest.near_duplicates,
        "quarantined": manifest.quarantined,
        "quarantined_by_reason": _table(
            ["reason", "rows"], [(r, n) for r, n in manifest.quarantined_by_reason.items()]
        ),
        "quarantine": bucket.url(batches.quarantine_key(manifest)),
        "stray_files": manifest.stray_files,
        "attribute_values": _table(
            ["attribute", "value", "pairs"],
            [(a, v, n) for a, vs in manifest.attribute_values.items() for v, n in vs.items()],
        ),
        "content_hash": manifest.content_hash,
    }


def _column_schema() -> dg.TableSchema:
    from cf_lab_assets.sources import batches

    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                str(column.type),
                description=_COLUMNS[column.name],
                constraints=dg.TableColumnConstraints(
                    nullable=column.name in _NULLABLE, unique=column.name == "source_id"
                ),
            )
            for column in batches.pairs_schema()
        ]
    )


_NULLABLE = {"image_key", "image_sha256", "width", "height", "near_duplicate_of"}
_COLUMNS = {
    "source_id": "s and 15 digits of the hash of picture and caption",
    "batch": "the delivery that it came with",
    "file_name": "path of the picture in the delivery, or the file that holds the row",
    "image_key": "where the normalised picture is in the bucket; null in a caption set",
    "image_sha256": "hash of the normalised picture",
    "width": "of the normalised picture, in pixels",
    "height": "of the normalised picture, in pixels",
    "caption": "in composed Unicode, white space made single spaces",
    "attributes": "known attributes of the person that the delivery states",
    "extra": "every other column that was not empty, as strings",
    "near_duplicate_of": "the first pair whose picture is another one but looks the same",
}


def _table(columns: list[str], rows: list[tuple[Any, ...]]) -> dg.TableMetadataValue:
    kinds = ["int" if name in ("rows", "pairs") else "string" for name in columns]
    return dg.MetadataValue.table(
        [dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows],
        dg.TableSchema([dg.TableColumn(n, k) for n, k in zip(columns, kinds, strict=True)]),
    )


def _sheet(bucket: "Bucket", keys: list[str]) -> dg.MarkdownMetadataValue:
    from cf_lab_resources.images import as_markdown, contact_sheet

    if not keys:
        return dg.MetadataValue.md("no picture is there")
    try:
        sheet = contact_sheet([bucket.get_bytes(key) for key in keys])
    except (OSError, SyntaxError, ValueError):  # Pillow's; the check says which are damaged
        return dg.MetadataValue.md("a picture is damaged")
    return dg.MetadataValue.md(as_markdown(sheet, "first pictures of the batch"))
