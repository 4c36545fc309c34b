"""A folder put into `incoming/`, and no hand on it: how long it waits while nothing works on it.

The clock is Dagster's own: the times at which runs began to execute and ended, and at which the
current release was materialised. A run that is queued or being launched counts as waiting.
"""

import json
import pickle
import shutil
import time
from dataclasses import dataclass

import pytest

from cf_lab_assets.servers import fetch
from cf_lab_assets.starter.portraits import write_image_folder
from cf_lab_resources import embedded
from cf_lab_resources.settings import Settings
from cf_lab_tests.running import REPOSITORY, eventually, up

TICK_SECONDS = 30  # what Dagster's daemon leaves between two looks unless told otherwise
WAIT_LIMIT_SECONDS = 2 * TICK_SECONDS
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
CURRENT = ("releases", "current")

LOOKS_SECONDS = 30  # several looks of every sensor

RUNS = """{ runsOrError { ... on Runs { results {
    runId status creationTime startTime endTime assetSelection { path } tags { key value }
} } } }"""
PUBLISHED = """{ assetOrError(assetKey: {path: ["releases", "current"]}) { ... on Asset {
    assetMaterializations(limit: 1) { runId timestamp } } } }"""
REASON = """query($id: ID!) { runOrError(runId: $id) { ... on Run { eventConnection { events {
    ... on ExecutionStepFailureEvent { failureMetadata { description } } } } } } }"""
TICKS = """query($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor) {
    ... on Sensor { sensorState { ticks(limit: 20) { endTimestamp skipReason } } } } }"""


@dataclass(frozen=True)
class Run:
    """A run; times in seconds of the epoch, None as long as it has not begun or ended."""

    run_id: str
    status: str
    asked: float
    begun: float | None
    ended: float | None
    partition: str | None
    assets: frozenset

    @property
    def is_refresh(self):
        return CURRENT in self.assets

    def __str__(self):
        what = self.partition or ("refresh" if self.is_refresh else f"{len(self.assets)} assets")
        launch = f"{self.begun - self.asked:.1f} s to launch" if self.begun else "not begun"
        took = f"{self.ended - self.begun:.1f} s" if self.begun and self.ended else "not ended"
        return f"{what}: {launch}, {took}, {self.status}"


def runs(lab):
    """All runs, in the order in which they were asked for."""
    found = lab.graphql(RUNS)["runsOrError"]["results"]
    return [
        Run(
            one["runId"],
            one["status"],
            one["creationTime"],
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


def reasons(lab, run):
    """What the run's failed steps say."""
    events = lab.graphql(REASON, id=run.run_id)["runOrError"]["eventConnection"]["events"]
    return [one["failureMetadata"]["description"] for one in events if one.get("failureMetadata")]


def refused(lab, folder):
    """When the sensor first said that a folder is refused, and why; None before that."""
    sensor = {**REPOSITORY, "sensorName": "incoming_deliveries"}
    ticks = lab.graphql(TICKS, sensor=sensor)["sensorOrError"]["sensorState"]["ticks"]
    told = [
        (tick["endTimestamp"], tick["skipReason"])
        for tick in ticks
        if f"incoming/{folder} refused" in (tick["skipReason"] or "")
    ]
    return min(told, default=None)


def waited(since, until, among):
    """Seconds between two times in which none of the runs was being executed."""
    waiting, now = 0.0, since
    for run in sorted((run for run in among if run.begun), key=lambda run: run.begun):
        waiting += max(0.0, min(run.begun, until) - now)
        now = max(now, run.ended or until)
    return waiting + max(0.0, until - now)


def drop(lab, *folders):
    """Put whole folders into `incoming/` at once; gives the time."""
    incoming = lab.home / "bucket" / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        shutil.copytree(folder, incoming.parent / f".{folder.name}")
    for folder in folders:
        (incoming.parent / f".{folder.name}").rename(incoming / folder.name)
    return time.time()


def at_rest(lab):
    return all(run.status in ENDED for run in runs(lab))


def publishes(lab, *folders):
    """Drop folders and wait for the release; seconds of waiting, and the runs there were."""
    before, known = published(lab), {run.run_id for run in runs(lab)}
    since = drop(lab, *folders)
    assert eventually(lambda: published(lab) != before, 900), [*map(str, runs(lab))]
    assert eventually(lambda: at_rest(lab), 300)
    _, until = published(lab)
    new = [run for run in runs(lab) if run.run_id not in known]
    return until - since, waited(since, until, new), new


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
@pytest.mark.timeout(3000)
def test_good_folders_become_the_release_and_bad_ones_do_not(lab, tmp_path, capsys):
    for seed, name in enumerate(("first", "second", "third"), 5):
        write_image_folder(tmp_path / name, 3, seed)
    for names in (("first",), ("second", "third")):
        took, waits, new = publishes(lab, *(tmp_path / name for name in names))
        told = f"{' and '.join(names)}: a release after {took:.1f} s, {waits:.1f} s of it waiting"
        tell(capsys, told, new)
        assert [run.status for run in new] == ["SUCCESS"] * len(new)
        assert [run.partition for run in new] == [*names, None]
        assert [run.is_refresh for run in new] == [False] * len(names) + [True]
        assert waits <= WAIT_LIMIT_SECONDS
    release, known = current(lab), {run.run_id for run in runs(lab)}

    write_image_folder(tmp_path / "broken", 2, seed=9)
    for picture in (tmp_path / "broken" / "images").iterdir():
        picture.write_bytes(b"no picture")
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pairs.pkl").write_bytes(pickle.dumps([{"text": "a portrait"}]))
    since = drop(lab, tmp_path / "broken", tmp_path / "pickled")
    assert eventually(lambda: refused(lab, "pickled"), 300), lab.all_logs()
    at, why = refused(lab, "pickled")
    tell(capsys, f"pickled: refused after {at - since:.1f} s: {why[:200]}")
    assert at - since <= WAIT_LIMIT_SECONDS
    assert "none of the kinds that are taken" in why

    assert eventually(lambda: len(runs(lab)) > len(known) and at_rest(lab), 300), lab.all_logs()
    (run,) = (run for run in runs(lab) if run.run_id not in known)
    waits = waited(since, run.ended, [run])
    tell(capsys, f"broken: refused after {run.ended - since:.1f} s, {waits:.1f} s waiting", [run])
    assert (run.partition, run.status) == ("broken", "FAILURE")
    assert waits <= WAIT_LIMIT_SECONDS
    (reason,) = reasons(lab, run)
    assert "none of the 2 rows" in reason
    assert list((lab.home / "bucket" / "quarantine" / "broken").glob("*.parquet"))

    time.sleep(LOOKS_SECONDS)
    assert {run.run_id for run in runs(lab)} == known | {run.run_id}, "a refusal is not retried"
    assert current(lab) == release
