"""Drawing that is killed at any moment, runs out of disk, or loses its bucket: it goes on later.

The starter editor draws a small batch in processes of their own, forked from one that has
imported everything.
"""

import contextlib
import json
import multiprocessing
import os
import random
import resource
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from cf_lab_assets.counterfactuals import dataset, drawing, generation, planning, rounds, tables
from cf_lab_assets.counterfactuals.plan import Planner
from cf_lab_assets.counterfactuals.rewrite import Rewriter
from cf_lab_assets.counterfactuals.taxonomy import default_taxonomy
from cf_lab_assets.models import artifacts
from cf_lab_assets.sources.ingest import ingest
from cf_lab_assets.starter import world
from cf_lab_assets.starter.portraits import write_image_folder
from cf_lab_resources.bucket import open_bucket
from cf_lab_resources.engine.editors import EditorSettings
from cf_lab_resources.errors import LabError

BATCH = "few"
CHUNKS = f"counterfactuals/{BATCH}/chunks"
SETTINGS = EditorSettings()
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["cf_lab_tests.faults.warm", __name__])
END_SECONDS = 120
SANE_SECONDS = 60  # to give up on a store that can't be reached


def draw(url, told, environ=(), file_bytes=0):
    """Draw the batch, a source a chunk, and write its tables; run in a process of its own.

    Tells of each chunk that it begins, ``loaded`` before the first, and how it ended.
    """
    os.environ.update(environ)
    if file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
        tables.SMALL_BYTES = 0  # as of a large table: it is copied to the scratch disk

    def load():
        models = generation.Loaded(artifacts.load_editor(SETTINGS), artifacts.load_judge(), "e1")
        told.send(("loaded", ""))
        return models

    make_chunk = generation.make_chunk

    def make_and_tell(edits, *args):
        told.send(("begun", edits[0]["source_id"]))
        return make_chunk(edits, *args)

    generation.make_chunk = make_and_tell
    try:
        bucket = open_bucket(url)
        generator = generation.Generator(bucket, BATCH, load, {}, SETTINGS, 2)
        with tables.staged(*drawing.TABLES) as staged:
            draws = drawing.Drawing(generator, staged, chunk_sources=1)
            for _ in rounds.draw_batch(bucket, BATCH, draws, None):
                pass
            dataset.write_made_with(bucket, BATCH, {}, {})
            for table in drawing.TABLES:
                staged.put(bucket, BATCH, table)
    except LabError as error:
        told.send(("failed", f"{type(error).__name__}: {error}"))
    else:
        told.send(("done", ""))


class Attempt:
    """One process that draws."""

    def __init__(self, url, environ=(), file_bytes=0):
        self._told, there = FORKS.Pipe(duplex=False)
        self._process = FORKS.Process(target=draw, args=(url, there, environ, file_bytes))
        self._process.start()
        there.close()
        self.begun = []

    def next(self):
        """What it tells next; None when it has ended."""
        try:
            what, text = self._told.recv()
        except EOFError:
            return None, ""
        if what == "begun":
            self.begun.append(text)
        return what, text

    def end(self):
        """How it ended by itself."""
        ended, text = None, ""
        while (told := self.next())[0]:
            ended, text = told
        self._process.join(END_SECONDS)
        return ended, text

    def kill(self):
        """Whether it was still there to be killed."""
        os.kill(self._process.pid, signal.SIGKILL)
        self.end()
        return self._process.exitcode == -signal.SIGKILL


def planned(url, portraits):
    """A bucket in which a batch is planned."""
    bucket = open_bucket(url)
    ingest(portraits, BATCH, bucket, world.ATTRIBUTES)
    planner = Planner(Rewriter(default_taxonomy()), list(world.ATTRIBUTES))
    planning.write_plan(bucket, BATCH, planner, None, {})
    return bucket


def finished(bucket):
    """Rows of each finished chunk, by source."""
    chunks = [bucket.get_bytes(info.key).splitlines() for info in bucket.list(CHUNKS)]
    rows = [[json.loads(line) for line in chunk] for chunk in chunks]
    return {chunk[0]["source_id"]: chunk for chunk in rows}


def written(bucket):
    """When each picture and chunk was written, in nanoseconds, by key."""
    folder = Path(bucket.root.removeprefix("file://"))
    keys = [info.key for prefix in ("objects", CHUNKS) for info in bucket.list(prefix)]
    return {key: (folder / key).stat().st_mtime_ns for key in keys}


def nothing_is_half_written(bucket):
    assert all(bucket.is_intact(info.key) for info in bucket.list("objects"))
    assert all(chunk for chunk in finished(bucket).values())


def same_as(bucket, other):
    """Whether two buckets hold the same pictures, each once and whole, and the same dataset."""
    nothing_is_half_written(bucket)
    keys = [sorted(info.key for info in one.list("objects")) for one in (bucket, other)]
    assert keys[0] == keys[1]
    for table in drawing.TABLES:
        assert tables.read_rows(bucket, BATCH, table) == tables.read_rows(other, BATCH, table)
    made = [dataset.build_dataset(one, [BATCH]).content_hash for one in (bucket, other)]
    return made[0] == made[1]


@pytest.fixture(scope="module")
def portraits(tmp_path_factory):
    def of(count):
        folder = tmp_path_factory.mktemp("sources") / "portraits"
        write_image_folder(folder, count, seed=17)
        return folder

    return of


@pytest.fixture(scope="module")
def few(portraits):
    return portraits(6)


@pytest.fixture(scope="module")
def undisturbed(few, tmp_path_factory):
    bucket = planned(f"file://{tmp_path_factory.mktemp('undisturbed')}/bucket", few)
    assert Attempt(bucket.root).end() == ("done", "")
    return bucket


def kill_again_and_again(bucket, kills, seconds_a_chunk, seed=3):
    """Kill drawing at random moments; how many of the attempts were in the middle of a chunk."""
    moments, amid = random.Random(seed), 0
    for _ in range(kills):
        before, stamps = finished(bucket), written(bucket)
        attempt = Attempt(bucket.root)
        # A fifth die while they load, the others up to a chunk and a half after they have.
        if moments.random() < 0.2:
            time.sleep(moments.uniform(0.0, 0.5))
        else:
            assert attempt.next()[0] == "loaded"
            time.sleep(moments.uniform(0.0, 0.7 * seconds_a_chunk))
        assert attempt.kill()
        nothing_is_half_written(bucket)
        assert not before.keys() & set(attempt.begun), "a finished chunk was begun again"
        now = written(bucket)
        assert {key: now[key] for key in stamps} == stamps, "what was there was written again"
        unfinished = set(attempt.begun) - finished(bucket).keys()
        assert len(unfinished) <= 1
        amid += len(unfinished)
    return amid


def killed_and_undisturbed(kills, sources, tmp_path):
    buckets = [planned(f"file://{tmp_path}/{name}", sources) for name in ("killed", "whole")]
    begun = time.monotonic()
    attempt = Attempt(buckets[1].root)
    assert attempt.next()[0] == "loaded"
    begun = time.monotonic()
    assert attempt.end()[0] == "done"
    a_chunk = (time.monotonic() - begun) / len(attempt.begun)
    amid = kill_again_and_again(buckets[0], kills, a_chunk)
    assert Attempt(buckets[0].root).end() == ("done", "")
    assert same_as(*buckets)
    return amid


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_fifty_kills_at_random_moments_of_drawing_change_nothing(portraits, tmp_path):
    amid = killed_and_undisturbed(50, portraits(40), tmp_path)
    assert amid >= 20, "most kills hit a chunk in the making"


def test_kills_at_random_moments_of_drawing_change_nothing(portraits, tmp_path):
    assert killed_and_undisturbed(3, portraits(4), tmp_path) >= 1


def test_a_scratch_disk_without_room_is_named_and_the_batch_is_drawn_later(
    undisturbed, few, tmp_path
):
    """The kernel refuses the write in the middle of a file, as it does on a full disk."""
    bucket = planned(f"file://{tmp_path}/bucket", few)
    before = {info.key for info in bucket.list()}
    ended, said = Attempt(bucket.root, file_bytes=2000).end()
    assert ended == "failed"
    assert said.startswith(f"ScratchError: {tempfile.gettempdir()}/")
    assert "File too large" in said
    assert said.endswith("make room there and run again")
    assert {info.key for info in bucket.list()} == before
    assert Attempt(bucket.root).end() == ("done", "")
    assert same_as(bucket, undisturbed)


@contextlib.contextmanager
def small_disk(folder, size):
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"a disk of its own can't be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_after_room_is_made_drawing_goes_on(undisturbed, few, tmp_path):
    folder = tmp_path / "disk"
    with small_disk(folder, "400k"):
        bucket = planned(f"file://{folder}/bucket", few)
        ended, said = Attempt(bucket.root).end()
        assert ended == "failed"
        assert "No space left on device" in said
        assert f"file://{folder}/bucket" in said
        assert "make room there and run again" in said
        nothing_is_half_written(bucket)
        before = finished(bucket)
        assert not list(folder.rglob("*#*")), "no part of a file is left"
        subprocess.run(["mount", "-o", "remount,size=16m", str(folder)], check=True)
        again = Attempt(bucket.root)
        assert again.end() == ("done", "")
        assert not before.keys() & set(again.begun)
        assert same_as(bucket, undisturbed)


class Road:
    """A way to a server that can be cut: a port that passes everything on."""

    def __init__(self, endpoint):
        host, port = endpoint.removeprefix("http://").split(":")
        self._server, self._sockets = (host, int(port)), []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    @staticmethod
    def _pass_on(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._sockets = []

    def mend(self):
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()


def test_a_bucket_that_goes_out_of_reach_is_told_soon_and_drawing_goes_on_when_it_is_back(
    undisturbed, few, s3, monkeypatch
):
    road = Road(s3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", road.endpoint)
    environ = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    url = "s3://lab/interrupted"
    bucket = planned(url, few)
    attempt = Attempt(url, environ)
    while len(attempt.begun) < 3:
        assert attempt.next()[0]
    road.cut()
    cut = time.monotonic()
    ended, said = attempt.end()
    assert ended == "failed"
    assert time.monotonic() - cut < SANE_SECONDS
    assert said.startswith(f"BucketUnavailable: {url}: ")
    assert "see that it runs and can be reached, and run again" in said
    assert "\n" not in said
    road.mend()
    before = finished(bucket)
    assert 2 <= len(before) <= 3
    again = Attempt(url, environ)
    assert again.end() == ("done", "")
    assert not before.keys() & set(again.begun)
    assert same_as(bucket, undisturbed)
    road.cut()
