from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cf_lab_resources.bucket import (
    Bucket,
    BucketError,
    BucketKeyError,
    ContentDamaged,
    ContentKey,
    ObjectInfo,
    check_key,
    content_key,
    open_bucket,
    parse_content_key,
)


@pytest.fixture(params=["file", "memory", "s3"])
def bucket(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Bucket:
    if request.param == "file":
        return open_bucket((tmp_path / "a bucket").as_uri())
    if request.param == "memory":
        return open_bucket("memory://")
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_endpoint"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    prefix = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]
    return open_bucket(f"s3://lab/tests/{prefix}")


def test_what_is_put_is_read_back_and_a_second_put_replaces_it(bucket: Bucket) -> None:
    bucket.put_bytes("a/b.bin", b"first")
    bucket.put_bytes("a/b.bin", b"second")
    assert bucket.get_bytes("a/b.bin") == b"second"
    assert bucket.size("a/b.bin") == 6
    assert bucket.exists("a/b.bin")


def test_create_leaves_an_object_that_is_there_as_it_is(bucket: Bucket) -> None:
    assert bucket.create("once", b"first") is True
    assert bucket.create("once", b"second") is False
    assert bucket.get_bytes("once") == b"first"


def test_of_many_that_create_at_once_one_wins(bucket: Bucket) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: bucket.create("race", b"%d" % n), range(8)))
    assert sum(won) == 1
    assert bucket.get_bytes("race") == b"%d" % won.index(True)


def test_a_missing_object_is_named_in_the_error(bucket: Bucket) -> None:
    assert not bucket.exists("no/such")
    for read in (bucket.get_bytes, bucket.size):
        with pytest.raises(BucketKeyError, match="no/such"):
            read("no/such")


def test_list_goes_by_whole_segments(bucket: Bucket) -> None:
    for key in ("a/b/one", "a/b/two", "a/bc/three", "four"):
        bucket.put_bytes(key, b"x" * len(key))
    assert sorted(o.key for o in bucket.list("a/b")) == ["a/b/one", "a/b/two"]
    assert sorted(o.key for o in bucket.list("a/b/")) == ["a/b/one", "a/b/two"]
    assert ObjectInfo("four", 4) in set(bucket.list())
    assert list(bucket.list("nothing")) == []


def test_list_reaches_past_one_page(bucket: Bucket) -> None:
    keys = {f"many/{n:04d}" for n in range(1100)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: bucket.put_bytes(key, b""), keys))
    assert {o.key for o in bucket.list("many")} == keys
    bucket.delete(keys)
    assert list(bucket.list("many")) == []


def test_delete_passes_over_what_is_not_there(bucket: Bucket) -> None:
    bucket.put_bytes("a", b"")
    bucket.put_bytes("b", b"")
    bucket.delete(["gone", "a", "a"])
    assert [o.key for o in bucket.list()] == ["b"]
    bucket.delete([])


def test_files_travel_whole_in_both_directions(bucket: Bucket, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(12 * 2**20 + 7))  # more than one part of a multipart upload
    bucket.put_file("models/weights.bin", source)
    target = tmp_path / "new folder" / "target.bin"
    bucket.get_file("models/weights.bin", target)
    assert target.read_bytes() == source.read_bytes()
    assert [p.name for p in target.parent.iterdir()] == ["target.bin"]


def test_a_failed_download_leaves_the_old_file(bucket: Bucket, tmp_path: Path) -> None:
    target = tmp_path / "target.bin"
    target.write_bytes(b"old")
    with pytest.raises(BucketKeyError):
        bucket.get_file("gone", target)
    assert target.read_bytes() == b"old"


def test_content_is_stored_once_under_its_hash(bucket: Bucket) -> None:
    key = bucket.put_content("images", b"pixels", ".png")
    assert bucket.put_content("images", b"pixels", ".png") == key
    parsed = parse_content_key(key)
    assert parsed == ContentKey("images", hashlib.sha256(b"pixels").hexdigest(), ".png")
    assert bucket.get_bytes(key) == b"pixels"
    assert len(list(bucket.list("objects/images"))) == 1


@pytest.mark.parametrize("damage", [b"pixelz", b"pix", b""])
def test_damaged_content_is_told_and_mended_by_storing_it_again(
    bucket: Bucket, damage: bytes
) -> None:
    key = bucket.put_content("images", b"pixels", ".png")
    assert bucket.is_intact(key)
    assert bucket.get_content(key) == b"pixels"
    bucket.put_bytes(key, damage)
    assert not bucket.is_intact(key)
    with pytest.raises(ContentDamaged, match=f"{key}.*run again"):
        bucket.get_content(key)
    assert bucket.put_content("images", b"pixels", ".png") == key
    assert bucket.get_content(key) == b"pixels"
    bucket.delete([key])
    assert not bucket.is_intact(key)
    with pytest.raises(BucketKeyError):
        bucket.get_content(key)


@pytest.mark.parametrize("key", ["a b/c.png", "ü/日本.png", "a=1/b@2+3,4", "x" * 200])
def test_a_key_that_passes_the_check_keeps_its_name(bucket: Bucket, key: str) -> None:
    bucket.put_bytes(key, b"1")
    assert [o.key for o in bucket.list()] == [key]
    assert bucket.get_bytes(key) == b"1"


@pytest.mark.parametrize(
    "key",
    [
        *["", "/a", "a/", "a//b", ".", "a/../b", "a/./b", "a\nb", "a\0b", "a\\b", "a#1", "a*"],
        *["x" * 201, "x/" * 512 + "y"],
    ],
)
def test_a_key_that_some_store_would_change_is_refused(bucket: Bucket, key: str) -> None:
    for use in (bucket.get_bytes, bucket.exists, bucket.url, lambda k: bucket.delete([k])):
        with pytest.raises(ValueError, match="key"):
            use(key)
    with pytest.raises(ValueError, match="key"):
        bucket.put_bytes(key, b"")


@given(
    kind=st.from_regex(r"[a-z][a-z0-9_-]*", fullmatch=True),
    sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    suffix=st.from_regex(r"(\.[a-z0-9]+)*", fullmatch=True),
)
def test_content_keys_make_the_round_trip(kind: str, sha256: str, suffix: str) -> None:
    key = content_key(kind, sha256, suffix)
    assert parse_content_key(key) == ContentKey(kind, sha256, suffix)
    assert str(parse_content_key(key)) == key


@pytest.mark.parametrize(
    "key",
    [
        "objects/images/ab/" + "a" * 64,  # wrong fan-out folder
        "objects/images/aa/" + "A" * 64,
        "objects/images/aa/" + "a" * 63,
        "other/images/aa/" + "a" * 64,
        "objects/images/aa/" + "a" * 64 + "\n",
    ],
)
def test_what_is_not_a_content_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="content key"):
        parse_content_key(key)


def test_url_names_the_object(tmp_path: Path) -> None:
    bucket = open_bucket(tmp_path.as_uri())
    bucket.put_bytes("a b/c", b"1")
    assert bucket.url("a b/c") == (tmp_path / "a b" / "c").as_uri()
    assert open_bucket("memory://").url("k") == "memory://k"


@pytest.mark.parametrize("url", ["", "bucket", "file://relative/x", "http://x/y", "s3:///x"])
def test_an_url_of_no_known_form_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="a bucket is"):
        open_bucket(url)


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BucketError, match="cannot be made"):
        open_bucket((tmp_path / "file" / "bucket").as_uri())


def test_a_missing_s3_bucket_is_told_from_a_missing_object(
    s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with pytest.raises(BucketError, match="no such bucket"):
        open_bucket("s3://nowhere/x").get_bytes("k")


WRITER = """
import sys
from cf_lab_resources.bucket import open_bucket
bucket = open_bucket(sys.argv[1])
print("ready", flush=True)
while True:
    for letter in b"ab":
        bucket.put_bytes("object", bytes([letter]) * 30_000_000)
"""


LIMITED = """
import resource, sys
from pathlib import Path
from cf_lab_resources.bucket import BucketError, open_bucket
bucket, data = open_bucket(sys.argv[1]), bytes(5000)
Path(sys.argv[2]).write_bytes(data)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
for write in (
    lambda: bucket.put_content("images", data, ".png"),
    lambda: bucket.put_bytes("a/b", data),
    lambda: bucket.put_file("a/c", Path(sys.argv[2])),
):
    try:
        write()
    except BucketError as error:
        print(error)
"""


def test_a_write_that_the_disk_refuses_says_where_and_leaves_nothing(tmp_path: Path) -> None:
    """The kernel refuses it in the middle of the file, as it does on a full disk."""
    folder = tmp_path / "bucket"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, folder.as_uri(), tmp_path / "file"],
        capture_output=True,
        text=True,
    )
    said = done.stdout.splitlines()
    assert len(said) == 3, done
    for line, key in zip(said, ("objects/images/", "a/b", "a/c"), strict=True):
        assert line.startswith(f"{folder.as_uri()}: '{key}")
        assert "File too large" in line
        assert line.endswith("; make room there and run again")
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_a_writer_killed_in_the_middle_leaves_a_whole_object(tmp_path: Path) -> None:
    bucket = open_bucket(tmp_path.as_uri())
    bucket.put_bytes("object", b"a" * 30_000_000)
    for delay in (0.0, 0.02, 0.05):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path.as_uri()], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
        data = bucket.get_bytes("object")
        assert len(data) == 30_000_000
        assert len(set(data)) == 1
        assert check_key(next(bucket.list()).key) == "object"
        assert len(list(bucket.list())) == 1
