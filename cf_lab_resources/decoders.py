"""Pictures normalised and stored, many at a time, in this process or in some of their own.

Pillow holds Python's lock half of the time, and every write hands it over, so that threads alone
leave most of a machine idle. Each process is this module run as a program: it reads pickled lists
of pictures from its standard input and answers on its standard output. `multiprocessing` would
import the caller's main module again, which is not ours to ask of every script that takes
pictures in.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, NamedTuple, cast

from cf_lab_resources.bucket import Bucket, BucketError, content_key, open_bucket
from cf_lab_resources.images import (
    ImageRefused,
    Limits,
    NormalisedImage,
    normalise,
    perceptual_hashes,
)

MAX_PROCESSES = 8  # one thread reads the rows for all, and would be waited for

Named = tuple[str, bytes]  # what messages call a picture, and its file's bytes
Store = Callable[[str, bytes], object]


class StoredPicture(NamedTuple):
    """A picture in normal form; see `images.NormalisedImage`.

    `key` is its place in the bucket, `phash` its perceptual hash.
    """

    key: str
    sha256: str
    width: int
    height: int
    pixels_sha256: str
    phash: int


def picture_key(sha256: str) -> str:
    """The content key of a picture in normal form."""
    return content_key("images", sha256, ".png")


def normalise_all(
    pictures: Sequence[Named], limits: Limits, store: Store | None
) -> list[StoredPicture | ImageRefused]:
    """Normalises pictures and stores each under its key.

    Args:
        pictures: Names for messages, and bytes.
        limits: What is accepted.
        store: Puts bytes under a key; None to store nothing.

    Returns:
        One result for each picture; an error stands for one that is not taken.

    Raises:
        BucketError: The store failed.
    """
    results = [_normalised(name, data, limits) for name, data in pictures]
    images = [result for result in results if isinstance(result, NormalisedImage)]
    hashes = iter(perceptual_hashes(images))
    return [
        result if isinstance(result, ImageRefused) else _stored(result, next(hashes), store)
        for result in results
    ]


def _normalised(name: str, data: bytes, limits: Limits) -> NormalisedImage | ImageRefused:
    try:
        return normalise(data, name=name, limits=limits)
    except ImageRefused as refused:
        return refused


def _stored(image: NormalisedImage, phash: int, store: Store | None) -> StoredPicture:
    key = picture_key(image.sha256)
    if store:
        store(key, image.png)
    return StoredPicture(key, image.sha256, image.width, image.height, image.pixels_sha256, phash)


def store_of(bucket: Bucket | None, *, overwrite: bool) -> Store | None:
    """How pictures are put into a bucket: over those that are there, or only where none is."""
    if bucket is None:
        return None
    return bucket.put_bytes if overwrite else bucket.create


class Decoders:
    """Some processes that do what `normalise_all` does, for threads to share; close them after use.

    What a process that dies was asked is done in this one, and so is whatever it is asked later: a
    machine that is short of memory ends some process.

    Args:
        limits: What is accepted.
        bucket: Where pictures are stored, None for nowhere. A bucket in memory can't be shared.
        overwrite: Whether a picture that is there already is written again.
        processes: How many; None for one for each processor.
    """

    def __init__(
        self,
        limits: Limits,
        bucket: Bucket | None,
        *,
        overwrite: bool = False,
        processes: int | None = None,
    ) -> None:
        self._limits = limits
        self._store = store_of(bucket, overwrite=overwrite)
        task = _Task(limits, bucket.root if bucket else None, overwrite)
        count = processes or min(MAX_PROCESSES, os.cpu_count() or 1)
        self._processes = [_start() for _ in range(count)]
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for process in self._processes:
            _send(task, cast(BinaryIO, process.stdin))
            self._idle.put(process)

    def normalise_all(self, pictures: Sequence[Named]) -> list[StoredPicture | ImageRefused]:
        """Like the function of this name; waits for a process that is idle."""
        process = self._idle.get()
        try:
            _send(pictures, cast(BinaryIO, process.stdin))
            answer = pickle.load(cast(BinaryIO, process.stdout))
        except (OSError, EOFError, pickle.UnpicklingError):
            process.kill()
            return normalise_all(pictures, self._limits, self._store)
        finally:
            self._idle.put(process)
        if isinstance(answer, str):
            raise BucketError(answer)
        return cast(list[StoredPicture | ImageRefused], answer)

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            process.kill()
            process.communicate()


class _Task(NamedTuple):
    limits: Limits
    bucket: str | None
    overwrite: bool


def _start() -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OPENBLAS_NUM_THREADS": "1",  # the processes are the threads
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "cf_lab_resources.decoders"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C is for the asker, who then ends them
    )


def _send(what: Any, to: BinaryIO) -> None:
    pickle.dump(what, to, protocol=pickle.HIGHEST_PROTOCOL)
    to.flush()


def serve(asked: BinaryIO, answers: BinaryIO) -> None:
    """Answers until what is asked ends; the message of a store that failed instead of a list."""
    task: _Task = pickle.load(asked)
    bucket = open_bucket(task.bucket) if task.bucket else None
    store = store_of(bucket, overwrite=task.overwrite)
    while True:
        try:
            pictures: Sequence[Named] = pickle.load(asked)
        except EOFError:
            return
        try:
            _send(normalise_all(pictures, task.limits, store), answers)
        except BucketError as error:
            _send(str(error), answers)


if __name__ == "__main__":
    # Pickle names classes by the module that the asker knows, which this one is not as `__main__`.
    from cf_lab_resources import decoders

    decoders.serve(sys.stdin.buffer, sys.stdout.buffer)
