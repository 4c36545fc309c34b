"""Old releases make room: their records go, in Postgres a whole partition at once.

What a release was made of stays: its row, manifest and events, and in the bucket its dataset and
report, from which it is staged again under the same id.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cf_lab_resources.cache import Cache
    from cf_lab_resources.catalog import Catalog, Release

# The window in which a rollback needs nothing to be loaded.
KEPT = 10


def too_old(releases: Sequence[Release], keep: int = KEPT) -> list[Release]:
    """Releases whose records may go, oldest first.

    Never the current one or any that is newer, as a candidate on its way is; of the older ones that
    still have records, all but the `keep` newest superseded ones.

    Args:
        releases: in any order.
        keep: superseded releases to which a rollback leads at once.
    """
    current = next((one for one in releases if one.state == "current"), None)
    if current is None:
        return []
    assert current.published_at is not None
    older = sorted(
        (
            one
            for one in releases
            if one.dropped_at is None
            and one is not current
            and one.created_at < current.published_at
        ),
        key=lambda one: one.published_at or one.created_at,
    )
    superseded = [one for one in older if one.state == "superseded"]
    kept = superseded[max(0, len(superseded) - keep) :]
    return [one for one in older if one not in kept]


def drop_old(catalog: Catalog, cache: Cache, keep: int = KEPT) -> list[str]:
    """Drop the records of old releases; gives their ids.

    Raises:
        CatalogError: readers hold a table for too long; those dropped before stay dropped.
    """
    from cf_lab_assets.releases.pointer import attempt

    dropped = []
    for release in too_old(catalog.list_releases(), keep):
        if catalog.drop_records(release.release_id):
            dropped.append(release.release_id)
        attempt(functools.partial(cache.drop, release.release_id))
    return dropped
