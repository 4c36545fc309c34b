"""Processes of this machine: listing their command lines, ending them, wrapping a command.

Servers are found by what their command lines say rather than by remembered process ids alone,
since after a kill -9 the one who remembered may be gone.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

_POLL_SECONDS = 0.02


def command_lines() -> Iterator[tuple[int, str]]:
    """Process id and command line, arguments joined by blanks, of every process that shows one."""
    return _from_proc() if Path("/proc/self/cmdline").exists() else _from_ps()


def _from_proc() -> Iterator[tuple[int, str]]:
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            raw = Path("/proc", entry, "cmdline").read_bytes()
        except OSError:
            continue
        text = raw.rstrip(b"\0 ").replace(b"\0", b" ").decode(errors="replace")
        if text:
            yield int(entry), text


def _from_ps() -> Iterator[tuple[int, str]]:
    listing = subprocess.run(
        ["ps", "-axww", "-o", "pid=,command="], capture_output=True, text=True, check=False
    )
    for line in listing.stdout.splitlines():
        pid, _, text = line.strip().partition(" ")
        if pid.isdigit():
            yield int(pid), text.strip()


def find(matches: Callable[[str], bool]) -> list[int]:
    """Ids of the processes whose command line matches."""
    return [pid for pid, text in command_lines() if matches(text)]


def send(pid: int, number: signal.Signals) -> None:
    """Sends a signal; a process that is gone meanwhile is no error."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def end_all(matches: Callable[[str], bool], polite: signal.Signals, patience: float) -> None:
    """Ends every matching process: asks, waits up to `patience` seconds, then kills.

    Children that the first ones leave behind match as well and are waited for too.
    """
    for pid in find(matches):
        send(pid, polite)
    deadline = time.monotonic() + patience
    while pids := find(matches):
        if time.monotonic() > deadline:
            for pid in pids:
                send(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def succeeds(command: Sequence[str]) -> bool:
    """Whether a command can be run and exits 0 within a few seconds."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


@cache
def dying_with_parent(number: signal.Signals) -> tuple[str, ...]:
    """A command prefix by which Linux signals the process when its parent dies; may be empty.

    The guard does the same everywhere; this also holds where the guard was killed as well.
    """
    name = number.name.removeprefix("SIG")
    prefix = ("setpriv", "--pdeathsig", name, "--")
    if shutil.which("setpriv") and succeeds((*prefix, "true")):
        return prefix
    return ()
