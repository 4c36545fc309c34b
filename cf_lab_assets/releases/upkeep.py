"""What keeps the stores of releases in order: the cache agrees with the catalog, old records go.

Annotations are evaluated here (no `__future__` import): Dagster refuses a context whose type is
a string.
"""

import dagster as dg
from pydantic import Field

from cf_lab_assets.failures import RETRIES, failure
from cf_lab_assets.releases.retention import KEPT
from cf_lab_resources.dagster import CacheResource, CatalogResource
from cf_lab_resources.errors import LabError

INTERVAL_SECONDS = 60
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


class DropOld(dg.Config):
    """How many releases stay at hand."""

    keep: int = Field(
        default=KEPT, ge=1, description="superseded releases to which a rollback leads at once"
    )


@dg.op(tags={"kind": "postgres"})
def drop_records_of_old_releases(
    context: dg.OpExecutionContext, config: DropOld, catalog: CatalogResource, cache: CacheResource
) -> None:
    """Drop whole partitions of releases that no rollback will want soon."""
    from cf_lab_assets.releases.retention import drop_old

    with catalog.open() as opened_catalog, cache.open() as opened_cache:
        try:
            opened_catalog.migrate()
            dropped = drop_old(opened_catalog, opened_cache, config.keep)
        except LabError as error:
            raise failure(error) from error
    context.log.info(f"dropped the records of {len(dropped)} releases: {', '.join(dropped)}")


@dg.job(
    description="Drops the records of releases that no rollback will want soon.",
    op_retry_policy=RETRIES,
)
def drop_old_releases() -> None:
    """See `drop_records_of_old_releases`."""
    drop_records_of_old_releases()


@dg.op(tags={"kind": "redis"})
def make_cache_agree(
    context: dg.OpExecutionContext, catalog: CatalogResource, cache: CacheResource
) -> None:
    """Set the pointer's copy, warm the current release, and drop what nobody will want soon."""
    from cf_lab_assets.releases.pointer import reconcile

    with catalog.open() as opened_catalog, cache.open() as opened_cache:
        try:
            done = reconcile(opened_catalog, opened_cache)
        except LabError as error:
            raise failure(error) from error
    context.log.info(f"release {done.release_id}: {done.warmed} records were written to the cache")


@dg.job(
    description="Makes Redis agree with Postgres: the pointer's copy, and whose records it has."
)
def reconcile_cache() -> None:
    """See `make_cache_agree`."""
    make_cache_agree()


@dg.sensor(
    job_name="reconcile_cache",
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Mends the cache where it does not agree with the catalog: after a loss, and when "
    "the release before need no longer be at hand.",
)
def mend_cache(
    context: dg.SensorEvaluationContext, catalog: CatalogResource, cache: CacheResource
) -> dg.SensorResult:
    """A run where there is something to mend and none is under way."""
    from cf_lab_assets.releases.pointer import amiss
    from cf_lab_resources.cache import CacheError
    from cf_lab_resources.catalog import CatalogError

    with catalog.open() as opened_catalog, cache.open() as opened_cache:
        try:
            what = amiss(opened_catalog, opened_cache)
        except (CacheError, CatalogError) as error:
            return dg.SensorResult(skip_reason=str(error))
    if what is None:
        return dg.SensorResult(skip_reason="the cache agrees with the catalog")
    underway = dg.RunsFilter(job_name=reconcile_cache.name, statuses=UNFINISHED)
    if context.instance.get_run_records(underway, limit=1):
        return dg.SensorResult(skip_reason=f"{what}; a run is mending it")
    context.log.info(what)
    return dg.SensorResult(run_requests=[dg.RunRequest(tags={"cf_lab/amiss": what[:200]})])
