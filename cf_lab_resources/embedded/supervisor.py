"""The process that keeps one embedded server running while somebody uses it.

Each service has a supervisor of its own, in its own session. It is the server's parent, starts it
again when it dies, and ends it when no user has held the lease for a moment. Should the supervisor
itself be killed, its guard (a forked child that only waits for the end of a pipe, which works on
Linux and macOS) ends the server, and whoever still holds a lease starts a new supervisor.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from cf_lab_resources.embedded.errors import EmbeddedError, with_log
from cf_lab_resources.embedded.processes import end_all, send
from cf_lab_resources.embedded.servers import SERVERS, Server
from cf_lab_resources.settings import Settings

LINGER_SECONDS = 1.5  # a command right after another finds the servers still there
START_SECONDS = 120.0  # covers crash recovery of a large log on a busy disk
STOP_SECONDS = 30.0
POLL_SECONDS = 0.1
LOG_BYTES = 8 * 2**20  # then the log moves to `.1`, so that at most twice this is kept
_LOG_CHECK_SECONDS = 5.0
_BACKOFF_SECONDS = 5.0
_READY = "ready"


def launch(service: str, settings: Settings) -> int:
    """Starts a detached supervisor and returns once its server answers: 0, or 1 with the reason.

    The reason goes to stderr. 0 as well where another supervisor is there already.
    """
    server = SERVERS[service](settings)
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        with os.fdopen(reader) as pipe:
            told = pipe.read()
        if told == _READY:
            return 0
        print(told or with_log("the supervisor was killed", server.files.log), file=sys.stderr)
        return 1
    os.close(reader)
    os.setsid()
    _redirect(server.files.log)
    try:
        Supervisor(server, writer).run()
    finally:
        sys.stdout.flush()
    return 0


def _redirect(log: Path) -> None:
    """Lets the process print to the log and hold on to no terminal and no foreign folder."""
    os.chdir(log.parent)
    null = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(output)


class Guard:
    """A forked child that ends the server when the supervisor is gone."""

    def __init__(self, stop_signal: signal.Signals) -> None:
        self._stop_signal = stop_signal
        self._server = 0
        self._fork()

    def watch(self, server: int) -> None:
        """Tells the guard the server's process id; 0 where there is none."""
        self._server = server
        with suppress(BrokenPipeError):
            os.write(self._writer, b"%d\n" % server)

    def renew(self) -> None:
        """Forks another guard where the last one was killed."""
        if os.waitpid(self._pid, os.WNOHANG)[0]:
            os.close(self._writer)
            self._fork()
            self.watch(self._server)

    def _fork(self) -> None:
        reader, self._writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _guard(reader, self._stop_signal)
        os.close(reader)


def _guard(pipe: int, stop_signal: signal.Signals) -> None:
    # Every other descriptor goes first: the supervisor's lock is among them.
    os.dup2(pipe, 3)
    os.closerange(4, 1024)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    told = b""
    while received := os.read(3, 256):
        told += received
    lines = told.split()
    server = int(lines[-1]) if lines else 0
    if server:
        send(server, stop_signal)
        deadline = time.monotonic() + STOP_SECONDS / 2
        while time.monotonic() < deadline and _lives(server):
            time.sleep(POLL_SECONDS)
        send(server, signal.SIGKILL)
    os._exit(0)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Supervisor:
    """Runs one server for as long as there are users."""

    def __init__(self, server: Server, report: int) -> None:
        self._server = server
        self._files = server.files
        self._report: int | None = report
        self._lock = self._files.supervisor_lock()
        self._lease = self._files.lease()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._idle_since: float | None = None
        self._log_checked = 0.0

    def run(self) -> None:
        """Starts the server, watches it, stops it; reports the start through the pipe."""
        if not self._lock.acquire(shared=False, timeout=2.0):
            self._tell(_READY)  # another one is in charge, and its state says how far it is
            return
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self._files.forget_state()
        self._files.write_state(phase="starting", pid=os.getpid())
        self._guard = Guard(self._server.stop_signal)
        try:
            self._start_first()
            self._tell(_READY)
            self._watch()
        except EmbeddedError as error:
            self._log(str(error).splitlines()[0])
            self._tell(str(error))
        finally:
            self._stop()
            self._guard.watch(0)
            self._files.forget_state()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _tell(self, message: str) -> None:
        if self._report is not None:
            with suppress(BrokenPipeError):
                os.write(self._report, message.encode())
            os.close(self._report)
            self._report = None

    def _log(self, message: str) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        print(f"{now} [{os.getpid()}] supervisor: {message}", flush=True)

    def _start_first(self) -> None:
        """Settles the port; only here may it change, since afterwards users know it."""
        end_all(self._server.owns, self._server.stop_signal, STOP_SECONDS / 2)
        for attempts_left in (2, 1, 0):
            credentials = self._server.new_credentials()
            self._server.prepare(credentials)
            self._files.write_credentials(credentials)
            self._credentials = credentials
            if self._start():
                return
            if self._stopping:
                raise EmbeddedError(f"{self._server.name} was stopped while it started")
            # Somebody else may have taken the port between its choice and its use.
            if not attempts_left or self._port_was_mine():
                raise with_log(f"{self._server.name} did not start", self._files.log)

    def _port_was_mine(self) -> bool:
        return self._server.new_credentials().port == self._credentials.port

    def _start(self) -> bool:
        """Starts the server and waits until it answers; False where it ended instead."""
        self._log(f"starting {self._server.name} on port {self._credentials.port}")
        self._process = subprocess.Popen(
            self._server.command(), stdin=subprocess.DEVNULL, start_new_session=True
        )
        self._guard.watch(self._process.pid)
        deadline = time.monotonic() + START_SECONDS
        while not self._server.answers(self._credentials):
            late = time.monotonic() > deadline
            if late or self._stopping or self._process.poll() is not None:
                return False
            time.sleep(POLL_SECONDS / 5)
        self._server.finish(self._credentials)
        self._files.write_state(phase="ready", pid=os.getpid(), server=self._process.pid)
        return True

    def _watch(self) -> None:
        backoff = POLL_SECONDS
        while not self._stopping and not self._idle() and self._lock.in_place():
            assert self._process is not None
            if self._process.poll() is not None:
                self._log(f"{self._server.name} ended with {self._process.returncode}")
                if self._restart():
                    backoff = POLL_SECONDS
                else:
                    time.sleep(backoff)
                    backoff = min(2 * backoff, _BACKOFF_SECONDS)
            self._guard.renew()
            self._bound_log()
            time.sleep(POLL_SECONDS)

    def _restart(self) -> bool:
        self._files.write_state(phase="starting", pid=os.getpid())
        self._guard.watch(0)
        # Backends of a killed postmaster hold its shared memory, and a new one refuses to start
        # beside them; most leave by themselves at once.
        end_all(self._server.owns, signal.SIGTERM, patience=0.5)
        try:
            self._server.prepare(self._credentials)
            return self._start()
        except Exception as error:  # whatever it was, the users still need the server
            self._log(f"{self._server.name} did not start again: {error!r}")
            return False

    def _idle(self) -> bool:
        """Whether nobody has held the lease for a while; then it is held, against newcomers."""
        if not self._lease.acquire(shared=False):
            self._idle_since = None
            return False
        now = time.monotonic()
        self._idle_since = self._idle_since or now
        if now - self._idle_since >= LINGER_SECONDS:
            return True
        self._lease.release()
        return False

    def _bound_log(self) -> None:
        if time.monotonic() - self._log_checked < _LOG_CHECK_SECONDS:
            return
        self._log_checked = time.monotonic()
        log = self._files.log
        if log.exists() and log.stat().st_size > LOG_BYTES:
            # The writers append, so that the file can be emptied under them.
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)

    def _stop(self) -> None:
        if self._lock.in_place():  # else the home was deleted, and perhaps made anew
            self._files.write_state(phase="stopping", pid=os.getpid())
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(self._server.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
            self._process.kill()
            self._process.wait()
        end_all(self._server.owns, signal.SIGTERM, patience=1.0)
