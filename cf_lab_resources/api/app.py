"""The lookup API put together: FastAPI for what is documented, plain ASGI where it is hot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Annotated, Any, Literal

import orjson
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from cf_lab_resources import __version__
from cf_lab_resources.api import documentation
from cf_lab_resources.api.access import Gatekeeper
from cf_lab_resources.api.answers import PROBLEM, RELEASE_HEADER, Problem
from cf_lab_resources.api.endpoints import BatchEndpoint, HotRoute, PictureEndpoint, RecordEndpoint
from cf_lab_resources.api.front import Front, HttpMetrics
from cf_lab_resources.api.lookups import (
    CACHE_SECONDS,
    CATALOG_SECONDS,
    CATALOG_THREADS,
    Lookups,
)
from cf_lab_resources.bucket import open_bucket
from cf_lab_resources.cache import open_async_client
from cf_lab_resources.catalog import CatalogError, Release, open_catalog
from cf_lab_resources.catalog.api_keys import ApiKeys

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
SHUTDOWN_SECONDS = 10
# The report is one page with its own styles and pictures: it may load and run nothing.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def create_app(
    catalog_url: str, cache_url: str, bucket_url: str, secret: bytes, only: str | None = None
) -> FastAPI:
    """The application; it opens its stores when it starts and contacts them when asked.

    Args:
        catalog_url: libpq URL of Postgres.
        cache_url: `redis://`, `rediss://` or `unix://` URL.
        bucket_url: URL for `open_bucket`.
        secret: under which keys are hashed.
        only: the release to answer from, whichever is current.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    answered = Counter(
        "lookup_records", "Records looked up, by the store asked last", ["store"], registry=registry
    )
    releases = ReleaseMetrics()
    registry.register(releases)
    opened: list[Lookups] = []

    def lookups() -> Lookups:
        return opened[0]

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        catalog = open_catalog(catalog_url, CATALOG_THREADS + 1, CATALOG_SECONDS)
        redis = open_async_client(cache_url, CACHE_SECONDS)
        keys = ApiKeys(catalog_url, statement_seconds=CATALOG_SECONDS)
        gatekeeper = Gatekeeper(keys, secret)
        opened.append(Lookups(catalog, redis, open_bucket(bucket_url), gatekeeper, answered, only))
        if only is None:
            opened[0].follow_pointer()
        try:
            yield
        finally:
            await opened.pop().close()

    app = FastAPI(
        title="Multimodal Counterfactual Lab: lookups",
        version=__version__,
        description=documentation.DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page loads its scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.router.routes += [
        HotRoute("/v1/pairs/batch", BatchEndpoint(lookups), methods=["POST"]),
        HotRoute("/v1/pairs/{record_id}", RecordEndpoint(lookups, "pair"), methods=["GET"]),
        HotRoute("/v1/sets/{record_id}", RecordEndpoint(lookups, "set"), methods=["GET"]),
        HotRoute("/v1/images/{sha256}", PictureEndpoint(lookups), methods=["GET"]),
    ]
    _add_releases(app, lookups)
    _add_operations(app, lookups, registry, releases)
    _add_documentation(app)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_middleware(
        Front,
        metrics=HttpMetrics(registry),
        known_release=lambda: opened[0].known if opened else None,
    )
    return app


class ReleaseMetrics(Collector):
    """What happened to releases, and which one is served, as last read."""

    def __init__(self) -> None:
        self.events: dict[str, int] = {}
        self.served: str | None = None

    def collect(self) -> Iterator[Metric]:
        """For Prometheus' client."""
        events = CounterMetricFamily(
            "release_events", "Happenings to releases, by kind", labels=["event"]
        )
        for event, count in sorted(self.events.items()):
            events.add_metric([event], count)
        yield events
        served = GaugeMetricFamily("release_served", "1 for the release served", labels=["release"])
        if self.served is not None:
            served.add_metric([self.served], 1)
        yield served


def serve(
    catalog_url: str,
    cache_url: str,
    bucket_url: str,
    secret: bytes,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
) -> None:
    """Serves the API until SIGINT or SIGTERM; requests under way are finished."""
    import uvicorn

    config = uvicorn.Config(
        create_app(catalog_url, cache_url, bucket_url, secret),
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    with suppress(KeyboardInterrupt):  # uvicorn raises SIGINT anew once it has ended cleanly
        uvicorn.Server(config).run()


def _add_releases(app: FastAPI, lookups: Any) -> None:
    @app.get("/v1/releases/current", tags=["releases"], responses=documentation.PROBLEMS)
    async def current_release(request: Request) -> Response:
        """The release that lookups are answered from."""
        found = lookups()
        release = await found.release(await found.release_of(request.scope))
        return _json(_shown(release), release.release_id)

    @app.get("/v1/releases", tags=["releases"], responses=documentation.PROBLEMS)
    async def releases(
        limit: Annotated[int, Query(ge=1, le=500, description="how many at most")] = 100,
    ) -> Response:
        """Releases that are or were current, newest first."""
        found = await lookups().published(limit)
        return _json({"releases": [_shown(release) for release in found]})

    @app.get("/v1/report", tags=["releases"], responses=documentation.REPORT_ANSWERS)
    async def report(
        request: Request,
        format: Annotated[Literal["html", "json"], Query(description="of the report")] = "html",
    ) -> Response:
        """The current release's bias report."""
        found = lookups()
        release = await found.release(await found.release_of(request.scope))
        key = (release.manifest["report"] or {}).get(format)
        if key is None:
            raise Problem(404, f"release {release.release_id} has no report in this format")
        data = await found.document(key)
        headers = {"cache-control": "no-cache", "x-release-id": release.release_id}
        if format == "html":
            headers["content-security-policy"] = REPORT_POLICY
            return HTMLResponse(data, headers=headers)
        return Response(data, media_type="application/json", headers=headers)


def _add_operations(
    app: FastAPI, lookups: Any, registry: CollectorRegistry, releases: ReleaseMetrics
) -> None:
    @app.get("/healthz", tags=["operations"])
    async def health() -> Response:
        """Whether the process answers; asks no store."""
        return _json({"status": "ok"})

    @app.get("/readyz", tags=["operations"], responses=documentation.PROBLEMS)
    async def ready() -> Response:
        """Whether lookups can be answered: Postgres is needed, without Redis they are slower."""
        stores = await lookups().check()
        if stores["postgres"] != "ok":
            status, code = "unavailable", 503
        else:
            status, code = ("ready" if stores["redis"] == "ok" else "degraded"), 200
        return _json({"status": status, **stores}, status=code)

    @app.get("/metrics", tags=["operations"], response_class=Response)
    async def metrics() -> Response:
        """Metrics in Prometheus' text format."""
        releases.served = lookups().known
        with suppress(CatalogError):  # then they are as last read
            releases.events = await lookups().event_counts()
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _add_documentation(app: FastAPI) -> None:
    made = app.openapi

    @cache
    def openapi() -> dict[str, Any]:
        return documentation.completed(made())

    app.openapi = openapi  # type: ignore[method-assign]

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        policy = {"content-security-policy": REPORT_POLICY}
        return HTMLResponse(documentation.page(openapi()), headers=policy)


def _shown(release: Release) -> dict[str, Any]:
    manifest = release.manifest
    return {
        "release_id": release.release_id,
        "state": release.state,
        "content_hash": release.content_hash,
        "dataset_hash": release.dataset_hash,
        "created_at": release.created_at,
        "published_at": release.published_at,
        **{name: manifest.get(name) for name in ("counts", "gates", "batches", "models")},
        "report": "/v1/report" if release.state == "current" and release.report_key else None,
    }


def _json(body: Any, release_id: str | None = None, status: int = 200) -> Response:
    headers = {"cache-control": "no-cache"}
    if release_id:
        headers[RELEASE_HEADER.decode()] = release_id
    return Response(orjson.dumps(body), status, headers, "application/json")


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return _problem(Problem(422, f"{faults}; see /openapi.json for what is taken"))


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = {
        404: "there is nothing at this path; /openapi.json has all that there are",
        405: "this path does not take the method; the header Allow has those it takes",
    }.get(error.status_code, str(error.detail))
    headers = [(k.lower().encode(), v.encode()) for k, v in (error.headers or {}).items()]
    return _problem(Problem(error.status_code, detail, headers))


def _problem(problem: Problem) -> Response:
    headers = {name.decode(): value.decode() for name, value in problem.headers}
    return Response(problem.body(), problem.status, headers, PROBLEM.decode())
