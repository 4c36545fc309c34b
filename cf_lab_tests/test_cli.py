"""The command as people meet it: help at once, results on standard output, errors in one line."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from cf_lab_assets import names
from cf_lab_assets.instance import open_instance
from cf_lab_resources import embedded
from cf_lab_resources.bucket import open_bucket
from cf_lab_resources.settings import Settings
from cf_lab_tests import running
from cf_lab_tests.releases.sample import write_dataset

CF_LAB = str(Path(sys.executable).with_name("cf-lab"))


@pytest.fixture(scope="module")
def home(memory_folder):
    folder = memory_folder / "cli"
    yield folder
    embedded.stop(Settings(home=folder))


@pytest.fixture
def cf_lab(home):
    def run(*arguments, **environment):
        return subprocess.run(
            [CF_LAB, *arguments],
            env={**running.environment(home), **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def assert_one_clear_line(done, *said):
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("cf-lab: ")]
    assert len(lines) == 1
    for word in said:
        assert str(word) in lines[0]


def test_help_names_the_commands_and_imports_nothing_heavy(cf_lab):
    done = cf_lab("--help")
    for command in ("ingest", "run", "up", "services", "migrate", "release", "lookup", "sample"):
        assert command in done.stdout
    code = (
        "import sys; from cf_lab_assets import cli; "
        "print([m for m in ('dagster', 'torch', 'pyarrow', 'psycopg2') if m in sys.modules])"
    )
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert imported.stdout.strip() == "[]"


def test_a_sample_is_ingested_and_again_is_nothing_to_do(cf_lab, tmp_path):
    folder = tmp_path / "portraits"
    assert cf_lab("sample", str(folder), "--count", "2", "--seed", "3").returncode == 0
    assert_one_clear_line(cf_lab("sample", str(folder)), folder, "exists")
    first = cf_lab("ingest", str(folder), "--batch", "two")
    assert first.returncode == 0, first.stderr
    assert "2 pairs stored" in first.stdout
    assert "nothing to do" in cf_lab("ingest", str(folder), "--batch", "two").stdout


def test_a_batch_is_a_partition_as_soon_as_it_is_ingested(cf_lab, home, tmp_path, monkeypatch):
    folder = tmp_path / "late"
    assert cf_lab("sample", str(folder), "--count", "2", "--seed", "4").returncode == 0
    settings = Settings(home=home)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    with embedded.running(settings) as endpoints, open_instance(settings, endpoints) as instance:
        offered = partial(instance.get_dynamic_partitions, names.SOURCE_BATCHES.name)
        assert "late" not in offered()
        done = cf_lab("ingest", str(folder), "--batch", "late")
        assert done.returncode == 0, done.stderr
        assert "late" in offered()


def test_a_folder_that_is_not_there_is_named(cf_lab, tmp_path):
    assert_one_clear_line(cf_lab("ingest", str(tmp_path / "nowhere")), "nowhere")


def test_without_a_release_commands_say_how_to_get_one(cf_lab):
    assert_one_clear_line(cf_lab("lookup", "s1-gender-man"), "cf-lab run")
    assert_one_clear_line(cf_lab("release", "show"), "no current release")
    assert_one_clear_line(cf_lab("release", "rollback"), "roll back")
    assert_one_clear_line(cf_lab("export", "nowhere"), "no current release")
    assert_one_clear_line(cf_lab("export", "nowhere", "--dataset", "abc"), "no package", "abc")
    assert not Path("nowhere").exists()
    assert cf_lab("release", "list").stdout == ""


def test_a_malformed_setting_is_named_and_its_password_is_not_shown(cf_lab):
    done = cf_lab("release", "list", CF_LAB_POSTGRES_URL="mysql://me:s3cret@host/db")
    assert_one_clear_line(done, "CF_LAB_POSTGRES_URL")
    assert "s3cret" not in done.stderr


def test_a_dataset_is_exported_verified_and_found_damaged(cf_lab, home, tmp_path):
    bucket = open_bucket((home / "bucket").as_uri())
    dataset_hash = write_dataset(bucket, report=False)
    folder = tmp_path / "out"
    done = cf_lab("export", str(folder), "--dataset", dataset_hash)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"20 pairs in 8 sets: {folder}\n"
    assert "TEST key" in done.stderr
    assert_one_clear_line(cf_lab("export", str(folder), "--dataset", dataset_hash), "not empty")

    done = cf_lab("verify-images", str(folder))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2].split() == ["total", "20", "20", "0", "0", "0"]
    card = folder / "README.md"
    card.write_text(card.read_text() + " ")
    done = cf_lab("verify-images", str(folder))
    assert done.returncode == 1
    assert done.stderr == "README.md is not the file that the manifest names\n"
    assert_one_clear_line(cf_lab("verify-images", str(tmp_path / "nowhere")), "nowhere")
    root = tmp_path / "root.pem"
    assert_one_clear_line(cf_lab("verify-images", str(folder), "--trust", str(root)), root)


def test_the_schema_goes_down_and_up(cf_lab):
    for revision in ("base", "head"):
        done = cf_lab("migrate", revision)
        assert done.returncode == 0, done.stderr
        assert revision in done.stdout
    assert_one_clear_line(cf_lab("migrate", "nonsense"), "nonsense")


def test_services_are_shown_and_stop_when_nobody_uses_them(cf_lab, home):
    cf_lab("release", "list")
    deadline = time.monotonic() + 30
    while "running" in (shown := cf_lab("services", "status").stdout):
        assert time.monotonic() < deadline, shown
        time.sleep(0.5)
    assert "postgres" in shown
    assert "redis" in shown


def test_a_key_is_shown_once_listed_without_it_and_revoked(cf_lab, home):
    made = cf_lab("keys", "create", "--name", "Ada's notebook", "--scope", "shadow", "--days", "30")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    key_id = key.split("_")[1]
    assert key_id in made.stderr
    assert key not in made.stderr
    assert (home / "api" / "secret").stat().st_mode & 0o077 == 0
    listed = cf_lab("keys", "list").stdout
    assert f"{key_id}  valid" in listed
    assert "Ada's notebook" in listed
    assert key not in listed
    assert cf_lab("keys", "revoke", key_id).returncode == 0
    assert f"{key_id}  revoked" in cf_lab("keys", "list").stdout
    assert_one_clear_line(cf_lab("keys", "revoke", "00000000"), "there is no key")
    refused = cf_lab("keys", "create", "--name", "x", "--scope", "everything")
    assert_one_clear_line(refused, "everything", "shadow")
