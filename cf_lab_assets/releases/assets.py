"""The candidate and the current release as assets: thin, the work is in the siblings.

Annotations are evaluated here (no `__future__` import): Dagster refuses a context whose type is
a string.
"""

from typing import TYPE_CHECKING, Any

import dagster as dg

from cf_lab_assets import faces, names
from cf_lab_assets.failures import RETRIES, failure
from cf_lab_assets.releases.gates import GATES
from cf_lab_assets.releases.refusal import (
    RELEASE_ID,
    Refusal,
    judged,
    latest_candidate,
    refusals,
)
from cf_lab_resources.dagster import BucketResource, CacheResource, CatalogResource
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from cf_lab_assets.releases.pointer import Moved
    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.catalog import Release

# Of the catalog's table of pairs.
COLUMNS = faces.described(
    {
        "release_id": ("text", "the release; the table is partitioned by it"),
        "id": ("text", "the pair's id"),
        "set_id": ("text", "the counterfactual set's id"),
        "image_sha256": ("text", "hash of the pair's picture"),
        "record": ("bytea", "the JSON that the API sends"),
    },
    unique=["id"],
)


@dg.asset(
    key=names.RELEASE_CANDIDATE,
    deps=[names.DATASET, names.PACKAGE, names.BIAS_REPORT],
    group_name=names.RELEASES,
    owners=names.OWNERS,
    kinds={"postgres", "redis"},
    code_version="2",
    retry_policy=RETRIES,
)
def candidate(
    context: dg.AssetExecutionContext,
    bucket: BucketResource,
    catalog: CatalogResource,
    cache: CacheResource,
) -> dg.MaterializeResult:
    """The newest dataset with its package and bias report, staged as a release.

    It is whole in Postgres and warm in Redis, and nobody sees it until its gates have passed and
    it is made current.
    """
    from cf_lab_assets.releases.candidate import manifest_key, read_content, stage_candidate, warm
    from cf_lab_resources.cache import CacheError

    store = bucket.open()
    with catalog.open() as opened_catalog, cache.open() as opened_cache:
        try:
            content = read_content(store)
            loaded = stage_candidate(store, opened_catalog, content)
            counts = opened_catalog.counts(content.release_id)
        except LabError as error:
            raise failure(error) from error
        try:
            warmed = warm(opened_catalog, opened_cache, content.release_id)
        except CacheError as error:
            warmed = 0
            context.log.warning(f"the cache was not warmed, lookups will use Postgres: {error}")
    context.log.info(f"release {content.release_id}: {'loaded' if loaded.new else 'was there'}")
    return dg.MaterializeResult(
        metadata={
            **faces.tabular(
                names.RELEASE_CANDIDATE,
                counts["pair"],
                COLUMNS,
                store.url(manifest_key(content.release_id)),
            ),
            RELEASE_ID: content.release_id,
            "content_hash": content.content_hash,
            "dataset_hash": content.dataset_hash,
            "sets": counts["set"],
            "newly_loaded": loaded.new,
            "records_in_cache": warmed,
            "report": store.url(content.report_key) if content.report_key else "missing",
            "package": store.url(content.package["prefix"]) if content.package else "missing",
            "manifest": dg.MetadataValue.json(content.manifest),
        },
        data_version=dg.DataVersion(content.content_hash),
    )


@dg.asset(
    key=names.RELEASE_CURRENT,
    deps=[names.RELEASE_CANDIDATE],
    group_name=names.RELEASES,
    owners=names.OWNERS,
    kinds={"postgres", "redis"},
    code_version="1",
    retry_policy=RETRIES,
)
def current(
    context: dg.AssetExecutionContext,
    bucket: BucketResource,
    catalog: CatalogResource,
    cache: CacheResource,
) -> dg.MaterializeResult:
    """The release that the lookup API answers from.

    It is the candidate, once every gate has passed on it; refused otherwise, also when launched
    by hand.
    """
    from cf_lab_assets.releases.pointer import publish

    staged = latest_candidate(context.instance)
    if staged is None:
        raise dg.Failure(
            "there is nothing to publish; materialise releases/candidate", allow_retries=False
        )
    refused = refusals(context.instance, staged)
    if refused:
        raise _refused(staged.release_id, refused)
    with catalog.open() as opened_catalog, cache.open() as opened_cache:
        try:
            moved = publish(opened_catalog, opened_cache, staged.release_id)
            release = opened_catalog.get_release(staged.release_id)
        except LabError as error:
            raise failure(error) from error
    if moved.cache_error:
        context.log.warning(f"published; the cache was not brought up to date: {moved.cache_error}")
    assert release is not None
    return dg.MaterializeResult(
        metadata={
            **_current_metadata(bucket.open(), release, moved),
            "gates": faces.table(judged(context.instance)),
        },
        data_version=dg.DataVersion(release.content_hash),
    )


def _current_metadata(bucket: "Bucket", release: "Release", moved: "Moved") -> dict[str, Any]:
    from cf_lab_assets.releases.candidate import manifest_key

    counts = release.manifest["counts"]
    return {
        **faces.tabular(
            names.RELEASE_CURRENT,
            counts["pairs"],
            COLUMNS,
            bucket.url(manifest_key(release.release_id)),
        ),
        RELEASE_ID: release.release_id,
        "previous": moved.previous or "none",
        "changed": moved.changed,
        "cache": moved.cache_error or "up to date",
        "pairs": counts["pairs"],
        "sets": counts["sets"],
        "images": counts["images"],
        "dataset_hash": release.dataset_hash,
        "report": bucket.url(release.report_key) if release.report_key else "missing",
    }


def _refused(release_id: str, refused: list[Refusal]) -> dg.Failure:
    lines = "; ".join(f"{one.gate}: {one.why} ({one.remedy})" for one in refused)
    return dg.Failure(
        f"release {release_id} is refused by {len(refused)} of {len(GATES)} gates: {lines}",
        metadata={
            RELEASE_ID: release_id,
            "gates": faces.table(
                [{"gate": one.gate, "why": one.why, "what to do": one.remedy} for one in refused]
            ),
        },
        allow_retries=False,
    )
