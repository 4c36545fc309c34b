"""Server processes that live and end together with the command that starts them.

One that ends by itself while the command waits is started again, since a lab left alone has nobody
to do it. Each is started in a process group of its own, so that Ctrl-C reaches the command alone,
which then asks all groups to stop. Should the command itself be killed, a guard does so: a process
that only waits for the end of a pipe (``python -m cf_lab_assets.children``).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType

from cf_lab_resources.errors import LabError

# Dagster loads in 5 s, and took 90 s at a load of seven processes a core. A server that ends is
# noticed at once, so that waiting long costs nothing.
START_SECONDS = 300.0
STOP_SECONDS = 12.0
# A server that ends so often in so short a time has a reason that starting it again does not mend.
ENDINGS = 5
ENDINGS_SECONDS = 60.0
_POLL_SECONDS = 0.1


class ServerFailed(LabError):
    """A server ended or did not answer; the message names its log."""


class StopAsked(Exception):
    """Somebody asked the command to stop while it waited."""


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Take SIGINT and SIGTERM as a request to stop; gives whether there was one.

    A request is only noted: an exception out of a signal handler could come between the start of
    a server and its registration.
    """
    asked = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_groups(
    groups: Iterable[int], patience: float, look: Callable[[], object] = lambda: None
) -> None:
    """Ask process groups to stop, and kill what is left of them after so many seconds.

    Args:
        groups: their ids.
        patience: seconds between SIGINT, which Dagster's servers take as the request to stop
            cleanly, and SIGKILL.
        look: called while waiting; the parent of the processes reaps them here.
    """
    left = [group for group in groups if _send(group, signal.SIGINT)]
    deadline = time.monotonic() + patience
    while left and time.monotonic() < deadline:
        look()
        left = [group for group in left if _send(group, 0)]
        time.sleep(_POLL_SECONDS / 2)
    for group in left:
        _send(group, signal.SIGKILL)


def _send(group: int, number: int) -> bool:
    """Send a signal to a group; False where nobody is left in it."""
    try:
        os.killpg(group, number)
    except PermissionError:  # macOS says so where only zombies are left
        return False
    except ProcessLookupError:
        return False
    return True


@dataclass
class _Server:
    """A server: how it is started, its process, and when its processes ended by themselves."""

    command: Sequence[str]
    process: subprocess.Popen[bytes]
    endings: list[float] = field(default_factory=list)

    def ends_too_often(self) -> bool:
        """Note that it ended now; whether it is hopeless to start it again."""
        now = time.monotonic()
        self.endings = [*(at for at in self.endings if at > now - ENDINGS_SECONDS), now]
        return len(self.endings) >= ENDINGS


class Children:
    """The servers of one command; a context manager that ends them all.

    Args:
        log_folder: where each server's output goes, with the previous start's beside it.
        stop_asked: looked at while waiting.
    """

    def __init__(self, log_folder: Path, stop_asked: Callable[[], bool] = lambda: False) -> None:
        self._log_folder = log_folder
        self._stop_asked = stop_asked
        self._servers: dict[str, _Server] = {}
        self._left: list[int] = []

    def __enter__(self) -> Children:
        self._log_folder.mkdir(parents=True, exist_ok=True)
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "cf_lab_assets.children"],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        end_groups(self._groups(), STOP_SECONDS, self._reap)
        for server in self._servers.values():
            server.process.wait()
        # Killed while its pipe is open: told of the end, it would signal groups that are gone.
        self._guard.kill()
        self._guard.wait()
        assert self._guard.stdin is not None
        with suppress(BrokenPipeError):
            self._guard.stdin.close()

    def _reap(self) -> None:
        for server in self._servers.values():
            server.process.poll()

    def _groups(self) -> list[int]:
        return [*self._left, *(server.process.pid for server in self._servers.values())]

    def log(self, name: str) -> Path:
        """The file that a server's output goes to."""
        return self._log_folder / f"{name}.log"

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a server."""
        self._servers[name] = _Server(command, self._launch(name, command))
        self._tell_guard()

    def _launch(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        log = self.log(name)
        with suppress(FileNotFoundError):
            log.replace(log.with_suffix(".log.1"))
        with log.open("wb") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _tell_guard(self) -> None:
        assert self._guard.stdin is not None
        with suppress(BrokenPipeError):
            self._guard.stdin.write(" ".join(map(str, self._groups())).encode() + b"\n")
            self._guard.stdin.flush()

    def wait_until(self, name: str, answers: Callable[[], bool]) -> None:
        """Return once a server answers.

        Raises:
            ServerFailed: a server ended, or this one does not answer in time.
            StopAsked: somebody asked to stop.
        """
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            self.pause()
            if time.monotonic() > deadline:
                raise ServerFailed(
                    f"the {name} does not answer after {START_SECONDS:.0f} s; "
                    f"its log is {self.log(name)}"
                )

    def wait(self) -> None:
        """Keep the servers running until somebody asks to stop.

        Raises:
            ServerFailed: one ends again and again.
            StopAsked: somebody asked to stop.
        """
        while True:
            self._sleep()
            for name, server in self._servers.items():
                if server.process.poll() is not None:
                    self._start_again(name, server)

    def _start_again(self, name: str, server: _Server) -> None:
        how = _ending(server.process.returncode)
        if server.ends_too_often():
            raise ServerFailed(
                f"the {name} ended {ENDINGS} times within {ENDINGS_SECONDS:.0f} s, at last with "
                f"{how}; its log is {self.log(name)}"
            )
        print(f"the {name} ended with {how} and is started again", file=sys.stderr, flush=True)
        # What it leaves behind ends with the command: a code server's runs go on until then.
        self._left = [group for group in (*self._left, server.process.pid) if _send(group, 0)]
        server.process = self._launch(name, server.command)
        self._tell_guard()

    def pause(self) -> None:
        """Sleep for a moment, and look whether all is well; raises as `wait_until`."""
        self._sleep()
        for name, server in self._servers.items():
            if server.process.poll() is not None:
                raise ServerFailed(
                    f"the {name} ended by itself with {_ending(server.process.returncode)}; "
                    f"its log is {self.log(name)}"
                )

    def _sleep(self) -> None:
        time.sleep(_POLL_SECONDS)
        if self._stop_asked():
            raise StopAsked


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def main() -> None:
    """Wait until the parent is gone, then end the groups that it named."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    told = [line for line in sys.stdin.buffer if line.endswith(b"\n")]
    end_groups(map(int, told[-1].split()) if told else (), STOP_SECONDS)


if __name__ == "__main__":
    main()
