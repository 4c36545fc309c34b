"""Postgres and Redis of the lab's own, where no URL names others.

`running(settings)` is all that most callers need. It holds a lease on each embedded service; a
detached supervisor per service starts the server for the first lease and ends it a moment after
the last one is gone, however its holder ended. Data, passwords (in files that only their owner
reads), logs and locks stay under the lab's home, and nothing outside of it is changed.

Not here: what is stored in the services, and the object store, which needs no server.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from cf_lab_resources.embedded.errors import EmbeddedError, with_log
from cf_lab_resources.embedded.files import Credentials, FileLock, ServiceFiles
from cf_lab_resources.embedded.processes import send
from cf_lab_resources.embedded.servers import (
    CATALOG_DATABASE,
    DAGSTER_DATABASE,
    HOST,
    SERVERS,
    postgres_binary,
    postgres_url,
    redis_url,
)
from cf_lab_resources.settings import (
    BUCKET_VARIABLE,
    DAGSTER_POSTGRES_VARIABLE,
    POSTGRES_VARIABLE,
    REDIS_VARIABLE,
    Settings,
    redact,
)

__all__ = [
    "EmbeddedError",
    "Endpoints",
    "ServiceStatus",
    "postgres_binary",
    "running",
    "status",
    "stop",
]

_WAIT_SECONDS = 150.0  # above what a supervisor allows its server for starting or stopping
_WATCH_SECONDS = 0.5
_POLL_SECONDS = 0.05


@dataclass(frozen=True, repr=False)
class Endpoints:
    """Addresses of the running services, passwords included (though not when printed).

    Attributes:
        postgres_url: libpq URL of the catalog's database.
        redis_url: URL of Redis, with the database's number.
        bucket_url: URL for `open_bucket`.
        dagster_postgres_url: libpq URL of Dagster's database.
    """

    postgres_url: str
    redis_url: str
    bucket_url: str
    dagster_postgres_url: str

    def environ(self) -> dict[str, str]:
        """The variables that make a child process use these services and start none."""
        return {
            POSTGRES_VARIABLE: self.postgres_url,
            REDIS_VARIABLE: self.redis_url,
            BUCKET_VARIABLE: self.bucket_url,
            DAGSTER_POSTGRES_VARIABLE: self.dagster_postgres_url,
        }

    def __repr__(self) -> str:
        shown = (f"{field.name}={redact(getattr(self, field.name))!r}" for field in fields(self))
        return f"Endpoints({', '.join(shown)})"


@dataclass(frozen=True)
class ServiceStatus:
    """How one service stands.

    Attributes:
        name: `postgres` or `redis`.
        state: `external`, `running`, `starting` or `stopped`.
        address: Without password; None for an embedded service that never ran.
        pid: Of the embedded server, while it runs.
        log: Log file of the embedded server.
    """

    name: str
    state: str
    address: str | None
    pid: int | None
    log: Path


@contextmanager
def running(settings: Settings) -> Iterator[Endpoints]:
    """Starts what the settings give no URL for, and keeps it running inside the block.

    A server that dies meanwhile is started again on the same port; its clients must reconnect.

    Raises:
        EmbeddedError: A service cannot be started; names its log and the log's last lines.
    """
    names = _embedded(settings)
    services = [ServiceFiles.of(settings, name) for name in names]
    with ExitStack() as stack:
        for files in services:
            lease = files.lease()
            stack.callback(lease.release)
            _take(lease, files)
            files.stopped.unlink(missing_ok=True)
        with ThreadPoolExecutor(max(1, len(services))) as pool:
            list(pool.map(_ensure, services))
        stack.enter_context(_watching(services))
        yield _endpoints(settings)


def status(settings: Settings) -> list[ServiceStatus]:
    """How Postgres and Redis stand; starts and changes nothing."""
    urls = {"postgres": settings.postgres_url, "redis": settings.redis_url}
    return [_status(settings, name, url) for name, url in urls.items()]


def stop(settings: Settings) -> None:
    """Stops the embedded services now, even under users, until somebody starts them anew.

    Raises:
        EmbeddedError: A service does not stop.
    """
    if not settings.services_folder.is_dir():
        return
    for name in SERVERS:
        files = ServiceFiles.of(settings, name)
        files.stopped.touch()
        deadline = time.monotonic() + _WAIT_SECONDS
        while files.supervisor_lives():
            pid = files.read_state().get("pid")
            if pid:
                send(int(pid), signal.SIGTERM)
            if time.monotonic() > deadline:
                raise with_log(f"{name} does not stop", files.log)
            time.sleep(_POLL_SECONDS)


def _embedded(settings: Settings) -> list[str]:
    given = {"postgres": settings.postgres_url, "redis": settings.redis_url}
    return [name for name in SERVERS if not given[name]]


def _take(lease: FileLock, files: ServiceFiles) -> None:
    """Waits for a supervisor that is shutting down, which holds the lease against newcomers."""
    if not lease.acquire(shared=True, timeout=_WAIT_SECONDS):
        raise with_log(f"an earlier {files.service} is still shutting down", files.log)


def _ensure(files: ServiceFiles) -> None:
    """Returns once a supervisor is alive and its server takes connections."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        if files.bury_supervisor():
            _launch(files)
        elif files.read_state().get("phase") == "ready" and _listens(files):
            return
        else:
            time.sleep(_POLL_SECONDS)
        if time.monotonic() > deadline:
            raise with_log(f"{files.service} does not answer", files.log)


def _launch(files: ServiceFiles) -> None:
    launcher = subprocess.run(
        [sys.executable, "-m", "cf_lab_resources.embedded", files.service, str(files.home)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the foreground only
        check=False,
    )
    if launcher.returncode:
        raise EmbeddedError(launcher.stderr.strip())


def _listens(files: ServiceFiles) -> bool:
    credentials = files.read_credentials()
    if credentials is None:
        return False
    try:
        socket.create_connection((HOST, credentials.port), timeout=2).close()
    except OSError:
        return False
    return True


@contextmanager
def _watching(services: list[ServiceFiles]) -> Iterator[None]:
    """Starts a new supervisor where one was killed, from a thread of this process."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_WATCH_SECONDS):
            for files in services:
                _revive(files)

    thread = threading.Thread(target=watch, name="cf-lab-embedded", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_WATCH_SECONDS)


def _revive(files: ServiceFiles) -> None:
    try:
        if not files.stopped.exists() and not files.supervisor_lives():
            _launch(files)
    except (EmbeddedError, OSError):
        return  # its log says why; the next round tries again


def _endpoints(settings: Settings) -> Endpoints:
    postgres, dagster = settings.postgres_url, settings.dagster_postgres_url
    if postgres is None:
        credentials = _credentials(settings, "postgres")
        dagster = dagster or postgres_url(credentials, DAGSTER_DATABASE)
        postgres = postgres_url(credentials, CATALOG_DATABASE)
    return Endpoints(
        postgres_url=postgres,
        redis_url=settings.redis_url or redis_url(_credentials(settings, "redis")),
        bucket_url=settings.bucket,
        dagster_postgres_url=dagster or postgres,
    )


def _credentials(settings: Settings, name: str) -> Credentials:
    credentials = ServiceFiles(settings.home, name).read_credentials()
    if credentials is None:
        raise EmbeddedError(f"{name} runs, but its credentials under {settings.home} are gone")
    return credentials


def _status(settings: Settings, name: str, url: str | None) -> ServiceStatus:
    files = ServiceFiles(settings.home, name)
    if url:
        return ServiceStatus(name, "external", redact(url), None, files.log)
    credentials = files.read_credentials()
    address = f"{HOST}:{credentials.port}" if credentials else None
    if not settings.services_folder.is_dir() or not files.supervisor_lives():
        return ServiceStatus(name, "stopped", address, None, files.log)
    state = files.read_state()
    shown = "running" if state.get("phase") == "ready" else "starting"
    return ServiceStatus(name, shown, address, state.get("server"), files.log)
