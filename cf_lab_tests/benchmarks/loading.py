"""Loading a release, against the servers' own tools: COPY into Postgres and warm-up of Redis.

    python -m cf_lab_tests.benchmarks.loading [--rows 1000000] [--rounds 2] [--folder /dev/shm]

Rows of 1 KB lie in a Parquet file. The lab reads them as a stream and loads them as a release,
indexes and all; psql copies the same rows, which lie in a file in PostgreSQL's binary format, into
the same partitioned table. The cache is warmed with the same records; the peer does what
`redis-cli --pipe` does: it sends the finished protocol down a socket and counts the replies. Both
ways take turns, and the least of the rounds counts, as other work on the machine only adds.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from cf_lab_resources import embedded
from cf_lab_resources.cache import open_cache, record_key
from cf_lab_resources.catalog import NewRelease, Record, open_catalog
from cf_lab_resources.catalog.loading import COLUMNS, TABLES, encoded
from cf_lab_resources.settings import Settings
from cf_lab_tests.benchmarks.planning import peak_memory

BODY_BYTES = 1024
BATCH_ROWS = 1000
PIPE_BYTES = 1 << 16
LIMIT = 0.7
SHA = "ab" * 32


def write_rows(path: Path, rows: int) -> None:
    """Records as Parquet, a row group at a time."""
    schema = pa.schema([(name, pa.string()) for name in ("id", "set_id")] + [("body", pa.binary())])
    with pq.ParquetWriter(path, schema, compression="none") as writer:
        for start in range(0, rows, 50 * BATCH_ROWS):
            numbers = range(start, min(rows, start + 50 * BATCH_ROWS))
            sets = [f"s{number // 5:015x}-age" for number in numbers]
            bodies = [
                json.dumps({"n": number, "text": "x" * BODY_BYTES})[:BODY_BYTES].encode()
                for number in numbers
            ]
            ids = [f"{one}-{number % 5}" for one, number in zip(sets, numbers, strict=True)]
            writer.write_table(pa.table([ids, sets, pa.array(bodies, pa.binary())], schema=schema))


def records(path: Path) -> Iterator[list[Record]]:
    """The rows, a batch at a time."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(BATCH_ROWS):
            columns = (column.to_pylist() for column in batch.columns)
            yield [
                Record(id_, set_id, SHA, body) for id_, set_id, body in zip(*columns, strict=True)
            ]


def release(number: int) -> NewRelease:
    """A release of its own for each load."""
    return NewRelease(f"r{number:012x}", f"{number:064x}", "d" * 64, None, {})


def by_lab(url: str, path: Path, number: int) -> None:
    """`Catalog.load`."""
    with open_catalog(url) as catalog:
        catalog.load(release(number), records(path), [])


def by_psql(url: str, path: Path, number: int) -> None:
    """The same rows in binary format, into a partition of the same table."""
    table, named = TABLES[0], release(number).release_id
    columns = ", ".join(COLUMNS)
    psql(
        url,
        f"\\copy {table} ({columns}) FROM '{path}.{number}' WITH (FORMAT binary)",
        f"CREATE TABLE {table}_{named} PARTITION OF {table} FOR VALUES IN ('{named}')",
    )


def psql(url: str, copy: str, before: str) -> None:
    """Run two commands in one transaction."""
    command = [embedded.postgres_binary("psql"), url, "-q1", "-v", "ON_ERROR_STOP=1"]
    quiet = {**os.environ, "PGOPTIONS": "-c client_min_messages=warning"}
    said = subprocess.DEVNULL
    subprocess.run([*command, "-c", before, "-c", copy], check=True, env=quiet, stdout=said)


def warm(url: str, path: Path, number: int) -> None:
    """`Cache.warm`."""
    name = release(number).release_id
    with open_cache(url) as cache:
        cache.warm(name, ((record_key(name, "pair", one.id), one.body) for one in _flat(path)))


def _flat(path: Path) -> Iterator[Record]:
    for batch in records(path):
        yield from batch


def piped(url: str, path: Path, number: int) -> None:
    """The protocol as it stands in a file, down a socket, and as many replies."""
    parts = urlsplit(url)
    family = socket.AF_UNIX if parts.scheme == "unix" else socket.AF_INET
    address = parts.path if parts.scheme == "unix" else (parts.hostname, parts.port)
    expected = Path(f"{path}.{number}.count").read_text()
    with socket.socket(family) as connection, Path(f"{path}.{number}").open("rb") as file:
        connection.connect(address)
        if parts.password:
            connection.sendall(f"AUTH {parts.password}\r\n".encode())
            connection.recv(64)
        reader = threading.Thread(target=_count, args=(connection, int(expected)))
        reader.start()
        while data := file.read(PIPE_BYTES):
            connection.sendall(data)
        reader.join()


def _count(connection: socket.socket, expected: int) -> None:
    seen = 0
    while seen < expected:
        data = connection.recv(PIPE_BYTES)
        if not data or b"-" in data:
            raise RuntimeError(f"Redis refused: {data[:80]!r}")
        seen += data.count(b"\n")


def write_binary(path: Path, number: int) -> None:
    """What `\\copy` reads."""
    with Path(f"{path}.{number}").open("wb") as file:
        file.writelines(encoded(release(number).release_id, records(path)))


def write_protocol(path: Path, number: int) -> None:
    """What a pipe sends."""
    name, count = release(number).release_id, 0
    with Path(f"{path}.{number}").open("wb") as file:
        for one in _flat(path):
            key = record_key(name, "pair", one.id).encode()
            file.write(b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n" % (len(key), key))
            file.write(b"$%d\r\n%b\r\n" % (len(one.body), one.body))
            count += 1
    Path(f"{path}.{number}.count").write_text(str(count))


def seconds(work: Callable[[str, Path, int], None], url: str, path: Path, number: int) -> float:
    """Of the wall."""
    start = time.perf_counter()
    work(url, path, number)
    return time.perf_counter() - start


def main() -> None:
    """Print both ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    table = Table("load", "lab s", "peer s", "lab's speed of the peer's", title="least of rounds")
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        path, settings = Path(folder) / "rows.parquet", Settings(home=Path(folder) / "home")
        write_rows(path, chosen.rows)
        with embedded.running(settings) as services:
            with open_catalog(services.postgres_url) as catalog:
                catalog.migrate()
            pairs = (
                ("COPY into Postgres", services.postgres_url, by_lab, by_psql, write_binary),
                ("warm-up of Redis", services.redis_url, warm, piped, write_protocol),
            )
            for name, url, ours, theirs, prepare in pairs:
                found: list[tuple[float, float]] = []
                for turn in range(chosen.rounds):
                    mine, other = 2 * turn + 1, 2 * turn + 2
                    prepare(path, other)
                    found.append(
                        (seconds(ours, url, path, mine), seconds(theirs, url, path, other))
                    )
                    os.unlink(f"{path}.{other}")
                    _clear(services.postgres_url, services.redis_url, mine, other)
                lab, peer = (min(column) for column in zip(*found, strict=True))
                table.add_row(name, f"{lab:.1f}", f"{peer:.1f}", f"{peer / lab:.2f}")
        embedded.stop(settings)
    console = Console()
    console.print(table)
    console.print(f"{chosen.rows:,} rows of {BODY_BYTES} bytes; at least {LIMIT} is wanted")
    console.print(f"the lab's peak {peak_memory():.0f} MiB")


def _clear(postgres: str, redis: str, *numbers: int) -> None:
    with open_cache(redis) as cache:
        for number in numbers:
            cache.drop(release(number).release_id)
    for number in numbers:
        table = f"{TABLES[0]}_{release(number).release_id}"
        psql(postgres, f"DROP TABLE IF EXISTS {table}", "SELECT 1")


if __name__ == "__main__":
    main()
