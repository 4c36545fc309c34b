"""Which release is current: publishing, rolling back, and healing the cache's copy of the pointer.

Postgres alone decides, in one transaction; Redis has a copy as a hint for an API that can't reach
Postgres when it starts. The order is: clear the hint, move Postgres' pointer, set the hint. A
kill in between leaves no hint or the right one, never the wrong one; the next publication, or
`reconcile`, sets it again. No reader sees half of a change: a release is whole in Postgres before
it can be current, each request asks for one release's records only, and the API follows
Postgres' pointer within a second.

A cache that does not answer holds up neither publication nor rollback.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cf_lab_assets.releases.candidate import warm

if TYPE_CHECKING:
    from cf_lab_resources.cache import Cache
    from cf_lab_resources.catalog import Catalog, Flip


@dataclass(frozen=True)
class Moved:
    """What a change of the current release did.

    Attributes:
        release_id: Current now.
        previous: Current before; None where there was none.
        changed: False where it was current already.
        cache_error: Why the cache was not brought up to date; run `reconcile` once it answers.
    """

    release_id: str
    previous: str | None
    changed: bool
    cache_error: str | None


@dataclass(frozen=True)
class Reconciled:
    """What `reconcile` did.

    Attributes:
        release_id: The current release by Postgres; None where nothing is published.
        hint: What the cache said before.
        warmed: Records that were written to the cache.
    """

    release_id: str | None
    hint: str | None
    warmed: int


def publish(catalog: Catalog, cache: Cache, release_id: str) -> Moved:
    """Makes a staged release current; nothing to do where it is current already.

    This asks no gate: `releases/current` does, before it calls it.

    Raises:
        CatalogError: There is no such release, or it was withdrawn.
    """
    return _move(catalog, cache, lambda: catalog.publish(release_id))


def rollback(
    catalog: Catalog,
    cache: Cache,
    to: str | None = None,
    of: str | None = None,
    reason: str = "",
) -> Moved:
    """Withdraws the current release and makes an earlier one current again.

    Args:
        catalog: decides.
        cache: is warmed with the earlier release afterwards.
        to: which release; the last superseded one where none is named.
        of: the release to withdraw; where another one is current, nothing is done.
        reason: kept with the events of both releases.

    Raises:
        CatalogError: There is nothing to roll back to, or the named release can't be it.
    """
    moved = _move(catalog, cache, lambda: catalog.roll_back(to, of, reason))
    error = moved.cache_error or attempt(lambda: warm(catalog, cache, moved.release_id))
    return Moved(moved.release_id, moved.previous, moved.changed, error)


def reconcile(catalog: Catalog, cache: Cache) -> Reconciled:
    """Makes the cache agree with the catalog, after a kill or a loss of the cache.

    Raises:
        CacheError: Redis does not answer.
    """
    with catalog.publishing():
        hint, current = cache.pointer(), catalog.current_id()
        _set_hint(catalog, cache)
    return Reconciled(current, hint, warm(catalog, cache, current) if current else 0)


def _move(catalog: Catalog, cache: Cache, change: Callable[[], Flip]) -> Moved:
    with catalog.publishing():
        error = attempt(cache.clear_pointer)
        try:
            flip = change()
        finally:
            # Also where the change was refused, and without a try where the cache is down.
            error = error or attempt(lambda: _set_hint(catalog, cache))
    return Moved(flip.release_id, flip.previous, flip.changed, error)


def attempt(action: Callable[[], object]) -> str | None:
    """Do something with the cache; why it could not be done, None where it was."""
    from cf_lab_resources.cache import CacheError

    try:
        action()
    except CacheError as error:
        return str(error)
    return None


def _set_hint(catalog: Catalog, cache: Cache) -> None:
    """Sets the hint, and drops records that no publication or rollback will soon want."""
    current = catalog.current_release()
    if current is None:
        cache.clear_pointer()
        return
    cache.set_pointer(current.release_id)
    superseded = catalog.list_releases(limit=1, states=["superseded"])
    candidates = catalog.list_releases(states=["candidate"])
    newer = [one for one in candidates if one.created_at >= current.created_at]
    cache.drop_all_but({one.release_id for one in (current, *superseded, *newer)})
