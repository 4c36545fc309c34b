"""A folder put into `incoming/`, and no hand on it: how long it waits while nothing works on it.

The clock is Dagster's own: the times at which runs began to execute and ended, and at which the
current release was materialised. A run that is queued or being launched counts as waiting.
"""

import json
import shutil
import time
from dataclasses import dataclass

import pytest

from cf_lab_assets.servers import fetch
from cf_lab_assets.starter.portraits import write_image_folder
from cf_lab_resources import embedded
from cf_lab_resources.settings import Settings
from cf_lab_tests.running import eventually, up

TICK_SECONDS = 30  # what Dagster's daemon leaves between two looks unless told otherwise
WAIT_LIMIT_SECONDS = 2 * TICK_SECONDS
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}

RUNS = """{ runsOrError { ... on Runs { results {
    runId jobName status startTime endTime assetSelection { path } tags { key value } } } } }"""
PUBLISHED = """{ assetOrError(assetKey: {path: ["releases", "current"]}) { ... on Asset {
    assetMaterializations(limit: 1) { runId timestamp } } } }"""


@dataclass(frozen=True)
class Run:
    """A run; times in seconds of the epoch, None as long as it has not begun or ended."""

    run_id: str
    status: str
    begun: float | None
    ended: float | None
    partition: str | None
    assets: frozenset

    def __str__(self):
        what = self.partition or ", ".join(sorted("/".join(path) for path in self.assets))
        took = f"{self.ended - self.begun:.1f} s" if self.begun and self.ended else "not ended"
        return f"{self.status} {took}: {what}"


def runs(lab):
    """All runs, in the order in which they were asked for."""
    found = lab.graphql(RUNS)["runsOrError"]["results"]
    return [
        Run(
            one["runId"],
            one["status"],
            one["startTime"],
            one["endTime"],
            {tag["key"]: tag["value"] for tag in one["tags"]}.get("dagster/partition"),
            frozenset(tuple(key["path"]) for key in one["assetSelection"] or []),
        )
        for one in reversed(found)
    ]


def published(lab):
    """Id of the run that made the current release, and when; None before the first."""
    found = lab.graphql(PUBLISHED)["assetOrError"].get("assetMaterializations")
    return (found[0]["runId"], float(found[0]["timestamp"]) / 1000) if found else None


def current(lab):
    """Id of the release that lookups are answered from."""
    return json.loads(fetch(f"{lab.api}/v1/releases/current"))["release_id"]


def waited(since, until, among):
    """Seconds between two times in which none of the runs was being executed."""
    waiting, now = 0.0, since
    for run in sorted((run for run in among if run.begun), key=lambda run: run.begun):
        waiting += max(0.0, min(run.begun, until) - now)
        now = max(now, run.ended or until)
    return waiting + max(0.0, until - now)


def drop(lab, folder):
    """Put a whole folder into `incoming/`; gives the time."""
    incoming = lab.home / "bucket" / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    staged = incoming.parent / f".{folder.name}"
    shutil.copytree(folder, staged)
    staged.rename(incoming / folder.name)
    return time.time()


def all_ended(lab):
    return all(run.status in ENDED for run in runs(lab))


def tell(capsys, line, among=()):
    with capsys.disabled():
        print(f"\n{line}", *(f"  {run}" for run in among), sep="\n", flush=True)


@pytest.fixture
def lab(memory_folder):
    home = memory_folder / "dropped"
    with up(home) as running:
        yield running
    embedded.stop(Settings(home=home))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_good_folder_becomes_the_release_and_a_bad_one_does_not(lab, tmp_path, capsys):
    write_image_folder(tmp_path / "good", 3, seed=5)
    since = drop(lab, tmp_path / "good")
    assert eventually(lambda: published(lab), 600), lab.all_logs()
    assert eventually(lambda: all_ended(lab), 300)
    _, until = published(lab)
    waits = waited(since, until, runs(lab))
    tell(
        capsys,
        f"from the folder to the release: {until - since:.1f} s, of which {waits:.1f} s waiting",
        runs(lab),
    )
