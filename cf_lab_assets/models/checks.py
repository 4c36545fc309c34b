"""Checks of the models in use: their files, and whether they load.

Steps of their own, so that the nightly verification runs without making the artifacts anew, after
which all that follows them would be made anew too.
"""

from __future__ import annotations

import dagster as dg

from cf_lab_assets import faces, names
from cf_lab_assets.failures import RETRIES
from cf_lab_assets.models import artifacts, inspection
from cf_lab_resources.dagster import BucketResource
from cf_lab_resources.errors import LabError

EVERY_FILE = "every_file_is_the_one_on_record"
EVERY_MODEL = "every_model_loads"


@dg.asset_check(asset=names.MODEL_ARTIFACTS, name=EVERY_FILE, blocking=True, retry_policy=RETRIES)
def every_file_is_the_one_on_record(bucket: BucketResource) -> dg.AssetCheckResult:
    """Every file of every model in use, hashed anew wherever it lies."""
    verified = inspection.verify(bucket.open())
    damaged = [line for one in verified for line in one.damaged]
    return dg.AssetCheckResult(
        passed=not damaged,
        metadata={
            **faces.held_against(len(damaged), 0, "files that differ from the record"),
            "models": len(verified),
            "damaged": dg.MetadataValue.json(damaged),
        },
    )


@dg.asset_check(
    asset=names.MODEL_ARTIFACTS,
    name=EVERY_MODEL,
    blocking=True,
    pool=names.GPU_POOL,
    op_tags=names.GPU_OP_TAGS,
    retry_policy=RETRIES,
)
def every_model_loads(bucket: BucketResource) -> dg.AssetCheckResult:
    """Every model in use loads, and one tiny draw or embedding of it holds finite numbers."""
    from cf_lab_assets.models.smoke import try_model

    store, answers, failed = bucket.open(), {}, []
    for name in artifacts.models_in_use():
        try:
            answers[name] = try_model(artifacts.in_use_folder(name, store))
        except LabError as error:
            failed.append(f"{name}: {error}")
    return dg.AssetCheckResult(
        passed=not failed,
        metadata={
            **faces.held_against(len(failed), 0, "models that do not load or answer"),
            "answers": dg.MetadataValue.json(answers),
            "failed": dg.MetadataValue.json(failed),
        },
    )
