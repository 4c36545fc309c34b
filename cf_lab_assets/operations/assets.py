"""The reviews of the runbook's maintenance windows as assets; the work is the siblings'.

Annotations are evaluated here (no `__future__` import): Dagster refuses a context whose type is
a string.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from cf_lab_assets import faces, names
from cf_lab_assets.failures import RETRIES, readable
from cf_lab_resources.dagster import BucketResource, CacheResource, CatalogResource

if TYPE_CHECKING:
    from cf_lab_assets.operations.capacity import JobRun

RUNS_A_PAGE = 500
PLOTTED = 40  # quarters
SHOWN = 100  # rows of a table in the UI; the document has all of them
ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


@dg.asset(
    key=names.DEPENDENCIES,
    group_name=names.OPERATIONS,
    owners=names.OWNERS,
    kinds={"python"},
    code_version="1",
    retry_policy=RETRIES,
)
def dependencies(context: dg.AssetExecutionContext, bucket: BucketResource) -> dg.MaterializeResult:
    """Every installed distribution beside the lock and the newest version that the index has.

    With its licence; vulnerabilities are not looked up. The index is the one for which pip is
    configured: where there is none or it does not answer, the report says so and is made all the
    same. Shown are the distributions that somebody should look at; the document has all.
    """
    from cf_lab_assets.operations import dependencies as found
    from cf_lab_assets.operations.documents import keep

    lock, index = found.locked(), found.newest()
    for what, versions in (("locked", lock), ("newest", index)):
        if versions.unchecked:
            context.log.warning(f"{what} versions are not checked: {versions.unchecked}")
    rows = found.report(found.installed(), lock, index)
    unchecked = {"locked": lock.unchecked or "checked", "newest": index.unchecked or "checked"}
    with readable():
        document = {"checked": unchecked, "distributions": rows}
        uri = keep(bucket.open(), found.REVIEW, _today(), document)
    states = found.counts(rows, "state")
    licences = [{"licence": k, "count": n} for k, n in found.counts(rows, "licence").items()]
    remarkable = [row for row in rows if row["state"] not in (found.UP_TO_DATE, found.AS_LOCKED)]
    return dg.MaterializeResult(
        metadata={
            **faces.tabular(names.DEPENDENCIES, len(rows), faces.described(found.COLUMNS), uri),
            "to_look_at": _table(remarkable, found.COLUMNS),
            "licences": _table(licences, found.LICENCES),
            "differing": states.get(found.DIFFERS, 0),
            "newer_are_out": states.get(found.NEWER, 0) if not index.unchecked else "not checked",
            **{f"{what}_versions": said for what, said in unchecked.items()},
        }
    )


@dg.asset(
    key=names.CONFIGURATION,
    group_name=names.OPERATIONS,
    owners=names.OWNERS,
    kinds={"postgres"},
    code_version="1",
    retry_policy=RETRIES,
)
def configuration(bucket: BucketResource, catalog: CatalogResource) -> dg.MaterializeResult:
    """What the lab is set to: variables, gates with their waivers, API keys, and what is kept.

    Passwords, queries of addresses and contents of files are left out.
    """
    from cf_lab_assets.operations import configuration as found
    from cf_lab_assets.operations.documents import keep
    from cf_lab_resources.catalog.api_keys import ApiKeys

    with readable(), catalog.open() as opened, ApiKeys(catalog.address) as keys:
        opened.migrate()
        parts = found.review(opened.waivers(), keys.all())
        uri = keep(bucket.open(), found.REVIEW, _today(), parts)
    return dg.MaterializeResult(
        metadata={
            **_joined(names.CONFIGURATION, parts, found.COLUMNS, uri),
            **{part: _table(rows, found.COLUMNS[part]) for part, rows in parts.items()},
            "set": sum(row["state"] == found.SET for row in parts["variables"]),
            "waived": sum(row["waived"] != "no" for row in parts["gates"]),
            "valid_keys": sum(row["state"] == "valid" for row in parts["api_keys"]),
        }
    )


@dg.asset(
    key=names.CAPACITY,
    group_name=names.OPERATIONS,
    owners=names.OWNERS,
    kinds={"postgres", "redis"},
    code_version="1",
    retry_policy=RETRIES,
)
def capacity(
    context: dg.AssetExecutionContext,
    bucket: BucketResource,
    catalog: CatalogResource,
    cache: CacheResource,
) -> dg.MaterializeResult:
    """What Postgres, Redis, bucket and disk hold, and how long each job took in the quarter.

    Every review is kept, and the plot shows how the stores grew from one to the next.
    """
    from cf_lab_assets.operations import capacity as found
    from cf_lab_assets.operations.documents import keep, kept
    from cf_lab_assets.operations.plots import growth
    from cf_lab_resources.catalog.sizes import Sizes
    from cf_lab_resources.settings import Settings

    store = bucket.open()
    with readable(), Sizes(catalog.address) as sizes, cache.open() as opened_cache:
        parts = {
            "stores": found.stores(
                sizes.database(),
                sizes.tables(found.TABLES),
                opened_cache.memory(),
                store.list(),
                found.disk_of(Settings.from_env().home),
            ),
            "jobs": found.jobs(ended_runs(context.instance, datetime.now(UTC) - found.QUARTER)),
        }
        uri = keep(store, found.REVIEW, _today(), parts)
        earlier = kept(store, found.REVIEW, PLOTTED)
    return dg.MaterializeResult(
        metadata={
            **_joined(names.CAPACITY, parts, found.COLUMNS, uri),
            **{part: _table(rows, found.COLUMNS[part]) for part, rows in parts.items()},
            "growth": faces.picture(
                growth(found.curves(earlier)), "what the stores held at each review"
            ),
            "reviews": len(earlier),
        }
    )


def ended_runs(
    instance: dg.DagsterInstance, since: datetime, page: int = RUNS_A_PAGE
) -> Iterator["JobRun"]:
    """The runs that were made since then and have ended, newest first.

    Args:
        instance: where they are recorded.
        since: with its zone.
        page: how many are read at once.
    """
    from cf_lab_assets.operations.capacity import JobRun

    wanted = dg.RunsFilter(statuses=ENDED, created_after=since)
    cursor = None
    while records := instance.get_run_records(wanted, limit=page, cursor=cursor):
        for record in records:
            began, ended = record.start_time, record.end_time
            yield JobRun(
                record.dagster_run.job_name,
                record.dagster_run.status == dg.DagsterRunStatus.FAILURE,
                None if began is None or ended is None else ended - began,
            )
        cursor = records[-1].dagster_run.run_id


def _today() -> date:
    return datetime.now(UTC).date()


def _joined(
    key: dg.AssetKey,
    parts: Mapping[str, Sequence[Mapping[str, Any]]],
    columns: Mapping[str, faces.Described],
    uri: str,
) -> dict[str, Any]:
    """Row count, columns and place of a document with several tables."""
    all_columns = {
        f"{part}.{name}": about for part, of in columns.items() for name, about in of.items()
    }
    return faces.tabular(key, sum(map(len, parts.values())), faces.described(all_columns), uri)


def _table(rows: Sequence[Mapping[str, Any]], columns: faces.Described) -> dg.TableMetadataValue:
    meaning = {name: about for name, (_, about) in columns.items()}
    return faces.table(rows[:SHOWN], meaning)
