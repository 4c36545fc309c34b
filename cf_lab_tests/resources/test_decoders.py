from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cf_lab_resources.bucket import Bucket, BucketError, open_bucket
from cf_lab_resources.decoders import Decoders, StoredPicture, normalise_all
from cf_lab_resources.images import DEFAULT_LIMITS, ImageRefused, Limits, normalise
from cf_lab_tests.resources.test_images import encoded, noise

PICTURES = [
    ("a.png", encoded(noise(seed=1))),
    ("b.jpg", encoded(noise(seed=2), "JPEG")),
    ("c.txt", b"no picture"),
    ("d.png", b""),
]


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return open_bucket((tmp_path / "bucket").as_uri())


@pytest.fixture
def decoders(bucket: Bucket) -> Iterator[Decoders]:
    decoders = Decoders(DEFAULT_LIMITS, bucket, processes=2)
    yield decoders
    decoders.close()


def comparable(results: list[StoredPicture | ImageRefused]) -> list[object]:
    return [
        (result.reason, result.detail) if isinstance(result, ImageRefused) else result
        for result in results
    ]


EXPECTED = comparable(normalise_all(PICTURES, DEFAULT_LIMITS, None))


def test_processes_answer_as_the_function_does_and_store(
    decoders: Decoders, bucket: Bucket
) -> None:
    assert [type(value) for value in EXPECTED] == [StoredPicture, StoredPicture, tuple, tuple]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(decoders.normalise_all, [PICTURES] * 8))
    assert [comparable(answer) for answer in answers] == [EXPECTED] * 8
    stored = {info.key: bucket.get_bytes(info.key) for info in bucket.list()}
    normal = [normalise(data) for _, data in PICTURES[:2]]
    assert sorted(stored.values()) == sorted(image.png for image in normal)
    assert set(stored) == {value.key for value in EXPECTED if isinstance(value, StoredPicture)}


def test_the_limits_reach_the_processes(bucket: Bucket) -> None:
    decoders = Decoders(Limits(max_bytes=10), bucket, processes=1)
    try:
        (refused,) = decoders.normalise_all(PICTURES[:1])
    finally:
        decoders.close()
    assert isinstance(refused, ImageRefused)
    assert refused.reason == "too_many_bytes"
    assert list(bucket.list()) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_damaged_picture_is_written_again_only_where_that_is_asked(
    bucket: Bucket, overwrite: bool
) -> None:
    (picture,) = normalise_all(PICTURES[:1], DEFAULT_LIMITS, bucket.create)
    assert isinstance(picture, StoredPicture)
    bucket.put_bytes(picture.key, b"damaged")
    decoders = Decoders(DEFAULT_LIMITS, bucket, overwrite=overwrite, processes=1)
    try:
        decoders.normalise_all(PICTURES[:1])
    finally:
        decoders.close()
    assert (bucket.get_bytes(picture.key) != b"damaged") is overwrite


def test_a_store_that_fails_in_a_process_is_an_error_here(
    decoders: Decoders, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "bucket")
    (tmp_path / "bucket").write_text("in the way")
    with pytest.raises(BucketError, match="objects/images"):
        decoders.normalise_all(PICTURES)


def test_a_process_that_died_is_done_without(bucket: Bucket) -> None:
    decoders = Decoders(DEFAULT_LIMITS, bucket, processes=1)
    try:
        os.kill(decoders._processes[0].pid, signal.SIGKILL)
        for _ in range(2):
            assert comparable(decoders.normalise_all(PICTURES)) == EXPECTED
    finally:
        decoders.close()
    assert len(list(bucket.list())) == 2


def test_processes_end_with_the_one_that_started_them() -> None:
    program = (
        "import os, signal\n"
        "from cf_lab_resources.decoders import Decoders\n"
        "from cf_lab_resources.images import DEFAULT_LIMITS\n"
        "decoders = Decoders(DEFAULT_LIMITS, None, processes=1)\n"
        "decoders.normalise_all([('a', b'')])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # The decoder inherits the standard error that is captured here, which ends only when it does.
    ran = subprocess.run(
        [sys.executable, "-"],
        input=program,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == -signal.SIGKILL
    assert ran.stderr == ""
