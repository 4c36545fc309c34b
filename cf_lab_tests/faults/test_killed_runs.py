"""`kill -9` at the worst moments: the rerun ends in the release of an undisturbed run."""

import json
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from cf_lab_assets.cli import opened
from cf_lab_assets.counterfactuals.generation import GenerationSettings
from cf_lab_assets.starter.portraits import write_image_folder
from cf_lab_resources import embedded
from cf_lab_resources.credentials.home_key import home_test_key
from cf_lab_resources.settings import Settings
from cf_lab_tests.running import environment

PORTRAITS = GenerationSettings().chunk_sources + 1  # more than one chunk

# Where the process kills itself: the function that is entered, and at which of its calls.
MOMENTS = {
    "while the second chunk of candidates is drawn": (
        "cf_lab_assets.counterfactuals.generation",
        "make_chunk",
        2,
    ),
    "in the middle of COPY": ("cf_lab_resources.catalog.loading", "_CopyStream.read", 1),
    "between warm-up and pointer flip": ("cf_lab_resources.catalog.store", "Catalog.publish", 1),
}

CHILD = """
import functools, importlib, operator, os, sys

module, path, call, arguments = {module!r}, {path!r}, {call!r}, {arguments!r}
if module:
    *owner, name = path.split(".")
    holder = importlib.import_module(module)
    for part in owner:
        holder = getattr(holder, part)
    real, calls = getattr(holder, name), []

    def deadly(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), 9)
        return real(*args, **kwargs)

    setattr(holder, name, deadly)

from cf_lab_assets.cli import main

sys.argv = ["cf-lab", *arguments]
main()
"""


class Lab:
    """A lab in a folder of its own, used by commands in processes of their own."""

    def __init__(self, home):
        self.home = home
        self.environment = environment(home)

    def command(self, *arguments, moment=(None, None, 0)):
        module, path, call = moment
        code = CHILD.format(module=module, path=path, call=call, arguments=arguments)
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

    def ok(self, *arguments):
        done = self.command(*arguments)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def releases(self):
        """Release id and state of each release, read from Postgres itself."""
        return [tuple(line.split()[:2]) for line in self.ok("release", "list").splitlines()]

    def content_hash(self):
        return json.loads(self.ok("release", "show"))["content_hash"]


@pytest.fixture(scope="module")
def labs(memory_folder, tmp_path_factory):
    """Two labs with the same batch ingested."""
    portraits = tmp_path_factory.mktemp("sources") / "portraits"
    write_image_folder(portraits, PORTRAITS, seed=8)
    key = tmp_path_factory.mktemp("key") / "signing"
    home_test_key(key)
    pair = [Lab(memory_folder / "undisturbed"), Lab(memory_folder / "killed")]
    for lab in pair:
        # Packages are named by their signer too, so both labs sign with the same key.
        shutil.copytree(key, lab.home / "signing")
        lab.ok("ingest", str(portraits), "--batch", "portraits")
    yield pair
    for lab in pair:
        embedded.stop(Settings(home=lab.home))


def row_counts(lab, monkeypatch):
    monkeypatch.setenv("CF_LAB_HOME", str(lab.home))
    with monkeypatch.context() as patch, opened() as open_lab:
        for name in open_lab.endpoints.environ():
            patch.delenv(name, raising=False)
        release = open_lab.catalog.current_release()
        counts = open_lab.catalog.counts(release.release_id)
        pairs = [
            pair_id
            for chunk in open_lab.catalog.iterate("pair", release.release_id)
            for pair_id, _ in chunk
        ]
        return counts, pairs


@pytest.mark.timeout(1200)
def test_a_run_killed_again_and_again_ends_in_the_release_of_one_that_was_not(labs, monkeypatch):
    undisturbed, killed = labs
    undisturbed.ok("run")
    for moment, where in MOMENTS.items():
        done = killed.command("run", moment=where)
        assert done.returncode == -signal.SIGKILL, (moment, done.stderr[-3000:])
        states = [state for _, state in killed.releases()]
        assert "current" not in states, f"half a release is visible after a kill {moment}"
        assert "no release is current" in killed.command("lookup", "s0-gender-man").stderr
    killed.ok("run")
    assert killed.content_hash() == undisturbed.content_hash()
    assert killed.releases() == undisturbed.releases()
    counts, pairs = row_counts(killed, monkeypatch)
    assert len(pairs) == len(set(pairs)) == counts["pair"]
    assert (counts, pairs) == row_counts(undisturbed, monkeypatch)
    again = killed.ok("run")
    assert "nothing to do" in again
