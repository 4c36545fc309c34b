from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cf_lab_assets.sources import deliveries
from cf_lab_assets.sources.deliveries import BucketDelivery, FolderDelivery, fingerprint, safe_name
from cf_lab_assets.sources.refusals import DeliveryRefused, RowRefused
from cf_lab_resources.bucket import Bucket, open_bucket
from cf_lab_resources.images import ImageRefused, Limits
from cf_lab_tests.sources.conftest import make_delivery


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [
        ("a.png", "a.png"),
        (" images/a b.png ", "images/a b.png"),
        ("./images//a.png", "images/a.png"),
        ("images\\a.png", "images/a.png"),
        ("..a.png", "..a.png"),
        ("ünï/ö.png", "ünï/ö.png"),
    ],
)
def test_names_have_one_spelling(given_name: str, expected: str) -> None:
    assert safe_name(given_name) == expected


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../a.png", "path_escapes"),
        ("images/../../a.png", "path_escapes"),
        ("images\\..\\a.png", "path_escapes"),
        ("/etc/passwd", "path_escapes"),
        ("\\\\server\\share\\a.png", "path_escapes"),
        ("C:\\a.png", "path_escapes"),
        ("c:a.png", "path_escapes"),
        ("a\x00.png", "bad_file_name"),
        ("a\n.png", "bad_file_name"),
        ("", "missing_file_name"),
        (" ./ ", "missing_file_name"),
        ("./c:a.png", "path_escapes"),
        (". \\", "bad_file_name"),
        ("./ a.png", "bad_file_name"),
    ],
)
def test_names_that_are_refused(name: str, reason: str) -> None:
    with pytest.raises(RowRefused) as caught:
        safe_name(name)
    assert caught.value.reason == reason


@given(st.text(alphabet="./\\ab:\x00 ", max_size=12) | st.text(max_size=20))
def test_no_name_leads_out_of_the_delivery(name: str) -> None:
    try:
        safe = safe_name(name)
    except RowRefused:
        return
    path = PurePosixPath("/delivery") / safe
    assert ".." not in path.parts
    assert path.parts[:2] == ("/", "delivery")
    assert safe_name(safe) == safe


def in_memory(folder: Path) -> BucketDelivery:
    bucket = open_bucket("memory://")
    for name, _ in FolderDelivery(folder).files():
        bucket.put_file(f"incoming/spring/{name}", folder / name)
    return BucketDelivery(bucket, "incoming/spring/")


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_folder_and_bucket_give_the_same_files(folder: Path, place: str) -> None:
    delivery = FolderDelivery(folder) if place == "folder" else in_memory(folder)
    files = dict(delivery.files())
    assert sorted(files) == ["images/0.png", "images/1.png", "images/2.png", "metadata.csv"]
    assert files["metadata.csv"] == (folder / "metadata.csv").stat().st_size
    data = (folder / "images/1.png").read_bytes()
    assert delivery.read("images/1.png", Limits()) == data
    with delivery.open("metadata.csv") as file:
        content = (folder / "metadata.csv").read_bytes()
        assert file.read() == content
        assert file.seek(5) == 5
        assert file.read(4) == content[5:9]
    for name, limits, reason in (
        ("images/9.png", Limits(), "missing_file"),
        ("images/1.png", Limits(max_bytes=len(data) - 1), "too_many_bytes"),
    ):
        with pytest.raises(ImageRefused) as caught:
            delivery.read(name, limits)
        assert caught.value.reason == reason


def test_hidden_files_are_not_of_the_delivery(folder: Path) -> None:
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "images" / "._0.png").write_bytes(b"x")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "a.png").write_bytes(b"x")
    assert len(list(FolderDelivery(folder).files())) == 4
    bucket = open_bucket("memory://")
    bucket.put_bytes("incoming/x/.tmp/a.png", b"x")
    bucket.put_bytes("incoming/x/a.png", b"x")
    assert list(BucketDelivery(bucket, "incoming/x").files()) == [("a.png", 1)]


def test_links_are_neither_listed_nor_followed(folder: Path) -> None:
    secret = folder.parent / "secret"
    secret.mkdir()
    (secret / "a.png").write_bytes(b"private")
    (folder / "link.png").symlink_to(secret / "a.png")
    (folder / "deep").symlink_to(secret)
    (folder / "images" / "loop").symlink_to(folder)
    delivery = FolderDelivery(folder)
    assert len(list(delivery.files())) == 4
    for name in ("link.png", "deep/a.png", "images/loop/images/0.png"):
        with pytest.raises((RowRefused, ImageRefused)) as caught:
            delivery.read(name, Limits())
        assert caught.value.reason == "symlink"


def test_a_local_bucket_is_read_as_a_folder_so_that_links_are_not_followed(
    bucket: Bucket, tmp_path: Path
) -> None:
    incoming = tmp_path / "bucket" / "incoming"
    make_delivery(incoming / "spring")
    (incoming / "spring" / "loop").symlink_to(incoming)  # obstore's own listing fails on this
    (incoming / "elsewhere").symlink_to(tmp_path)
    (incoming / "loose.png").write_bytes(b"x")
    ((name, delivery),) = deliveries.delivered(bucket)
    assert name == "spring"
    assert isinstance(delivery, FolderDelivery)
    assert len(list(delivery.files())) == 4
    with pytest.raises(DeliveryRefused, match="symbolic link"):
        deliveries.in_bucket(bucket, "incoming/elsewhere")


def test_deliveries_of_an_object_store_are_its_prefixes() -> None:
    bucket = open_bucket("memory://")
    assert list(deliveries.delivered(bucket)) == []
    for key in ("b/metadata.csv", "a/x/1.png", "loose.png", ".tmp/a.png"):
        bucket.put_bytes(f"incoming/{key}", b"x")
    assert [name for name, _ in deliveries.delivered(bucket)] == ["a", "b"]


def test_a_local_bucket_without_incoming_has_no_deliveries(bucket: Bucket) -> None:
    assert list(deliveries.delivered(bucket)) == []


def test_the_fingerprint_is_of_names_and_sizes_in_any_order() -> None:
    mark = fingerprint([("a", 1), ("b", 2)])
    assert mark == fingerprint([("b", 2), ("a", 1)])
    assert mark != fingerprint([("a", 1), ("b", 3)])
    assert mark != fingerprint([("a", 1), ("c", 2)])
    assert mark != fingerprint([("a", 1)])


def test_a_file_name_that_is_not_utf8_can_be_listed(folder: Path) -> None:
    (Path(str(folder)) / "caf\udce9.png").write_bytes(b"x")
    assert fingerprint(FolderDelivery(folder).files())
