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
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from cf_lab_resources.images import ImageRefused, Limits, NormalisedImage, normalise

MAX_PROCESSES = 8  # one thread reads the rows for all, and would be waited for

Picture = tuple[str, bytes]  # what messages call it, and the file's bytes
Result = NormalisedImage | ImageRefused


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
    answers: list[NormalisedImage | tuple[str, str]] = pickle.load(back)
    return [
        ImageRefused(*answer)
        if isinstance(answer, tuple)
        else replace(answer, png=answer.png or data)
        for (_, data), answer in zip(question.pictures, answers, strict=True)
    ]


def _answer(question: _Question) -> list[NormalisedImage | tuple[str, str]]:
    """Without the bytes of pictures that keep theirs, which the asker has."""
    results = normalise_all(question.pictures, question.limits)
    return [
        (result.reason, result.detail)
        if isinstance(result, ImageRefused)
        else replace(result, png=b"" if result.png == data else result.png)
        for (_, data), result in zip(question.pictures, results, strict=True)
    ]


def _serve(asked: BinaryIO, answers: BinaryIO) -> None:
    while True:
        try:
            question = pickle.load(asked)
        except EOFError:
            return
        pickle.dump(_answer(question), answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()


if __name__ == "__main__":
    # Pickle names classes by the module that the asker knows, which this one is not as `__main__`.
    from cf_lab_resources import decoders

    decoders._serve(sys.stdin.buffer, sys.stdout.buffer)
