"""`cf-lab up` as tests run it: on free ports, stopped at the end, and asked through GraphQL."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from cf_lab_assets.servers import fetch
from cf_lab_resources.embedded import processes
from cf_lab_resources.embedded.servers import free_port

CF_LAB = str(Path(sys.executable).with_name("cf-lab"))
ENDED = ("SUCCESS", "FAILURE", "CANCELED")
RUNS = """{ runsOrError { ... on Runs { results {
    runId status assetSelection { path } } } } }"""
EVENTS = """query($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
    ... on ExecutionStepFailureEvent { stepKey error { message } } } } } }"""
START_SECONDS = 600  # thirty where nothing else runs; an end that comes first is seen at once
STOP_SECONDS = 30
REPOSITORY = {"repositoryLocationName": "cf_lab", "repositoryName": "__repository__"}
LAUNCH = """mutation($params: ExecutionParams!) {
    launchPipelineExecution(executionParams: $params) {
        __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""


def environment(home):
    """Of a process that knows no other lab than that of this home."""
    own = ("CF_LAB_", "DAGSTER_HOME")
    others = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return {**others, "CF_LAB_HOME": str(home)}


def servers_of(home):
    """Ids of the processes whose environment names this home, and their command lines."""
    found = {}
    for pid, line in processes.command_lines():
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"CF_LAB_HOME={home}".encode() in variables:
            found[pid] = line
    return found


def eventually(holds, seconds):
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


class Up:
    """A running `cf-lab up`."""

    def __init__(self, home):
        self.home = home
        self.port, self.api_port = free_port(), free_port()
        self.ui = f"http://127.0.0.1:{self.port}"
        self.api = f"http://127.0.0.1:{self.api_port}"
        self.log = home.with_name(f"{home.name}.up.log")
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(
                [CF_LAB, "up", "--port", str(self.port), "--api-port", str(self.api_port)],
                env=environment(home),
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self.said = ""

    def wait_until_ready(self):
        deadline = time.monotonic() + START_SECONDS
        while "Ctrl-C" not in self.said:
            if not select.select([self.process.stdout], [], [], 1)[0]:
                assert time.monotonic() < deadline, self.all_logs()
                continue
            read = os.read(self.process.stdout.fileno(), 1000).decode()
            assert read, f"cf-lab up ended: {self.all_logs()}"
            self.said += read
        return self

    def all_logs(self):
        logs = [self.log, *sorted((self.home / "log").glob("*.log"))]
        return "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in logs)

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        code = self.process.wait(STOP_SECONDS)
        self.process.stdout.close()
        return code

    def graphql(self, query, **variables):
        body = {"query": query, "variables": variables}
        answer = json.loads(fetch(f"{self.ui}/graphql", body))
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def launch(self, job, partition):
        params = {
            "selector": {**REPOSITORY, "jobName": job},
            "runConfigData": {},
            "mode": "default",
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": partition}]},
        }
        return self.graphql(LAUNCH, params=params)["launchPipelineExecution"]["run"]["runId"]

    def status(self, run_id):
        query = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
        return self.graphql(query, id=run_id)["runOrError"]["status"]

    def reaches(self, run_id, *statuses, seconds=240):
        return eventually(lambda: self.status(run_id) in statuses, seconds)

    def runs(self):
        """Id, status and assets of all runs, newest first."""
        return self.graphql(RUNS)["runsOrError"]["results"]

    def failures(self, run_id):
        """What the log of a run says of its failures."""
        events = self.graphql(EVENTS, id=run_id)["logsForRun"]["events"]
        return "\n".join(
            f"{event['stepKey']}: {event['error']['message']}"
            for event in events
            if event.get("error")
        )

    def pairs(self, dataset_hash):
        """The rows of a dataset's pairs, from the bucket."""
        path = self.home / "bucket" / "datasets" / dataset_hash / "pairs.parquet"
        return pq.read_table(path).to_pylist()


@contextmanager
def up(home):
    """A ready `cf-lab up`, stopped at the end unless the test has stopped it."""
    lab = Up(home)
    try:
        yield lab.wait_until_ready()
    finally:
        if lab.process.poll() is None:
            lab.stop()
