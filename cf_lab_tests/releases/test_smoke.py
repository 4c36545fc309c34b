"""A staged release is asked of the lookup API, in process or deployed, before it is current."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from cf_lab_assets.releases import candidate
from cf_lab_assets.releases.smoke import Api, Smoke, SmokeTestError, smoke_test
from cf_lab_resources.api import create_app
from cf_lab_resources.api.access import make_key
from cf_lab_resources.bucket import Bucket
from cf_lab_resources.cache import Cache, record_key
from cf_lab_resources.catalog import Catalog
from cf_lab_resources.catalog.api_keys import ApiKeys
from cf_lab_tests.releases.sample import write_dataset
from cf_lab_tests.resources.serving import SECRET, served

# Of the sample: its pairs, its sets, the batch, ten pictures, two reports, and one unknown pair.
ASKED = 20 + 8 + 1 + 10 + 2 + 1


@pytest.fixture
def release_id(bucket: Bucket, catalog: Catalog) -> str:
    write_dataset(bucket)
    content = candidate.read_content(bucket)
    candidate.stage_candidate(bucket, catalog, content)
    return content.release_id


@pytest.fixture
def ask(bucket: Bucket, catalog: Catalog, release_id: str) -> Callable[[Api], Smoke]:
    def asked(api: Api) -> Smoke:
        release = catalog.get_release(release_id)
        assert release is not None
        staged = candidate.read_staged(bucket, release)
        return smoke_test(api, bucket, release, staged.pairs, staged.sets)

    return asked


def test_a_release_that_is_not_current_answers_rightly(
    ask: Callable[[Api], Smoke], api: Api
) -> None:
    found = ask(api)
    assert found.wrong == []
    assert len(found.seconds) == ASKED
    assert 0 < min(found.seconds) <= found.p95 <= max(found.seconds)


def test_a_record_that_was_changed_in_either_store_is_found(
    ask: Callable[[Api], Smoke],
    api: Api,
    catalog: Catalog,
    cache: Cache,
    release_id: str,
    postgres_url: str,
) -> None:
    candidate.warm(catalog, cache, release_id)
    with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM release_pairs ORDER BY id")
        ids = [row[0] for row in cursor.fetchall()]
        cursor.execute("UPDATE release_pairs SET record = '{}' WHERE id = %s", (ids[3],))
    assert ask(api).wrong == []  # Redis still has it as it was
    cache._client.delete(record_key(release_id, "pair", ids[3]))
    cache._client.set(record_key(release_id, "pair", ids[5]), b'{"pair_id":"another"}')
    wrong = ask(api).wrong
    assert {one.partition(":")[0] for one in wrong} == {
        f"/v1/pairs/{ids[3]}",
        f"/v1/pairs/{ids[5]}",
        "/v1/pairs/batch",
    }
    assert all("it is not what the dataset has" in one for one in wrong)


def test_the_deployed_api_is_asked_with_a_key(
    ask: Callable[[Api], Smoke],
    api: Api,
    release_id: str,
    postgres_url: str,
    redis_url: str,
    bucket_url: str,
    tmp_path: Path,
) -> None:
    key_file = tmp_path / "key"
    with ApiKeys(postgres_url) as keys:
        key_file.write_text(make_key(keys, SECRET, "gates", ["shadow"])[0] + "\n")
    with served(create_app(postgres_url, redis_url, bucket_url, SECRET)) as client:
        url = str(client.base_url)
        found = ask(dataclasses.replace(api, url=url, key_file=key_file))
        assert (found.wrong, len(found.seconds)) == ([], ASKED)
        without = ask(dataclasses.replace(api, url=url)).wrong
        assert len(without) == ASKED
        assert all("401" in one for one in without)
        with pytest.raises(SmokeTestError, match="CF_LAB_API_KEY"):
            ask(dataclasses.replace(api, url=url, key_file=tmp_path / "none"))
    with pytest.raises(SmokeTestError, match="CF_LAB_API_URL"):
        ask(dataclasses.replace(api, url="http://127.0.0.1:1", key_file=key_file))
