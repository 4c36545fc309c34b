"""Back to the release before, by hand or by itself where a gate fails later; and room for new ones.

The sensor asks for one run for each failed evaluation. The run names the release that failed and
does nothing where another one is current by then, so that a failure is answered once, however
often it is seen, and a release that people have put right is never withdrawn for it.

Annotations are evaluated here (no `__future__` import): Dagster refuses a context whose type is
a string.
"""

import dagster as dg
from pydantic import Field

from cf_lab_assets import names
from cf_lab_assets.releases.checks import every_gate_still_holds
from cf_lab_assets.releases.refusal import RELEASE_ID, failure
from cf_lab_assets.releases.retention import KEPT
from cf_lab_resources.dagster import BucketResource, CacheResource, CatalogResource
from cf_lab_resources.errors import LabError

INTERVAL_SECONDS = 30
MOVE = "make_earlier_release_current"


class RollBack(dg.Config):
    """Which release goes, which one comes, and why."""

    of: str = Field(
        default="", description="the release to withdraw; nothing is done where another is current"
    )
    to: str = Field(default="", description="the release to return to; empty: the one before")
    last_good: bool = Field(
        default=False, description="judge earlier releases anew and take the first that is good"
    )
    reason: str = Field(default="", description="kept with the events of both releases")


@dg.op(name=MOVE, tags={"kind": "postgres"})
def make_earlier_release_current(
    context: dg.OpExecutionContext,
    config: RollBack,
    bucket: BucketResource,
    catalog: CatalogResource,
    cache: CacheResource,
) -> None:
    """Withdraw the current release and make an earlier one current again.

    Raises:
        dg.Failure: there is nothing to go back to, or Postgres does not answer.
    """
    from cf_lab_assets.releases.candidate import last_good
    from cf_lab_assets.releases.pointer import rollback

    with catalog.open() as opened_catalog, cache.open() as opened_cache:
        try:
            of = config.of or opened_catalog.current_id()
            to = config.to or None
            if config.last_good and of is not None and of == opened_catalog.current_id():
                to = last_good(bucket.open(), opened_catalog, of)
            moved = rollback(opened_catalog, opened_cache, to, of, config.reason)
        except LabError as error:
            raise failure(error) from error
    if not moved.changed:
        context.log.info(f"nothing to do: release {moved.release_id} is current")
        return
    if moved.cache_error:
        context.log.warning(f"the cache was not brought up to date: {moved.cache_error}")
    context.log.warning(f"release {moved.previous} withdrawn, {moved.release_id} is current")
    context.log_event(
        dg.AssetObservation(
            names.RELEASE_CURRENT,
            metadata={
                RELEASE_ID: moved.release_id,
                "withdrawn": moved.previous or "none",
                "reason": config.reason or "none given",
            },
        )
    )


@dg.job(
    description="Withdraws the current release and makes an earlier one current again.",
    op_retry_policy=names.RETRY,
)
def roll_back() -> None:
    """See `make_earlier_release_current`."""
    make_earlier_release_current()


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
    op_retry_policy=names.RETRY,
)
def drop_old_releases() -> None:
    """See `drop_records_of_old_releases`."""
    drop_records_of_old_releases()


@dg.sensor(
    job_name="roll_back",
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Goes back to the release before, once, where a gate of the current one has "
    "failed since it was published.",
)
def withdraw_failed_release(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """A rollback for the latest evaluation, where it failed and was not answered yet."""
    key = every_gate_still_holds.check_key
    record = context.instance.get_latest_asset_check_evaluation_record(key)
    event = record.event.dagster_event if record and record.event else None
    if (
        record is None
        or event is None
        or event.event_type != dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ):
        return dg.SensorResult(skip_reason="the current release was not judged since its gates")
    found = event.asset_check_evaluation_data
    if found.passed:
        return dg.SensorResult(skip_reason=found.description or "every gate holds")
    release_id = str(found.metadata[RELEASE_ID].value)
    reason = f"{key.name} failed: {found.description}"
    config = RollBack(of=release_id, last_good=True, reason=reason)
    request = dg.RunRequest(
        run_key=f"{release_id}:{record.id}",
        run_config=dg.RunConfig(ops={MOVE: config}),
        tags={"cf_lab/withdrawn": release_id},
    )
    return dg.SensorResult(run_requests=[request])
