"""A package is whole, made once, and finished after a kill."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from cf_lab_assets.counterfactuals.packaging.build import build_package
from cf_lab_assets.counterfactuals.packaging.inspection import verify_folder
from cf_lab_assets.counterfactuals.packaging.manifest import (
    PackageError,
    find_package,
    parse_manifest,
    read_package,
)
from cf_lab_assets.counterfactuals.packaging.shards import PictureDamaged
from cf_lab_assets.counterfactuals.packaging.verification import verify_package
from cf_lab_resources.bucket import open_bucket
from cf_lab_tests.counterfactuals.packaging.conftest import SHARD_BYTES
from cf_lab_tests.releases.sample import publication, write_dataset


@pytest.fixture
def dataset_hash(bucket):
    return write_dataset(bucket, report=False, package=False)


def build(bucket, dataset_hash, publication=None, **options):
    options.setdefault("shard_bytes", SHARD_BYTES)
    return build_package(bucket, dataset_hash, publication or globals()["publication"](), **options)


def test_a_package_holds_what_its_manifest_says_and_no_leftovers(packaged):
    package = packaged.package
    there = {
        info.key.removeprefix(f"{package.prefix}/") for info in packaged.bucket.list("packages")
    }
    listed = {file["path"] for file in package.manifest["files"]}
    pointers = {f"packages/{packaged.dataset_hash}/latest.json", "packages/latest.json"}
    assert there - pointers == listed | {"manifest.json"}
    assert package.manifest["shards"] == 4
    assert package.manifest["pairs"] == 20
    for name in ("README.md", "datasheet.md", "croissant.json", "contact_sheet.png"):
        assert name in listed
    assert (packaged.folder / "manifest.json").exists()


def test_no_set_is_in_two_shards(packaged):
    shards = [
        set(pq.read_table(path, columns=["set_id"]).column("set_id").to_pylist())
        for path in sorted((packaged.folder / "data").iterdir())
    ]
    assert len(shards) == 4
    assert sum(map(len, shards)) == len(set.union(*shards)) == 8


def test_a_package_that_is_there_is_not_made_again(bucket, dataset_hash):
    first = build(bucket, dataset_hash)
    assert first.new
    said = []
    again = build(bucket, dataset_hash, report=said.append)
    assert (again.new, again.sha256, said) == (False, first.sha256, [])
    assert find_package(bucket, dataset_hash).sha256 == first.sha256


def signed_pictures(bucket, package):
    """Rows of a package by pair, with the bytes of their pictures."""
    shards = (
        pq.read_table(io.BytesIO(bucket.get_bytes(f"{package.prefix}/{file['path']}")))
        for file in package.manifest["files"]
        if file["path"].startswith("data/")
    )
    return {row["pair_id"]: row for shard in shards for row in shard.to_pylist()}


def verified(bucket, package):
    found = verify_package(
        lambda path: bucket.get_bytes(f"{package.prefix}/{path}"), package.manifest
    )
    return (found.count, found.faults)


def test_a_larger_dataset_keeps_the_signatures_of_an_earlier_package(bucket, dataset_hash):
    first = build(bucket, dataset_hash)
    said = []
    larger = write_dataset(bucket, sources=6, report=False, package=False)
    second = build(bucket, larger, report=said.append)
    old, new = (signed_pictures(bucket, one) for one in (first, second))
    assert said[-1].endswith(f"{len(new)} pictures signed, {len(new) - len(old)} of them anew")
    assert set(old) < set(new)
    for pair_id, row in old.items():
        assert {**new[pair_id], "batch": None} == {**row, "batch": None}
    assert verified(bucket, second) == (len(new), [])

    from_nothing = open_bucket("memory://")
    write_dataset(from_nothing, sources=6, report=False, package=False)
    other = signed_pictures(from_nothing, build(from_nothing, larger))
    signed = ("image", "signed_sha256")
    for pair_id, row in other.items():
        assert {k: v for k, v in row.items() if k not in signed} == {
            k: v for k, v in new[pair_id].items() if k not in signed
        }


def changed_claim(pairs, sets):
    for row in pairs[:3]:
        row["instruction"] = "make it something else"


def test_a_picture_of_which_something_else_is_claimed_is_signed_anew(bucket, dataset_hash):
    old = signed_pictures(bucket, build(bucket, dataset_hash))
    other = write_dataset(bucket, spoil=changed_claim, report=False, package=False)
    package = build(bucket, other)
    new = signed_pictures(bucket, package)
    assert sum(new[pair]["signed_sha256"] != old[pair]["signed_sha256"] for pair in old) == 3
    assert verified(bucket, package) == (len(old), [])


@pytest.mark.parametrize("damage", ["signer", "form", "file", "gone"])
def test_signatures_of_a_package_that_does_not_fit_are_not_kept(
    bucket, dataset_hash, tmp_path, damage
):
    from cf_lab_resources.credentials.home_key import home_test_key

    first = build(bucket, dataset_hash)
    mine = publication()
    if damage == "signer":
        mine = replace(mine, key=home_test_key(tmp_path / "signing"))
    elif damage == "form":
        manifest = {**first.manifest, "form": "another"}
        bucket.put_bytes(f"{first.prefix}/manifest.json", json.dumps(manifest).encode())
    else:
        for file in first.manifest["files"]:
            key = f"{first.prefix}/{file['path']}"
            if file["path"].startswith("data/") and damage == "file":
                bucket.put_bytes(key, bucket.get_bytes(key)[:-1])
            elif file["path"].startswith("data/"):
                bucket.delete([key])
    larger = write_dataset(bucket, sources=5, report=False, package=False)
    said = []
    package = build(bucket, larger, mine, report=said.append)
    count = package.manifest["pairs"]
    assert said[-1].endswith(f"{count} pictures signed, {count} of them anew")
    assert verified(bucket, package) == (count, [])


def test_another_publisher_licence_or_key_makes_another_package(bucket, dataset_hash, tmp_path):
    from cf_lab_resources.credentials.home_key import home_test_key

    mine = publication()
    prefixes = {
        build(bucket, dataset_hash, one).prefix
        for one in (
            mine,
            replace(mine, license="CC-BY-4.0"),
            replace(mine, publisher="A lab"),
            replace(mine, key=home_test_key(tmp_path / "signing")),
        )
    }
    assert len(prefixes) == 4
    assert find_package(bucket, dataset_hash).manifest["publisher"] is None


def test_a_package_that_lost_a_file_or_its_manifest_is_made_again(bucket, dataset_hash):
    first = build(bucket, dataset_hash)
    bucket.delete([f"{first.prefix}/README.md"])
    second = build(bucket, dataset_hash)
    assert (second.new, second.prefix) == (True, f"{first.prefix}-2")
    assert read_package(bucket, first.prefix).sha256 == first.sha256, "a release may name it"
    assert not build(bucket, dataset_hash).new
    for number, spoil in enumerate((lambda key: bucket.put_bytes(key, b"{"), delete_of(bucket)), 3):
        spoil(f"{find_package(bucket, dataset_hash).prefix}/manifest.json")
        with pytest.raises(PackageError, match="materialise counterfactuals/package"):
            find_package(bucket, dataset_hash)
        assert build(bucket, dataset_hash).prefix == f"{first.prefix}-{number}"


def delete_of(bucket):
    return lambda key: bucket.delete([key])


KILLED = """
import os, signal, sys
from cf_lab_assets.counterfactuals.packaging.build import build_package
from cf_lab_resources.bucket import open_bucket
from cf_lab_resources.publication import Publication
from cf_lab_resources.settings import Settings

def report(line):
    if line.startswith("shard 2 of 4"):
        os.kill(os.getpid(), signal.SIGKILL)

publication = Publication.from_settings(Settings.from_env())
build_package(open_bucket(sys.argv[1]), sys.argv[2], publication, report, int(sys.argv[3]))
"""


def test_a_run_that_was_killed_goes_on_after_the_last_whole_shard(
    bucket, dataset_hash, tmp_path, monkeypatch
):
    from cf_lab_resources.publication import Publication
    from cf_lab_resources.settings import Settings

    monkeypatch.setenv("CF_LAB_HOME", str(tmp_path / "home"))
    url = (tmp_path / "bucket").as_uri()
    done = subprocess.run([sys.executable, "-c", KILLED, url, dataset_hash, str(SHARD_BYTES)])
    assert done.returncode == -signal.SIGKILL
    assert find_package(bucket, dataset_hash) is None
    left = {
        info.key: bucket.get_bytes(info.key)
        for info in bucket.list("packages")
        if "/data/" in info.key or "/shards/" in info.key
    }
    assert len(left) == 4

    package = build(bucket, dataset_hash, Publication.from_settings(Settings.from_env()))
    assert package.new
    for key, data in left.items():
        assert bucket.get_bytes(key) == data, "a finished shard is not signed again"
    assert not list(bucket.list(f"{package.prefix}/parts"))
    assert verify_folder(tmp_path / "bucket" / package.prefix).faults == []


def test_a_damaged_or_lost_picture_is_not_signed(bucket, dataset_hash):
    key = next(info.key for info in bucket.list("objects/images"))
    before = bucket.get_bytes(key)
    bucket.put_bytes(key, before + b"x")
    with pytest.raises(PictureDamaged, match="is not the picture with SHA-256"):
        build(bucket, dataset_hash)
    bucket.delete([key])
    with pytest.raises(PictureDamaged, match="restore the bucket"):
        build(bucket, dataset_hash)
    assert find_package(bucket, dataset_hash) is None
    bucket.put_bytes(key, before)
    assert build(bucket, dataset_hash).new


def test_a_dataset_that_is_not_there_is_named(bucket):
    with pytest.raises(PackageError, match=r"datasets/f{64}/manifest\.json.*dataset first"):
        build(bucket, "f" * 64)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 99}, "format is 99"),
        ({"files": [{"path": "../x", "sha256": "", "bytes": 1}]}, "not inside"),
        ({"files": [{"path": "/etc/passwd", "sha256": "", "bytes": 1}]}, "not inside"),
        ({"files": [{"path": "x"}]}, "not a package's manifest"),
        ({"files": 3}, "not a package's manifest"),
        ({"signer": None}, "signer is missing"),
    ],
)
def test_a_manifest_is_read_with_suspicion(packaged, change, says):
    changed = {**packaged.package.manifest, **change}
    kept = {name: value for name, value in changed.items() if value is not None or name != "signer"}
    with pytest.raises(ValueError, match=says):
        parse_manifest(json.dumps(kept).encode())


def test_the_sidecar_says_where_each_picture_is_from(packaged):
    records = [
        json.loads(line)
        for path in sorted((packaged.folder / "provenance").iterdir())
        for line in path.read_text().splitlines()
    ]
    assert len(records) == 20
    for record in records:
        assert record["edit"]["edit_id"] == record["pair_id"]
        assert record["source"]["batch_sha256"] == "b" * 64
        assert record["noise_seed"] in range(4)
        assert record["scores"]["cits"] == 0.8
        assert record["dataset"] == packaged.dataset_hash
        assert (packaged.folder / record["file"]).exists()
