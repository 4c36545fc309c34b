"""The files through which users, supervisors and servers of one home find each other.

Who is alive is told by flock alone, which the kernel gives back however a process ends: a
supervisor holds its lock exclusively for life, each user holds the lease shared. The JSON files
are only read where a lock says that they are fresh.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cf_lab_resources.embedded.errors import EmbeddedError
from cf_lab_resources.settings import Settings

_POLL_SECONDS = 0.02


class FileLock:
    """One flock on one file; programs started from here do not inherit it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self, *, shared: bool, timeout: float = 0.0) -> bool:
        """Takes the lock within so many seconds, or returns False."""
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        mode = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(self._descriptor, mode)
                return True
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_POLL_SECONDS)

    def in_place(self) -> bool:
        """Whether the locked file is still the one at its path."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Gives the lock back; harmless where it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@dataclass(frozen=True)
class Credentials:
    """Port on 127.0.0.1 and password of an embedded service."""

    port: int
    password: str

    def __repr__(self) -> str:
        return f"Credentials(port={self.port})"


@dataclass(frozen=True)
class ServiceFiles:
    """Where the files of one embedded service lie."""

    home: Path
    service: str

    @classmethod
    def of(cls, settings: Settings, service: str) -> ServiceFiles:
        """The files of a service, with the folders for them made.

        Raises:
            EmbeddedError: The home cannot be written.
        """
        try:
            settings.services_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            settings.log_folder.mkdir(exist_ok=True)
            if not os.access(settings.services_folder, os.W_OK | os.X_OK):
                raise PermissionError(13, "it belongs to another user")
        except OSError as error:
            raise EmbeddedError(
                f"{settings.home} cannot be written: {error.strerror}. "
                "Set CF_LAB_HOME to a folder of your own."
            ) from error
        return cls(settings.home, service)

    @property
    def _stem(self) -> Path:
        return self.home / "services" / self.service

    @property
    def log(self) -> Path:
        """What the server and its supervisor print."""
        return self.home / "log" / f"{self.service}.log"

    def supervisor_lock(self) -> FileLock:
        """Held exclusively by the supervisor for life."""
        return FileLock(self._stem.with_suffix(".lock"))

    def lease(self) -> FileLock:
        """Held shared by every user, and exclusively by a supervisor that is shutting down."""
        return FileLock(self._stem.with_suffix(".lease"))

    @property
    def stopped(self) -> Path:
        """There while a person's `stop` holds against users that would start it again."""
        return self._stem.with_suffix(".stopped")

    def supervisor_lives(self) -> bool:
        """Whether a supervisor holds its lock now."""
        lock = self.supervisor_lock()
        try:
            return not lock.acquire(shared=True)
        finally:
            lock.release()

    def bury_supervisor(self) -> bool:
        """Forgets the state of a supervisor that is gone; False where one lives."""
        lock = self.supervisor_lock()
        try:
            if not lock.acquire(shared=True):
                return False
            self.forget_state()  # under the lock, so that no new one has written its own
            return True
        finally:
            lock.release()

    def read_state(self) -> dict[str, Any]:
        """`phase` (starting, ready, stopping), supervisor's `pid`, `server` pid; may be empty."""
        return _read_json(self._stem.with_suffix(".state"))

    def write_state(self, **state: Any) -> None:
        """Replaces the state."""
        _write_json(self._stem.with_suffix(".state"), state)

    def forget_state(self) -> None:
        """Removes the state of a supervisor that is gone or going."""
        self._stem.with_suffix(".state").unlink(missing_ok=True)

    def read_credentials(self) -> Credentials | None:
        """Port and password, or None where there are none yet."""
        stored = _read_json(self._stem.with_suffix(".secret"))
        try:
            return Credentials(int(stored["port"]), str(stored["password"]))
        except (KeyError, ValueError):
            return None

    def write_credentials(self, credentials: Credentials) -> None:
        """Replaces port and password, in a file that only its owner reads."""
        _write_json(
            self._stem.with_suffix(".secret"),
            {"port": credentials.port, "password": credentials.password},
        )


def write_private(path: Path, text: str) -> None:
    """Writes a file of mode 0600, whole or not at all."""
    descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.replace(part, path)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_private(path, json.dumps(value))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
