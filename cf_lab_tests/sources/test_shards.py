from __future__ import annotations

import gzip
import io
import json
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cf_lab_assets.sources import intake
from cf_lab_assets.sources.batches import read_pairs, read_quarantine, stored_batches
from cf_lab_assets.sources.ingest import IngestResult, ingest, ingest_from_bucket
from cf_lab_assets.sources.refusals import DeliveryRefused
from cf_lab_assets.sources.shards import _Member
from cf_lab_resources.bucket import Bucket, open_bucket
from cf_lab_resources.images import Limits
from cf_lab_tests.sources.conftest import ATTRIBUTES, png
from cf_lab_tests.sources.test_ingest import contents

Member = tuple[str, bytes]


def sample(number: int, **columns: object) -> list[Member]:
    key = f"{number:04d}"
    members = [(f"{key}.png", png(number)), (f"{key}.txt", f"person {number}".encode())]
    return members + ([(f"{key}.json", json.dumps(columns).encode())] if columns else [])


def tar(path: Path, members: list[Member | tarfile.TarInfo]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return path


def good(*numbers: int) -> list[Member]:
    return [member for number in numbers or (0, 1, 2) for member in sample(number)]


def take(path: Path, bucket: Bucket, **options: object) -> IngestResult:
    return ingest(path, None, bucket, ATTRIBUTES, **options)


def refused_sample(
    tmp_path: Path, bucket: Bucket, members: list[Member | tarfile.TarInfo], **options: object
) -> tuple[str, str]:
    """The reason and detail of the one bad sample after two good ones."""
    result = take(tar(tmp_path / "spring.tar", [*good(0, 1), *members]), bucket, **options)
    assert (result.rows, result.quarantined) == (2, 1)
    (row,) = read_quarantine(bucket, "spring")
    assert row.row == 3
    return row.reason, row.detail


def test_one_shard_becomes_a_batch_of_its_name(tmp_path: Path, bucket: Bucket) -> None:
    members = [*sample(0, gender="woman", note="x", tags=[1]), *sample(1), *sample(2)]
    result = take(tar(tmp_path / "spring.tar", members), bucket)
    assert (result.batch, result.rows, result.quarantined) == ("spring", 3, 0)
    assert result.manifest.kind == "WebDataset"
    first, second, _ = read_pairs(bucket, "spring")
    assert (first.file_name, first.caption) == ("spring.tar/0000.png", "person 0")
    assert first.attributes == {"gender": "woman"}
    assert first.extra == {"note": "x", "tags": "[1]"}
    assert second.attributes == second.extra == {}
    assert bucket.get_bytes(first.image_key or "") == png(0)  # in normal form, so its own bytes


def test_many_shards_packed_or_not_give_the_same_pictures(tmp_path: Path, bucket: Bucket) -> None:
    folder = tmp_path / "many"
    tar(folder / "a" / "0.tar", good(0, 1))
    packed = gzip.compress(tar(tmp_path / "1.tar", good(2, 3)).read_bytes())
    (folder / "a" / "1.tar.gz").write_bytes(packed)
    result = take(folder, bucket)
    assert (result.rows, result.manifest.images) == (4, 4)
    assert [pair.file_name for pair in read_pairs(bucket, "many")] == [
        "a/0.tar/0000.png",
        "a/0.tar/0001.png",
        "a/1.tar.gz/0002.png",
        "a/1.tar.gz/0003.png",
    ]


def test_a_shard_in_an_object_store_is_read_as_one_on_disk(tmp_path: Path, bucket: Bucket) -> None:
    path = tar(tmp_path / "spring.tar", good())
    expected = take(path, bucket)
    store = open_bucket("memory://")
    store.put_file("incoming/spring/spring.tar", path)
    result = ingest_from_bucket(store, "incoming/spring", ATTRIBUTES)
    assert result.content_hash == expected.content_hash


def test_the_shards_of_the_webdataset_library_are_read(tmp_path: Path, bucket: Bucket) -> None:
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "spring.tar")) as writer:
        for number in range(3):
            writer.write(
                {"__key__": f"x/{number}", "png": png(number), "json": {"caption": f"p {number}"}}
            )
    take(tmp_path / "spring.tar", bucket)
    assert [pair.caption for pair in read_pairs(bucket, "spring")] == ["p 0", "p 1", "p 2"]


def test_a_caption_may_be_in_the_json_and_what_is_not_read_is_named(
    tmp_path: Path, bucket: Bucket
) -> None:
    members = [
        ("./0.PNG", png(0)),
        ("./0.json", b'{"text": "one", "caption": "two"}'),
        ("./0.cls", b"7"),
        ("./._0.png", b"a hidden file of a Mac"),
    ]
    take(tar(tmp_path / "spring.tar", members), bucket)
    (pair,) = read_pairs(bucket, "spring")
    assert (pair.file_name, pair.caption) == ("spring.tar/0.PNG", "one")
    assert pair.extra == {"caption": "two", "members_not_read": "'cls'"}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("9.txt", b"a person")], "missing_picture"),
        ([("9.png", png(9))], "missing_caption"),
        ([("9.png", png(9)), ("9.json", b'{"note": "x"}')], "missing_caption"),
        ([("9.png", png(9)), ("9.txt", b" ")], "empty_caption"),
        ([("9.png", png(9)), ("9.txt", b"caf\xe9")], "not_utf8"),
        ([("9.png", png(9)), ("9.json", b"[1]")], "malformed_row"),
        ([("9.png", png(9)), ("9.json", b'{"text": 1}')], "malformed_row"),
        ([("9.png", png(9)), ("9.jpg", png(8)), ("9.txt", b"x")], "two_pictures"),
        ([("9.png", b"no picture"), ("9.txt", b"x")], "not_an_image"),
        ([("9.png", png(9)), ("9.txt", b"x" * (1024 * 1024 + 1))], "too_many_bytes"),
        ([("../9.png", png(9)), ("../9.txt", b"x")], "path_escapes"),
        ([("/etc/9.png", png(9)), ("/etc/9.txt", b"x")], "path_escapes"),
        ([("9.png", png(9)), ("9.txt", b"x"), ("9.json", b'{"gender": "no"}')],
         "unknown_attribute_value"),
    ],
)  # fmt: skip
def test_a_bad_sample_is_quarantined(
    tmp_path: Path, bucket: Bucket, members: list[Member], reason: str
) -> None:
    found, detail = refused_sample(tmp_path, bucket, members)
    assert found == reason
    assert detail


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "symlink"),
        (tarfile.LNKTYPE, "symlink"),
        (tarfile.FIFOTYPE, "not_a_file"),
        (tarfile.CHRTYPE, "not_a_file"),
    ],
)
def test_links_and_devices_are_not_followed(
    tmp_path: Path, bucket: Bucket, kind: bytes, reason: str
) -> None:
    link = tarfile.TarInfo("9.png")
    link.type, link.linkname = kind, "0000.png" if kind == tarfile.LNKTYPE else "/etc/passwd"
    found, _ = refused_sample(tmp_path, bucket, [link, ("9.txt", b"x")])
    assert found == reason


def test_a_picture_over_the_limit_is_passed_over_unread(tmp_path: Path, bucket: Bucket) -> None:
    members = [("9.png", bytes(50_000)), ("9.txt", b"x")]
    found, detail = refused_sample(tmp_path, bucket, members, limits=Limits(max_bytes=40_000))
    assert found == "too_many_bytes"
    assert "50,000" in detail


def huge(path: Path) -> None:
    info = tarfile.TarInfo("9.png")
    info.size = 1 << 60
    with path.open("ab") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))


def negative(path: Path) -> None:
    info = tarfile.TarInfo("9.png")
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"\xff" * 10 + b"\x00\x00"  # -65536 in base 256
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    with path.open("ab") as file:
        file.write(bytes(head))


def pax_bomb(path: Path) -> None:
    info = tarfile.TarInfo("9.png")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    with path.open("ab") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))


def edit(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(path.read_bytes())) and None


def unended(then: Callable[[Path], None]) -> Callable[[Path], None]:
    """Takes the end mark off before it spoils the rest."""

    def spoil(path: Path) -> None:
        with tarfile.open(path) as archive:
            last = archive.getmembers()[-1]
        end = last.offset_data + -(-last.size // 512) * 512
        path.write_bytes(path.read_bytes()[:end])
        then(path)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (edit(lambda data: data[:3000]), "cut off"),
        (edit(lambda data: data[:700]), "cut off"),
        (edit(lambda data: b""), "cut off"),
        (edit(lambda data: b"no archive at all" * 100), "cut off"),
        (edit(lambda data: data + data), "joined"),
        (edit(lambda data: gzip.compress(data)[:-200]), "cut off"),
        (unended(lambda path: None), "end mark is missing"),
        (unended(huge), "cut off"),
        (unended(negative), "size of -65,536 bytes"),
        (unended(pax_bomb), "header of"),
        (unended(edit(lambda data: data + b"x" * 1024)), "damaged header"),
    ],
    ids=[
        "body",
        "head",
        "empty",
        "text",
        "joined",
        "packed",
        "end",
        "huge",
        "negative",
        "pax",
        "header",
    ],
)
def test_a_damaged_archive_refuses_the_delivery(
    tmp_path: Path, bucket: Bucket, spoil: Callable[[Path], None], said: str
) -> None:
    path = tar(tmp_path / "spring.tar", good())
    spoil(path)
    with pytest.raises(DeliveryRefused, match=said) as caught:
        take(path, bucket)
    assert caught.value.reason == "damaged_archive"
    assert "spring.tar" in str(caught.value)
    assert stored_batches(bucket) == []


def test_a_packed_bomb_is_passed_over_in_flat_memory(tmp_path: Path, bucket: Bucket) -> None:
    import tracemalloc

    path = tmp_path / "spring.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, size in (("8.png", 200_000_000),):
            info = tarfile.TarInfo(name)
            info.size = size
            with open("/dev/zero", "rb") as zeros:
                archive.addfile(info, zeros)
        for name, data in good():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    try:
        result = take(path, bucket)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (result.rows, result.reasons) == (3, {"too_many_bytes": 1})
    assert peak < 40_000_000


def test_a_long_delivery_gives_the_same_with_processes(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [*good(*range(70)), ("x.png", b"no picture"), ("x.txt", b"x"), *good(*range(71, 120))]
    path = tar(tmp_path / "spring.tar", members)
    alone = take(path, bucket)
    started = []

    class Counted(intake.Decoders):
        def __init__(self, limits: Limits, store: Bucket | None, *, overwrite: bool) -> None:
            super().__init__(limits, store, overwrite=overwrite)
            started.append(self)

    monkeypatch.setattr(intake, "Decoders", Counted)
    monkeypatch.setattr(intake, "ROWS_ALONE", intake.ROWS_AT_ONCE)
    together = ingest(path, "again", bucket, ATTRIBUTES)
    assert len(started) == 1
    assert all(process.poll() is not None for process in started[0]._processes)
    assert together.content_hash == alone.content_hash
    assert together.reasons == {"not_an_image": 1}
    names = [[pair.file_name for pair in read_pairs(bucket, b)] for b in ("spring", "again")]
    assert names[0] == names[1]


def test_a_killed_ingest_of_shards_comes_to_the_same_when_run_again(
    tmp_path: Path, bucket: Bucket
) -> None:
    path = tar(tmp_path / "spring.tar", good(*range(900)))
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from cf_lab_assets.sources.ingest import ingest\n"
        "from cf_lab_resources.bucket import open_bucket\n"
        "def kill(rows):\n"
        "    if rows >= 700:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "ingest(Path(sys.argv[1]), None, open_bucket(sys.argv[2]), {}, progress=kill)\n"
    )
    command = [sys.executable, "-c", program, str(path), (tmp_path / "bucket").as_uri()]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert stored_batches(bucket) == []
    assert take(path, bucket).status == "stored"
    clean = open_bucket((tmp_path / "clean").as_uri())
    take(path, clean)
    assert contents(bucket) == contents(clean)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    "name", ["0.png", "n" * 99, "n" * 100, "n" * 300, "p" * 80 + "/0.png", "ü"]
)
@pytest.mark.parametrize("size", [0, 511, 1 << 30, 1 << 34])
def test_headers_are_read_as_tarfile_reads_them(form: int, name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    try:
        block = info.tobuf(form)[-tarfile.BLOCKSIZE :]
    except ValueError:
        pytest.skip("this format has no room for it")
    found = _Member.frombuf(block, "utf-8", "surrogateescape")
    expected = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    for part in ("name", "size", "type", "linkname"):
        assert getattr(found, part) == getattr(expected, part)
    damaged = block[:20] + b"x" + block[21:]
    with pytest.raises(tarfile.HeaderError):
        _Member.frombuf(damaged, "utf-8", "surrogateescape")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_memory_is_flat_however_many_rows_there_are(tmp_path: Path) -> None:
    # getrusage would count the memory of this process, which the other is forked from.
    program = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from cf_lab_assets.sources.ingest import ingest\n"
        "from cf_lab_resources.bucket import open_bucket\n"
        "ingest(Path(sys.argv[1]), None, open_bucket(sys.argv[2]), {})\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1])\n"
    )
    peaks = []
    for count in (2000, 9500):
        path = tar(tmp_path / f"s{count}.tar", good(*range(count)))
        command = [sys.executable, "-c", program, str(path), (tmp_path / f"{count}").as_uri()]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(ran.stdout) * 1024)
    # The 7500 samples more are 17 MB of pictures and text, and 4 MB of tables.
    assert peaks[1] - peaks[0] < 8_000_000, peaks
