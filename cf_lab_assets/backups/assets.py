"""Backups of catalog and bucket as assets; the work is the siblings'.

Annotations are evaluated here (no `__future__` import), since Dagster refuses a context whose
annotation is a string.
"""

import time
from typing import TYPE_CHECKING

import dagster as dg

from cf_lab_assets import faces
from cf_lab_assets.failures import RETRIES, failure
from cf_lab_assets.names import (
    BACKUPS,
    BUCKET_BACKUP,
    CATALOG_BACKUP,
    OWNERS,
    RELEASE_CURRENT,
)
from cf_lab_resources.dagster import (
    BackupResource,
    BucketResource,
    CatalogResource,
    endpoints,
)
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cf_lab_assets.backups.copying import Progress, Report
    from cf_lab_assets.backups.manifest import Backup

LOG_SECONDS = 10.0
SHOWN = 20  # backups in a table
OBJECTS = {
    "key": ("string", "of the object in the bucket"),
    "sha256": ("string", "hash of its bytes, which it is kept under in the second place"),
    "size": ("int", "in bytes"),
}


@dg.asset(
    key=CATALOG_BACKUP,
    deps=[RELEASE_CURRENT],
    group_name=BACKUPS,
    owners=OWNERS,
    kinds={"postgres"},
    code_version="1",
    retry_policy=RETRIES,
)
def catalog_backup(catalog: CatalogResource, backup: BackupResource) -> dg.MaterializeResult:
    """A dump of the catalog's whole database in the second place, with its hash and rows.

    It counts as a backup once `backups/bucket` has written the manifest that joins both.
    """
    from cf_lab_assets.backups.catalog import dump_catalog
    from cf_lab_assets.backups.manifest import earlier

    started = time.monotonic()
    try:
        place = backup.open()
        dump = dump_catalog(catalog.url or endpoints().postgres_url, place)
    except LabError as error:
        raise failure(error) from error
    tables = [{"table": table, "rows": rows} for table, rows in dump.tables.items()]
    before = [(one.created_at, one.manifest.catalog.bytes) for one in earlier(place)]
    return dg.MaterializeResult(
        metadata={
            "dagster/uri": place.url(dump.key),
            "dagster/row_count": sum(dump.tables.values()),
            "tables": faces.table(tables, {"table": "with its schema", "rows": "in the dump"}),
            "sizes": _sizes([*before, (dump.created_at, dump.bytes)], "size of the dump"),
            "bytes": dump.bytes,
            "sha256": dump.sha256,
            "server_version": dump.server_version,
            "seconds": time.monotonic() - started,
        }
    )


@dg.asset(
    key=BUCKET_BACKUP,
    deps=[RELEASE_CURRENT, CATALOG_BACKUP],
    group_name=BACKUPS,
    owners=OWNERS,
    kinds={"python"},
    code_version="1",
    retry_policy=RETRIES,
)
def bucket_backup(
    context: dg.AssetExecutionContext, bucket: BucketResource, backup: BackupResource
) -> dg.MaterializeResult:
    """All objects of the bucket in the second place, of which only new ones are copied.

    It ends with the manifest that joins them to the newest dump of the catalog: from then on the
    backup counts.
    """
    from cf_lab_assets.backups.bucket import back_up_bucket
    from cf_lab_assets.backups.catalog import newest_dump
    from cf_lab_assets.backups.manifest import earlier

    try:
        place = backup.open()
        result = back_up_bucket(bucket.open(), place, newest_dump(place), _report(context))
    except LabError as error:
        raise failure(error) from error
    manifest, kept = result.backup.manifest, earlier(place)
    return dg.MaterializeResult(
        metadata={
            **faces.tabular(
                BUCKET_BACKUP,
                manifest.objects.count,
                faces.described(OBJECTS, unique=["key"]),
                place.url(result.backup.key),
            ),
            "backups": faces.table([_line(one) for one in kept[-SHOWN:]]),
            "sizes": _sizes(
                [(one.created_at, one.manifest.objects.bytes) for one in kept],
                "size of all objects",
            ),
            "manifest": result.backup.key,
            "manifest_sha256": result.backup.sha256,
            "catalog_dump": manifest.catalog.key,
            "objects_copied": result.copied,
            "bytes_copied": result.copied_bytes,
            "bytes": manifest.objects.bytes,
            "damaged_objects": len(manifest.damaged),
            "seconds": result.seconds,
        },
        data_version=dg.DataVersion(manifest.objects.sha256),
    )


def _line(backup: "Backup") -> dict[str, str | int]:
    """A backup as a row of the list of them."""
    manifest = backup.manifest
    return {
        "made at": f"{manifest.created_at:%Y-%m-%d %H:%M} UTC",
        "objects": manifest.objects.count,
        "bytes of objects": manifest.objects.bytes,
        "bytes of the dump": manifest.catalog.bytes,
        "damaged": len(manifest.damaged),
    }


def _sizes(points: "Sequence[tuple[datetime, int]]", what: str) -> dg.MarkdownMetadataValue:
    """Sizes over time as a plot, in megabytes."""
    from cf_lab_assets import charts

    first = points[0][0]
    days = [((at - first).total_seconds() / 86400, size / 1e6) for at, size in points]
    across = f"days since {first:%Y-%m-%d %H:%M} UTC; backups that are shown: {len(points)}"
    return faces.picture(charts.lines({what: days}, across, f"{what}, MB"), f"{what} over time")


def _report(context: dg.AssetExecutionContext) -> "Report":
    last = time.monotonic()

    def report(progress: "Progress") -> None:
        nonlocal last
        if time.monotonic() - last >= LOG_SECONDS:
            last = time.monotonic()
            context.log.info(
                f"{progress.done} of {progress.total} objects, {progress.copied} copied "
                f"({progress.copied_bytes / 1e6:.0f} MB)"
            )

    return report
