"""Which release is current: publishing, rolling back, and healing the cache's copy of the pointer.

Postgres alone decides, in one transaction; Redis has a copy as a hint for an API that can't reach
Postgres when it starts. The order is: clear the hint, move Postgres' pointer, set the hint. A
kill in between leaves no hint or the right one, never the wrong one. A rollback is urgent and moves
Postgres' pointer before it asks the cache for anything; a kill then leaves the old hint for the
minute until `reconcile` is run. No reader sees half of a change: a release is whole in Postgres
before it can be current, each request asks for one release's records only, and Postgres tells the
API of each change.

A release is warm in the cache before it becomes current. The one before stays warm for as long as
people are likely to want it back, so that a rollback is a change of the pointer and nothing else;
one to an older release is served from Postgres until its records are copied. A cache that does not
answer holds up neither publication nor rollback.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cf_lab_resources.cache import Cache
    from cf_lab_resources.catalog import Catalog, Flip


# How long the release before stays warm: faults of a new one show within its first day.
ROLLBACK_WINDOW = timedelta(days=1)


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
    attempt(lambda: _warm_up(catalog, cache, release_id))
    moved = _move(catalog, cache, lambda: catalog.publish(release_id))
    return _tidied(catalog, cache, moved)


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
    return follow(catalog, cache, catalog.roll_back(to, of, reason))


def follow(catalog: Catalog, cache: Cache, flip: Flip) -> Moved:
    """Brings the cache up to date after a rollback that the catalog has done."""

    def hint() -> None:
        with catalog.publishing():
            _set_hint(catalog, cache)

    moved = Moved(flip.release_id, flip.previous, flip.changed, attempt(hint))
    return _tidied(catalog, cache, moved)


def reconcile(catalog: Catalog, cache: Cache) -> Reconciled:
    """Makes the cache agree with the catalog, after a kill, a loss of the cache, or a day.

    Raises:
        CacheError: Redis does not answer.
    """
    with catalog.publishing():
        hint, current = cache.pointer(), catalog.current_id()
        _set_hint(catalog, cache)
    warmed = _warm_up(catalog, cache, current) if current else 0
    _make_room(catalog, cache)
    return Reconciled(current, hint, warmed)


def amiss(catalog: Catalog, cache: Cache) -> str | None:
    """What `reconcile` would mend; None where the cache agrees with the catalog.

    Raises:
        CacheError: Redis does not answer.
    """
    current, hint, warmed = catalog.current_id(), cache.pointer(), cache.warmed()
    if hint != current:
        return f"the cache takes {hint or 'no release'} for current, which is {current or 'none'}"
    if current and not warmed.get(current):
        return f"the records of release {current} are not in the cache"
    unwanted = sorted(set(warmed) - _wanted(catalog))
    return f"the cache still has records of {', '.join(unwanted)}" if unwanted else None


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
    current = catalog.current_id()
    if current is None:
        cache.clear_pointer()
    else:
        cache.set_pointer(current)


def _tidied(catalog: Catalog, cache: Cache, moved: Moved) -> Moved:
    """What can wait until the pointer is moved."""

    def tidy() -> None:
        _warm_up(catalog, cache, moved.release_id)
        _make_room(catalog, cache)

    return replace(moved, cache_error=moved.cache_error or attempt(tidy))


def _warm_up(catalog: Catalog, cache: Cache, release_id: str) -> int:
    """Warms a release that is not warm; how many records were written."""
    from cf_lab_assets.releases.candidate import warm  # slow to import: a rollback is done by then

    return 0 if cache.warmed().get(release_id) else warm(catalog, cache, release_id)


def _make_room(catalog: Catalog, cache: Cache) -> None:
    for release_id in set(cache.warmed()) - _wanted(catalog):
        cache.drop(release_id)


def _wanted(catalog: Catalog) -> set[str]:
    """Releases whose records should be in the cache: never more than three."""
    current = catalog.current_release()
    if current is None:
        return {one.release_id for one in catalog.list_releases(1, ["candidate"])}
    wanted = [current]
    wanted += [
        one
        for one in catalog.list_releases(1, ["candidate"])
        if one.created_at >= current.created_at
    ]
    assert current.published_at is not None
    if datetime.now(UTC) - current.published_at < ROLLBACK_WINDOW:
        wanted += catalog.list_releases(1, ["superseded"])
    return {one.release_id for one in wanted}
