"""What a release is made of, and how it is staged: records into Postgres, then into Redis.

A release is one dataset with its package and one bias report. Its id comes from its content, so
staging again after a kill ends in the same release: each step finds what is done and does the
rest. Nothing of a candidate is visible to the API until it is current.

The report is copied under a content key, since the audit may write its own again.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cf_lab_assets.releases.gates import GATES, LASTING, GateResult, Staged, evaluate
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from cf_lab_assets.releases.smoke import Api
    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.cache import Cache
    from cf_lab_resources.catalog import Catalog, Record, Release, Waiver
    from cf_lab_resources.catalog.loading import Loaded

Row = dict[str, Any]

# Part of every release's content: with another form of the records it is another release.
RECORD_FORMAT = 1
BATCH_ROWS = 1000
DECIMALS = 6  # float32 has seven digits; written out as a double it would show sixteen


class ReleaseError(LabError):
    """A release can't be staged, published or rolled back; the message says what to do."""


@dataclass(frozen=True)
class Content:
    """What a release is made of.

    Attributes:
        release_id: "r" and 12 digits of the content hash.
        content_hash: Of dataset, package, report, gates and the form of the records.
        dataset_hash: The dataset's content hash.
        manifest: All of it, JSON-compatible, without any time.
    """

    release_id: str
    content_hash: str
    dataset_hash: str
    manifest: dict[str, Any]

    @property
    def report_key(self) -> str | None:
        """Bucket key of the HTML report; None where there is none."""
        key: str | None = self.manifest["report"]["html"]
        return key

    @property
    def package(self) -> dict[str, str] | None:
        """Prefix and manifest hash of the dataset's package; None where there is none."""
        found: dict[str, str] | None = self.manifest["package"]
        return found


def manifest_key(release_id: str) -> str:
    """Bucket key of a release's manifest."""
    return f"releases/{release_id}/manifest.json"


def read_content(bucket: Bucket, dataset_hash: str | None = None) -> Content:
    """Puts a release together from the bucket: the newest dataset's, where none is named.

    A missing report or package is no error here: `report_is_present` and `package_is_verified`
    say so.

    Raises:
        ReleaseError: There is no such dataset.
    """
    dataset_hash = dataset_hash or _latest_dataset(bucket)
    dataset = json.loads(_dataset_file(bucket, dataset_hash, "manifest.json"))
    report = {kind: _keep_report(bucket, dataset_hash, kind) for kind in ("html", "json")}
    package = _package(bucket, dataset_hash)
    gates = [{"name": gate.name, "limit": gate.limit, "unit": gate.unit} for gate in GATES]
    hashed = {
        "format": RECORD_FORMAT,
        "dataset": dataset_hash,
        # What it holds follows from its name; signatures differ each time it is made.
        "package": package and package["prefix"],
        "report": _report_identity(bucket, report),
        "gates": gates,
    }
    digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()
    release_id = f"r{digest[:12]}"
    manifest = {
        "release_id": release_id,
        "content_hash": digest,
        **hashed,
        "package": package,
        "report": report,  # content keys
        "counts": {
            "pairs": dataset["pairs"],
            "sets": dataset["sets"],
            "images": len(dataset["images"]),
        },
        "batches": dataset["batches"],
        "models": dataset["models"],
    }
    return Content(release_id, digest, dataset_hash, manifest)


def stage_candidate(bucket: Bucket, catalog: Catalog, content: Content) -> Loaded:
    """Writes the release's manifest, and loads its records as a candidate, in one transaction.

    Staging a release that is in the catalog already, whatever its state, does nothing.

    Raises:
        ReleaseError: The dataset's tables are not in the bucket.
        CatalogError: Two records have the same id.
    """
    from cf_lab_resources.catalog import NewRelease

    catalog.migrate()
    key = manifest_key(content.release_id)
    bucket.put_bytes(key, json.dumps(content.manifest, indent=1, sort_keys=True).encode())
    release = NewRelease(
        content.release_id,
        content.content_hash,
        content.dataset_hash,
        content.report_key,
        content.manifest,
    )
    with _tables(bucket, content.dataset_hash) as (pairs, sets):
        return catalog.load(
            release,
            _batched(pair_record(row, content.release_id) for row in rows(pairs)),
            _batched(set_records(rows(pairs), rows(sets), content.release_id)),
        )


def warm(catalog: Catalog, cache: Cache, release_id: str) -> int:
    """Copies all records of a release from Postgres to Redis, and returns how many.

    Raises:
        CacheError: Redis does not answer; the release can be published all the same.
    """
    from cf_lab_resources.cache import record_key
    from cf_lab_resources.catalog.ids import Kind

    kinds: tuple[Kind, ...] = ("pair", "set")
    return cache.warm(
        release_id,
        (
            (record_key(release_id, kind, record_id), body)
            for kind in kinds
            for batch in catalog.iterate(kind, release_id)
            for record_id, body in batch
        ),
    )


def pair_record(row: Mapping[str, Any], release_id: str) -> Record:
    """A row of `pairs.parquet` as the record that is sent."""
    from cf_lab_resources.catalog import Record

    body = _json(_pair_body(row, release_id))
    return Record(row["pair_id"], row["set_id"], row["image_sha256"], body)


def set_records(
    pair_rows: Iterable[Row], set_rows: Iterable[Row], release_id: str
) -> Iterator[Record]:
    """Rows of `sets.parquet`, each with its pairs, as the records that are sent.

    Tables in the order of their ids are held in memory no further than one set; of others, as
    many sets are as wait for members. A set with members missing comes last, with those it has.
    """
    members: dict[str, list[Row]] = defaultdict(list)
    waiting: dict[str, Row] = {}
    remaining = iter(set_rows)
    for pair in pair_rows:
        set_id = pair["set_id"]
        members[set_id].append(pair)
        while set_id not in waiting and (row := next(remaining, None)) is not None:
            waiting[row["set_id"]] = row
        row = waiting.get(set_id)
        if row is not None and len(members[set_id]) >= len(row["member_values"]):
            yield _set_record(waiting.pop(set_id), members.pop(set_id), release_id)
    waiting.update((row["set_id"], row) for row in remaining)
    for set_id, row in waiting.items():
        yield _set_record(row, members.get(set_id, []), release_id)


def rows(path: Path) -> Iterator[Row]:
    """The rows of a Parquet file, read a batch at a time; maps become dictionaries."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # With the default Arrow keeps all that it has read until the file is closed.
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            yield from pa.Table.from_batches([batch]).to_pylist(maps_as_pydicts="strict")


def read_staged(bucket: Bucket, release: Release, waivers: Sequence[Waiver] = ()) -> Staged:
    """What the gates judge of a release in the catalog, with the waivers in force.

    Raises:
        ReleaseError: The dataset's tables are no longer in the bucket.
    """
    import pyarrow.parquet as pq

    dataset_hash = release.dataset_hash
    with _tables(bucket, dataset_hash) as (pairs, sets):
        return Staged(
            dataset_hash=dataset_hash,
            manifest=json.loads(_dataset_file(bucket, dataset_hash, "manifest.json")),
            pairs=pq.read_table(pairs),
            sets=pq.read_table(sets),
            report_html=_content(bucket, release.manifest["report"]["html"]),
            report_json=_content(bucket, release.manifest["report"]["json"]),
            package=release.manifest["package"],
            waivers=waivers,
        )


def judge(bucket: Bucket, catalog: Catalog, api: Api, release_id: str) -> list[GateResult]:
    """What the gates find of a release now, in the order of `GATES`.

    Args:
        bucket: holds what the gates look at.
        catalog: knows the release.
        api: is asked for its records.
        release_id: of a release whose records are in the catalog.

    Raises:
        ReleaseError: There is no such release, or its dataset is no longer in the bucket.
        SmokeTestError: The API does not answer at all.
    """
    from cf_lab_assets.counterfactuals.dataset import dataset_content_hash
    from cf_lab_assets.releases.smoke import smoke_test

    release = catalog.get_release(release_id)
    if release is None:
        raise ReleaseError(
            f"release {release_id} is not in the catalog; materialise releases/candidate again"
        )
    today = datetime.now(UTC).date()
    waivers = [one for one in catalog.waivers() if one.counts_on(today)]
    staged = read_staged(bucket, release, waivers)
    smoke = cache(lambda: smoke_test(api, bucket, release, staged.pairs, staged.sets))
    return evaluate(replace(staged, smoke=smoke), bucket.get_bytes, dataset_content_hash)


def last_good(bucket: Bucket, catalog: Catalog, api: Api, before: str) -> str:
    """The release superseded last that has its records and of which every lasting gate holds.

    Pictures are stored once for all releases that show them, so that what damaged one may have
    damaged others.

    Args:
        bucket: holds what the gates look at.
        catalog: knows the releases.
        api: is asked for their records.
        before: the release to go back from, for the message.

    Raises:
        ReleaseError: There is none.
    """
    found = []
    for release in catalog.list_releases(states=["superseded"]):
        if release.dropped_at is not None:
            continue
        try:
            results = judge(bucket, catalog, api, release.release_id)
            failed = [one.name for one in results if not one.passed and one.name in LASTING]
        except ReleaseError as error:
            failed = [str(error)]
        if not failed:
            return release.release_id
        found.append(f"{release.release_id} ({', '.join(failed)})")
    raise ReleaseError(
        f"there is no good release to go back to from {before}, which stays current; "
        f"{'; '.join(found) or 'none was superseded'}; restore the bucket, or publish a new release"
    )


def result_files(
    bucket: Bucket, catalog: Catalog, release_id: str, folder: Path
) -> tuple[Path, Path]:
    """Writes a release's contact sheet and report, HTML and signed JSON, into a folder.

    Returns:
        Where the contact sheet and the HTML report are; the JSON lies beside the latter.

    Raises:
        ReleaseError: There is no such release, or it has no report.
    """
    release = catalog.get_release(release_id)
    if release is None or release.report_key is None:
        raise ReleaseError(f"there is no release {release_id!r} with a report in the catalog")
    sheet, report = folder / "contact_sheet.png", folder / "report.html"
    bucket.get_file(f"datasets/{release.dataset_hash}/contact_sheet.png", sheet)
    bucket.get_file(release.report_key, report)
    if document := release.manifest["report"]["json"]:
        bucket.get_file(document, report.with_suffix(".json"))
    return sheet, report


def _package(bucket: Bucket, dataset_hash: str) -> dict[str, str] | None:
    """Prefix of the dataset's newest package and hash of its manifest, so of all its files."""
    from cf_lab_assets.counterfactuals.packaging.manifest import find_package

    found = find_package(bucket, dataset_hash)
    return None if found is None else {"prefix": found.prefix, "sha256": found.sha256}


def _latest_dataset(bucket: Bucket) -> str:
    from cf_lab_assets.counterfactuals.dataset import latest_hash

    found = latest_hash(bucket)
    if found is None:
        raise ReleaseError(
            "there is no dataset in the bucket yet; materialise counterfactuals/dataset first"
        )
    return found


def _dataset_file(bucket: Bucket, dataset_hash: str, name: str) -> bytes:
    from cf_lab_resources.bucket import BucketKeyError

    key = f"datasets/{dataset_hash}/{name}"
    try:
        return bucket.get_bytes(key)
    except BucketKeyError as error:
        raise ReleaseError(
            f"{key} is not in the bucket; materialise counterfactuals/dataset again, or restore "
            "the bucket"
        ) from error


@contextmanager
def _tables(bucket: Bucket, dataset_hash: str) -> Iterator[tuple[Path, Path]]:
    """The dataset's two tables as files for the length of the block."""
    with TemporaryDirectory(prefix="cf_lab_release_") as name:
        paths = Path(name, "pairs.parquet"), Path(name, "sets.parquet")
        for path in paths:
            _get_dataset_table(bucket, dataset_hash, path)
        yield paths


def _get_dataset_table(bucket: Bucket, dataset_hash: str, path: Path) -> None:
    from cf_lab_resources.bucket import BucketKeyError

    key = f"datasets/{dataset_hash}/{path.name}"
    try:
        bucket.get_file(key, path)
    except BucketKeyError as error:
        raise ReleaseError(
            f"{key} is not in the bucket; materialise counterfactuals/dataset again, or restore "
            "the bucket"
        ) from error


def _report_identity(bucket: Bucket, report: dict[str, str | None]) -> dict[str, str | None]:
    """What a release's id takes from its report: what it says, not when and by whom it was signed.

    Of a report that does not tell the hash of its body, the content keys.
    """
    data = _content(bucket, report["json"])
    try:
        body = None if data is None else str(json.loads(data)["body_sha256"])
    except (ValueError, LookupError, TypeError):
        return report
    return {"body": body, "html": "present"} if body and report["html"] else report


def _keep_report(bucket: Bucket, dataset_hash: str, kind: str) -> str | None:
    """The content key of the report's present bytes; None where there is no report."""
    data = _content(bucket, f"audits/{dataset_hash}/report/report.{kind}")
    return None if data is None else bucket.put_content("reports", data, f".{kind}")


def _content(bucket: Bucket, key: str | None) -> bytes | None:
    from cf_lab_resources.bucket import BucketKeyError

    if key is None:
        return None
    try:
        return bucket.get_bytes(key)
    except BucketKeyError:
        return None


def _batched(records: Iterable[Record]) -> Iterator[list[Record]]:
    from itertools import islice

    remaining = iter(records)
    while batch := list(islice(remaining, BATCH_ROWS)):
        yield batch


def _pair_body(row: Mapping[str, Any], release_id: str) -> Row:
    body = {name: _plain(value) for name, value in row.items() if not name.endswith("_key")}
    return {
        "release_id": release_id,
        **body,
        "image": f"/v1/images/{row['image_sha256']}",
        "source_image": f"/v1/images/{row['source_image_sha256']}",
    }


def _set_record(row: Row, members: list[Row], release_id: str) -> Record:
    from cf_lab_resources.catalog import Record

    members = sorted(members, key=lambda pair: str(pair["pair_id"]))
    body = {
        "release_id": release_id,
        **{name: _plain(value) for name, value in row.items()},
        "pairs": [_pair_body(pair, release_id) for pair in members],
    }
    picture = str(members[0]["source_image_sha256"]) if members else ""
    return Record(row["set_id"], row["set_id"], picture, _json(body))


def _plain(value: Any) -> Any:
    return round(value, DECIMALS) if isinstance(value, float) else value


def _json(body: Row) -> bytes:
    import orjson

    return orjson.dumps(body)  # writes NaN as null, which JSON has
