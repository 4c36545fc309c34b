"""Checks of the backups in the second place."""

from __future__ import annotations

from typing import Any

import dagster as dg

from cf_lab_assets import faces
from cf_lab_assets.failures import RETRIES
from cf_lab_assets.names import BUCKET_BACKUP
from cf_lab_resources.dagster import BackupResource

NEWEST_BACKUP_IS_COMPLETE = "newest_backup_is_complete"


@dg.asset_check(asset=BUCKET_BACKUP, name=NEWEST_BACKUP_IS_COMPLETE, retry_policy=RETRIES)
def newest_backup_is_complete(backup: BackupResource) -> dg.AssetCheckResult:
    """Every object of the newest manifest is in the second place, and the dump is intact.

    Objects are compared by size, the dump and the list of objects by hash, and the manifests of
    all backups by theirs.
    """
    from cf_lab_assets.backups.copying import problems
    from cf_lab_assets.backups.manifest import BackupError, check_history, choose_backup

    place = backup.open()
    try:
        newest = choose_backup(place)
        before = check_history(place, newest)
    except BackupError as error:
        return dg.AssetCheckResult(passed=False, metadata=_against([str(error)]))
    found = problems(place, newest)
    return dg.AssetCheckResult(
        passed=not found,
        metadata={
            **_against(found),
            "manifest": newest.key,
            "objects": newest.manifest.objects.count,
            "backups_before_it": before,
        },
    )


def _against(problems: list[str]) -> dict[str, Any]:
    unit = "objects, dumps and manifests that are missing or damaged"
    return {**faces.held_against(len(problems), 0, unit), "problems": problems}
