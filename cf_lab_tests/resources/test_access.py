"""Keys of the lookup API, and releases that are looked up in before they are current."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg2
import pytest

from cf_lab_resources.api import access
from cf_lab_resources.api.access import AccessError, digest, make_key, read_secret
from cf_lab_resources.catalog import CatalogError
from cf_lab_resources.catalog.api_keys import ApiKey, ApiKeys
from cf_lab_tests.resources.serving import (
    MISSING,
    OTHER,
    PAIR,
    PICTURE,
    SECRET,
    SET,
    SHA,
    Stores,
    is_problem,
)
from cf_lab_tests.running import eventually

MakeKey = Callable[..., tuple[str, ApiKey]]


@pytest.fixture
def keys(stores: Stores, postgres_url: str) -> Iterator[ApiKeys]:
    with ApiKeys(postgres_url) as opened:
        yield opened


@pytest.fixture
def make(keys: ApiKeys) -> MakeKey:
    return lambda name="tester", scopes=("shadow",), days=1: make_key(
        keys, SECRET, name, scopes, days
    )


def asking(release_id: str, key: str | None) -> dict[str, str]:
    return {"x-release-id": release_id} | ({"authorization": f"Bearer {key}"} if key else {})


def test_a_shadow_release_is_seen_whole_with_a_key_and_by_nobody_else(
    stores: Stores, client: httpx.Client, make: MakeKey
) -> None:
    current, shadow = stores.publish(1), stores.stage(2)
    headers = asking(shadow, make()[0])
    for path in (f"/v1/pairs/{PAIR}", f"/v1/sets/{SET}", "/v1/releases/current", "/v1/report"):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, answer.headers["x-release-id"]) == (200, shadow)
        assert client.get(path).headers["x-release-id"] == current
    assert client.get(f"/v1/pairs/{PAIR}", headers=headers).json()["n"] == 2
    batch = client.post("/v1/pairs/batch", json={"ids": [OTHER, MISSING]}, headers=headers).json()
    assert batch["release_id"] == shadow
    assert [slot.get("pair", {}).get("n") for slot in batch["results"]] == [2, None]
    picture = client.get(f"/v1/images/{SHA}", headers=headers)
    assert (picture.content, picture.headers["x-release-id"]) == (PICTURE, shadow)
    assert picture.headers["cache-control"] == "no-cache"  # not for a shared cache
    assert client.get("/v1/releases/current", headers=headers).json()["state"] == "candidate"
    assert client.get("/v1/report", headers=headers).text.endswith("2")
    assert is_problem(client.get(f"/v1/pairs/{MISSING}", headers=headers), 404)


def test_a_shadow_release_that_is_published_tells_its_new_state(
    stores: Stores, client: httpx.Client, make: MakeKey
) -> None:
    first, second = stores.publish(1), stores.stage(2)
    key = make()[0]
    assert client.get("/v1/releases/current", headers=asking(second, key)).json()["state"] == (
        "candidate"
    )
    stores.catalog.publish(second)
    assert eventually(lambda: client.get("/v1/releases/current").json()["release_id"] == second, 20)
    assert client.get("/v1/releases/current").json()["state"] == "current"
    old = client.get("/v1/releases/current", headers=asking(first, key)).json()
    assert old["state"] == "superseded"


def test_who_names_the_current_release_needs_no_key(
    stores: Stores,
    client: httpx.Client,
) -> None:
    current = stores.publish(1)
    assert client.get(f"/v1/pairs/{PAIR}").status_code == 200
    assert client.get(f"/v1/pairs/{PAIR}", headers=asking(current, None)).status_code == 200


def test_a_release_is_named_with_a_valid_key_only(
    stores: Stores,
    client: httpx.Client,
    keys: ApiKeys,
    make: MakeKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stores.publish(1)
    shadow = stores.stage(2)
    key, row = make()
    head, _, secret = key.rpartition("_")
    other = f"{head}_{secret[::-1]}"
    bearers = [None, "", "nonsense", other, key[:-1], key.replace("cfl_", "cfl-")]
    for bearer in bearers:
        answer = client.get(f"/v1/pairs/{PAIR}", headers=asking(shadow, bearer))
        assert is_problem(answer, 401), bearer
        assert answer.headers["www-authenticate"] == "Bearer"
    basic = {"x-release-id": shadow, "authorization": f"Basic {key}"}
    assert is_problem(client.get(f"/v1/pairs/{PAIR}", headers=basic), 401)
    assert is_problem(client.get(f"/v1/pairs/{PAIR}", headers=asking("latest", key)), 422)
    assert is_problem(client.get(f"/v1/pairs/{PAIR}", headers=asking("r" + "9" * 12, key)), 404)
    monkeypatch.setattr(access, "SCOPES", {"shadow": "", "read": ""})
    reader = make(scopes=["read"])[0]
    assert is_problem(client.get(f"/v1/pairs/{PAIR}", headers=asking(shadow, reader)), 403)
    assert client.get(f"/v1/pairs/{PAIR}", headers=asking(shadow, key)).status_code == 200
    keys.revoke(row.key_id)
    assert eventually(
        lambda: client.get(f"/v1/pairs/{PAIR}", headers=asking(shadow, key)).status_code == 401, 20
    )


def test_an_expired_key_opens_nothing(
    stores: Stores,
    client: httpx.Client,
    make: MakeKey,
    postgres_url: str,
) -> None:
    stores.publish(1)
    shadow = stores.stage(2)
    key, row = make()
    with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE api_keys SET expires_at = now() - interval '1 second'")
    assert is_problem(client.get(f"/v1/pairs/{PAIR}", headers=asking(shadow, key)), 401)
    assert row.state(datetime.now(UTC) + timedelta(days=2)) == "expired"


def test_a_withdrawn_or_emptied_release_is_not_looked_up_in(
    stores: Stores, client: httpx.Client, make: MakeKey
) -> None:
    emptied, withdrawn = stores.publish(1), stores.publish(3)
    stores.catalog.roll_back()
    stores.publish(4)
    stores.catalog.drop_records(emptied)
    for release_id in (emptied, withdrawn):
        answer = client.get(f"/v1/pairs/{PAIR}", headers=asking(release_id, make()[0]))
        assert is_problem(answer, 404)


def test_the_table_of_keys_holds_no_key(keys: ApiKeys, make: MakeKey, postgres_url: str) -> None:
    key, row = make("Ada's notebook")
    assert keys.find(row.key_id) == row
    assert keys.all() == [row]
    with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT k::text FROM api_keys k")
        (text,) = cursor.fetchone() or ("",)
    assert row.key_id in text
    assert key.rpartition("_")[2] not in text
    assert hashlib.sha256(key.encode()).hexdigest() not in text  # it takes the lab's secret too
    assert key not in repr(row)
    assert row.digest.hex() not in repr(row)


def test_keys_that_make_no_sense_are_not_made(keys: ApiKeys, make: MakeKey) -> None:
    for arguments, said in (
        ({"scopes": ["everything"]}, "everything"),
        ({"scopes": []}, "none"),
        ({"name": "  "}, "name"),
        ({"days": 0}, "days"),
        ({"days": 5000}, "5000"),
    ):
        with pytest.raises(AccessError, match=said):
            make(**arguments)
    with pytest.raises(CatalogError, match="0badc0de"):
        keys.revoke("0badc0de")
    assert keys.all() == []


def test_the_secret_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "api" / "secret"
    secret = read_secret(path)
    assert len(secret) == 32
    assert read_secret(path) == secret
    assert path.stat().st_mode & 0o077 == 0
    assert [one.name for one in path.parent.iterdir()] == ["secret"]
    assert digest(secret, "a") != digest(read_secret(tmp_path / "other"), "a")
    path.write_text("password")
    with pytest.raises(AccessError, match="secret"):
        read_secret(path)
