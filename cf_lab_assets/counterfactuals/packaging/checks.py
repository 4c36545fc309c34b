"""Checks of the package: blocking, since a package is for people whom the lab does not meet.

Annotations are evaluated here (no `__future__` import): Dagster refuses a context whose type is
a string.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from cf_lab_assets import faces, names
from cf_lab_assets.conditions import WITH_ITS_ASSET
from cf_lab_assets.failures import RETRIES, failure
from cf_lab_resources.dagster import BucketResource
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from cf_lab_assets.counterfactuals.packaging.manifest import Package
    from cf_lab_resources.bucket import Bucket

SHOWN = 10

CROISSANT_IS_VALID = "croissant_is_valid"
PROVENANCE = "every_picture_carries_its_provenance"
PACKAGE_LOADS = "package_loads"
DESCRIPTIONS = {
    CROISSANT_IS_VALID: "mlcroissant finds neither an error nor a missing recommended property.",
    PROVENANCE: "Each packaged picture's Content Credentials are intact, and name its pair and its "
    "source; Parquet, tar and sidecar agree on it.",
    PACKAGE_LOADS: "datasets, webdataset and mlcroissant read and decode the same records.",
}


@dg.multi_asset_check(
    name="package_checks",
    specs=[
        dg.AssetCheckSpec(
            name,
            asset=names.PACKAGE,
            blocking=True,
            description=description,
            automation_condition=WITH_ITS_ASSET,
        )
        for name, description in DESCRIPTIONS.items()
    ],
    retry_policy=RETRIES,
    can_subset=True,
)
def package_checks(
    context: dg.AssetCheckExecutionContext, bucket: BucketResource
) -> Iterator[dg.AssetCheckResult]:
    """The newest dataset's package, read back."""
    store = bucket.open()
    try:
        package = _newest(store)
        judges = {
            CROISSANT_IS_VALID: _croissant_is_valid,
            PROVENANCE: _every_picture_carries_its_provenance,
            PACKAGE_LOADS: _package_loads,
        }
        selected = {key.name for key in context.selected_asset_check_keys}
        for name, judge in judges.items():
            if name in selected:
                yield judge(store, package)
    except LabError as error:
        raise failure(error) from error


def _newest(store: "Bucket") -> "Package":
    from cf_lab_assets.counterfactuals.dataset import latest_hash
    from cf_lab_assets.counterfactuals.packaging.manifest import find_package

    dataset_hash = latest_hash(store)
    package = None if dataset_hash is None else find_package(store, dataset_hash)
    if package is None:
        raise dg.Failure(
            "there is no package of the newest dataset; materialise counterfactuals/package",
            allow_retries=False,
        )
    return package


def _result(
    name: str, measured: int, faults: list[str], unit: str, **more: Any
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name,
        asset_key=names.PACKAGE,
        passed=not faults,
        description="; ".join(faults[:SHOWN]) or None,
        metadata={**faces.held_against(measured, 0, unit), "faults": faults[:SHOWN], **more},
    )


def _croissant_is_valid(store: "Bucket", package: "Package") -> dg.AssetCheckResult:
    from cf_lab_assets.counterfactuals.packaging.croissant import issues
    from cf_lab_assets.counterfactuals.packaging.loading import trial_folder

    with trial_folder(store, package) as folder:
        found = issues(folder / "croissant.json")
    faults = [*found.errors, *found.warnings]
    return _result(CROISSANT_IS_VALID, len(faults), faults, unit="issues")


def _every_picture_carries_its_provenance(
    store: "Bucket", package: "Package"
) -> dg.AssetCheckResult:
    from cf_lab_assets.counterfactuals.packaging.verification import verify_package

    found = verify_package(
        lambda path: store.get_bytes(f"{package.prefix}/{path}"), package.manifest
    )
    return _result(
        PROVENANCE,
        len(found.faults),
        found.faults,
        unit="pictures or files that do not verify",
        pictures=found.count,
        signers=sorted(found.signers),
    )


def _package_loads(store: "Bucket", package: "Package") -> dg.AssetCheckResult:
    from cf_lab_assets.counterfactuals.packaging.loading import TRIED, trial_folder, try_all

    expected = min(TRIED, package.manifest["pairs"])
    try:
        with trial_folder(store, package) as folder:
            loaded = try_all(folder)
    except LabError:
        raise
    except Exception as error:  # whatever a library makes of a package that it can't read
        return _result(PACKAGE_LOADS, 1, [f"{type(error).__name__}: {error}"], unit="libraries")
    first = loaded["datasets"]
    faults = [
        f"{library} read {len(records)} records that differ from those of datasets"
        for library, records in loaded.items()
        if records != first
    ]
    if len(first) < expected:
        faults.append(f"datasets read {len(first)} of {expected} records")
    return _result(PACKAGE_LOADS, len(faults), faults, unit="libraries", records=len(first))
