"""What ``cf-lab up`` runs: Dagster's UI, daemon and code server, and the lookup API.

UI and daemon share one code server, as they do when deployed: with one of their own each, the
daemon's would be started anew every minute.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_assets.children import Children, ServerFailed, StopAsked, stop_signals
from cf_lab_assets.lost_runs import up_lock
from cf_lab_resources.embedded.servers import HOST, free_port
from cf_lab_resources.errors import LabError
from cf_lab_resources.settings import API_URL_VARIABLE

if TYPE_CHECKING:
    from cf_lab_resources.embedded import Endpoints
    from cf_lab_resources.settings import Settings

LOCATION = "cf_lab"
LAUNCH_SECONDS = 180
WORKSPACE = """\
# Written by cf-lab up at every start.
load_from:
  - grpc_server: {{host: {host}, port: {port}, location_name: {location}}}
"""
_LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries {
    loadStatus locationOrLoadError { ... on PythonError { message } } } } } }"""


class PortTaken(LabError):
    """A port that was asked for is not to be had."""


def check_ports(ports: Mapping[str, int]) -> None:
    """Look whether servers could listen on loopback ports.

    Args:
        ports: by the option that chooses each.

    Raises:
        PortTaken: names port and option.
    """
    seen: dict[int, str] = {}
    for option, port in ports.items():
        if port in seen:
            raise PortTaken(f"{seen[port]} and {option} are both {port}; give each its own port")
        seen[port] = option
        with socket.socket() as probe:
            # Else the connections of servers that have just stopped would keep the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise PortTaken(
                    f"port {port} is not free ({error.strerror}); choose another with {option}"
                ) from error


def fetch(url: str, body: Mapping[str, Any] | None = None) -> bytes:
    """What a server on this machine answers, whatever proxy the environment names.

    Args:
        url: on loopback.
        body: sent as JSON with POST; None: GET.

    Raises:
        OSError: it does not answer, or not with success.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        content: bytes = answer.read()
        return content


def answers(url: str) -> bool:
    """Whether a URL answers with success."""
    try:
        fetch(url)
    except OSError:
        return False
    return True


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=2).close()
    except OSError:
        return False
    return True


@contextmanager
def lookup_api(settings: Settings, endpoints: Endpoints, port: int) -> Iterator[str]:
    """The lookup API in a process of its own; gives its address.

    Raises:
        ServerFailed: it does not start.
    """
    os.environ.update(endpoints.environ())
    with Children(settings.log_folder) as children:
        address = _start_api(children, port)
        children.wait_until("api", lambda: answers(f"{address}/healthz"))
        yield address


def _start_api(children: Children, port: int) -> str:
    children.start("api", [sys.executable, "-m", "cf_lab_resources.api", "--port", str(port)])
    return f"http://{HOST}:{port}"


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    """Two daemons on one instance would launch each run twice."""
    lock = up_lock(settings.dagster_folder)
    if not lock.acquire(shared=False):
        lock.release()
        raise LabError(
            f"`cf-lab up` runs already for {settings.home}; stop that one, or set CF_LAB_HOME to "
            "another folder"
        )
    try:
        yield
    finally:
        lock.release()


def run_until_interrupted(
    settings: Settings, endpoints: Endpoints, ui_port: int, api_port: int
) -> None:
    """Run UI, daemon and API until SIGINT or SIGTERM; one that is killed is started again.

    Raises:
        LabError: another one runs for this home.
        ServerFailed: one of them does not start, or ends again and again.
    """
    _prepare_instance(settings, endpoints)
    with (
        _only_one(settings),
        stop_signals() as stop_asked,
        suppress(StopAsked),
        Children(settings.log_folder, stop_asked) as children,
    ):
        api = _start_api(children, api_port)
        if settings.api_url is None:
            os.environ[API_URL_VARIABLE] = api  # so that the UI can link to it
        _start_dagster(children, settings, endpoints, ui_port)
        children.wait_until("api", lambda: answers(f"{api}/healthz"))
        ui = f"http://{HOST}:{ui_port}"
        children.wait_until("dagster-webserver", lambda: _is_loaded(ui))
        print(f"Dagster UI   {ui}\nlookup API   {api}/docs\nCtrl-C stops them", flush=True)
        children.wait()


def _prepare_instance(settings: Settings, endpoints: Endpoints) -> None:
    """Fail runs that an earlier `up` left behind, and offer every ingested batch in the UI."""
    from cf_lab_assets.instance import offer, open_instance
    from cf_lab_assets.sources import batches
    from cf_lab_resources.bucket import open_bucket

    with open_instance(settings, endpoints) as instance:
        offer(instance, batches.stored_batches(open_bucket(endpoints.bucket_url)))


def _start_dagster(
    children: Children, settings: Settings, endpoints: Endpoints, ui_port: int
) -> None:
    from cf_lab_assets.instance import prepare_home

    home = prepare_home(settings, endpoints)
    # Dagster's own minute is too short for a run's process to start on a busy machine, and a run
    # that isn't launched in time has failed.
    os.environ.setdefault("DAGSTER_GRPC_TIMEOUT_SECONDS", str(LAUNCH_SECONDS))
    port = free_port()
    workspace = home / "workspace.yaml"
    workspace.write_text(WORKSPACE.format(host=HOST, port=port, location=LOCATION))
    python = sys.executable
    code = ["-m", "cf_lab_assets.definitions", "--location-name", LOCATION]
    children.start(
        "dagster-code-server",
        [python, "-m", "dagster", "code-server", "start", "-h", HOST, "-p", str(port), *code],
    )
    children.wait_until("dagster-code-server", lambda: _listens(port))
    daemon = str(Path(python).with_name("dagster-daemon"))
    children.start("dagster-daemon", [daemon, "run", "-w", str(workspace)])
    where = ["-h", HOST, "-p", str(ui_port), "-w", str(workspace)]
    children.start("dagster-webserver", [python, "-m", "dagster_webserver", *where])


def _is_loaded(ui: str) -> bool:
    """Whether the UI answers and has the lab's definitions.

    Raises:
        ServerFailed: they cannot be loaded.
    """
    try:
        answer = json.loads(fetch(f"{ui}/graphql", {"query": _LOCATIONS}))
    except OSError:
        return False
    entries = answer["data"]["workspaceOrError"].get("locationEntries", [])
    for entry in entries:
        found = entry["locationOrLoadError"] or {}
        if "message" in found:
            raise ServerFailed(f"Dagster cannot load the definitions: {found['message'].strip()}")
    return bool(entries) and all(entry["loadStatus"] == "LOADED" for entry in entries)
