"""The lookup API over real HTTP: what it answers, from which store, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg2
import pytest

from cf_lab_resources.api import lookups
from cf_lab_resources.api.answers import Problem
from cf_lab_resources.api.endpoints import BATCH_IDS, BODY_BYTES
from cf_lab_resources.api.lookups import WAITING, Recent, Together
from cf_lab_resources.bucket import content_key
from cf_lab_resources.cache import open_cache, record_key
from cf_lab_resources.catalog import Catalog
from cf_lab_resources.embedded.servers import valkey_binary
from cf_lab_tests.resources.serving import (
    MISSING,
    OTHER,
    PAIR,
    PICTURE,
    SET,
    SHA,
    Stores,
    app,
    is_problem,
    served,
)
from cf_lab_tests.running import eventually

NO_SHA = "0" * 64


def metric(client: httpx.Client, line: str) -> float:
    for found in client.get("/metrics").text.splitlines():
        if found.startswith(line + " "):
            return float(found.rpartition(" ")[2])
    return 0.0


def test_a_record_is_sent_byte_for_byte_with_the_releases_id(
    stores: Stores, client: httpx.Client
) -> None:
    release_id = stores.publish(7)
    answer = client.get(f"/v1/pairs/{PAIR}")
    assert answer.status_code == 200
    assert answer.content == b'{"n": 7,   "id":"%b"}' % PAIR.encode()
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-release-id"] == release_id
    assert client.get(f"/v1/sets/{SET}").content == b'{"set": 7}'
    assert client.head(f"/v1/pairs/{PAIR}").status_code == 200
    assert metric(client, 'lookup_records_total{store="redis"}') == 3
    assert metric(client, 'lookup_records_total{store="postgres"}') == 0


def test_what_the_cache_lacks_comes_from_postgres(stores: Stores, client: httpx.Client) -> None:
    stores.publish(7, warm=False)
    assert client.get(f"/v1/pairs/{PAIR}").json()["n"] == 7
    assert client.get(f"/v1/sets/{SET}").json() == {"set": 7}
    batch = client.post("/v1/pairs/batch", json={"ids": [OTHER, PAIR]}).json()
    assert [slot["pair"]["n"] for slot in batch["results"]] == [7, 7]
    assert metric(client, 'lookup_records_total{store="redis"}') == 0
    assert metric(client, 'lookup_records_total{store="postgres"}') == 4


def test_a_batch_has_a_slot_for_each_id_in_their_order(
    stores: Stores, client: httpx.Client
) -> None:
    release_id = stores.publish(7)
    stores.cache.drop(release_id)
    key = record_key(release_id, "pair", PAIR)
    stores.cache.warm(release_id, [(key, stores.catalog.pair(release_id, PAIR) or b"")])
    answer = client.post("/v1/pairs/batch", json={"ids": [OTHER, MISSING, PAIR, OTHER]})
    assert answer.headers["x-release-id"] == release_id
    assert answer.json() == {
        "release_id": release_id,
        "results": [
            {"id": OTHER, "found": True, "pair": {"n": 7, "id": OTHER}},
            {"id": MISSING, "found": False},
            {"id": PAIR, "found": True, "pair": {"n": 7, "id": PAIR}},
            {"id": OTHER, "found": True, "pair": {"n": 7, "id": OTHER}},
        ],
    }
    assert b'{"n": 7,   "id"' in answer.content
    many = client.post("/v1/pairs/batch", json={"ids": [PAIR] * BATCH_IDS})
    assert len(many.json()["results"]) == BATCH_IDS


def test_answers_follow_a_publication_at_once_and_never_mix(
    stores: Stores,
    postgres_url: str,
    redis_url: str,
    bucket_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lookups, "POINTER_SECONDS", 600)  # it must be told, not ask
    first = stores.publish(1)
    with served(app(postgres_url, redis_url, bucket_url)) as client:
        assert client.get(f"/v1/pairs/{PAIR}").json()["n"] == 1
        seen: set[tuple[str, int]] = set()
        second = stores.publish(2)

        def follows(release_id: str) -> bool:
            answer = client.get(f"/v1/pairs/{PAIR}")
            seen.add((answer.headers["x-release-id"], answer.json()["n"]))
            batch = client.post("/v1/pairs/batch", json={"ids": [PAIR, OTHER]}).json()
            numbers = {slot["pair"]["n"] for slot in batch["results"]}
            assert numbers == {1 if batch["release_id"] == first else 2}
            return bool(batch["release_id"] == release_id)

        assert eventually(lambda: follows(second), 20)
        assert seen <= {(first, 1), (second, 2)}
        stores.catalog.roll_back()
        assert eventually(lambda: follows(first), 20)


def test_a_change_that_nobody_told_of_is_seen_within_seconds(
    stores: Stores, client: httpx.Client
) -> None:
    first, second = stores.publish(1), stores.stage(2)
    assert client.get(f"/v1/pairs/{PAIR}").headers["x-release-id"] == first
    with psycopg2.connect(stores.catalog._url) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE releases SET state = 'superseded' WHERE release_id = %s", (first,))
        cursor.execute(
            "UPDATE releases SET state = 'current', published_at = now() WHERE release_id = %s",
            (second,),
        )
    assert eventually(lambda: client.get(f"/v1/pairs/{PAIR}").headers["x-release-id"] == second, 20)


def test_postgres_is_believed_where_the_caches_hint_differs(
    stores: Stores, client: httpx.Client
) -> None:
    stores.publish(1)
    second = stores.publish(2)
    stores.cache.set_pointer("r" + "9" * 12)
    assert eventually(lambda: client.get(f"/v1/pairs/{PAIR}").headers["x-release-id"] == second, 20)


def test_without_redis_answers_come_from_postgres(
    stores: Stores, postgres_url: str, bucket_url: str
) -> None:
    stores.publish(7)
    with served(app(postgres_url, "redis://127.0.0.1:1/0", bucket_url)) as client:
        for _ in range(3):
            assert client.get(f"/v1/pairs/{PAIR}").json()["n"] == 7
        batch = client.post("/v1/pairs/batch", json={"ids": [PAIR, MISSING]}).json()
        assert [slot["found"] for slot in batch["results"]] == [True, False]
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["redis"] == "down"
        assert metric(client, 'lookup_records_total{store="postgres"}') == 5


def test_a_redis_killed_amid_lookups_is_missed_by_nobody(
    stores: Stores, postgres_url: str, bucket_url: str, tmp_path: Path
) -> None:
    release_id = stores.publish(7)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(valkey_binary()), "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as redis:
        url = f"redis://127.0.0.1:{port}/0"
        with open_cache(url) as cache, served(app(postgres_url, url, bucket_url)) as client:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                try:
                    cache.ping()
                    break
                except Exception:
                    time.sleep(0.05)
            body = stores.catalog.pair(release_id, PAIR) or b""
            cache.warm(release_id, [(record_key(release_id, "pair", PAIR), body)])
            assert client.get(f"/v1/pairs/{PAIR}").content == body
            assert metric(client, 'lookup_records_total{store="redis"}') == 1
            redis.send_signal(signal.SIGKILL)
            redis.wait()
            for _ in range(20):
                assert client.get(f"/v1/pairs/{PAIR}").content == body
            assert metric(client, 'lookup_records_total{store="postgres"}') == 20


def test_while_postgres_is_away_the_cache_goes_on_answering(
    stores: Stores, client: httpx.Client, postgres_url: str, redis_url: str, bucket_url: str
) -> None:
    release_id = stores.publish(7)
    assert client.get(f"/v1/pairs/{PAIR}").json()["n"] == 7
    stores.catalog.close()
    name = postgres_url.rpartition("/")[2]
    connection = psycopg2.connect(postgres_url.rpartition("/")[0] + "/postgres")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
        )
        try:
            time.sleep(1.1)
            assert client.get(f"/v1/pairs/{PAIR}").json()["n"] == 7
            assert is_problem(client.get(f"/v1/pairs/{MISSING}"), 503)
            assert is_problem(client.get(f"/v1/images/{SHA}"), 503)
            assert client.get("/readyz").status_code == 503
            assert client.get("/healthz").status_code == 200
            # A new process knows the release by the cache's hint alone.
            with served(app(postgres_url, redis_url, bucket_url)) as late:
                assert late.get(f"/v1/pairs/{PAIR}").headers["x-release-id"] == release_id
        finally:
            cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    connection.close()
    assert client.get("/readyz").status_code == 200


def test_with_no_release_every_lookup_says_so(client: httpx.Client) -> None:
    for path in (
        f"/v1/pairs/{PAIR}",
        f"/v1/sets/{SET}",
        f"/v1/images/{SHA}",
        "/v1/report",
        "/v1/releases/current",
    ):
        answer = client.get(path)
        assert is_problem(answer, 503)
        assert "no release is current" in answer.json()["detail"]
        assert answer.headers["x-release-id"] == "none"
    assert client.get("/v1/releases").json() == {"releases": []}
    assert client.get("/readyz").json()["status"] == "ready"


def test_a_catalog_without_tables_is_no_release(
    postgres_url: str, redis_url: str, bucket_url: str
) -> None:
    with served(app(postgres_url, redis_url, bucket_url)) as client:
        assert is_problem(client.get(f"/v1/pairs/{PAIR}"), 503)
        assert client.get("/readyz").status_code == 503


def test_candidates_are_not_shown(stores: Stores, client: httpx.Client) -> None:
    first, second = stores.publish(1), stores.publish(2)
    stores.stage(3)
    found = client.get("/v1/releases").json()["releases"]
    assert [(r["release_id"], r["state"]) for r in found] == [
        (second, "current"),
        (first, "superseded"),
    ]
    assert len(client.get("/v1/releases?limit=1").json()["releases"]) == 1
    current = client.get("/v1/releases/current")
    assert current.json()["release_id"] == second == current.headers["x-release-id"]
    assert current.json()["counts"] == {"pairs": 2, "sets": 1}


def test_pictures_of_the_release_are_sent_once_and_kept(
    stores: Stores, client: httpx.Client
) -> None:
    release_id = stores.publish(7)
    answer = client.get(f"/v1/images/{SHA}")
    assert answer.content == PICTURE
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["etag"] == f'"{SHA}"'
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["x-release-id"] == release_id
    for tag in (f'"{SHA}"', f'W/"{SHA}"', f'"other", "{SHA}"', "*"):
        again = client.get(f"/v1/images/{SHA}", headers={"if-none-match": tag})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == f'"{SHA}"'
    other = client.get(f"/v1/images/{SHA}", headers={"if-none-match": '"other"'})
    assert other.status_code == 200


def test_pictures_of_no_release_and_damaged_ones_are_not_sent(
    stores: Stores, client: httpx.Client
) -> None:
    stores.publish(7)
    outside = stores.bucket.put_content("images", b"of no release", ".png")
    sha256 = outside.rpartition("/")[2].removesuffix(".png")
    assert is_problem(client.get(f"/v1/images/{sha256}"), 404)
    assert is_problem(client.get(f"/v1/images/{NO_SHA}"), 404)
    key = content_key("images", SHA, ".png")
    stores.bucket.put_bytes(key, PICTURE + b"!")
    assert is_problem(client.get(f"/v1/images/{SHA}"), 503)
    stores.bucket.delete([key])
    assert is_problem(client.get(f"/v1/images/{SHA}"), 503)


def test_the_report_is_sent_in_both_forms(stores: Stores, client: httpx.Client) -> None:
    stores.publish(7)
    page = client.get("/v1/report")
    assert page.text == "<!DOCTYPE html>7"
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert client.get("/v1/report?format=json").json() == {"a": 1}
    assert is_problem(client.get("/v1/report?format=pdf"), 422)


def test_a_release_without_report_says_so(stores: Stores, client: httpx.Client) -> None:
    stores.publish(7, report=False)
    assert is_problem(client.get("/v1/report"), 404)


def test_every_answer_names_a_release_and_is_not_sniffed(
    stores: Stores, client: httpx.Client
) -> None:
    release_id = stores.publish(7)
    client.get(f"/v1/pairs/{PAIR}")
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/nothing"):
        answer = client.get(path)
        assert answer.headers["x-release-id"] == release_id
        assert answer.headers["x-content-type-options"] == "nosniff"


ODD_PATHS = [
    ("/v1/pairs/", 404),
    ("/v1/pairs/x", 422),
    ("/v1/pairs/%00", 422),
    ("/v1/pairs/%FF%FE", 422),
    ("/v1/pairs/%F0%9F%98%80", 422),
    ("/v1/pairs/..%2f..%2fetc%2fpasswd", 404),
    ("/v1/pairs/" + "a" * 5000, 422),
    (f"/v1/pairs/{PAIR}%0A", 422),
    (f"/v1/pairs/{PAIR}%22", 422),
    (f"/v1/pairs/{PAIR}'%20OR%201=1--", 422),
    (f"/v1/pairs/{PAIR}:x", 422),
    (f"/v1/pairs/{PAIR}/", 404),
    (f"/v1/pairs/{PAIR.upper()}", 422),
    (f"/v1/pairs/{MISSING}", 404),
    (f"/v1/pairs/{PAIR}?x=%00&y[]=1", 200),
    (f"/v1/sets/{MISSING}", 404),
    ("/v1/sets/*", 422),
    ("/v1/images/x", 422),
    (f"/v1/images/{SHA.upper()}", 422),
    (f"/v1/images/{SHA}0", 422),
    ("/v1/images/../../etc/passwd", 404),
    ("/v1/releases?limit=0", 422),
    ("/v1/releases?limit=x", 422),
    ("/v1/releases?limit=%00", 422),
    ("/v1/releases?limit=99999999999999999999999", 422),
    ("/v1/releases?limit=1&limit=2", 200),
    ("/v1/report?format=%FF", 422),
    ("/v1/pairs/batch", 422),
    ("/", 404),
    ("//", 404),
    ("/%", 404),
    ("/v1/releases/", 404),
]


@pytest.mark.parametrize(("path", "status"), ODD_PATHS)
def test_odd_paths_are_refused_with_what_to_do(
    stores: Stores, client: httpx.Client, path: str, status: int
) -> None:
    stores.publish(7)
    request = httpx.Request("GET", client.base_url, extensions={"target": path.encode()})
    answer = client.send(request)
    assert answer.status_code == status
    assert status == 200 or is_problem(answer, status)


def deep(levels: int) -> bytes:
    return b'{"ids":' + b"[" * levels + b"]" * levels + b"}"


ODD_BODIES = [
    (b"", 400),
    (b"{", 400),
    (b"\xff\xfe", 400),
    (b"\x00", 400),
    (b"NaN", 400),
    (b'{"ids": ["\\ud800"]}', 400),
    (deep(100_000), 400),
    (deep(50), 422),
    (b"null", 422),
    (b"[]", 422),
    (b"1e400", 400),
    (b'"ids"', 422),
    (b"{}", 422),
    (b'{"ids": null}', 422),
    (b'{"ids": "x"}', 422),
    (b'{"ids": {}}', 422),
    (b'{"ids": []}', 422),
    (b'{"ids": [1]}', 422),
    (b'{"ids": [null]}', 422),
    (b'{"ids": [["%b"]]}' % PAIR.encode(), 422),
    (b'{"ids": ["%b\\u0000"]}' % PAIR.encode(), 422),
    (b'{"ids": ["%b"], "more": 1}' % PAIR.encode(), 422),
    (json.dumps({"ids": [PAIR] * (BATCH_IDS + 1)}).encode(), 422),
    (b" " * (BODY_BYTES + 1), 413),
]


@pytest.mark.parametrize(("body", "status"), ODD_BODIES, ids=range(len(ODD_BODIES)))
def test_odd_bodies_are_refused_with_what_to_do(
    stores: Stores, client: httpx.Client, body: bytes, status: int
) -> None:
    stores.publish(7)
    for headers in ({"content-type": "application/json"}, {b"content-type": b"\xff/\xfe"}, {}):
        answer = client.post("/v1/pairs/batch", content=body, headers=headers)
        if status == 400 and body == b"1e400":  # orjson reads it as infinity
            assert answer.status_code in (400, 422)
        else:
            assert is_problem(answer, status)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_other_methods_are_refused(client: httpx.Client, method: str) -> None:
    for path in (f"/v1/pairs/{PAIR}", "/v1/pairs/batch", "/v1/releases", f"/v1/images/{SHA}"):
        answer = client.request(method, path)
        assert is_problem(answer, 405)
        assert answer.headers["allow"]


RAW = [
    b"GARBAGE\r\n\r\n",
    b"GET /v1/pairs/x\r\n\r\n",
    b"GET /v1/pairs/\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/pairs/\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://[::1/v1/pairs/x HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /healthz HTTP/9.9\r\nHost: a\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\n: novalue\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    b"POST /v1/pairs/batch HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 100_000 + b"\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nIf-None-Match: \xff\xff\r\n\r\n",
    f"GET /v1/images/{SHA} HTTP/1.1\r\nHost: a\r\n".encode() + b"If-None-Match: \xff,,W/\r\n\r\n",
]


@pytest.mark.parametrize("data", RAW, ids=range(len(RAW)))
def test_malformed_http_never_gives_500_and_the_server_lives_on(
    stores: Stores, client: httpx.Client, data: bytes
) -> None:
    stores.publish(7)
    with socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=8) as raw:
        raw.sendall(data)
        raw.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := raw.recv(65_536):
            answer += chunk
    assert not answer.startswith(b"HTTP/1.1 500")
    assert client.get(f"/v1/pairs/{PAIR}").status_code == 200


def test_a_body_that_never_ends_is_given_up(
    stores: Stores, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cf_lab_resources.api.endpoints.BODY_SECONDS", 0.3)
    stores.publish(7)
    head = b"POST /v1/pairs/batch HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=8) as raw:
        raw.sendall(head)
        assert raw.recv(65_536).startswith(b"HTTP/1.1 408")


def test_an_error_of_our_own_is_logged_and_not_shown(
    stores: Stores,
    client: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret inside")

    stores.publish(7, warm=False)
    monkeypatch.setattr(Catalog, "records", broken)
    answer = client.get(f"/v1/pairs/{PAIR}")
    assert is_problem(answer, 500)
    assert "secret" not in answer.text
    assert "the secret inside" in caplog.text


def test_requests_are_counted_by_route_and_never_by_path(
    stores: Stores, client: httpx.Client
) -> None:
    stores.publish(7)
    for path in (PAIR, PAIR, MISSING, "odd"):
        client.get(f"/v1/pairs/{path}")
    client.get("/no/such/path")
    client.request("PROPFIND", "/v1/releases")
    client.post("/v1/pairs/batch", json={"ids": [PAIR]})
    client.get("/healthz")
    route = 'method="GET",route="/v1/pairs/{record_id}"'
    for status, count in (("200", 2), ("404", 1), ("422", 1)):
        assert metric(client, f'http_requests_total{{{route},status="{status}"}}') == count
    assert metric(client, f"http_request_duration_seconds_count{{{route}}}") == 4
    text = client.get("/metrics").text
    for labels in (
        'method="GET",route="unmatched",status="404"',
        'method="other",route="/v1/releases",status="405"',
        'method="POST",route="/v1/pairs/batch",status="200"',
        'method="GET",route="/healthz",status="200"',
    ):
        assert f"http_requests_total{{{labels}}} 1.0" in text
    assert MISSING not in text


def test_openapi_has_every_route_and_the_page_needs_nothing_else(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {
        "/v1/pairs/{record_id}",
        "/v1/pairs/batch",
        "/v1/sets/{record_id}",
        "/v1/images/{sha256}",
        "/v1/releases",
        "/v1/releases/current",
        "/v1/report",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    page = client.get("/docs").text
    assert all(path in page for path in schema["paths"])
    assert "<script" not in page
    assert "http" not in page


def test_many_clients_at_once_get_their_own_records(stores: Stores, client: httpx.Client) -> None:
    stores.publish(7, warm=False)
    wanted = [PAIR, OTHER] * 50

    def get(pair_id: str) -> str:
        found: str = client.get(f"/v1/pairs/{pair_id}").json()["id"]
        return found

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(get, wanted)) == wanted


def test_lookups_of_one_moment_travel_together_and_equal_ones_as_one() -> None:
    calls: list[list[int]] = []

    async def fetch(keys: list[int]) -> list[int]:
        calls.append(keys)
        await asyncio.sleep(0.01)
        if -1 in keys:
            raise ValueError("bad key")
        return [key * 2 for key in keys]

    async def run() -> None:
        together = Together(fetch, at_once=1)
        assert await asyncio.gather(*(together.get(n % 3) for n in range(9))) == [0, 2, 4] * 3
        assert calls == [[0, 1, 2]]
        given_up = asyncio.ensure_future(together.get(1))
        kept = asyncio.ensure_future(together.get(1))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await kept == 2
        results = await asyncio.gather(
            *(together.get(-1) for _ in range(2)), return_exceptions=True
        )
        assert [str(result) for result in results] == ["bad key"] * 2
        assert await together.get(5) == 10
        waiting = [asyncio.ensure_future(together.get(n)) for n in range(WAITING + 1)]
        with pytest.raises(Problem, match="too many lookups"):
            await waiting[-1]
        assert await asyncio.gather(*waiting[:-1]) == [n * 2 for n in range(WAITING)]

    asyncio.run(run())


def test_what_was_used_last_is_held_longest() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert (recent.get("a"), recent.get("b"), recent.get("c")) == (1, None, 3)


def test_the_module_serves_what_the_environment_names_and_stops_cleanly(
    stores: Stores, postgres_url: str, redis_url: str, bucket_url: str, tmp_path: Path
) -> None:
    import os

    stores.publish(7)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {
        **os.environ,
        "CF_LAB_HOME": str(tmp_path / "home"),
        "CF_LAB_POSTGRES_URL": postgres_url,
        "CF_LAB_REDIS_URL": redis_url,
        "CF_LAB_BUCKET": bucket_url,
    }
    command = [sys.executable, "-m", "cf_lab_resources.api", "--port", str(port)]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE) as server:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert server.poll() is None
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/v1/pairs/{PAIR}")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        assert answer.json()["n"] == 7
        assert "server" not in answer.headers
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
        assert server.stderr is not None
        log = server.stderr.read().decode()
    assert "Traceback" not in log
    assert PAIR not in log
