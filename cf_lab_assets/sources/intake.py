"""One pass over a delivery: rows checked, pictures stored, tables written to a scratch folder.

Threads check rows and store pictures, a handful of rows each, and in long deliveries processes
decode them; the order of the delivery is kept. What is remembered of all rows lies in the ledger on
disk, and only a few rows wait at a time, so that memory stays flat however many there are.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cf_lab_assets.sources import batches, captions, deliveries
from cf_lab_assets.sources.batches import Manifest, SourcePair, TableWriter
from cf_lab_assets.sources.captions import Rules, printable
from cf_lab_assets.sources.deliveries import Delivery
from cf_lab_assets.sources.kinds import Found
from cf_lab_assets.sources.ledger import KnownPicture, Ledger, Sought
from cf_lab_assets.sources.refusals import Rejected, RowRefused
from cf_lab_assets.sources.rows import MASK, MASK_KEY, Row
from cf_lab_resources import decoders
from cf_lab_resources.decoders import Decoders, StoredPicture
from cf_lab_resources.images import ImageRefused

if TYPE_CHECKING:
    from cf_lab_resources.bucket import Bucket

WORKERS = 4  # threads that wait for disk, store or decoder; more would hold more pictures at once
ROWS_AT_ONCE = 32  # of one thread
ROWS_ALONE = 512  # done before processes are started to decode, which takes some tenths of a second
BYTES_AT_ONCE = 16 * 1024 * 1024  # of pictures that come with their rows
FIRST_STRAYS = 20

NormaliseAll = Callable[[list[decoders.Named]], list[StoredPicture | ImageRefused]]
Progress = Callable[[int], None]


@dataclass
class _Taken:
    """A row that is good as far as can be told from it alone; its picture comes last."""

    row: Row
    file_name: str
    caption: str
    attributes: dict[str, str]
    extra: dict[str, str]
    picture: StoredPicture | None = None


@dataclass
class _Tally:
    """What has been counted."""

    rows: int = 0
    near_duplicates: int = 0
    strays: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    values: dict[str, Counter[str]] = field(default_factory=dict)


class Intake:
    """Reads a delivery, as often as is asked for.

    Attributes:
        found: The kind of the delivery and its files with rows.
        pairs_path: The table of pairs, once `run` has returned.
        quarantine_path: The table of what was not taken.
        first_rejected: The first row that was not taken.
        first_strays: The first pictures that no row names.
    """

    def __init__(
        self, delivery: Delivery, found: Found, batch: str, rules: Rules, scratch: Path
    ) -> None:
        self.found = found
        self.pairs_path = scratch / "pairs.parquet"
        self.quarantine_path = scratch / "rows.parquet"
        self.first_rejected: Rejected | None = None
        self.first_strays: list[str] = []
        self._delivery = delivery
        self._batch = batch
        self._rules = rules
        self._scratch = scratch

    @property
    def links(self) -> int:
        """Symbolic links in the delivery, which are passed over."""
        return self._delivery.links

    def run(
        self,
        bucket: Bucket | None,
        progress: Progress | None = None,
        *,
        overwrite: bool = False,
    ) -> Manifest:
        """Reads everything and returns the manifest that stands for it.

        Args:
            bucket: Where pictures are stored; None to store none.
            progress: Called with the number of rows done so far.
            overwrite: Whether pictures that are stored are written again, as they may be damaged.
        """
        self.first_rejected, self.first_strays = None, []
        self._tally = _Tally()
        path = self._scratch / "ledger.sqlite"
        path.unlink(missing_ok=True)
        with (
            closing(Ledger(path)) as self._ledger,
            closing(TableWriter(self.pairs_path, batches.pairs_schema())) as self._pairs,
            closing(
                TableWriter(self.quarantine_path, batches.quarantine_schema())
            ) as self._quarantine,
        ):
            self._read(bucket, overwrite, progress)
            delivery = self._account_for_files()
            content = batches.content_hash(self._ledger.row_hashes())
            images = self._ledger.pictures()
        tally = self._tally
        return Manifest(
            batch=self._batch,
            content_hash=content,
            rows=tally.rows,
            images=images,
            near_duplicates=tally.near_duplicates,
            quarantined=tally.reasons.total(),
            quarantined_by_reason=dict(sorted(tally.reasons.items())),
            stray_files=tally.strays,
            attribute_values={n: dict(sorted(c.items())) for n, c in sorted(tally.values.items())},
            kind=self.found.kind.name,
            delivery=delivery,
            pairs_sha256=_file_sha256(self.pairs_path),
            quarantine_sha256=_file_sha256(self.quarantine_path),
        )

    def _read(self, bucket: Bucket | None, overwrite: bool, progress: Progress | None) -> None:
        kind, limits = self.found.kind, self._rules.limits
        rows = kind.rows(self._delivery, self.found.files, limits)
        waiting: deque[Future[list[_Taken | Rejected]]] = deque()
        shared = kind.pictures != "none" and (bucket is None or bucket.root is not None)
        store = decoders.store_of(bucket, overwrite=overwrite)
        normalise_all: NormaliseAll = functools.partial(
            decoders.normalise_all, limits=limits, store=store
        )
        done = 0
        with (
            ExitStack() as opened,
            ThreadPoolExecutor(WORKERS, thread_name_prefix="pictures") as pool,
        ):
            try:
                for number, chunk in enumerate(_chunks(rows)):
                    if shared and number * ROWS_AT_ONCE == ROWS_ALONE:
                        processes = Decoders(limits, bucket, overwrite=overwrite)
                        opened.enter_context(closing(processes))
                        normalise_all = processes.normalise_all
                    waiting.append(pool.submit(self._check_all, chunk, normalise_all))
                    if len(waiting) > WORKERS:
                        done = self._settle(waiting.popleft().result(), done, progress)
                while waiting:
                    done = self._settle(waiting.popleft().result(), done, progress)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _settle(self, rows: list[_Taken | Rejected], done: int, progress: Progress | None) -> int:
        self._ledger.look_up([_sought(row) for row in rows if isinstance(row, _Taken)])
        for row in rows:
            if isinstance(row, Rejected):
                self._reject(row)
                continue
            try:
                self._accept(row)
            except RowRefused as refused:
                self._reject(_rejected(row.row, refused.reason, str(refused)))
        self._ledger.write()
        if progress:
            progress(done + len(rows))
        return done + len(rows)

    # What follows runs in threads, and touches neither tables nor ledger.

    def _check_all(
        self, rows: list[Row | Rejected], normalise_all: NormaliseAll
    ) -> list[_Taken | Rejected]:
        checked = [row if isinstance(row, Rejected) else self._check(row) for row in rows]
        if self.found.kind.pictures == "none":
            return [row if isinstance(row, Rejected) else row[0] for row in checked]
        pictures = [
            picture for row in checked if not isinstance(row, Rejected) for picture in row[1]
        ]
        images = iter(normalise_all(pictures) if pictures else [])
        return [
            row
            if isinstance(row, Rejected)
            else _with_pictures(row[0], [next(images) for _ in row[1]])
            for row in checked
        ]

    def _check(self, row: Row) -> tuple[_Taken, list[decoders.Named]] | Rejected:
        """The row without its pictures, and these: its own, and its mask where it has one."""
        try:
            texts = [row.file_name, row.text, *row.columns, *row.columns.values()]
            if not all(map(captions.is_utf8, texts)):
                raise RowRefused("not_utf8", "the row is not valid UTF-8; save the file as UTF-8")
            name = deliveries.safe_name(row.file_name)
            caption = captions.clean_caption(row.text, self._rules)
            attributes, extra = captions.split_columns(row.columns, self._rules)
            extra.pop(MASK_KEY, None)  # nothing from outside says where something is in the bucket
            pictures = [self._named(name, row.picture)]
            if self.found.kind.pictures == "files" and extra.get(MASK, "").strip():
                pictures.append(self._named(deliveries.safe_name(extra[MASK]), None))
        except (ImageRefused, RowRefused) as refused:
            return _rejected(row, refused.reason, str(refused))
        return _Taken(row, name, caption, attributes, extra), pictures

    def _named(self, name: str, data: bytes | None) -> decoders.Named:
        if self.found.kind.pictures == "files":
            data = self._delivery.read(name, self._rules.limits)
        return name.rpartition("/")[2], data or b""

    # What follows runs in the thread of the caller.

    def _accept(self, taken: _Taken) -> None:
        tally, ledger, picture = self._tally, self._ledger, taken.picture
        pixels = picture.pixels_sha256 if picture else ""
        self._note_name(taken.file_name)
        self._note_name(taken.extra.get(MASK))
        earlier = ledger.file_of(pixels, taken.caption)
        if earlier is not None:
            raise _duplicate(taken, earlier)
        source_id = batches.source_id(
            picture.sha256 if picture else None, taken.caption, taken.extra.get(MASK_KEY)
        )
        near = self._remember(picture, taken.attributes, source_id) if picture else None
        pair = SourcePair(
            source_id=source_id,
            batch=self._batch,
            file_name=taken.file_name,
            image_key=picture.key if picture else None,
            image_sha256=picture.sha256 if picture else None,
            width=picture.width if picture else None,
            height=picture.height if picture else None,
            caption=taken.caption,
            attributes=taken.attributes,
            extra=taken.extra,
            near_duplicate_of=near,
        )
        ledger.add_pair(pixels, taken.caption, taken.file_name, batches.row_hash(pair))
        tally.rows += 1
        tally.near_duplicates += near is not None
        for name, value in taken.attributes.items():
            tally.values.setdefault(name, Counter())[value] += 1
        self._pairs.add(vars(pair))

    def _remember(
        self, picture: StoredPicture, attributes: dict[str, str], source_id: str
    ) -> str | None:
        """Notes the picture of a pair; the id of the pair whose picture it nearly is."""
        known = self._ledger.picture(picture.pixels_sha256)
        if known is None:
            near = self._ledger.near(picture.phash)
            new = KnownPicture(attributes, near)
            self._ledger.add_picture(picture.pixels_sha256, picture.phash, source_id, new)
            return near
        _check_conflict(attributes, known.attributes)
        if attributes.keys() - known.attributes.keys():
            self._ledger.set_attributes(picture.pixels_sha256, {**known.attributes, **attributes})
        return known.near_duplicate_of

    def _note_name(self, file_name: str | None) -> None:
        """Remembers what a row names, so that it is no stray even where the row is rejected."""
        if self.found.kind.pictures == "files":
            with contextlib.suppress(RowRefused):
                self._ledger.note_name(deliveries.safe_name(file_name or ""))

    def _reject(self, rejected: Rejected) -> None:
        if rejected.row is None:
            self._tally.strays += 1
        else:
            self._note_name(rejected.file_name)
            self._note_name(rejected.mask)
            self._tally.reasons[rejected.reason] += 1
            self.first_rejected = self.first_rejected or rejected
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
            if not name.lower().endswith(deliveries.PICTURE_SUFFIXES) or self._is_named(name):
                continue
            if len(self.first_strays) < FIRST_STRAYS:
                self.first_strays.append(printable(name, 300) or "")
            detail = "no row of the delivery names this picture"
            self._reject(Rejected(None, name, "not_in_metadata", detail, None))
        return deliveries.fingerprint(files)

    def _is_named(self, name: str) -> bool:
        try:
            return self._ledger.is_named(name)
        except UnicodeEncodeError:  # a name of bytes that are not UTF-8, which no row can have
            return False


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _chunks(rows: Iterable[Row | Rejected]) -> Iterator[list[Row | Rejected]]:
    """Rows in groups that are limited in number, and in bytes of the pictures that they hold."""
    chunk: list[Row | Rejected] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += len(row.picture or b"") if isinstance(row, Row) else 0
        if len(chunk) >= ROWS_AT_ONCE or size >= BYTES_AT_ONCE:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _sought(taken: _Taken) -> Sought:
    picture = taken.picture
    if picture is None:
        return Sought("", taken.caption, None)
    return Sought(picture.pixels_sha256, taken.caption, picture.phash)


def _with_pictures(
    taken: _Taken, pictures: Sequence[StoredPicture | ImageRefused]
) -> _Taken | Rejected:
    for one in pictures:
        if isinstance(one, ImageRefused):
            return _rejected(taken.row, one.reason, str(one))
    picture, *masks = (one for one in pictures if isinstance(one, StoredPicture))
    taken.picture = picture
    for mask in masks:
        size, own = (mask.width, mask.height), (picture.width, picture.height)
        if size != own:
            return _rejected(
                taken.row,
                "mask_size",
                f"the mask {taken.extra[MASK]} has {size} pixels and its picture {own}; a mask is "
                "as large as its picture, and white where that may change",
            )
        taken.extra[MASK_KEY] = mask.key
    return taken


def _duplicate(taken: _Taken, earlier: str) -> RowRefused:
    if taken.picture is None:
        return RowRefused("duplicate_caption", "an earlier row has this caption")
    if earlier == taken.file_name:
        return RowRefused("duplicate_file_name", "an earlier row has this file and caption")
    return RowRefused("duplicate_picture", "an earlier row has this picture and caption")


def _check_conflict(attributes: Mapping[str, str], earlier: Mapping[str, str]) -> None:
    for name, value in attributes.items():
        if earlier.get(name, value) != value:
            raise RowRefused(
                "conflicting_attributes",
                f"{name} is {value!r} here and {earlier[name]!r} in an earlier row of the same "
                "picture; a picture shows one person with one value",
            )


def _rejected(row: Row, reason: str, detail: str) -> Rejected:
    return Rejected(row.number, row.file_name, reason, detail, row.text, row.columns.get(MASK))
