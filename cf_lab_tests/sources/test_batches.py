from __future__ import annotations

import json
from pathlib import Path

import pytest

from cf_lab_assets.sources import batches
from cf_lab_assets.sources.batches import Manifest, inspect, read_manifest, read_pairs
from cf_lab_assets.sources.ingest import ingest
from cf_lab_assets.sources.refusals import BatchBroken, DeliveryRefused
from cf_lab_resources.bucket import Bucket, BucketError
from cf_lab_tests.sources.conftest import ATTRIBUTES, make_delivery


@pytest.fixture
def manifest(folder: Path, bucket: Bucket) -> Manifest:
    return ingest(folder, None, bucket, ATTRIBUTES).manifest


def test_a_manifest_survives_the_round_trip(manifest: Manifest) -> None:
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert json.loads(manifest.to_json())["format"] == "cf-lab-source-batch"


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"format": "cf-lab-source-batch"}', b"\xff"])
def test_a_manifest_that_can_not_be_read_is_not_the_same_as_none(
    bucket: Bucket, data: bytes
) -> None:
    bucket.put_bytes(batches.manifest_key("spring"), data)
    with pytest.raises(BatchBroken, match=r"spring.*can't be read"):
        read_manifest(bucket, "spring")


def test_a_manifest_of_a_later_version_is_refused(bucket: Bucket, manifest: Manifest) -> None:
    document = json.loads(manifest.to_json()) | {"version": batches.FORMAT_VERSION + 1}
    bucket.put_bytes(batches.manifest_key("spring"), json.dumps(document).encode())
    with pytest.raises(BatchBroken, match="version"):
        read_manifest(bucket, "spring")


def test_a_store_that_fails_is_not_an_empty_store(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Bucket, key: str) -> bytes:
        raise BucketError("down")

    monkeypatch.setattr(Bucket, "get_bytes", fail)
    with pytest.raises(BucketError, match="down"):
        read_manifest(bucket, "spring")


def test_a_batch_that_is_nowhere(bucket: Bucket) -> None:
    assert read_manifest(bucket, "spring") is None
    assert batches.read_quarantine(bucket, "spring") == []
    assert batches.stored_batches(bucket) == []
    with pytest.raises(DeliveryRefused, match="incoming/spring"):
        list(read_pairs(bucket, "spring"))


def test_names_are_checked_before_they_become_keys(bucket: Bucket) -> None:
    for read in (read_manifest, batches.read_quarantine):
        with pytest.raises(DeliveryRefused, match="no name for a batch"):
            read(bucket, "../models")


def test_a_table_that_is_missing_or_another_one(bucket: Bucket, manifest: Manifest) -> None:
    key = batches.pairs_key(manifest)
    bucket.put_bytes(key, b"another table")
    with pytest.raises(BatchBroken, match="not the table"):
        list(read_pairs(bucket, "spring"))
    bucket.delete([key])
    with pytest.raises(BatchBroken, match="missing"):
        inspect(bucket, manifest)
    assert not batches.is_whole(bucket, manifest)


def test_inspection_finds_what_is_missing_or_damaged(bucket: Bucket, manifest: Manifest) -> None:
    found = inspect(bucket, manifest)
    assert (found.pictures, found.hashed, found.whole) == (3, 3, True)
    first, second, _ = read_pairs(bucket, "spring")
    bucket.delete([first.image_key])
    bucket.put_bytes(second.image_key, b"damaged")
    found = inspect(bucket, manifest)
    assert found.missing == (first.image_key,)
    assert found.damaged == (second.image_key,)
    assert not found.whole


def test_inspection_asks_for_all_and_hashes_some(tmp_path: Path, bucket: Bucket) -> None:
    manifest = ingest(make_delivery(tmp_path / "more", 30), None, bucket, ATTRIBUTES).manifest
    found = inspect(bucket, manifest, hashed=7)
    assert found.pictures == 30
    assert 6 <= found.hashed <= 7


def test_the_table_is_written_in_groups(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    writer = batches.TableWriter(path, batches.quarantine_schema())
    for row in range(2500):
        writer.add(
            {"batch": "b", "file_name": None, "row": row, "reason": "r", "detail": "d"}
            | {"caption": None}
        )
    writer.close()
    file = pq.ParquetFile(path)
    assert (file.metadata.num_rows, file.num_row_groups) == (2500, 3)
