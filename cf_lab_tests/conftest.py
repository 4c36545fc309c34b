"""What every test may use: real services, one pair per test process, and no network."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cf_lab_resources import embedded
from cf_lab_resources.embedded import Endpoints
from cf_lab_resources.settings import Settings

# Before any test module, and with it dagster or transformers, is imported.
os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
for _name in [name for name in os.environ if name.startswith("CF_LAB_")]:
    if not _name.startswith("CF_LAB_TEST_"):
        del os.environ[_name]

_SERVICE_FIXTURES = {"services", "postgres_url", "redis_url"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _SERVICE_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.service)


@pytest.fixture(scope="session")
def memory_folder() -> Iterator[Path]:
    """A folder in memory where there is one: databases wait for the disk at every commit."""
    shm = Path("/dev/shm")
    parent = shm if os.access(shm, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="cf_lab_tests_", dir=parent))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def services(memory_folder: Path) -> Iterator[Endpoints]:
    """Embedded Postgres and Redis of this test process, or those of CF_LAB_TEST_*_URL.

    An outside pair is emptied by the tests: give one that holds nothing.
    """
    settings = Settings(
        home=memory_folder / "services",
        postgres_url=os.environ.get("CF_LAB_TEST_POSTGRES_URL"),
        redis_url=os.environ.get("CF_LAB_TEST_REDIS_URL"),
    )
    with embedded.running(settings) as endpoints:
        yield endpoints
    embedded.stop(settings)


@pytest.fixture
def postgres_url(services: Endpoints) -> Iterator[str]:
    """URL of an empty database, dropped after the test."""
    with fresh_database(services) as url:
        yield url


@contextmanager
def fresh_database(services: Endpoints) -> Iterator[str]:
    """URL of an empty database, dropped at the end."""
    import psycopg2

    name = f"test_{uuid.uuid4().hex[:16]}"
    connection = psycopg2.connect(services.postgres_url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
            yield services.postgres_url.rpartition("/")[0] + f"/{name}"
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        connection.close()


@pytest.fixture
def redis_url(services: Endpoints) -> str:
    """URL of an empty Redis database."""
    import redis

    with redis.Redis.from_url(services.redis_url) as client:
        client.flushdb()
    return services.redis_url


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A moto S3 server in a process of its own, with the bucket `lab` in it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("moto") / "moto.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _create_s3_bucket(endpoint, "lab", server, log)
        yield endpoint
    finally:
        server.terminate()
        server.wait(10)


def _create_s3_bucket(endpoint: str, name: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import httpx

    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.put(f"{endpoint}/{name}").raise_for_status()
            return
        except httpx.TransportError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"moto did not start: {log.read_text()}")
            time.sleep(0.1)


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The variables by which S3's clients find that server; its address."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    return s3_endpoint
