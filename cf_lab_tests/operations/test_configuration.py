"""The configuration review: everything is listed, and nothing secret is in it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from cf_lab_assets.operations import configuration
from cf_lab_assets.releases.gates import GATES
from cf_lab_assets.releases.waivers import grant
from cf_lab_resources import settings
from cf_lab_resources.api.access import make_key
from cf_lab_resources.catalog import open_catalog
from cf_lab_resources.catalog.api_keys import ApiKeys
from cf_lab_resources.settings import SettingsError

NOW = datetime.now(UTC)
SECRET = "Sw0rdfish"


def test_every_variable_is_listed_as_default_where_none_is_set(tmp_path):
    rows = configuration.variables({"CF_LAB_HOME": str(tmp_path)})
    known = {value for name, value in vars(settings).items() if name.endswith("_VARIABLE")}
    assert {row["name"] for row in rows} == known
    by_name = {row["name"]: row for row in rows}
    assert by_name["CF_LAB_HOME"] == {
        "name": "CF_LAB_HOME",
        "state": "set",
        "value": str(tmp_path),
    }
    assert {row["state"] for row in rows if row["name"] != "CF_LAB_HOME"} == {"default"}
    assert by_name["CF_LAB_BUCKET"]["value"] == (tmp_path / "bucket").as_uri()
    assert by_name["CF_LAB_EDITOR"]["value"] == settings.DEFAULT_EDITOR
    assert by_name["CF_LAB_AUDITED"]["value"].startswith("starter-balanced=starter://")
    assert by_name["CF_LAB_POSTGRES_URL"]["value"] == "none"


def test_nothing_secret_is_shown(tmp_path):
    key_file = tmp_path / "key"
    key_file.write_text(SECRET)
    environ = {
        "CF_LAB_HOME": str(tmp_path),
        "CF_LAB_POSTGRES_URL": f"postgresql://lab:{SECRET}@db:5432/lab?password={SECRET}",
        "CF_LAB_DAGSTER_POSTGRES_URL": f"postgresql://lab:{SECRET},x@one,two/dagster",
        "CF_LAB_REDIS_URL": f"rediss://:{SECRET}@cache:6379/0",
        "CF_LAB_ALERT_URL": f"https://hooks.example.org/services/{SECRET}",
        "CF_LAB_API_URL": f"https://lab:{SECRET}@lookups.example.org/",
        "CF_LAB_RUNBOOK_URL": f"https://wiki.example.org/runbook?token={SECRET}",
        "CF_LAB_API_KEY": str(key_file),
        "CF_LAB_API_SECRET": str(key_file),
        "CF_LAB_C2PA_KEY": str(key_file),
        "CF_LAB_DATASET_LICENSE": f"https://example.org/licence?key={SECRET}",
        "CF_LAB_AUDITED": "mine=https://ai.example.org/score#family=clip&authorization=SCORE_KEY",
        "CF_LAB_PASWORD": SECRET,
    }
    rows = configuration.variables(environ)
    assert SECRET not in json.dumps(rows)
    value = {row["name"]: row["value"] for row in rows}
    state = {row["name"]: row["state"] for row in rows}
    assert value["CF_LAB_POSTGRES_URL"] == "postgresql://lab:***@db:5432/lab?***"
    assert value["CF_LAB_ALERT_URL"] == "https://hooks.example.org/***"
    assert value["CF_LAB_API_KEY"] == value["CF_LAB_API_SECRET"] == str(key_file)
    assert value["CF_LAB_AUDITED"] == environ["CF_LAB_AUDITED"]
    assert state.pop("CF_LAB_PASWORD") == "not a setting"
    assert {name for name, one in state.items() if one == "set"} == environ.keys() - {
        "CF_LAB_PASWORD"
    }


def test_a_malformed_variable_is_named_without_its_value():
    with pytest.raises(SettingsError, match="CF_LAB_REDIS_URL") as refused:
        configuration.variables({"CF_LAB_REDIS_URL": f"http://:{SECRET}@host"})
    assert SECRET not in str(refused.value)


def test_a_gate_is_waived_on_the_days_on_which_its_waiver_counts(postgres_url):
    today = NOW.date()
    with open_catalog(postgres_url) as catalog:
        given = grant(catalog, "quality_is_above_floor", "Ada Lovelace", "a pilot", today)
        waivers = catalog.waivers()
        catalog.revoke_waiver(given.waiver_id)
        revoked = catalog.waivers()

    def waived(waivers, day):
        rows = configuration.gates(waivers, day)
        assert [row["name"] for row in rows] == [gate.name for gate in GATES]
        return {row["name"]: row["waived"] for row in rows if row["waived"] != "no"}

    assert waived(waivers, today) == {"quality_is_above_floor": f"until {today}, by Ada Lovelace"}
    assert waived(waivers, today + timedelta(days=1)) == {}
    assert waived(revoked, today) == {}


@pytest.fixture
def keys(postgres_url):
    """One that lasts, one that ends within a month, one that is revoked."""
    with open_catalog(postgres_url) as catalog, ApiKeys(postgres_url) as keys:
        catalog.migrate()
        for name, days in (("lasting", 90), ("ending", 20), ("taken back", 20)):
            _, row = make_key(keys, b"0" * 32, name, ["shadow"], days)
        keys.revoke(row.key_id)
        yield keys.all()


def test_keys_are_listed_with_age_and_days_left(keys):
    now = max(one.created_at for one in keys)
    rows = configuration.api_keys(keys, now)
    assert [(row["name"], row["state"], row["age_days"]) for row in rows] == [
        ("lasting", "valid", 0),
        ("ending", "valid", 0),
        ("taken back", "revoked", 0),
    ]
    assert 89 <= rows[0]["days_left"] <= 90
    assert 19 <= rows[1]["days_left"] <= 20
    assert rows[2]["days_left"] == 0
    assert {row["scopes"] for row in rows} == {"shadow"}
    later = configuration.api_keys(keys, now + timedelta(days=30))
    assert [(row["state"], row["age_days"]) for row in later] == [
        ("valid", 30),
        ("expired", 30),
        ("revoked", 30),
    ]


def test_a_key_must_last_until_the_next_review(keys):
    now = max(one.created_at for one in keys)
    assert [one.name for one in configuration.ending(keys, now)] == ["ending"]
    edge = keys[0].expires_at - configuration.MONTH
    assert [one.name for one in configuration.ending(keys, edge)] == ["lasting"]
    assert configuration.ending(keys[:1], edge - timedelta(seconds=1)) == []


def test_every_part_has_the_columns_that_are_described(keys, tmp_path):
    found = configuration.review([], keys, {"CF_LAB_HOME": str(tmp_path)})
    assert found.keys() == configuration.COLUMNS.keys()
    for part, rows in found.items():
        assert rows
        assert all(row.keys() == configuration.COLUMNS[part].keys() for row in rows)
