"""What of the reviews somebody should act on; none of it stops anything.

Annotations are evaluated here (no `__future__` import): Dagster refuses a context whose type is
a string.
"""

from datetime import UTC, datetime

import dagster as dg

from cf_lab_assets import faces, names
from cf_lab_assets.failures import RETRIES, readable
from cf_lab_resources.dagster import CatalogResource

SHOWN = 10


@dg.asset_check(
    asset=names.DEPENDENCIES,
    description="Every installed distribution that the lock names has the version that it names. "
    "Limit: none may differ.",
)
def dependencies_are_as_locked() -> dg.AssetCheckResult:
    """Installed against locked versions; fails where there is no lock to tell."""
    from cf_lab_assets.operations.dependencies import LOCK, differing, installed, locked

    lock = locked()
    if lock.unchecked:
        why = f"not checked: {lock.unchecked}; install the lab with deploy/{LOCK.name} beside it"
        return _result(False, "not measured", 0, "distributions", why)
    found = differing(installed(), lock)
    named = [f"{one.name} {one.version} instead of {lock.known[one.name]}" for one in found]
    cure = "run `make install`, or `make lock` where the new versions are wanted"
    return _result(not found, len(found), 0, "distributions", _said(named, cure))


@dg.asset_check(
    asset=names.CONFIGURATION,
    description="No key of the lookup API ends before the next monthly review. Limit: none within "
    "31 days.",
    retry_policy=RETRIES,
)
def keys_outlast_the_month(catalog: CatalogResource) -> dg.AssetCheckResult:
    """Valid keys that end within 31 days."""
    from cf_lab_assets.operations.configuration import ending
    from cf_lab_resources.catalog.api_keys import ApiKeys

    with readable(), ApiKeys(catalog.address) as keys:
        found = ending(keys.all(), datetime.now(UTC))
    named = [f"{one.key_id} ({one.name}) ends on {one.expires_at:%Y-%m-%d}" for one in found]
    cure = "make new ones with `cf-lab keys create`, hand them out, and revoke the old ones"
    return _result(not found, len(found), 0, "keys", _said(named, cure))


@dg.asset_check(
    asset=names.CAPACITY,
    description="There is room on the disk of the lab's home. Limit: 10 % of it must be free.",
)
def disk_lasts() -> dg.AssetCheckResult:
    """The free share of the disk."""
    from cf_lab_assets.operations.capacity import LEAST_FREE_PERCENT, disk_of
    from cf_lab_resources.settings import Settings

    home = Settings.from_env().home
    free = disk_of(home).free_percent
    enough = free >= LEAST_FREE_PERCENT
    said = f"{free:.1f} % of the disk of {home} is free" + (
        "" if enough else "; drop old releases, move the bucket elsewhere, or enlarge the disk"
    )
    return _result(enough, round(free, 2), LEAST_FREE_PERCENT, "% of the disk free", said)


def _said(named: list[str], cure: str) -> str:
    if not named:
        return "none was found"
    left = len(named) - SHOWN
    more = [f"and {left} more"] if left > 0 else []
    return f"{'; '.join([*named[:SHOWN], *more])}: {cure}"


def _result(
    passed: bool, measured: float | str, limit: float, unit: str, said: str
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=said,
        metadata=faces.held_against(measured, limit, unit),
    )
