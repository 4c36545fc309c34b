"""Roll back and forth while 64 connections look up, and time the last answer of the old release.

    python -m cf_lab_tests.benchmarks.switching [--rounds 5] [--connections 64] [--records 2000]

Postgres, Redis, the lookup API, the clients and each `cf-lab release rollback` are processes of
their own. Every answer is read whole and judged: it must be 200, and name in its header and in
every record within it one release only. Pairs, sets and batches of 20 take turns. Time begins when
the command's process is started, so that it holds Python's start and all imports; beside it stands
the time from the moment that Postgres has recorded for the change. Two peers share the machine in
the same run: `python -c pass` is what a process costs here at that moment, and a bare UPDATE of one
row through a new connection, in a process of its own, is what the least possible command costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from cf_lab_resources import embedded
from cf_lab_resources.bucket import open_bucket
from cf_lab_resources.cache import open_cache, record_key
from cf_lab_resources.catalog import Catalog, NewRelease, Record, open_catalog
from cf_lab_resources.embedded import Endpoints
from cf_lab_resources.embedded.servers import free_port
from cf_lab_resources.settings import Settings
from cf_lab_tests.running import CF_LAB, eventually

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

RELEASES = tuple(f"r{number:012x}" for number in (1, 2))
SETTLED = 1.0  # seconds of load before a command, and after the new release is seen
PATIENCE = 60.0
BATCH = 20
BARE = (
    "import sys, psycopg2; c = psycopg2.connect(sys.argv[1]); c.autocommit = True;"
    "c.cursor().execute('UPDATE touched SET at = now()')"
)


@dataclass
class Seen:
    """What the clients saw.

    Attributes:
        answers: How many.
        faults: What was wrong, and how often.
        last: When the last answer of each release came, in seconds of the monotonic clock.
        first: When the first one came since the last command.
    """

    answers: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    last: dict[str, float] = field(default_factory=dict)

    def add(self, release_id: str, at: float) -> None:
        """One right answer."""
        self.answers += 1
        self.last[release_id] = at


@dataclass(frozen=True)
class Round:
    """One rollback under load.

    Attributes:
        seconds: From the start of the command's process to the last answer of the old release.
        after_commit: From the change in Postgres to that answer.
        process: What starting Python took, in the same load.
        bare: What a process took that only updates a row.
        seen: By the clients.
    """

    seconds: float
    after_commit: float
    process: float
    bare: float
    seen: Seen


def set_id(number: int) -> str:
    """A set's id."""
    return f"s{number:015x}-gender"


def load(catalog: Catalog, cache: Any, bucket: Any, release_id: str, records: int) -> None:
    """Stage and warm a release whose every record names it, padded to about 1 KB."""

    def body(id_: str) -> bytes:
        return json.dumps({"release_id": release_id, "id": id_, "text": "x" * 900}).encode()

    sha256 = "0" * 64
    pairs = [
        Record(id_, id_.rpartition("-")[0], sha256, body(id_))
        for number in range(records)
        for id_ in (f"{set_id(number)}-woman",)
    ]
    sets = [Record(set_id(n), set_id(n), sha256, body(set_id(n))) for n in range(records)]
    digest = release_id[1:].rjust(64, "0")
    new = NewRelease(release_id, digest, "d" * 64, None, {"counts": {}, "report": {}})
    catalog.load(new, [pairs], [sets])
    keyed = [(record_key(release_id, "pair", one.id), one.body) for one in pairs]
    cache.warm(release_id, keyed + [(record_key(release_id, "set", s.id), s.body) for s in sets])


def requests(records: int, start: int) -> Iterator[bytes]:
    """Requests without an end: pairs, a set, a batch."""
    number = start
    while True:
        for kind in ("pair", "pair", "set", "pair", "batch"):
            number = (number * 7919 + 1) % records
            if kind == "batch":
                ids = [f"{set_id((number + n) % records)}-woman" for n in range(BATCH)]
                body = json.dumps({"ids": ids}).encode()
                yield (
                    b"POST /v1/pairs/batch HTTP/1.1\r\nhost: lab\r\ncontent-length: %d\r\n\r\n%b"
                    % (len(body), body)
                )
            else:
                path = (
                    f"sets/{set_id(number)}" if kind == "set" else f"pairs/{set_id(number)}-woman"
                )
                yield f"GET /v1/{path} HTTP/1.1\r\nhost: lab\r\n\r\n".encode()


async def connection(port: int, seed: int, records: int, seen: Seen, ended: Event) -> None:
    """Asks on one connection until told to end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for request in requests(records, seed):
        if ended.is_set():
            break
        writer.write(request)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
            body = await reader.readexactly(int(headers["content-length"]))
        except (asyncio.IncompleteReadError, OSError) as error:
            seen.faults[f"connection: {type(error).__name__}"] += 1
            return
        at = time.monotonic()
        if " 200 " not in head.split("\r\n")[0]:
            seen.faults[head.split("\r\n")[0]] += 1
            continue
        named = {headers["x-release-id"], *releases_in(json.loads(body))}
        if len(named) == 1:
            seen.add(named.pop(), at)
        else:
            seen.faults["mixed: " + ",".join(sorted(named))] += 1
    writer.close()


def releases_in(body: dict[str, Any]) -> Iterator[str]:
    """Every release that an answer's body names."""
    yield body["release_id"]
    for slot in body.get("results", []):
        yield slot["pair"]["release_id"] if slot["found"] else "missing"


def client(
    port: int, connections: int, records: int, told: Any, ended: Event, ready: Event
) -> None:
    """The clients' process: what they saw goes back at the end."""

    async def all_of_them() -> None:
        ready.set()
        await asyncio.gather(
            *(connection(port, seed, records, seen, ended) for seed in range(connections))
        )

    seen = Seen()
    asyncio.run(all_of_them())
    told.send(seen)


@contextmanager
def api(endpoints: Endpoints, home: Path) -> Iterator[int]:
    """The lookup API in a process of its own."""
    port = free_port()
    environment = {**os.environ, **endpoints.environ(), "CF_LAB_HOME": str(home)}
    command = [sys.executable, "-m", "cf_lab_resources.api", "--port", str(port)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as server:
        try:
            assert eventually(lambda: answers(port), PATIENCE)
            yield port
        finally:
            server.terminate()


def answers(port: int) -> bool:
    """Whether the API is ready."""
    import httpx

    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def timed(*command: str, environment: dict[str, str] | None = None) -> tuple[float, float]:
    """When a command was started and how long it took."""
    began = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return began, time.monotonic() - began


def one_round(endpoints: Endpoints, home: Path, port: int, connections: int, records: int) -> Round:
    """Rolls back to the release that is not current, under load."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    ended, ready = context.Event(), context.Event()
    load = context.Process(target=client, args=(port, connections, records, sender, ended, ready))
    load.start()
    environment = {**os.environ, **endpoints.environ(), "CF_LAB_HOME": str(home)}
    with open_catalog(endpoints.postgres_url) as catalog:
        ready.wait(PATIENCE)
        time.sleep(SETTLED)
        old = str(catalog.current_id())
        (new,) = set(RELEASES) - {old}
        _, process = timed(sys.executable, "-c", "pass")
        _, bare = timed(sys.executable, "-c", BARE, endpoints.postgres_url)
        command = [CF_LAB, "release", "rollback", "--to", new, "--reason", "drill"]
        began, _ = timed(*command, environment=environment)
        time.sleep(SETTLED)
        ended.set()
        seen: Seen = receiver.recv()
        load.join()
        (committed,) = catalog._rows(
            "SELECT extract(epoch FROM clock_timestamp() - max(at)) FROM release_events"
            " WHERE event = 'rolled_back_to'"
        )
        changed = time.monotonic() - float(committed[0])
    assert seen.last.get(new, 0) > seen.last[old], "the new release was never seen"
    return Round(seen.last[old] - began, seen.last[old] - changed, process, bare, seen)


def measure(home: Path, rounds: int, connections: int, records: int) -> list[Round]:
    """Rolls back and forth, on an embedded lab in a folder."""
    settings = Settings(home=home)
    try:
        with embedded.running(settings) as endpoints:
            with (
                open_catalog(endpoints.postgres_url) as catalog,
                open_cache(endpoints.redis_url) as cache,
            ):
                catalog.migrate()
                catalog._in_transaction(
                    lambda c: c.cursor().execute("CREATE TABLE touched AS SELECT now() AS at")
                )
                for release_id in RELEASES:
                    load(catalog, cache, open_bucket(endpoints.bucket_url), release_id, records)
                    catalog.publish(release_id)
            with api(endpoints, home) as port:
                return [
                    one_round(endpoints, home, port, connections, records) for _ in range(rounds)
                ]
    finally:
        embedded.stop(settings)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cf_lab_switching_", dir=options.folder) as name:
        found = measure(Path(name) / "lab", options.rounds, options.connections, options.records)
    table = Table(title=f"Rollback under {options.connections} connections")
    for column in ("round", "answers", "faults", "command to last old answer, s"):
        table.add_column(column)
    for column in ("of that after the change, s", "python -c pass, s", "bare UPDATE, s", "ratio"):
        table.add_column(column)
    for number, one in enumerate(found, 1):
        faults = sum(one.seen.faults.values())
        shown = [one.seconds, one.after_commit, one.process, one.bare, one.seconds / one.bare]
        table.add_row(
            str(number), str(one.seen.answers), str(faults), *(f"{value:.3f}" for value in shown)
        )
    Console(width=140).print(table)
    worst = max(one.seconds for one in found)
    median = statistics.median(one.seconds for one in found)
    print(f"median {median:.3f} s, worst {worst:.3f} s")
    for one in found:
        for fault, count in one.seen.faults.items():
            print(f"fault: {fault} ({count})")


if __name__ == "__main__":
    main()
