"""Pictures normalised in processes of their own, since Pillow holds Python's lock half of the time.

Each process is this module run as a program: it reads pickled lists of pictures from its standard
input and answers on its standard output. `multiprocessing` would import the caller's main module
again, which is not ours to ask of every script that takes pictures in.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from cf_lab_resources.images import ImageRefused, Limits, NormalisedImage, normalise

MAX_PROCESSES = 8  # one thread reads the rows for all, and would be waited for

Picture = tuple[str, bytes]  # what messages call it, and the file's bytes
Result = NormalisedImage | ImageRefused
# Plain values, which are pickled in a fraction of the time: what a refusal is made of, or a picture
# in normal form, without the bytes of one that keeps its own, since the asker has them.
_Answer = tuple[str, str] | tuple[bytes, str, int, int, str, int]


def normalise_all(pictures: Sequence[Picture], limits: Limits) -> list[Result]:
    """The normal form of each picture, or why it has none; see `images.normalise`."""
    return [_normalised(name, data, limits) for name, data in pictures]


def _normalised(name: str, data: bytes, limits: Limits) -> Result:
    try:
        return normalise(data, name=name, limits=limits)
    except ImageRefused as refused:
        return refused


class Decoders:
    """Some processes that normalise pictures, for threads to share; close them after use.

    What a process that dies was asked is done in this one, and so is whatever it is asked later: a
    machine that is short of memory ends some process.
    """

    def __init__(self, limits: Limits, processes: int | None = None) -> None:
        self._limits = limits
        count = processes or min(MAX_PROCESSES, os.cpu_count() or 1)
        self._processes = [_start() for _ in range(count)]
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)

    def normalise_all(self, pictures: Sequence[Picture]) -> list[Result]:
        """Like the function of this name; waits for a process that is idle."""
        with self._one() as process:
            try:
                return _ask(process, _Question(list(pictures), self._limits))
            except (OSError, EOFError, pickle.UnpicklingError):
                process.kill()
        return normalise_all(pictures, self._limits)

    @contextmanager
    def _one(self) -> Iterator[subprocess.Popen[bytes]]:
        process = self._idle.get()
        try:
            yield process
        finally:
            self._idle.put(process)

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            process.kill()
            process.communicate()


@dataclass(frozen=True)
class _Question:
    pictures: list[Picture]
    limits: Limits


def _start() -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-m", "cf_lab_resources.decoders"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C is for the asker, who then ends them
    )


def _ask(process: subprocess.Popen[bytes], question: _Question) -> list[Result]:
    to, back = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
    pickle.dump(question, to, protocol=pickle.HIGHEST_PROTOCOL)
    to.flush()
    answers: list[_Answer] = pickle.load(back)
    return [
        ImageRefused(*answer)
        if len(answer) == 2
        else NormalisedImage(answer[0] or data, *answer[1:])
        for (_, data), answer in zip(question.pictures, answers, strict=True)
    ]


def _answer(name: str, data: bytes, limits: Limits) -> _Answer:
    result = _normalised(name, data, limits)
    if isinstance(result, ImageRefused):
        return result.reason, result.detail
    return (
        b"" if result.png == data else result.png,
        result.sha256,
        result.width,
        result.height,
        result.pixels_sha256,
        result.phash,
    )


def _serve(asked: BinaryIO, answers: BinaryIO) -> None:
    while True:
        try:
            question = pickle.load(asked)
        except EOFError:
            return
        results = [_answer(name, data, question.limits) for name, data in question.pictures]
        pickle.dump(results, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()


if __name__ == "__main__":
    # Pickle names classes by the module that the asker knows, which this one is not as `__main__`.
    from cf_lab_resources import decoders

    decoders._serve(sys.stdin.buffer, sys.stdout.buffer)
