"""Callables and endpoints: the latter on a real HTTP server that breaks in real ways."""

from __future__ import annotations

import base64
import io
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cf_lab_resources.engine import endpoint
from cf_lab_resources.engine.adapters import checked_scores, load_callable, open_adapter
from cf_lab_resources.engine.audited_uris import parse_audited
from cf_lab_resources.engine.contract import AnswerRefused, Audited, AuditedModelError, isolated
from cf_lab_resources.engine.endpoint import EndpointFailed

PROMPTS = ["a doctor", "a nurse"]
Answer = tuple[int, bytes]


class Server(ThreadingHTTPServer):
    """Answers as it is told to.

    Attributes:
        answer: gives status and body of each request.
        seen: headers and JSON of every request.
        hang: until it is set, answers of status 0 are waited for.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Callable[[dict[str, Any]], Answer] = scores_by_red
        self.seen: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.hang = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((dict(self.headers), body))
        status, content = self.server.answer(body)
        if status == 0:
            self.server.hang.wait(20)
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def reds(body: dict[str, Any]) -> list[int]:
    images = [Image.open(io.BytesIO(base64.b64decode(one))) for one in body["images"]]
    assert all(image.format == "PNG" for image in images)
    return [image.getpixel((0, 0))[0] for image in images]


def scores_by_red(body: dict[str, Any]) -> Answer:
    rows = [[red + 0.5 * place for place in range(len(body["prompts"]))] for red in reds(body)]
    return 200, json.dumps({"scores": rows}).encode()


def pictures(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (4, 4), (index, 0, 0)) for index in range(count)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(endpoint, "PAUSE", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    serving = Server()
    thread = threading.Thread(target=serving.serve_forever, args=(0.02,))
    thread.start()
    yield serving
    serving.hang.set()
    serving.shutdown()
    thread.join()
    serving.server_close()


def opened(server: Server, options: str = "#family=foo") -> Audited:
    (source,) = parse_audited(f"mine=http://127.0.0.1:{server.server_port}/score{options}")
    return open_adapter(source)


def test_pictures_and_prompts_go_out_and_scores_come_back(server: Server) -> None:
    assert opened(server).associate(PROMPTS)(pictures(3)) == [[0, 0.5], [1, 1.5], [2, 2.5]]
    ((headers, body),) = server.seen
    assert body["prompts"] == PROMPTS
    assert headers["Content-Type"] == "application/json"
    assert "Authorization" not in headers


def test_the_header_comes_from_its_variable_and_appears_nowhere_else(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SCORE_KEY", "Bearer s3cret")
    model = opened(server, "#family=foo&authorization=SCORE_KEY")
    model.associate(PROMPTS)(pictures(1))
    assert server.seen[0][0]["Authorization"] == "Bearer s3cret"
    server.answer = lambda body: (401, b"")
    with pytest.raises(AuditedModelError, match="401") as raised:
        model.associate(PROMPTS)(pictures(1))
    shown = f"{model!r} {model.describe()} {raised.value} {caplog.text}"
    assert "s3cret" not in shown
    monkeypatch.delenv("SCORE_KEY")
    with pytest.raises(AuditedModelError, match="SCORE_KEY"):
        opened(server, "#family=foo&authorization=SCORE_KEY")


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_s_fault_is_tried_again(server: Server, status: int) -> None:
    def answer(body: dict[str, Any]) -> Answer:
        return (status, b"") if len(server.seen) == 1 else scores_by_red(body)

    server.answer = answer
    assert opened(server).associate(PROMPTS)(pictures(1)) == [[0, 0.5]]
    assert len(server.seen) == 2


def test_attempts_are_bounded_and_the_endpoint_is_named(server: Server) -> None:
    server.answer = lambda body: (502, b"")
    with pytest.raises(EndpointFailed, match=rf"{server.server_port}/score failed 3 times.*502"):
        opened(server).associate(PROMPTS)(pictures(1))
    assert len(server.seen) == endpoint.ATTEMPTS


def test_a_refusal_that_is_about_a_picture_is_not_tried_again(server: Server) -> None:
    server.answer = lambda body: (422, b"")
    with pytest.raises(EndpointFailed, match="answers 422"):
        opened(server).associate(PROMPTS)(pictures(1))
    assert len(server.seen) == 1


def test_nobody_listening_is_an_endpoint_that_failed(server: Server) -> None:
    model = opened(server)
    server.shutdown()
    server.server_close()
    with pytest.raises(EndpointFailed, match="the connection failed"):
        model.associate(PROMPTS)(pictures(1))


def test_hanging_on_one_picture_costs_that_picture_alone(server: Server) -> None:
    server.answer = lambda body: (0, b"") if 2 in reds(body) else scores_by_red(body)
    model = opened(server, "#family=foo&timeout=0.3")
    failed: list[tuple[int, str]] = []
    began = time.monotonic()
    found = isolated(model.associate(PROMPTS), pictures(5), 4, lambda *told: failed.append(told))
    assert time.monotonic() - began < 5
    # Four at once, each of them alone, and the last one: a timeout is not tried again.
    assert [len(body["images"]) for _, body in server.seen] == [4, 1, 1, 1, 1, 1]
    assert [one for index, one in enumerate(found) if index != 2] == [
        [0, 0.5], [1, 1.5], [3, 3.5], [4, 4.5]
    ]  # fmt: skip
    ((index, reason),) = failed
    assert index == 2
    assert f"127.0.0.1:{server.server_port}/score gave no answer in 0.3 s" in reason


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"<html>", "no JSON"),
        (b"[[1, 2]]", "without an object with scores"),
        (b'{"scores": [[1, 2], [3, 4]]}', "list of length 2 where a list of 1 rows"),
        (b'{"scores": [[1]]}', "list of length 1 for a picture where 2 scores"),
        (b'{"scores": [[1, "high"]]}', "str of length 4 where a score"),
        (b'{"scores": [[1, true]]}', "bool where a score"),
        (b'{"scores": [[1, NaN]]}', "must be finite or null"),
        (b'{"scores": [[1, Infinity]]}', "must be finite or null"),
        (b'{"scores": null}', "NoneType"),
    ],
)
def test_a_malformed_answer_is_refused_and_its_endpoint_named(
    server: Server, content: bytes, complaint: str
) -> None:
    server.answer = lambda body: (200, content)
    with pytest.raises(AnswerRefused, match=complaint) as raised:
        opened(server).associate(PROMPTS)(pictures(1))
    assert str(raised.value).startswith(f"http://127.0.0.1:{server.server_port}/score")
    assert len(server.seen) == 1


def test_an_answer_without_end_is_cut(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MAX_ANSWER_BYTES", 1000)
    server.answer = lambda body: (200, b" " * 2000)
    with pytest.raises(AnswerRefused, match="more than 1,000 bytes"):
        opened(server).associate(PROMPTS)(pictures(1))


def test_null_is_no_score(server: Server) -> None:
    server.answer = lambda body: (200, b'{"scores": [[null, 2]]}')
    ((first, second),) = opened(server).associate(PROMPTS)(pictures(1))
    assert math.isnan(first)
    assert second == 2.0


def test_what_is_behind_an_endpoint_is_what_was_declared(server: Server) -> None:
    described = opened(server, "#family=siglip2").describe()
    json.dumps(described, allow_nan=False)
    assert described["families"] == ["siglip"]
    assert opened(server, "").describe()["families"] == []


MODULE = """
import numpy as np

def score(images, prompts):
    assert all(image.mode == "RGB" for image in images)
    reds = [image.getpixel((0, 0))[0] for image in images]
    if 3 in reds:
        raise RuntimeError("three is broken")
    return np.array([[red, -red] for red in reds], np.float32)

def wrong(images, prompts):
    return [1.0] * len(images)

number = 5
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"scoring_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def called(module: str, function: str) -> Audited:
    (source,) = parse_audited(f"mine=python://{module}:{function}#family=foo")
    return load_callable(source)


def test_a_callable_that_raises_on_one_picture_keeps_all_others(module: str) -> None:
    model = called(module, "score")
    failed: list[tuple[int, str]] = []
    found = isolated(model.associate(PROMPTS), pictures(5), 5, lambda *told: failed.append(told))
    assert failed == [(3, "RuntimeError: three is broken")]
    assert [one for index, one in enumerate(found) if index != 3] == [
        [red, -red] for red in (0, 1, 2, 4)
    ]
    assert len(model.describe()["sha256"]) == 64


def test_a_callable_that_gives_another_shape_is_refused(module: str) -> None:
    with pytest.raises(AnswerRefused, match=f"python://{module}:wrong gave float for a picture"):
        called(module, "wrong").associate(PROMPTS)(pictures(2))


@pytest.mark.parametrize(
    ("function", "complaint"), [("nothing", "no function nothing"), ("number", "no function")]
)
def test_a_function_that_is_not_there_is_named(module: str, function: str, complaint: str) -> None:
    with pytest.raises(AuditedModelError, match=complaint):
        called(module, function)
    with pytest.raises(AuditedModelError, match="can't be imported"):
        called("no_such_module_anywhere", "score")


def test_scores_of_numpy_are_taken_as_they_are() -> None:
    given = np.array([[1, 2]], np.int64)
    assert checked_scores(given, 1, 2, "x") == [[1.0, 2.0]]
    assert checked_scores([[np.float32(0.5), None]], 1, 2, "x")[0][0] == 0.5
    with pytest.raises(AnswerRefused, match="finite"):
        checked_scores(np.array([[np.nan, 1]]), 1, 2, "x")
