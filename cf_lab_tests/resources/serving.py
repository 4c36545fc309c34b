"""The lookup API as tests serve it, over releases of two pairs."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from cf_lab_resources.api import create_app
from cf_lab_resources.bucket import Bucket
from cf_lab_resources.cache import Cache, record_key
from cf_lab_resources.catalog import Catalog, NewRelease, Record

SET = "s000000000000001-gender"
PAIR = f"{SET}-woman"
OTHER = f"{SET}-man"
MISSING = "s0000000000000ff-gender-man"
PICTURE = b"\x89PNG\r\n\x1a\n not a real one"
SHA = hashlib.sha256(PICTURE).hexdigest()
SECRET = b"no more than a test's secret: 32"


@contextmanager
def served(app: Any) -> Iterator[httpx.Client]:
    """A real server on a free port, in a thread."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, http="httptools", access_log=False, log_config=None, server_header=False
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=address, timeout=20) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


def app(postgres_url: str, redis_url: str, bucket_url: str) -> Any:
    """The API, with a secret of its own."""
    return create_app(postgres_url, redis_url, bucket_url, SECRET)


class Stores:
    """The three stores of a test, and releases made of two pairs that bear their number."""

    def __init__(self, catalog: Catalog, cache: Cache, bucket: Bucket) -> None:
        self.catalog, self.cache, self.bucket = catalog, cache, bucket

    def publish(self, number: int, warm: bool = True, report: bool = True) -> str:
        release_id = self.stage(number, report)
        if warm:
            for kind in ("pair", "set"):
                for batch in self.catalog.iterate(kind, release_id):
                    rows = [(record_key(release_id, kind, id_), body) for id_, body in batch]
                    self.cache.warm(release_id, rows)
        self.catalog.publish(release_id)
        self.cache.set_pointer(release_id)
        return release_id

    def stage(self, number: int, report: bool = True) -> str:
        release_id = f"r{number:012x}"
        self.bucket.put_content("images", PICTURE, ".png")
        keys = {
            kind: self.bucket.put_content("reports", text, f".{kind}") if report else None
            for kind, text in (("html", b"<!DOCTYPE html>%d" % number), ("json", b'{"a":1}'))
        }
        new = NewRelease(
            release_id,
            f"{number:064x}",
            "d" * 64,
            keys["html"],
            {"counts": {"pairs": 2, "sets": 1}, "report": keys, "gates": []},
        )
        pairs = [
            Record(id_, SET, SHA, b'{"n": %d,   "id":"%b"}' % (number, id_.encode()))
            for id_ in (PAIR, OTHER)
        ]
        sets = [Record(SET, SET, SHA, b'{"set": %d}' % number)]
        self.catalog.load(new, [pairs], [sets])
        return release_id


def is_problem(answer: httpx.Response, status: int) -> bool:
    body = answer.json()
    return (
        answer.status_code == status == body["status"]
        and answer.headers["content-type"] == "application/problem+json"
        and bool(body["title"])
        and len(body["detail"]) > 20
        and "x-release-id" in answer.headers
    )
