"""The gates as blocking checks of the candidate: one step, one result for each gate.

Annotations are evaluated here (no `__future__` import): Dagster refuses a context whose type is
a string.
"""

from collections.abc import Iterator

import dagster as dg

from cf_lab_assets import names
from cf_lab_assets.releases.gates import GATES, GateResult
from cf_lab_assets.releases.refusal import latest_candidate
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
            description=f"{gate.description} Limit: {gate.origin}.",
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
    for result in _evaluate(context, bucket, catalog):
        if result.name not in selected:
            continue
        yield dg.AssetCheckResult(
            check_name=result.name,
            asset_key=names.RELEASE_CANDIDATE,
            passed=result.passed,
            severity=dg.AssetCheckSeverity.ERROR,
            description=result.detail,
            metadata={
                "measured": "not measured" if result.measured is None else result.measured,
                "limit": result.limit,
                "unit": result.unit,
                "limit_from": ORIGINS[result.name],
            },
        )


def _evaluate(
    context: dg.AssetCheckExecutionContext, bucket: BucketResource, catalog: CatalogResource
) -> list[GateResult]:
    from cf_lab_assets.counterfactuals.dataset import dataset_content_hash
    from cf_lab_assets.releases.candidate import read_staged
    from cf_lab_assets.releases.gates import evaluate

    candidate = latest_candidate(context.instance)
    if candidate is None:
        raise dg.Failure(
            "there is no candidate to judge; materialise releases/candidate", allow_retries=False
        )
    store = bucket.open()
    try:
        with catalog.open() as opened:
            release = opened.get_release(candidate.release_id)
        if release is None:
            raise dg.Failure(
                f"release {candidate.release_id} is not in the catalog; materialise "
                "releases/candidate again",
                allow_retries=False,
            )
        return evaluate(read_staged(store, release), store.get_bytes, dataset_content_hash)
    except LabError as error:
        raise dg.Failure(str(error)) from error
