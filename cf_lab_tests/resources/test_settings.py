from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cf_lab_resources.settings import Settings, SettingsError, redact


def test_with_nothing_set_all_lies_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_env({})
    assert settings.home == tmp_path / ".cf_lab"
    assert settings.postgres_url is None
    assert settings.redis_url is None
    assert settings.bucket_url == (tmp_path / ".cf_lab" / "bucket").as_uri()
    assert settings.backup_url == (tmp_path / ".cf_lab" / "backups").as_uri() == settings.backup
    assert not settings.home.exists()


def test_what_is_set_is_taken(tmp_path: Path) -> None:
    environ = {
        "CF_LAB_HOME": str(tmp_path),
        "CF_LAB_POSTGRES_URL": "postgresql://u:p@db:5432/lab",
        "CF_LAB_DAGSTER_POSTGRES_URL": "postgresql://u:p@a:1,b:2/dagster?sslmode=require",
        "CF_LAB_REDIS_URL": "rediss://:p@cache:6380/2",
        "CF_LAB_BUCKET": "s3://lab/prod",
        "CF_LAB_BACKUP": "s3://elsewhere/lab",
        "CF_LAB_C2PA_KEY": "/secrets/key.pem",
        "CF_LAB_C2PA_CERTIFICATE": "chain.pem",
        "CF_LAB_DATASET_LICENSE": "CC-BY-4.0",
        "CF_LAB_DATASET_PUBLISHER": "Example L\u00e4b",
    }
    settings = Settings.from_env(environ)
    assert settings == Settings(
        home=tmp_path,
        postgres_url=environ["CF_LAB_POSTGRES_URL"],
        redis_url=environ["CF_LAB_REDIS_URL"],
        bucket_url="s3://lab/prod",
        dagster_postgres_url=environ["CF_LAB_DAGSTER_POSTGRES_URL"],
        backup_url="s3://elsewhere/lab",
        c2pa_key=Path("/secrets/key.pem"),
        c2pa_certificate=Path("chain.pem").absolute(),
        dataset_license="CC-BY-4.0",
        dataset_publisher="Example L\u00e4b",
    )
    assert settings.bucket == "s3://lab/prod"
    assert settings.backup == "s3://elsewhere/lab"


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.from_env({"CF_LAB_REDIS_URL": "", "CF_LAB_BUCKET": "  "}) == Settings.from_env(
        {}
    )


@pytest.mark.parametrize("value", ["two\nlines", "a\x07bell", "\u202edrawkcab", "x" * 201])
@pytest.mark.parametrize("variable", ["CF_LAB_DATASET_LICENSE", "CF_LAB_DATASET_PUBLISHER"])
def test_what_a_package_says_of_its_publisher_is_one_line(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{variable}: it must be one line"):
        Settings.from_env({variable: value})


@pytest.mark.parametrize("url", ["unix:///run/redis.sock", "redis://h", "redis://:p%40@h:1/0"])
def test_the_forms_of_a_redis_url(url: str) -> None:
    assert Settings.from_env({"CF_LAB_REDIS_URL": url}).redis_url == url


@pytest.mark.parametrize("url", ["file:///data/bucket", "s3://b", "memory://"])
def test_the_forms_of_a_bucket_url(url: str) -> None:
    assert Settings.from_env({"CF_LAB_BUCKET": url}).bucket == url


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CF_LAB_POSTGRES_URL", "mysql://u:hunter2@h/db"),
        ("CF_LAB_POSTGRES_URL", "postgresql+psycopg2://u:hunter2@h/db"),
        ("CF_LAB_POSTGRES_URL", "postgresql://u:hunter2@h"),
        ("CF_LAB_POSTGRES_URL", "postgresql://u:hunter2/x@h:5432/db"),
        ("CF_LAB_POSTGRES_URL", "postgresql://u:hunter2@h:70000/db"),
        ("CF_LAB_POSTGRES_URL", "postgresql://u:hunter2@[::1/db"),
        ("CF_LAB_POSTGRES_URL", "postgresql://u:hunter2 @h/db"),
        ("CF_LAB_DAGSTER_POSTGRES_URL", "hunter2"),
        ("CF_LAB_REDIS_URL", "http://:hunter2@h:6379"),
        ("CF_LAB_REDIS_URL", "redis://:hunter2@:6379"),
        ("CF_LAB_REDIS_URL", "redis://:hunter2@h:x"),
        ("CF_LAB_REDIS_URL", "redis://:hunter2@h:6379/name"),
        ("CF_LAB_REDIS_URL", "unix://socket"),
        ("CF_LAB_BUCKET", "/data/hunter2"),
        ("CF_LAB_BUCKET", "file://data/bucket"),
        ("CF_LAB_BUCKET", "s3:///prefix"),
        ("CF_LAB_BUCKET", "s3://key:hunter2@bucket"),
        ("CF_LAB_BUCKET", "gs://bucket"),
        ("CF_LAB_BACKUP", "s3://key:hunter2@bucket"),
        ("CF_LAB_BACKUP", "memory://"),
    ],
)
def test_an_error_names_the_variable_and_the_cure_but_no_secret(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({variable: value})
    message = str(caught.value)
    assert message.startswith(f"{variable}: ")
    assert "like " in message
    assert "hunter2" not in message


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="CF_LAB_HOME"):
        Settings.from_env({"CF_LAB_HOME": str(tmp_path / "file")})


def test_printed_settings_hide_passwords() -> None:
    settings = Settings.from_env(
        {"CF_LAB_POSTGRES_URL": "postgresql://u:hunter2@h/db?password=hunter2"}
    )
    assert "hunter2" not in repr(settings)
    assert "u:***@h/db" in repr(settings)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p@h:1/db", "postgresql://u:***@h:1/db"),
        ("redis://:p@h:1/0", "redis://:***@h:1/0"),
        ("file:///a/b", "file:///a/b"),
        ("redis://:p@[h", "<unreadable url>"),
    ],
)
def test_redact(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_settings_import_nothing_heavy() -> None:
    code = (
        "import sys, cf_lab_resources.settings; print(len(sys.modules), 'dagster' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    if done.returncode:  # an editable install needs site
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split()[1] == "False", done.stderr
