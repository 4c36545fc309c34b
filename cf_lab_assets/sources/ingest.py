"""Taking a delivery in: every row checked, pictures stored by content, the manifest last.

Nothing of a batch is visible before its manifest is, so that a run killed at any point leaves
at most pictures that nobody names yet; the next run finds them stored and goes on. The same
delivery again changes nothing, other content under the same name is refused, and a batch that has
lost a picture or its table since is repaired by the same delivery.

A picture may come with several captions, under one file name or several: each is a pair of its
own. The same picture with the same caption is taken once.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cf_lab_assets.sources import batches, captions, deliveries
from cf_lab_assets.sources.batches import Manifest, SourcePair, TableWriter
from cf_lab_assets.sources.captions import Rules, printable
from cf_lab_assets.sources.deliveries import Delivery, FolderDelivery
from cf_lab_assets.sources.imagefolder import Row, read_metadata
from cf_lab_assets.sources.refusals import BatchExists, DeliveryRefused, Rejected, RowRefused
from cf_lab_resources.images import DEFAULT_LIMITS, ImageRefused, Limits, normalise

if TYPE_CHECKING:
    from cf_lab_resources.bucket import Bucket

ROWS_AT_ONCE = 64
# Decoding takes turns, but compressing and storing do not; more would hold more pictures at once.
WORKERS = 4
FIRST_STRAYS = 20

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
    """

    status: Status
    manifest: Manifest
    quarantine_url: str
    stray_files: tuple[str, ...] = ()

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
        if len(lines) > 1:
            lines.append(f"see {self.quarantine_url}")
        return "\n".join(lines)


def ingest(
    folder: Path,
    batch: str | None,
    bucket: Bucket,
    known_attributes: Mapping[str, Sequence[str]],
    *,
    max_tokens: int | None = None,
    count_tokens: Callable[[str], int] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[int], None] | None = None,
) -> IngestResult:
    """Takes in an ImageFolder from disk.

    Args:
        folder: Has one of `metadata.csv`, `.jsonl`, `.parquet` at its top, and pictures.
        batch: The batch's name; None for the folder's.
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
    name = batch if batch is not None else Path(folder).resolve().name
    rules = Rules(known_attributes, max_tokens, count_tokens, limits)
    return take(FolderDelivery(Path(folder)), name, bucket, rules, progress)


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
    """Takes in an ImageFolder that lies in the bucket, such as `incoming/<batch>`.

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
    metadata = deliveries.find_metadata(delivery)
    stored = batches.read_manifest(bucket, batch)
    with tempfile.TemporaryDirectory(prefix="cf_lab_") as scratch:
        # Where the name is taken, nothing is stored before it is known to be the same content.
        store = bucket.create if stored is None else None
        intake = _Intake(delivery, batch, store, rules, Path(scratch), progress)
        manifest = intake.run(metadata)
        if not manifest.rows:
            if stored is None:
                bucket.put_file(batches.quarantine_key(batch), intake.quarantine_path)
            raise intake.nothing_accepted(bucket, metadata, kept=stored is None)
        if stored is None:
            return _commit(bucket, manifest, intake, "stored")
        if stored.content_hash != manifest.content_hash:
            raise _exists(batch, stored, manifest)
        if batches.is_whole(bucket, stored):
            return _result("unchanged", bucket, stored, intake)
        again = _Intake(delivery, batch, bucket.put_bytes, rules, Path(scratch), progress)
        return _commit(bucket, again.run(metadata), again, "repaired")


def _commit(bucket: Bucket, manifest: Manifest, intake: _Intake, status: Status) -> IngestResult:
    bucket.put_file(batches.quarantine_key(manifest.batch), intake.quarantine_path)
    bucket.put_file(batches.pairs_key(manifest.batch), intake.pairs_path)
    key = batches.manifest_key(manifest.batch)
    if status == "repaired":
        bucket.put_bytes(key, manifest.to_json())
    elif not bucket.create(key, manifest.to_json()):
        # Another ingest of the same name came first. Its table differs if its content does, and
        # then the hash in its manifest says so to whoever reads the batch.
        first = batches.read_manifest(bucket, manifest.batch)
        if first is None or first.content_hash != manifest.content_hash:
            raise _exists(manifest.batch, first, manifest)
        return _result("unchanged", bucket, first, intake)
    return _result(status, bucket, manifest, intake)


def _result(status: Status, bucket: Bucket, manifest: Manifest, intake: _Intake) -> IngestResult:
    url = bucket.url(batches.quarantine_key(manifest.batch))
    return IngestResult(status, manifest, url, tuple(intake.first_strays))


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


@dataclass(frozen=True)
class _Checked:
    """A row of which everything but the picture is known to be good."""

    row: Row
    file_name: str
    caption: str
    attributes: dict[str, str]
    extra: dict[str, str]


@dataclass(frozen=True)
class _Stored:
    """A picture that is in the bucket."""

    key: str
    sha256: str
    width: int
    height: int


@dataclass
class _Tally:
    """What has been counted and seen; grows by some hundred bytes a row."""

    rows: int = 0
    strays: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    values: dict[str, Counter[str]] = field(default_factory=dict)
    row_hashes: list[bytes] = field(default_factory=list)
    named: set[str] = field(default_factory=set)
    names_and_captions: set[bytes] = field(default_factory=set)
    pairs: set[str] = field(default_factory=set)
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)
    first: Rejected | None = None


class _Intake:
    """One pass over a delivery: both tables to the scratch folder, pictures to the bucket."""

    def __init__(
        self,
        delivery: Delivery,
        batch: str,
        store: Callable[[str, bytes], object] | None,
        rules: Rules,
        scratch: Path,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._delivery = delivery
        self._batch = batch
        self._store = store
        self._rules = rules
        self._progress = progress
        self._tally = _Tally()
        self.pairs_path = scratch / "pairs.parquet"
        self.quarantine_path = scratch / "rows.parquet"
        self.first_strays: list[str] = []

    def run(self, metadata: str) -> Manifest:
        """Reads everything and returns the manifest that stands for it."""
        self._pairs = TableWriter(self.pairs_path, batches.pairs_schema())
        self._quarantine = TableWriter(self.quarantine_path, batches.quarantine_schema())
        try:
            with self._delivery.metadata(metadata) as path:
                self._read(read_metadata(path, metadata))
            delivery = self._account_for_files()
        finally:
            self._pairs.close()
            self._quarantine.close()
        tally = self._tally
        return Manifest(
            batch=self._batch,
            content_hash=batches.content_hash(tally.row_hashes),
            rows=tally.rows,
            images=len(tally.attributes),
            quarantined=tally.reasons.total(),
            quarantined_by_reason=dict(sorted(tally.reasons.items())),
            stray_files=tally.strays,
            attribute_values={n: dict(sorted(c.items())) for n, c in sorted(tally.values.items())},
            metadata_file=metadata,
            delivery=delivery,
            pairs_sha256=hashlib.sha256(self.pairs_path.read_bytes()).hexdigest(),
        )

    def nothing_accepted(self, bucket: Bucket, metadata: str, *, kept: bool) -> DeliveryRefused:
        """The error of a delivery without a single good row."""
        tally, first = self._tally, self._tally.first
        if first is None:
            return DeliveryRefused(
                "nothing_accepted", f"{metadata} of {self._delivery.where} has no rows"
            )
        see = f"; see {bucket.url(batches.quarantine_key(self._batch))}" if kept else ""
        return DeliveryRefused(
            "nothing_accepted",
            f"none of the {tally.reasons.total()} rows of {self._delivery.where} can be taken, so "
            f"that there is no batch {self._batch!r}: {_counts(tally.reasons)}. The first, row "
            f"{first.row}: {first.detail}. Correct them and deliver again{see}",
        )

    def _read(self, rows: Iterator[Row | Rejected]) -> None:
        done = 0
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="pictures") as pool:
            while chunk := list(itertools.islice(rows, ROWS_AT_ONCE)):
                for checked, picture in self._with_pictures(chunk, pool):
                    self._settle(checked, picture)
                done += len(chunk)
                if self._progress:
                    self._progress(done)

    def _with_pictures(
        self, chunk: Iterable[Row | Rejected], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[_Checked | Rejected, _Stored | Rejected | None]]:
        checked = [self._check(row) for row in chunk]
        pictures = [
            None if isinstance(row, Rejected) else pool.submit(self._picture, row)
            for row in checked
        ]
        for row, picture in zip(checked, pictures, strict=True):
            yield row, picture.result() if picture else None

    def _check(self, row: Row | Rejected) -> _Checked | Rejected:
        self._note(row.file_name)
        if isinstance(row, Rejected):
            return row
        try:
            texts = [row.file_name, row.text, *row.columns, *row.columns.values()]
            if not all(map(captions.is_utf8, texts)):
                raise RowRefused("not_utf8", "the row is not valid UTF-8; save the file as UTF-8")
            name = deliveries.safe_name(row.file_name)
            caption = captions.clean_caption(row.text, self._rules)
            attributes, extra = captions.split_columns(row.columns, self._rules)
        except RowRefused as refused:
            return _rejected(row, refused.reason, str(refused))
        return _Checked(row, name, caption, attributes, extra)

    def _note(self, file_name: str | None) -> None:
        """Remembers what a row names, so that it is no stray even where the row is rejected."""
        with contextlib.suppress(RowRefused):
            self._tally.named.add(deliveries.safe_name(file_name or ""))

    def _picture(self, checked: _Checked) -> _Stored | Rejected:
        limits = self._rules.limits
        name = checked.file_name
        try:
            data = self._delivery.read(name, limits)
            image = normalise(data, name=name.rpartition("/")[2], limits=limits)
        except (ImageRefused, RowRefused) as refused:
            return _rejected(checked.row, refused.reason, str(refused))
        key = batches.image_key(image.sha256)
        if self._store:
            self._store(key, image.png)
        return _Stored(key, image.sha256, image.width, image.height)

    def _settle(self, checked: _Checked | Rejected, picture: _Stored | Rejected | None) -> None:
        if isinstance(checked, Rejected):
            self._reject(checked)
        elif picture is None or isinstance(picture, Rejected):
            if picture:
                self._reject(picture)
        else:
            try:
                self._accept(checked, picture)
            except RowRefused as refused:
                self._reject(_rejected(checked.row, refused.reason, str(refused)))

    def _accept(self, checked: _Checked, picture: _Stored) -> None:
        tally = self._tally
        twice = hashlib.sha256(f"{checked.file_name}\n{checked.caption}".encode()).digest()[:16]
        if twice in tally.names_and_captions:
            raise RowRefused("duplicate_file_name", "an earlier row has this file and caption")
        pair_id = batches.source_id(picture.sha256, checked.caption)
        if pair_id in tally.pairs:
            raise RowRefused("duplicate_picture", "an earlier row has this picture and caption")
        self._check_conflict(checked.attributes, tally.attributes.get(picture.sha256, {}))
        pair = SourcePair(
            source_id=pair_id,
            batch=self._batch,
            file_name=checked.file_name,
            image_key=picture.key,
            image_sha256=picture.sha256,
            width=picture.width,
            height=picture.height,
            caption=checked.caption,
            attributes=checked.attributes,
            extra=checked.extra,
        )
        tally.names_and_captions.add(twice)
        tally.pairs.add(pair_id)
        tally.attributes.setdefault(picture.sha256, {}).update(checked.attributes)
        tally.row_hashes.append(batches.row_hash(pair))
        tally.rows += 1
        for name, value in checked.attributes.items():
            tally.values.setdefault(name, Counter())[value] += 1
        self._pairs.add(asdict(pair))

    @staticmethod
    def _check_conflict(attributes: Mapping[str, str], earlier: Mapping[str, str]) -> None:
        for name, value in attributes.items():
            if earlier.get(name, value) != value:
                raise RowRefused(
                    "conflicting_attributes",
                    f"{name} is {value!r} here and {earlier[name]!r} in an earlier row of the same "
                    "picture; a picture shows one person with one value",
                )

    def _reject(self, rejected: Rejected) -> None:
        if rejected.row is None:
            self._tally.strays += 1
        else:
            self._tally.reasons[rejected.reason] += 1
            self._tally.first = self._tally.first or rejected
        self._quarantine.add(
            {
                "batch": self._batch,
                "file_name": printable(rejected.file_name, 300),
                "row": rejected.row,
                "reason": rejected.reason,
                "detail": printable(rejected.detail),
                "caption": printable(rejected.caption),
            }
        )

    def _account_for_files(self) -> str:
        """Puts pictures that no row names into quarantine; the fingerprint of all files."""
        files = sorted(self._delivery.files())
        for name, _ in files:
            stray = name.lower().endswith(deliveries.PICTURE_SUFFIXES)
            if stray and name not in self._tally.named:
                if len(self.first_strays) < FIRST_STRAYS:
                    self.first_strays.append(printable(name, 300) or "")
                detail = "no row of the metadata names this picture"
                self._reject(Rejected(None, name, "not_in_metadata", detail, None))
        return deliveries.fingerprint(files)


def _rejected(row: Row, reason: str, detail: str) -> Rejected:
    return Rejected(row.number, row.file_name, reason, detail, row.text)
