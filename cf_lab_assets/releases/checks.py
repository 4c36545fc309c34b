"""The gates as blocking checks of the candidate, and again as one check of what is served.

Annotations are evaluated here (no `__future__` import): Dagster refuses a context whose type is
a string.
"""

from collections.abc import Iterator

import dagster as dg

from cf_lab_assets import names
from cf_lab_assets.releases.gates import GATES, GateResult
from cf_lab_assets.releases.refusal import RELEASE_ID, WAIVED_UNTIL, latest_candidate
from cf_lab_resources.dagster import BucketResource, CatalogResource
from cf_lab_resources.errors import LabError

ORIGINS = {gate.name: gate.origin for gate in GATES}


@dg.multi_asset_check(
    name="release_gates",
    specs=[
        dg.AssetCheckSpec(
            gate.name,
            asset=names.RELEASE_CANDIDATE,
            blocking=True,
            description=f"{gate.description} Limit: {gate.limit:g} {gate.unit} ({gate.origin}).",
        )
        for gate in GATES
    ],
    can_subset=True,  # else the UI offers no gate to be run again by itself
)
def release_gates(
    context: dg.AssetCheckExecutionContext, bucket: BucketResource, catalog: CatalogResource
) -> Iterator[dg.AssetCheckResult]:
    """All gates, evaluated on the release that the candidate's latest run staged."""
    selected = {key.name for key in context.selected_asset_check_keys}
    candidate = latest_candidate(context.instance)
    if candidate is None:
        raise dg.Failure(
            "there is no candidate to judge; materialise releases/candidate", allow_retries=False
        )
    for result in _evaluate(candidate.release_id, bucket, catalog):
        if result.name not in selected:
            continue
        yield dg.AssetCheckResult(
            check_name=result.name,
            asset_key=names.RELEASE_CANDIDATE,
            passed=result.passed,
            severity=dg.AssetCheckSeverity.ERROR,
            description=result.detail,
            metadata={
                "measured": _readable(result.measured),
                "limit": result.limit,
                "unit": result.unit,
                "limit_from": ORIGINS[result.name],
                WAIVED_UNTIL: result.waived_until or "not waived",
            },
        )


@dg.asset_check(
    asset=names.RELEASE_CURRENT,
    description="Every gate, evaluated again on the release that is current by the catalog. "
    "Limit: none may fail. Where one does, withdraw_failed_release goes back to the release "
    "before.",
)
def every_gate_still_holds(bucket: BucketResource, catalog: CatalogResource) -> dg.AssetCheckResult:
    """The gates again, on what is served: objects may be damaged or lost after publication."""
    with catalog.open() as opened:
        release_id = opened.current_id()
    if release_id is None:
        return dg.AssetCheckResult(passed=True, description="no release is current")
    results = _evaluate(release_id, bucket, catalog)
    failed = [one for one in results if not one.passed]
    return dg.AssetCheckResult(
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(f"{one.name}: {one.detail}" for one in failed)
        or f"all {len(GATES)} gates hold",
        metadata={
            RELEASE_ID: release_id,
            "measured": len(failed),
            "limit": 0,
            "unit": "failed gates",
            "failed": ", ".join(one.name for one in failed) or "none",
            "waived": ", ".join(one.name for one in results if one.waived_until) or "none",
        },
    )


def _readable(measured: float | None) -> float | str:
    # Scores are float32: more than six decimals are noise.
    return "not measured" if measured is None else round(measured, 6)


def _evaluate(
    release_id: str, bucket: BucketResource, catalog: CatalogResource
) -> list[GateResult]:
    from cf_lab_assets.releases.candidate import judge
    from cf_lab_resources.catalog import CatalogError

    try:
        with catalog.open() as opened:
            return judge(bucket.open(), opened, release_id)
    except LabError as error:
        raise dg.Failure(str(error), allow_retries=not isinstance(error, CatalogError)) from error
