"""`cf-lab up`: all three servers answer, runs are executed, and nothing stays behind."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from cf_lab_assets import lost_runs
from cf_lab_assets.children import Children, ServerFailed, StopAsked, stop_signals
from cf_lab_assets.servers import WORKSPACE, PortTaken, check_ports, fetch
from cf_lab_resources import embedded
from cf_lab_resources.embedded.servers import free_port
from cf_lab_resources.settings import Settings
from cf_lab_tests.running import CF_LAB, environment, eventually, servers_of, up

TICKS = """query($repository: RepositorySelector!) {
    sensorsOrError(repositorySelector: $repository) { ... on Sensors { results {
        name sensorState { status ticks(limit: 1) { status error { message } } } } } } }"""
DAEMONS = "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"
SLEEPER = "import time; time.sleep(600)"
# Its own child, which is left to the group when the server dies at once.
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPER!r}])"


@pytest.fixture
def home(memory_folder, request):
    folder = memory_folder / request.node.name
    yield folder
    embedded.stop(Settings(home=folder))


def ingest(home, name, count, seed):
    for arguments in (
        ["sample", str(home / name), "--count", str(count), "--seed", str(seed)],
        ["ingest", str(home / name), "--batch", name],
    ):
        subprocess.run([CF_LAB, *arguments], env=environment(home), check=True, timeout=120)


def ticks(lab):
    repository = {"repositoryLocationName": "cf_lab", "repositoryName": "__repository__"}
    sensors = lab.graphql(TICKS, repository=repository)["sensorsOrError"]["results"]
    return {
        sensor["name"]: tick
        for sensor in sensors
        for tick in sensor["sensorState"]["ticks"]
        if tick["status"] != "STARTED"
    }


def daemons_are_healthy(lab):
    statuses = lab.graphql(DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]
    return all(daemon["healthy"] for daemon in statuses if daemon["required"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_servers_answer_a_run_succeeds_and_after_ctrl_c_nothing_is_left(home):
    ingest(home, "two", 2, seed=3)
    with up(home) as lab:
        assert lab.ui in lab.said
        assert f"{lab.api}/docs" in lab.said
        assert json.loads(fetch(f"{lab.api}/healthz"))
        assert eventually(lambda: daemons_are_healthy(lab), 60)

        second = subprocess.run(
            [CF_LAB, "up", "--port", str(free_port()), "--api-port", str(free_port())],
            env=environment(home),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert second.returncode == 1
        assert "runs already" in second.stderr
        assert str(home) in second.stderr

        run_id = lab.launch("make_counterfactuals", "two")
        assert lab.reaches(run_id, "SUCCESS", "FAILURE")
        assert lab.status(run_id) == "SUCCESS", lab.all_logs()
        expected = {"incoming_deliveries", "follow_upstream"}
        assert eventually(lambda: expected <= set(ticks(lab)), 90)
        assert {tick["status"] for tick in ticks(lab).values()} <= {"SKIPPED", "SUCCESS"}

        started = time.monotonic()
        assert lab.stop(signal.SIGINT) == 0
        assert time.monotonic() - started < 20
        assert eventually(lambda: not servers_of(home), 10), servers_of(home)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_after_kill_nine_nothing_is_left_and_the_run_it_executed_has_failed(home):
    ingest(home, "many", 16, seed=4)
    with up(home) as lab:
        run_id = lab.launch("make_counterfactuals", "many")
        assert lab.reaches(run_id, "STARTED")
        lab.process.kill()
        assert eventually(lambda: not servers_of(home), 40), servers_of(home)
        lab.stop()
    with up(home) as lab:
        assert lab.status(run_id) == "FAILURE"
        assert lab.stop(signal.SIGTERM) == 0


def test_a_taken_port_is_named_with_its_option_before_anything_starts(home):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        for option, other in (("--port", "--api-port"), ("--api-port", "--port")):
            done = subprocess.run(
                [CF_LAB, "up", option, str(port), other, str(free_port())],
                env=environment(home),
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 1
            assert f"port {port}" in done.stderr
            assert option in done.stderr
            assert "Traceback" not in done.stderr
    assert not home.exists()


def test_two_servers_are_not_given_one_port():
    port = free_port()
    with pytest.raises(PortTaken, match=r"--port and --api-port"):
        check_ports({"--port": port, "--api-port": port})
    check_ports({"--port": port, "--api-port": free_port()})


def test_a_server_that_ends_again_and_again_is_named_with_its_log(tmp_path):
    with Children(tmp_path) as children:
        children.start("steady", [sys.executable, "-c", SLEEPER])
        children.start("odd one", [sys.executable, "-c", "print('why'); raise SystemExit(3)"])
        with pytest.raises(ServerFailed, match=r"the odd one .* exit code 3; .*odd one\.log"):
            children.wait()
    assert (tmp_path / "odd one.log").read_text() == "why\n"


def test_a_server_that_ends_before_another_is_ready_is_named_at_once(tmp_path):
    with Children(tmp_path) as children:
        children.start("odd one", [sys.executable, "-c", "raise SystemExit(3)"])
        with pytest.raises(ServerFailed, match="the odd one ended by itself with exit code 3"):
            children.wait_until("other", lambda: False)


def test_a_server_that_is_killed_is_started_again(tmp_path):
    runs = tmp_path / "runs"
    code = f"import os; print(os.getpid(), file=open({str(runs)!r}, 'a'), flush=True); {SLEEPER}"

    def pids():
        return [int(line) for line in runs.read_text().split()] if runs.exists() else []

    killed = []

    def kill_the_first_and_stop():
        if pids() and not killed:
            killed.append(pids()[0])
            os.kill(killed[0], signal.SIGKILL)
        return len(pids()) > 1

    with Children(tmp_path / "log", kill_the_first_and_stop) as children:
        children.start("steady", [sys.executable, "-c", code])
        with pytest.raises(StopAsked):
            children.wait()
    assert len(pids()) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids())


def test_a_request_to_stop_is_heard_while_a_server_starts(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals() as asked, Children(tmp_path, asked) as children:
        children.start("steady", [sys.executable, "-c", SLEEPER])
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopAsked):
            children.wait_until("steady", lambda: False)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are found through /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_servers_and_their_children_end_with_their_parent(tmp_path, number):
    # A test run in the background inherits signals that are ignored.
    code = f"""
        import signal, sys
        from pathlib import Path
        from cf_lab_assets.children import Children

        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with Children(Path({str(tmp_path)!r})) as children:
            children.start("parent", [sys.executable, "-c", {PARENT!r}])
            children.wait()
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment(tmp_path)
    )
    grandchild = f"-c {SLEEPER}"
    assert eventually(
        lambda: any(line.endswith(grandchild) for line in servers_of(tmp_path).values()), 20
    )
    parent.send_signal(number)
    parent.wait(20)
    assert eventually(lambda: not servers_of(tmp_path), 20), servers_of(tmp_path)


HOLDER = """
import sys, time
from pathlib import Path
from cf_lab_assets.lost_runs import run_tags

print(run_tags(Path(sys.argv[1]))["cf_lab/command"], flush=True)
time.sleep(600)
"""


@pytest.fixture
def command(tmp_path):
    """The id of another command, and its process."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    yield process.stdout.readline().strip(), process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_run_fails_once_its_command_is_gone_and_not_before(tmp_path, command):
    import dagster as dg

    @dg.job
    def nothing():
        pass

    token, process = command
    own = lost_runs.run_tags(tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:

        def start(tags):
            run = instance.create_run_for_job(nothing, tags=tags)
            started = dg.DagsterEvent("PIPELINE_START", "nothing")
            instance.report_dagster_event(started, run_id=run.run_id)
            return run.run_id

        theirs, mine = start({lost_runs.COMMAND_TAG: token}), start(own)
        unknown, foreign = start({}), start({lost_runs.COMMAND_TAG: "0123"})
        assert lost_runs.fail_lost_runs(instance, tmp_path) == []
        process.kill()
        process.wait()
        assert lost_runs.fail_lost_runs(instance, tmp_path) == [theirs]
        assert instance.get_run_by_id(theirs).status == dg.DagsterRunStatus.FAILURE
        for run_id in (mine, unknown, foreign):
            assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.STARTED
        assert lost_runs.fail_lost_runs(instance, tmp_path) == []


@pytest.fixture
def worker():
    """A process as the code server starts one for a run."""
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    process.start()
    yield process
    process.kill()
    process.join()


def test_the_launcher_tells_of_a_run_whose_process_is_gone(tmp_path, worker):
    import dagster as dg
    from dagster._core.launcher import WorkerStatus

    @dg.job
    def nothing():
        pass

    launcher = {"module": "cf_lab_assets.launcher", "class": "WatchedRunLauncher"}
    own, others = ({".dagster/grpc_info": json.dumps({"port": port})} for port in (4000, 4001))
    workspace = WORKSPACE.format(host="127.0.0.1", port=4000, location="cf_lab")
    (tmp_path / "workspace.yaml").write_text(workspace)
    with dg.DagsterInstance.local_temp(str(tmp_path), {"run_launcher": launcher}) as instance:

        def started(tags, *pids):
            run = instance.create_run_for_job(nothing, tags=tags)
            for pid in pids:
                instance.report_engine_event(f"Started process for run (pid: {pid}).", run)
            return run

        def health(run):
            return instance.run_launcher.check_run_worker_health(run).status

        assert instance.run_launcher.supports_check_run_worker_health
        here, elsewhere = started(own, 1, worker.pid), started(others, worker.pid)
        unknown = started(own)
        assert health(here) == WorkerStatus.RUNNING
        worker.kill()
        # Also as long as nobody has asked how it ended.
        assert eventually(lambda: health(here) == WorkerStatus.FAILED, 10)
        worker.join()
        assert health(here) == WorkerStatus.FAILED
        assert health(elsewhere) == health(unknown) == WorkerStatus.RUNNING
