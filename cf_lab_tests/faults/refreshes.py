"""A lab that refreshes by itself while its processes are killed at random moments.

    python -m cf_lab_tests.faults.refreshes --kills 20 --seed 1

Small batches of portraits are dropped into `incoming/` all the time; automation alone makes
releases of them. After the first release one victim after another is killed with SIGKILL and the
lab has to recover by itself, while a thread looks at what must hold at every moment. After some
rounds of kills the next ones wait for a new release: on a busy machine a run would otherwise be
killed more often than the lab tries it again. At the end the release is compared with the one that
an undisturbed lab makes of the same batches.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2

from cf_lab_assets.counterfactuals import tables
from cf_lab_assets.servers import fetch
from cf_lab_assets.starter.portraits import write_image_folder
from cf_lab_resources import embedded
from cf_lab_resources.bucket import open_bucket
from cf_lab_resources.credentials.home_key import home_test_key
from cf_lab_resources.embedded import processes
from cf_lab_resources.embedded.servers import (
    CATALOG_DATABASE,
    SERVERS,
    Postgres,
    Valkey,
    postgres_url,
)
from cf_lab_resources.errors import LabError
from cf_lab_resources.settings import Settings
from cf_lab_tests.running import CF_LAB, environment, servers_of, up

VICTIMS = ("postgres", "redis", "worker", "daemon")
PORTRAITS = 3  # of a batch
IN_FLIGHT = 2  # batches that are not in the current release yet
PAUSE_SECONDS = 16.0  # at most, between a recovery and the next kill
WORKER_SECONDS = 900.0  # until a run goes on that can be killed
RECOVERY_SECONDS = 240.0
GIVEN_UP_SECONDS = 90.0  # then a failed run that nothing retries is counted as given up
ROUNDS = 5  # in each of which every victim is killed once; then a new release has to come
RELEASE_SECONDS = 1800.0
SETTLED_SECONDS = 70.0  # two ticks of the automation in which nothing is left to do
END_SECONDS = 1500.0
BACKENDS = 0.25  # of Postgres' kills hit a client's backend, not the postmaster

RUNS = """{ runsOrError(limit: 1000) { ... on Runs { results {
    runId status jobName creationTime endTime parentRunId tags { key value } } } } }"""
MESSAGES = """query($id: ID!) { logsForRun(runId: $id, limit: 40) { ... on EventConnection {
    events { ... on MessageEvent { message } } } } }"""
HEARTBEATS = """{ instance { daemonHealth { allDaemonStatuses {
    daemonType required lastHeartbeatTime } } } }"""
WORKER_STARTED = re.compile(r"Started process for run \(pid: (\d+)\)")
ENDED = ("SUCCESS", "FAILURE", "CANCELED")


class Stores:
    """What a lab's home holds, read without keeping any of its servers alive."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home)
        self.bucket = open_bucket(self.settings.bucket)
        self._servers = {name: server(self.settings) for name, server in SERVERS.items()}

    def answers(self, service: str) -> bool:
        server = self._servers[service]
        return server.answers(server.files.read_credentials())

    def rows(self, query: str, *params: str) -> list[tuple]:
        """Rows of the catalog's database; raises psycopg2.Error."""
        credentials = self._servers["postgres"].files.read_credentials()
        url = postgres_url(credentials, CATALOG_DATABASE)
        connection = psycopg2.connect(url, connect_timeout=3)
        try:
            with connection.cursor() as cursor:
                cursor.execute(query, params)
                return cursor.fetchall()
        finally:
            connection.close()

    def current(self) -> list[tuple[str, str]]:
        """Id and dataset hash of every release in the state `current`."""
        try:
            return self.rows("SELECT release_id, dataset_hash FROM releases WHERE state='current'")
        except psycopg2.errors.UndefinedTable:
            return []

    def released_batches(self) -> set[str]:
        """Batches in the current release."""
        found = set()
        for _, dataset in self.current():
            manifest = json.loads(self.bucket.get_bytes(f"datasets/{dataset}/manifest.json"))
            found |= set(manifest["batches"])
        return found

    def ids(self, table: str, release_id: str) -> set[str]:
        return {
            id_ for (id_,) in self.rows(f"SELECT id FROM {table} WHERE release_id=%s", release_id)
        }


class Deliveries(threading.Thread):
    """Drops the next batch as soon as few of those before wait to be released."""

    def __init__(self, stores: Stores, folder: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.folder = folder
        self.dropped: list[str] = []
        self._stores = stores
        self._seed = seed

    def run(self) -> None:
        while not self.over.wait(1.0):
            try:
                waiting = len(self.dropped) - len(self._stores.released_batches())
            except (psycopg2.Error, LabError):
                continue
            if waiting < IN_FLIGHT:
                self._drop()

    def _drop(self) -> None:
        number = len(self.dropped)
        name = f"batch{number:03d}"
        write_image_folder(self.folder / name, PORTRAITS, seed=1000 * self._seed + number)
        incoming = self._stores.settings.home / "bucket" / "incoming"
        staged = incoming.with_name("staged") / name
        shutil.copytree(self.folder / name, staged)
        incoming.mkdir(parents=True, exist_ok=True)
        staged.rename(incoming / name)
        self.dropped.append(name)


class Watch(threading.Thread):
    """Looks all the time at what must hold at every moment."""

    def __init__(self, stores: Stores, api: str) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.violations: list[str] = []
        self.answers: Counter[str] = Counter()
        self.releases: list[str] = []
        self.accepted: dict[str, set[str]] = {}
        self.last_answer = ""
        self._stores = stores
        self._api = api
        self._records: dict[str, dict[str, object]] = {}
        self._read: dict[str, int] = {}

    def violation(self, text: str) -> None:
        self.violations.append(f"{time.strftime('%H:%M:%S')} {text}")
        print(f"VIOLATION {text}", flush=True)

    def run(self) -> None:
        while not self.over.wait(0.5):
            try:
                self.look()
            except Exception as error:  # whatever it was, the next look counts
                self.violation(f"could not look: {error!r}")

    def look(self) -> None:
        try:
            self.look_at_releases()
        except psycopg2.Error:
            self.answers["no Postgres"] += 1
        self.look_at_api()
        self.look_at_accepted()

    def look_at_releases(self) -> None:
        current = self._stores.current()
        if len(current) > 1 or (self.releases and not current):
            self.violation(f"{len(current)} releases are current: {current}")
        if not current or current[0][0] in self.releases[-1:]:
            return
        release_id = current[0][0]
        query = "SELECT id, record FROM release_pairs WHERE release_id=%s"
        found = self._stores.rows(query, release_id)
        sets = self._stores.ids("release_sets", release_id)
        if self.releases and (lost := self._stores.ids("release_sets", self.releases[-1]) - sets):
            self.violation(f"{release_id} lacks {len(lost)} sets of {self.releases[-1]}")
        self._records[release_id] = {id_: json.loads(bytes(record)) for id_, record in found}
        self.releases.append(release_id)

    def look_at_api(self) -> None:
        asked = self.releases[-1] if self.releases else None
        records = self._records.get(asked, {})
        ids = sorted(records)[-500:] or ["s000000000000000-gender-man"]
        try:
            answer = json.loads(fetch(f"{self._api}/v1/pairs/batch", {"ids": ids}))
        except urllib.error.HTTPError as error:
            self._answered(str(error.code))
            if error.code != 503:
                self.violation(f"the API answered {error.code}: {error.read()[:300]!r}")
            return
        except OSError as error:
            self._answered("none")
            self.violation(f"the API did not answer: {error}")
            return
        self._answered("200")
        release_id = answer["release_id"]
        pairs = [one["pair"] for one in answer["results"] if one["found"]]
        mixed = {pair["release_id"] for pair in pairs} - {release_id}
        if mixed:
            self.violation(f"an answer from {release_id} has records of {mixed}")
        if release_id == asked and pairs != [records[id_] for id_ in ids]:
            self.violation(f"an answer from {release_id} has {len(pairs)} of {len(ids)} pairs")

    def _answered(self, how: str) -> None:
        self.last_answer = how
        self.answers[f"API {how}"] += 1

    def look_at_accepted(self) -> None:
        """Note every accepted set that any batch's table ever held."""
        folder = self._stores.settings.home / "bucket" / "counterfactuals"
        for table in folder.glob("*/accepted_sets.parquet"):
            batch, written = table.parent.name, table.stat().st_mtime_ns
            if self._read.get(batch) == written:
                continue
            try:
                rows = tables.read_rows(self._stores.bucket, batch, "accepted_sets")
            except Exception as error:
                self.violation(f"{table.name} of {batch} can't be read: {error!r}")
                continue
            self.accepted.setdefault(batch, set()).update(row["set_id"] for row in rows)
            self._read[batch] = written


@dataclass
class Kill:
    """A process that was killed, and what came of it.

    Attributes:
        victim: one of `VICTIMS`.
        what: the beginning of its command line.
        at: seconds since the epoch.
        run_id: the run that it executed.
        seconds: until all had recovered; None where that took too long.
        lost: runs that failed from then on until the next kill.
        retried: how many of these were tried again.
    """

    victim: str
    what: str
    at: float
    run_id: str | None = None
    seconds: float | None = None
    lost: list[str] = field(default_factory=list)
    retried: int = 0


class Drill:
    """Kills, and waits for recovery."""

    def __init__(self, lab, stores: Stores, watch: Watch, chance: random.Random) -> None:
        self._lab = lab
        self._stores = stores
        self._watch = watch
        self._chance = chance
        self._workers: dict[str, int] = {}
        self._given_up: set[str] = set()
        self.kills: list[Kill] = []

    def kill(self, victim: str) -> None:
        """Kill one process of a kind, and wait until the lab has recovered."""
        time.sleep(self._chance.uniform(0, PAUSE_SECONDS))
        pid, kill = self._kill_one(victim)
        self.kills.append(kill)
        why = "?"
        while time.time() < kill.at + RECOVERY_SECONDS:
            why = self._missing(kill, pid)
            if why is None:
                kill.seconds = time.time() - kill.at
                break
            time.sleep(0.5)
        else:
            self._watch.violation(f"not recovered from the end of {victim}: {why}")
        took = f"{kill.seconds:.1f} s" if kill.seconds else f"not recovered: {why}"
        shown = f"{len(self.kills)}: {victim} ({kill.what}): {took}"
        print(
            f"{time.strftime('%H:%M:%S')} {shown}; {len(self._watch.releases)} releases", flush=True
        )

    def _kill_one(self, victim: str) -> tuple[int, Kill]:
        """Kill a process of a kind; those that end by themselves before that don't count."""
        while True:
            pid, line = self._find(victim)
            run_id = self._run_of(pid) if victim == "worker" else None
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return pid, Kill(victim, line.rpartition("/")[2][:40], time.time(), run_id)

    def _processes(self, victim: str) -> dict[int, str]:
        lines = servers_of(self._stores.settings.home)
        if victim == "worker":
            return {p: line for p, line in lines.items() if "--multiprocessing-fork" in line}
        if victim == "daemon":
            return {p: line for p, line in lines.items() if "dagster-daemon run" in line}
        server = {"postgres": Postgres, "redis": Valkey}[victim](self._stores.settings)
        own = {p: line for p, line in processes.command_lines() if server.owns(line)}
        if victim == "redis":
            return own
        return {p: line for p, line in own.items() if not line.startswith("postgres: ")}

    def _find(self, victim: str) -> tuple[int, str]:
        deadline = time.monotonic() + WORKER_SECONDS
        while not (found := self._processes(victim)):
            assert time.monotonic() < deadline, f"there is no {victim} to kill"
            time.sleep(0.2)
        if victim == "worker":  # at any moment of its life
            time.sleep(self._chance.uniform(0, 10))
            found = self._processes(victim)
            if not found:
                return self._find(victim)
        if victim == "postgres" and self._chance.random() < BACKENDS:
            server = Postgres(self._stores.settings)
            backends = {
                pid: line
                for pid, line in processes.command_lines()
                if line.startswith(f"postgres: {server.mark}:") and "127.0.0.1(" in line
            }
            found = backends or found
        return self._chance.choice(sorted(found.items()))

    def _missing(self, kill: Kill, pid: int) -> str | None:
        """What is not recovered yet; None where nothing is missing."""
        if kill.victim != "worker" and not self._processes(kill.victim).keys() - {pid}:
            # A backend's end leaves the postmaster where it is.
            return f"no {kill.victim} runs"
        for service in SERVERS:
            if not self._stores.answers(service):
                return f"{service} does not answer"
        if self._watch.releases and self._watch.last_answer != "200":
            return "the API has no release"
        try:
            return self._silent_daemon(kill) or self._lost_run(kill)
        except (OSError, AssertionError) as error:
            return f"the UI does not answer: {error}"

    def _silent_daemon(self, kill: Kill) -> str | None:
        if kill.victim != "daemon":
            return None
        health = self._lab.graphql(HEARTBEATS)["instance"]["daemonHealth"]
        silent = [
            one["daemonType"]
            for one in health["allDaemonStatuses"]
            if one["required"] and (one["lastHeartbeatTime"] or 0) < kill.at
        ]
        return f"no heartbeat of {silent}" if silent else None

    def runs(self) -> list[dict]:
        return self._lab.graphql(RUNS)["runsOrError"]["results"]

    def _lost_run(self, kill: Kill) -> str | None:
        """A run that nobody executes or retries."""
        runs = self.runs()
        parents = {run["parentRunId"] for run in runs}
        for run in runs:
            run_id, status = run["runId"], run["status"]
            if run_id == kill.run_id and status not in ENDED:
                return f"the killed run {run_id} is {status}"
            if status == "STARTED" and self._worker_of(run_id) not in self._processes("worker"):
                return f"the process of run {run_id} is gone"
            if status in ("STARTING", "CANCELING") and run["creationTime"] < kill.at - 60:
                return f"run {run_id} of before is {status}"
            if status != "FAILURE" or run["endTime"] < kill.at or run_id in parents:
                continue
            if run["endTime"] > time.time() - GIVEN_UP_SECONDS:
                return f"run {run_id} has failed and nothing retries it"
            if run_id not in self._given_up:
                self._given_up.add(run_id)
                print(f"run {run_id} is given up", flush=True)
        return None

    def _run_of(self, worker: int) -> str | None:
        """The run that a process executes; None where it has ended, or the UI can't say."""
        try:
            runs = [run["runId"] for run in self.runs() if run["status"] in ("STARTING", "STARTED")]
            workers = {run_id: self._worker_of(run_id) for run_id in runs}
        except (OSError, AssertionError):
            return None
        executed = [run_id for run_id, pid in workers.items() if pid == worker]
        # A process that has just been started has not said so yet.
        silent = [run_id for run_id, pid in workers.items() if pid is None]
        found = executed or silent
        return found[0] if len(found) == 1 else None

    def _worker_of(self, run_id: str) -> int | None:
        if run_id not in self._workers:
            connection = self._lab.graphql(MESSAGES, id=run_id)["logsForRun"]
            for event in connection["events"]:
                if started := WORKER_STARTED.search(event.get("message", "")):
                    self._workers[run_id] = int(started[1])
        return self._workers.get(run_id)

    def wait_for_release(self) -> None:
        """Wait until another release than now is current."""
        count, deadline = len(self._watch.releases), time.monotonic() + RELEASE_SECONDS
        while len(self._watch.releases) == count:
            if time.monotonic() > deadline:
                self._watch.violation(f"no new release within {RELEASE_SECONDS:.0f} s")
                return
            time.sleep(0.5)
        print(f"{time.strftime('%H:%M:%S')} release {self._watch.releases[-1]}", flush=True)

    def settle(self, dropped: list[str]) -> None:
        """Wait until all batches are released and nothing goes on any more."""
        deadline, quiet = time.monotonic() + END_SECONDS, None
        while time.monotonic() < deadline:
            open_runs = [run for run in self.runs() if run["status"] not in ENDED]
            if open_runs or set(dropped) - self._stores.released_batches():
                quiet = None
            quiet = quiet or (time.monotonic() if not open_runs else None)
            released = not set(dropped) - self._stores.released_batches()
            if released and quiet and time.monotonic() > quiet + SETTLED_SECONDS:
                return
            time.sleep(2)
        missing = sorted(set(dropped) - self._stores.released_batches())
        self._watch.violation(f"after {END_SECONDS:.0f} s not released: {missing}")

    def attribute_runs(self) -> None:
        """Count each failed run with the last kill before it ended."""
        runs = self.runs()
        parents = {run["parentRunId"] for run in runs}
        for run in runs:
            earlier = [kill for kill in self.kills if kill.at <= (run["endTime"] or 0)]
            if run["status"] == "FAILURE" and earlier:
                earlier[-1].lost.append(f"{run['jobName']} {run['runId'][:8]}")
                earlier[-1].retried += run["runId"] in parents


def look_at_the_end(stores: Stores, watch: Watch, undisturbed: dict[str, str]) -> None:
    """What must hold of the last release, compared with an undisturbed lab's."""
    (release_id, dataset_hash), *others = stores.current()
    if others:
        watch.violation(f"{1 + len(others)} releases are current at the end")
    sets = stores.ids("release_sets", release_id)
    for batch, accepted in watch.accepted.items():
        if accepted - sets:
            watch.violation(f"{len(accepted - sets)} accepted sets of {batch} are lost")
    (content_hash,) = stores.rows("SELECT content_hash FROM releases WHERE state='current'")[0]
    found = {"content_hash": content_hash, "dataset_hash": dataset_hash}
    if found != undisturbed:
        watch.violation(f"the release is {found}, an undisturbed lab's is {undisturbed}")
    for info in stores.bucket.list("objects"):
        if not stores.bucket.is_intact(info.key):
            watch.violation(f"{info.key} is damaged")
    for one, manifest in stores.rows("SELECT release_id, manifest FROM releases"):
        counts = manifest["counts"]
        loaded = [len(stores.ids(table, one)) for table in ("release_pairs", "release_sets")]
        if loaded != [counts["pairs"], counts["sets"]]:
            watch.violation(f"{one} has {loaded} pairs and sets of {counts}")


def make_undisturbed(home: Path, deliveries: Path, batches: list[str]) -> dict[str, str]:
    """Hashes of the release that a lab without kills makes of the same batches."""

    def command(*arguments: str) -> str:
        done = subprocess.run(
            [CF_LAB, *arguments], env=environment(home), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    for batch in batches:
        command("ingest", str(deliveries / batch), "--batch", batch)
    command("run")
    shown = json.loads(command("release", "show"))
    embedded.stop(Settings(home=home))
    return {name: shown[name] for name in ("content_hash", "dataset_hash")}


def report(kills: list[Kill], watch: Watch, dropped: list[str]) -> str:
    """Per victim kills, recovery, lost and retried runs; what was seen; and every violation."""
    lines = ["victim     kills  median s   max s  runs lost  retried"]
    for victim in VICTIMS:
        own = [kill for kill in kills if kill.victim == victim]
        times = [kill.seconds for kill in own if kill.seconds is not None] or [float("nan")]
        lost, retried = sum(len(k.lost) for k in own), sum(k.retried for k in own)
        lines.append(
            f"{victim:10}{len(own):6}{statistics.median(times):10.1f}{max(times):8.1f}"
            f"{lost:11}{retried:9}"
        )
    accepted = sum(map(len, watch.accepted.values()))
    lines.append(
        f"{len(dropped)} batches, {accepted} accepted sets, {len(watch.releases)} releases were "
        f"current; looked {sum(watch.answers.values())} times: {dict(watch.answers)}"
    )
    lines.append(f"{len(watch.violations)} violations")
    return "\n".join([*lines, *watch.violations])


def drill(folder: Path, kills: int, seed: int) -> tuple[str, list[str]]:
    """Kill each victim so many times; gives the report and the violations.

    Args:
        folder: an empty one, best in memory; the labs and their batches go there.
        kills: of each victim.
        seed: of victims' order, of moments and of portraits.
    """
    chance = random.Random(seed)
    homes = folder / "killed", folder / "undisturbed"
    home_test_key(folder / "signing")
    for home in homes:  # packages are named by their signer too
        shutil.copytree(folder / "signing", home / "signing")
    with up(homes[0]) as lab:
        stores = Stores(homes[0])
        deliveries, watch = Deliveries(stores, folder / "batches", seed), Watch(stores, lab.api)
        drilled = Drill(lab, stores, watch, chance)
        deliveries.start()
        watch.start()
        for number in range(kills):
            if number % ROUNDS == 0:
                drilled.wait_for_release()
            for victim in chance.sample(VICTIMS, len(VICTIMS)):
                drilled.kill(victim)
        deliveries.over.set()
        deliveries.join()
        drilled.settle(deliveries.dropped)
        drilled.attribute_runs()
        undisturbed = make_undisturbed(homes[1], deliveries.folder, deliveries.dropped)
        look_at_the_end(stores, watch, undisturbed)
        watch.over.set()
        watch.join()
        if lab.stop() != 0:
            watch.violation("cf-lab up did not end cleanly")
    embedded.stop(stores.settings)
    return report(drilled.kills, watch, deliveries.dropped), watch.violations


def main() -> None:
    """Run the drill and print its report; exit code 1 where something was violated."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of each victim")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    shm = Path("/dev/shm")
    parent = shm if os.access(shm, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="cf_lab_refreshes_", dir=parent))
    said, violations = drill(folder, arguments.kills, arguments.seed)
    print(said)
    if violations:
        print(f"what is left lies in {folder}")
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
