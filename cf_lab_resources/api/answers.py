"""The forms of answers: JSON bytes as they are, and problems (RFC 9457) that say what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus

import orjson
from starlette.types import Send

JSON = b"application/json"
PROBLEM = b"application/problem+json"
RELEASE_HEADER = b"x-release-id"

Headers = Sequence[tuple[bytes, bytes]]


class Problem(Exception):
    """An answer that is an error.

    Attributes:
        status: HTTP status.
        detail: What is wrong and what to do.
        headers: Sent with it.
    """

    def __init__(self, status: int, detail: str, headers: Headers = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers

    def body(self) -> bytes:
        """The problem as JSON."""
        return orjson.dumps(
            {
                "type": "about:blank",
                "title": HTTPStatus(self.status).phrase,
                "status": self.status,
                "detail": self.detail,
            }
        )


def no_release() -> Problem:
    """What is answered while nothing is published."""
    return Problem(
        503,
        "no release is current yet; publish one with `cf-lab run` or by materialising "
        "releases/current, then ask again",
        [(b"retry-after", b"5")],
    )


def unavailable(what: str) -> Problem:
    """What is answered while a store that is needed is away."""
    return Problem(503, f"{what}; ask again in a moment", [(b"retry-after", b"1")])


async def send_bytes(
    send: Send, status: int, media_type: bytes, body: bytes, headers: Iterable[tuple[bytes, bytes]]
) -> None:
    """Sends an answer in two ASGI messages, with no response object in between."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", media_type),
                (b"content-length", b"%d" % len(body)),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def send_problem(send: Send, problem: Problem) -> None:
    """Sends a problem."""
    await send_bytes(send, problem.status, PROBLEM, problem.body(), problem.headers)
