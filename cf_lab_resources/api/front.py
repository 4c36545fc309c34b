"""Stands before all routes: counts and times requests, names the release, catches what is left.

A plain ASGI middleware: Starlette's own base class costs more than a lookup does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cf_lab_resources.api.answers import RELEASE_HEADER, Problem, send_problem, unavailable
from cf_lab_resources.bucket import BucketError
from cf_lab_resources.catalog import CatalogError

logger = logging.getLogger(__name__)

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_RELEASE = b"none"


class HttpMetrics:
    """Requests and their durations, by the template of the route and never by the path itself."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "http_requests",
            "HTTP requests answered",
            ["method", "route", "status"],
            registry=registry,
        )
        self._durations = Histogram(
            "http_request_duration_seconds",
            "Time from a request's arrival to the end of its answer",
            ["method", "route"],
            buckets=BUCKETS,
            registry=registry,
        )
        # Looking children up by labels takes a lock and builds a tuple of strings each time.
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts one request."""
        key = (method, route, status)
        children = self._known.get(key)
        if children is None:
            children = (
                self._requests.labels(method, route, str(status)),
                self._durations.labels(method, route),
            )
            self._known[key] = children
        children[0].inc()
        children[1].observe(seconds)


class Front:
    """The outermost application; see the module."""

    def __init__(
        self, app: ASGIApp, metrics: HttpMetrics, known_release: Callable[[], str | None]
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._known_release = known_release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = perf_counter(), 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = self._completed(message["headers"])
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception as error:
            if status:
                raise  # too late for another answer: the connection is cut
            await send_problem(send_on, as_problem(error))
        finally:
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.observe(method, route, status or 499, perf_counter() - start)

    def _completed(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        completed = [*headers, (b"x-content-type-options", b"nosniff")]
        if not any(name == RELEASE_HEADER for name, _ in headers):
            known = self._known_release()
            completed.append((RELEASE_HEADER, known.encode() if known else NO_RELEASE))
        return completed


def as_problem(error: Exception) -> Problem:
    """The answer to an exception; what is not foreseen is logged and shown to nobody."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, CatalogError):
        logger.warning("%s", error)
        return unavailable("the record can't be reached now")
    if isinstance(error, BucketError):
        logger.error("%s", error)
        return unavailable("the object store can't give what is asked for now")
    logger.error("unexpected error", exc_info=error)
    return Problem(500, "an error of the lab's own, which is in its log; report it with the time")
