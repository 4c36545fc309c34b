"""Taking a delivery in: every row checked, pictures stored by content, the manifest last.

Nothing of a batch is visible before its manifest is, so that a run killed at any point leaves
at most pictures that nobody names yet; the next run finds them stored and goes on. The same
delivery again changes nothing, other content under the same name is refused, and a batch that has
lost a picture or its table since is repaired by the same delivery.

A picture may come with several captions, under one file name or several: each is a pair of its
own. The same picture with the same caption is taken once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cf_lab_assets.sources import batches, deliveries, kinds
from cf_lab_assets.sources.batches import Manifest
from cf_lab_assets.sources.captions import Rules
from cf_lab_assets.sources.deliveries import Delivery
from cf_lab_assets.sources.intake import Intake
from cf_lab_assets.sources.refusals import BatchExists, DeliveryRefused
from cf_lab_resources.images import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from cf_lab_resources.bucket import Bucket

Status = Literal["stored", "unchanged", "repaired"]


@dataclass(frozen=True)
class IngestResult:
    """What became of a delivery.

    Attributes:
        status: `stored`; `unchanged`, as the same content was there already; or `repaired`, as it
            was there but something of it was lost.
        manifest: Of the stored batch.
        quarantine_url: Where the rejected rows are.
        stray_files: The first pictures of the delivery that no row names; all of them are in
            quarantine, their number in the manifest.
        links: Symbolic links in the delivery, which were passed over.
    """

    status: Status
    manifest: Manifest
    quarantine_url: str
    stray_files: tuple[str, ...] = ()
    links: int = 0

    @property
    def batch(self) -> str:
        """The batch's name."""
        return self.manifest.batch

    @property
    def content_hash(self) -> str:
        """The batch's content hash."""
        return self.manifest.content_hash

    @property
    def rows(self) -> int:
        """Pairs that were taken."""
        return self.manifest.rows

    @property
    def quarantined(self) -> int:
        """Rows that were not."""
        return self.manifest.quarantined

    @property
    def reasons(self) -> dict[str, int]:
        """Quarantined rows by reason code."""
        return self.manifest.quarantined_by_reason

    def summary(self) -> str:
        """Some lines for people."""
        said = {
            "stored": f"batch {self.batch}: {self.rows} pairs stored",
            "unchanged": f"batch {self.batch}: nothing to do, its {self.rows} pairs are stored",
            "repaired": f"batch {self.batch}: {self.rows} pairs, what was lost is stored again",
        }
        lines = [f"{said[self.status]} (content {self.content_hash[:12]})"]
        if self.quarantined:
            lines.append(f"{self.quarantined} rows in quarantine: {_counts(self.reasons)}")
        if self.manifest.stray_files:
            names = ", ".join(self.stray_files[:3])
            more = ", ..." if self.manifest.stray_files > 3 else ""
            lines.append(f"{self.manifest.stray_files} pictures that no row names: {names}{more}")
        if self.manifest.near_duplicates:
            lines.append(
                f"{self.manifest.near_duplicates} pairs whose picture looks like an earlier one "
                "(near_duplicate_of)"
            )
        if self.links:
            lines.append(deliveries.passed_over(self.links))
        if self.quarantined or self.manifest.stray_files:
            lines.append(f"see {self.quarantine_url}")
        return "\n".join(lines)


def ingest(
    path: Path,
    batch: str | None,
    bucket: Bucket,
    known_attributes: Mapping[str, Sequence[str]],
    *,
    max_tokens: int | None = None,
    count_tokens: Callable[[str], int] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[int], None] | None = None,
) -> IngestResult:
    """Takes in a delivery from disk, of any kind that `kinds` knows.

    Args:
        path: A folder, or a file such as a tar shard.
        batch: The batch's name; None for that of the folder, or of the file without suffixes.
        bucket: Where it is stored.
        known_attributes: Values that each attribute may have; other columns are kept in `extra`.
        max_tokens: Most tokens of a caption, with `count_tokens`.
        count_tokens: Tokens of a text.
        limits: Of the pictures.
        progress: Called with the number of rows done so far.

    Raises:
        DeliveryRefused: The delivery as a whole can't be taken.
        BatchExists: The name is taken by other content.
        BucketError: The store failed; running it again goes on where it stopped.
    """
    path = Path(path)
    if batch is None:
        batch = path.name.partition(".")[0] if path.is_file() else path.resolve().name
    rules = Rules(known_attributes, max_tokens, count_tokens, limits)
    return take(deliveries.on_disk(path), batch, bucket, rules, progress)


def ingest_from_bucket(
    bucket: Bucket,
    prefix: str,
    known_attributes: Mapping[str, Sequence[str]],
    *,
    batch: str | None = None,
    max_tokens: int | None = None,
    count_tokens: Callable[[str], int] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[int], None] | None = None,
) -> IngestResult:
    """Takes in a delivery that lies in the bucket, such as `incoming/<batch>`.

    The batch is called by the last part of the prefix unless it is named. Otherwise like `ingest`.
    """
    name = batch if batch is not None else prefix.rstrip("/").rpartition("/")[2]
    rules = Rules(known_attributes, max_tokens, count_tokens, limits)
    return take(deliveries.in_bucket(bucket, prefix), name, bucket, rules, progress)


def take(
    delivery: Delivery,
    batch: str,
    bucket: Bucket,
    rules: Rules,
    progress: Callable[[int], None] | None = None,
) -> IngestResult:
    """Takes in a delivery of any kind; see `ingest`."""
    batches.check_batch_name(batch)
    found = kinds.find(delivery)
    stored = batches.read_manifest(bucket, batch)
    with tempfile.TemporaryDirectory(prefix="cf_lab_") as folder:
        # Where the name is taken, nothing is stored before it is known to be the same content.
        intake = Intake(delivery, found, batch, rules, Path(folder))
        manifest = intake.run(bucket if stored is None else None, progress)
        if not manifest.rows:
            if stored is None:
                bucket.put_file(batches.quarantine_key(manifest), intake.quarantine_path)
            raise _nothing_accepted(bucket, delivery, intake, manifest, kept=stored is None)
        if stored is None:
            return _commit(bucket, manifest, intake, "stored")
        if stored.content_hash != manifest.content_hash:
            raise _exists(batch, stored, manifest)
        if batches.is_whole(bucket, stored):
            return _result("unchanged", bucket, stored, intake)
        again = intake.run(bucket, progress, overwrite=True)
        return _commit(bucket, again, intake, "repaired")


def _nothing_accepted(
    bucket: Bucket, delivery: Delivery, intake: Intake, manifest: Manifest, *, kept: bool
) -> DeliveryRefused:
    """The error of a delivery without a single good row."""
    first = intake.first_rejected
    if first is None:
        files = ", ".join(intake.found.files[:3])
        return DeliveryRefused("nothing_accepted", f"{files} of {delivery.where} has no rows")
    see = f"; see {bucket.url(batches.quarantine_key(manifest))}" if kept else ""
    return DeliveryRefused(
        "nothing_accepted",
        f"none of the {manifest.quarantined} rows of {delivery.where} can be taken, so that there "
        f"is no batch {manifest.batch!r}: {_counts(manifest.quarantined_by_reason)}. The first, "
        f"row {first.row}: {first.detail}. Correct them and deliver again{see}",
    )


def _commit(bucket: Bucket, manifest: Manifest, intake: Intake, status: Status) -> IngestResult:
    bucket.put_file(batches.quarantine_key(manifest), intake.quarantine_path)
    bucket.put_file(batches.pairs_key(manifest), intake.pairs_path)
    key = batches.manifest_key(manifest.batch)
    if status == "repaired":
        bucket.put_bytes(key, manifest.to_json())
    elif not bucket.create(key, manifest.to_json()):
        # Another ingest of the same name came first; what it stored is called by other hashes.
        first = batches.read_manifest(bucket, manifest.batch)
        if first is None or first.content_hash != manifest.content_hash:
            raise _exists(manifest.batch, first, manifest)
        return _result("unchanged", bucket, first, intake)
    return _result(status, bucket, manifest, intake)


def _result(status: Status, bucket: Bucket, manifest: Manifest, intake: Intake) -> IngestResult:
    url = bucket.url(batches.quarantine_key(manifest))
    return IngestResult(status, manifest, url, tuple(intake.first_strays), intake.links)


def _exists(batch: str, stored: Manifest | None, offered: Manifest) -> BatchExists:
    there = f"{stored.rows} pairs, content {stored.content_hash[:12]}" if stored else "another"
    return BatchExists(
        "batch_exists",
        f"batch {batch!r} is stored with other content ({there}; this delivery has {offered.rows} "
        f"pairs, content {offered.content_hash[:12]}). A batch never changes: ingest this "
        f"delivery under another name, for example {batch[:60] + '-2'!r}",
    )


def _counts(reasons: Mapping[str, int]) -> str:
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {reason}" for reason, count in ordered)
