"""Backups of catalog and bucket as assets; the work is the siblings'.

Annotations are evaluated here (no `__future__` import), since Dagster refuses a context whose
annotation is a string.
"""

import time
from typing import TYPE_CHECKING

import dagster as dg

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
    from cf_lab_assets.backups.copying import Progress, Report

LOG_SECONDS = 10.0


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
    """A dump of the catalog's whole database in the second place, with its hash and rows."""
    from cf_lab_assets.backups.catalog import dump_catalog

    started = time.monotonic()
    try:
        place = backup.open()
        dump = dump_catalog(catalog.url or endpoints().postgres_url, place)
    except LabError as error:
        raise failure(error) from error
    schema = dg.TableSchema([dg.TableColumn("table", "string"), dg.TableColumn("rows", "int")])
    records = [dg.TableRecord({"table": t, "rows": n}) for t, n in dump.tables.items()]
    return dg.MaterializeResult(
        metadata={
            "dagster/uri": place.url(dump.key),
            "dagster/row_count": sum(dump.tables.values()),
            "tables": dg.MetadataValue.table(records, schema),
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

    try:
        place = backup.open()
        result = back_up_bucket(bucket.open(), place, newest_dump(place), _report(context))
    except LabError as error:
        raise failure(error) from error
    manifest = result.backup.manifest
    return dg.MaterializeResult(
        metadata={
            "dagster/uri": place.url(result.backup.key),
            "dagster/row_count": manifest.objects.count,
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
