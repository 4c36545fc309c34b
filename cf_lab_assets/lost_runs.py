"""Runs whose process is gone: kill -9 and power cuts leave them started for ever.

Such a run would hold its place in the queue and its slot in a pool, and the next run that needs
the slot would wait without end. Beside `cf-lab up` its daemon looks for them, by way of `launcher`;
beside commands no daemon runs, so that each looks when it starts.
"""

from __future__ import annotations

import functools
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cf_lab_resources.embedded.files import FileLock
from cf_lab_resources.embedded.processes import command_lines
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    import dagster as dg

# Names the command whose process executes a run; runs of `cf-lab up` have Dagster's own tag.
COMMAND_TAG = "cf_lab/command"
_CODE_SERVER_TAG = ".dagster/grpc_info"
_COMMANDS = "commands"
_WORKER_STARTED = re.compile(r"Started process for run \(pid: (\d+)\)")
_WORKER_COMMAND = "--multiprocessing-fork"  # how a code server starts a run's process
_locks: list[FileLock] = []


@functools.cache
def command_id(home: Path) -> str:
    """This command's id; a lock on a file of that name tells others that it lives."""
    token = secrets.token_hex(8)
    lock = _command_lock(home, token)
    if not lock.acquire(shared=False):
        raise LabError(f"the id {token} of this command is taken in {home}")
    _locks.append(lock)
    return token


def run_tags(home: Path) -> dict[str, str]:
    """Tags of the runs that this process executes itself.

    The daemon leaves them alone when they fail: whoever gave the command gives it again.
    """
    return {COMMAND_TAG: command_id(home), "dagster/max_retries": "0"}


def up_lock(home: Path) -> FileLock:
    """Held by the one `cf-lab up` of a home."""
    home.mkdir(parents=True, exist_ok=True)
    return FileLock(home / "up.lock")


def fail_lost_runs(instance: dg.DagsterInstance, home: Path) -> list[str]:
    """Mark runs as failed whose process on this machine is gone, and free their slots.

    Args:
        instance: where the runs are recorded, perhaps by several homes.
        home: the DAGSTER_HOME whose processes are looked at.

    Returns:
        The runs' ids.
    """
    import dagster as dg

    going_on = [
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ]
    lost = [
        run
        for run in instance.get_runs(dg.RunsFilter(statuses=going_on))
        if _command_is_gone(home, run.tags) or _up_is_gone(home, run.tags)
    ]
    for run in lost:
        instance.report_run_failed(run, "The process that executed this run is gone.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    for file in (home / _COMMANDS).glob("*.lock"):
        if _is_free(FileLock(file)):
            file.unlink(missing_ok=True)
    return [run.run_id for run in lost]


def run_is_lost(home: Path, tags: Mapping[str, str], messages: Iterable[str]) -> bool:
    """Whether the process of a started run is gone; False where another home executes the run.

    Args:
        home: the DAGSTER_HOME whose processes are looked at.
        tags: the run's.
        messages: of the run's engine events, one of which names its process.
    """
    if COMMAND_TAG in tags:
        return _command_is_gone(home, tags)
    named = [found[1] for message in messages if (found := _WORKER_STARTED.search(message))]
    if not named or not _is_of_this_up(home, tags):
        return False
    # A process that has ended shows no command line, also while nobody has asked how it ended.
    return (named[-1], True) not in {
        (str(pid), _WORKER_COMMAND in line) for pid, line in command_lines()
    }


def _command_lock(home: Path, token: str) -> FileLock:
    folder = home / _COMMANDS
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{token}.lock")


def _command_is_gone(home: Path, tags: Mapping[str, str]) -> bool:
    file = home / _COMMANDS / f"{tags.get(COMMAND_TAG)}.lock"
    return file.exists() and _is_free(FileLock(file))


def _up_is_gone(home: Path, tags: Mapping[str, str]) -> bool:
    return _is_of_this_up(home, tags) and _is_free(up_lock(home))


def _is_of_this_up(home: Path, tags: Mapping[str, str]) -> bool:
    """Whether the run was launched in the code server of this home's last `cf-lab up`."""
    file = home / "workspace.yaml"
    if _CODE_SERVER_TAG not in tags or not file.exists():
        return False
    port = json.loads(tags[_CODE_SERVER_TAG]).get("port")
    return f"port: {port}," in file.read_text()


def _is_free(lock: FileLock) -> bool:
    try:
        return lock.acquire(shared=True)
    finally:
        lock.release()
