"""The lab's long-running processes, started and stopped together: UI, daemon, lookup API."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from cf_lab_resources.embedded import Endpoints
    from cf_lab_resources.settings import Settings

START_SECONDS = 90
STOP_SECONDS = 15
HOST = "127.0.0.1"


class ServerFailed(LabError):
    """A server ended or did not answer; the message names its log."""


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(name: str, command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for as long as the context lasts; its output goes to a log file.

    It is started in its own process group, so that Ctrl-C reaches this process alone, which
    then stops the servers in order.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        server = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield server
    finally:
        # SIGINT, which Dagster's servers take as the request to stop cleanly.
        for stop in (signal.SIGINT, signal.SIGKILL):
            if server.poll() is None:
                os.killpg(server.pid, stop)
            try:
                server.wait(STOP_SECONDS)
                break
            except subprocess.TimeoutExpired:
                print(f"{name} does not stop; killing it", file=sys.stderr)


def wait_until_it_answers(
    server: subprocess.Popen[bytes], url: str, log: Path, seconds: float = START_SECONDS
) -> None:
    """Return when a URL answers.

    Raises:
        ServerFailed: the server ended, or did not answer in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ServerFailed(f"the server for {url} ended at once; its log is {log}")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise ServerFailed(f"{url} does not answer after {seconds:.0f} s; the log is {log}")


@contextmanager
def lookup_api(settings: Settings, endpoints: Endpoints, port: int) -> Iterator[str]:
    """The lookup API in a process of its own; gives its address."""
    os.environ.update(endpoints.environ())
    log = settings.log_folder / "api.log"
    command = [sys.executable, "-m", "cf_lab_resources.api", "--port", str(port)]
    with process("lookup API", command, log) as server:
        address = f"http://{HOST}:{port}"
        wait_until_it_answers(server, f"{address}/healthz", log)
        yield address


def run_until_interrupted(
    settings: Settings, endpoints: Endpoints, ui_port: int, api_port: int
) -> None:
    """Run UI, daemon and API until SIGINT or SIGTERM.

    Raises:
        ServerFailed: one of them ended by itself.
    """
    from cf_lab_assets.instance import prepare_home

    workspace = prepare_home(settings, endpoints) / "workspace.yaml"
    workspace.write_text(
        "load_from:\n  - python_module:\n      module_name: cf_lab_assets.definitions\n"
        "      attribute: defs\n      location_name: cf_lab\n"
    )
    asked_to_stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _: asked_to_stop.append(got))
    where = ["-w", str(workspace)]
    commands = {
        "daemon": [str(Path(sys.executable).parent / "dagster-daemon"), "run", *where],
        "webserver": [
            sys.executable,
            "-m",
            "dagster_webserver",
            "-h",
            HOST,
            "-p",
            str(ui_port),
            *where,
        ],
    }
    with ExitStack() as stack:
        address = stack.enter_context(lookup_api(settings, endpoints, api_port))
        servers = {}
        for name, command in commands.items():
            log = settings.log_folder / f"dagster-{name}.log"
            servers[name] = stack.enter_context(process(name, command, log))
            if name == "webserver":
                url = f"http://{HOST}:{ui_port}"
                wait_until_it_answers(servers[name], f"{url}/server_info", log)
                print(
                    f"Dagster UI   {url}\nlookup API   {address}/docs\nCtrl-C stops them",
                    flush=True,
                )
        while not asked_to_stop:
            for name, server in servers.items():
                if server.poll() is not None:
                    log = settings.log_folder / f"dagster-{name}.log"
                    raise ServerFailed(f"the {name} ended by itself; its log is {log}")
            time.sleep(0.5)
