"""The gates as blocking checks of the candidate, and again as one check of what is served.

Annotations are evaluated here (no `__future__` import): Dagster refuses a context whose type is
a string.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from cf_lab_assets import faces, names
from cf_lab_assets.conditions import WITH_ITS_ASSET
from cf_lab_assets.failures import RETRIES, failure
from cf_lab_assets.releases.gates import GATES, LASTING, GateResult
from cf_lab_assets.releases.refusal import NOT_WAIVED, RELEASE_ID, WAIVED_UNTIL, latest_candidate
from cf_lab_resources.dagster import BucketResource, CacheResource, CatalogResource
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from cf_lab_assets.releases.smoke import Api

ORIGINS = {gate.name: gate.origin for gate in GATES}
FAILED_GATES = "failed gates"


@dg.multi_asset_check(
    name="release_gates",
    specs=[
        dg.AssetCheckSpec(
            gate.name,
            asset=names.RELEASE_CANDIDATE,
            blocking=True,
            description=f"{gate.description} Limit: {gate.limit:g} {gate.unit} ({gate.origin}).",
            automation_condition=WITH_ITS_ASSET,
        )
        for gate in GATES
    ],
    retry_policy=RETRIES,
    can_subset=True,  # else the UI offers no gate to be run again by itself
)
def release_gates(
    context: dg.AssetCheckExecutionContext,
    bucket: BucketResource,
    catalog: CatalogResource,
    cache: CacheResource,
) -> Iterator[dg.AssetCheckResult]:
    """All gates, evaluated on the release that the candidate's latest run staged."""
    selected = {key.name for key in context.selected_asset_check_keys}
    candidate = latest_candidate(context.instance)
    if candidate is None:
        raise dg.Failure(
            "there is no candidate to judge; materialise releases/candidate", allow_retries=False
        )
    for result in _evaluate(candidate.release_id, bucket, catalog, cache):
        if result.name not in selected:
            continue
        yield dg.AssetCheckResult(
            check_name=result.name,
            asset_key=names.RELEASE_CANDIDATE,
            passed=result.passed,
            severity=dg.AssetCheckSeverity.ERROR,
            description=result.detail,
            metadata={
                **faces.held_against(_readable(result.measured), result.limit, result.unit),
                "limit_from": ORIGINS[result.name],
                WAIVED_UNTIL: result.waived_until or NOT_WAIVED,
            },
        )


@dg.asset_check(
    asset=names.RELEASE_CURRENT,
    description="Every gate that must last, evaluated again on the release that is current by the "
    "catalog. Limit: none may fail. Where one does, withdraw_failed_release goes back to the last "
    "good release.",
    retry_policy=RETRIES,
)
def every_gate_still_holds(
    bucket: BucketResource, catalog: CatalogResource, cache: CacheResource
) -> dg.AssetCheckResult:
    """The gates again, on what is served: objects may be damaged or lost after publication."""
    with catalog.open() as opened:
        release_id = opened.current_id()
    if release_id is None:
        return dg.AssetCheckResult(
            passed=True,
            description="no release is current",
            metadata=faces.held_against("no release is current", 0, FAILED_GATES),
        )
    results = [r for r in _evaluate(release_id, bucket, catalog, cache) if r.name in LASTING]
    failed = [one for one in results if not one.passed]
    return dg.AssetCheckResult(
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(f"{one.name}: {one.detail}" for one in failed)
        or f"all {len(results)} gates that must last hold",
        metadata={
            RELEASE_ID: release_id,
            **faces.held_against(len(failed), 0, FAILED_GATES),
            "failed": ", ".join(one.name for one in failed) or "none",
            "waived": ", ".join(one.name for one in results if one.waived_until) or "none",
        },
    )


def _readable(measured: float | None) -> float | str:
    # Scores are float32: more than six decimals are noise.
    return "not measured" if measured is None else round(measured, 6)


def _evaluate(
    release_id: str, bucket: BucketResource, catalog: CatalogResource, cache: CacheResource
) -> list[GateResult]:
    from cf_lab_assets.releases.candidate import judge

    try:
        with catalog.open() as opened:
            return judge(bucket.open(), opened, lookup_api(bucket, catalog, cache), release_id)
    except LabError as error:
        raise failure(error) from error


def lookup_api(bucket: BucketResource, catalog: CatalogResource, cache: CacheResource) -> "Api":
    """The API on which releases are tried: the deployed one, where there is a key for it."""
    from cf_lab_assets.releases.smoke import Api
    from cf_lab_resources.settings import Settings

    settings = Settings.from_env()
    return Api(
        catalog.address,
        cache.address,
        bucket.address,
        settings.api_url if settings.api_key_file else None,
        settings.api_key_file,
    )
