"""Everything that Dagster loads, wired together and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from cf_lab_assets import automation, faces, progress
from cf_lab_assets.audits import assets as audits
from cf_lab_assets.audits.instrument import assets as instrument
from cf_lab_assets.backups import assets as backups
from cf_lab_assets.backups import checks as backup_checks
from cf_lab_assets.counterfactuals import assets as counterfactuals
from cf_lab_assets.counterfactuals.packaging import assets as packaging
from cf_lab_assets.counterfactuals.packaging import checks as packaging_checks
from cf_lab_assets.models import assets as models
from cf_lab_assets.models import checks as model_checks
from cf_lab_assets.operations import assets as operations
from cf_lab_assets.operations import checks as operations_checks
from cf_lab_assets.releases import assets as releases
from cf_lab_assets.releases import checks as release_checks
from cf_lab_assets.releases import upkeep, withdrawal
from cf_lab_assets.sources import assets as sources
from cf_lab_assets.starter import assets as starter
from cf_lab_resources.dagster import (
    BackupResource,
    BucketResource,
    CacheResource,
    CatalogResource,
    PublicationResource,
)

ASSET_MODULES = [
    sources,
    models,
    starter,
    counterfactuals,
    packaging,
    audits,
    instrument,
    releases,
    backups,
    operations,
]
CHECK_MODULES = [
    model_checks,
    packaging_checks,
    release_checks,
    backup_checks,
    operations_checks,
]


def build_defs(resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """The lab's definitions.

    Args:
        resources: used instead of the defaults of the same name; tests give their own.
    """
    defaults = {
        "bucket": BucketResource(),
        "catalog": CatalogResource(),
        "cache": CacheResource(),
        "backup": BackupResource(),
        "publication": PublicationResource(),
    }
    loaded = dg.load_assets_from_modules(ASSET_MODULES)
    return dg.Definitions(
        assets=[
            asset.map_asset_specs(automation.with_policies).map_asset_specs(faces.with_links)
            for asset in loaded
            if isinstance(asset, dg.AssetsDefinition)
        ],
        asset_checks=dg.load_asset_checks_from_modules(CHECK_MODULES),
        jobs=[
            *automation.JOBS,
            withdrawal.roll_back,
            upkeep.drop_old_releases,
            upkeep.reconcile_cache,
        ],
        schedules=automation.SCHEDULES,
        sensors=automation.SENSORS,
        resources={**defaults, **(resources or {})},
        # One process a run: a process a step costs two seconds each. On Kubernetes a run is a
        # pod, and jobs whose steps need other hardware choose their own executor.
        executor=dg.in_process_executor,
        loggers={"console": progress.progress_logger},
    )


defs = build_defs()
