"""Checks of a source batch.

They are evaluated by the asset itself, since that is Dagster's stable way for partitioned
assets: `SPECS` goes to the asset, `evaluate` into its result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from cf_lab_assets import faces
from cf_lab_assets.names import SOURCE_PAIRS

if TYPE_CHECKING:
    from cf_lab_assets.sources.batches import Inspection, Manifest

EVERY_PICTURE_IS_STORED = "every_picture_is_stored"
QUARANTINE_SHARE_IS_LOW = "quarantine_share_is_low"

# Share of rows. In web-scraped sets of captions some percent of links and files are bad; more
# than one row in ten points to a mistake in the delivery rather than in its rows.
QUARANTINE_SHARE_LIMIT = 0.10

SPECS = [
    dg.AssetCheckSpec(
        EVERY_PICTURE_IS_STORED,
        asset=SOURCE_PAIRS,
        blocking=True,
        description="Every picture that a pair names is in the bucket, and those that were "
        "hashed have the bytes that their key says.",
    ),
    dg.AssetCheckSpec(
        QUARANTINE_SHARE_IS_LOW,
        asset=SOURCE_PAIRS,
        description=f"At most {QUARANTINE_SHARE_LIMIT:.0%} of the delivered rows are in "
        "quarantine.",
    ),
]


def evaluate(manifest: Manifest, inspection: Inspection) -> list[dg.AssetCheckResult]:
    """The results of all `SPECS` for one batch."""
    share = manifest.quarantine_share
    return [
        dg.AssetCheckResult(
            check_name=EVERY_PICTURE_IS_STORED,
            passed=inspection.whole,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={
                **faces.held_against(
                    len(inspection.missing) + len(inspection.damaged),
                    0,
                    "pictures that are missing or damaged",
                ),
                "pictures": inspection.pictures,
                "hashed": inspection.hashed,
                "missing": len(inspection.missing),
                "damaged": len(inspection.damaged),
                "first": dg.MetadataValue.json([*inspection.missing, *inspection.damaged][:20]),
            },
            description=None
            if inspection.whole
            else "ingest the same delivery again, which stores what is lost, or restore the bucket",
        ),
        dg.AssetCheckResult(
            check_name=QUARANTINE_SHARE_IS_LOW,
            passed=share <= QUARANTINE_SHARE_LIMIT,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                **faces.held_against(share, QUARANTINE_SHARE_LIMIT, "share of the delivered rows"),
                "quarantined": manifest.quarantined,
                "rows": manifest.rows + manifest.quarantined,
            },
        ),
    ]
