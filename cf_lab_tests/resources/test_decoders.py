from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cf_lab_resources.decoders import Decoders, normalise_all
from cf_lab_resources.images import DEFAULT_LIMITS, ImageRefused, Limits, NormalisedImage
from cf_lab_tests.resources.test_images import encoded, noise

PICTURES = [
    ("a.png", encoded(noise(seed=1))),
    ("b.jpg", encoded(noise(seed=2), "JPEG")),
    ("c.txt", b"no picture"),
    ("d.png", b""),
]


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    decoders = Decoders(DEFAULT_LIMITS, processes=2)
    yield decoders
    decoders.close()


def comparable(results: list[NormalisedImage | ImageRefused]) -> list[object]:
    return [
        (result.reason, result.detail) if isinstance(result, ImageRefused) else result
        for result in results
    ]


def test_processes_answer_as_the_function_does(decoders: Decoders) -> None:
    expected = comparable(normalise_all(PICTURES, DEFAULT_LIMITS))
    assert [type(value) for value in expected] == [NormalisedImage, NormalisedImage, tuple, tuple]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(decoders.normalise_all, [PICTURES] * 8))
    assert [comparable(answer) for answer in answers] == [expected] * 8


def test_the_limits_reach_the_processes() -> None:
    decoders = Decoders(Limits(max_bytes=10), processes=1)
    try:
        (refused,) = decoders.normalise_all(PICTURES[:1])
    finally:
        decoders.close()
    assert isinstance(refused, ImageRefused)
    assert refused.reason == "too_many_bytes"


def test_a_process_that_died_is_done_without() -> None:
    decoders = Decoders(DEFAULT_LIMITS, processes=1)
    try:
        os.kill(decoders._processes[0].pid, signal.SIGKILL)
        expected = comparable(normalise_all(PICTURES, DEFAULT_LIMITS))
        for _ in range(2):
            assert comparable(decoders.normalise_all(PICTURES)) == expected
    finally:
        decoders.close()


def test_processes_end_with_the_one_that_started_them() -> None:
    program = (
        "import os, signal\n"
        "from cf_lab_resources.decoders import Decoders\n"
        "from cf_lab_resources.images import DEFAULT_LIMITS\n"
        "decoders = Decoders(DEFAULT_LIMITS, processes=1)\n"
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
