"""Where the lab keeps things and which outside services it uses, read from the environment.

Only addresses and folders belong here; what is done with them stands in the module of the service.
Nothing is opened, made or contacted by reading settings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit, urlunsplit

from cf_lab_resources.engine.audited_uris import (
    STARTERS,
    AuditedUri,
    AuditedUriError,
    parse_audited,
)
from cf_lab_resources.engine.model_uris import ModelUriError, parse_model_uri
from cf_lab_resources.errors import LabError

HOME_VARIABLE = "CF_LAB_HOME"
POSTGRES_VARIABLE = "CF_LAB_POSTGRES_URL"
DAGSTER_POSTGRES_VARIABLE = "CF_LAB_DAGSTER_POSTGRES_URL"
REDIS_VARIABLE = "CF_LAB_REDIS_URL"
BUCKET_VARIABLE = "CF_LAB_BUCKET"
BACKUP_VARIABLE = "CF_LAB_BACKUP"
EDITOR_VARIABLE = "CF_LAB_EDITOR"
AUDITED_VARIABLE = "CF_LAB_AUDITED"
TAXONOMY_VARIABLE = "CF_LAB_TAXONOMY"
C2PA_KEY_VARIABLE = "CF_LAB_C2PA_KEY"
C2PA_CERTIFICATE_VARIABLE = "CF_LAB_C2PA_CERTIFICATE"
DATASET_LICENSE_VARIABLE = "CF_LAB_DATASET_LICENSE"
DATASET_PUBLISHER_VARIABLE = "CF_LAB_DATASET_PUBLISHER"
ALERT_VARIABLE = "CF_LAB_ALERT_URL"
RUNBOOK_VARIABLE = "CF_LAB_RUNBOOK_URL"
API_SECRET_VARIABLE = "CF_LAB_API_SECRET"
API_URL_VARIABLE = "CF_LAB_API_URL"
API_KEY_VARIABLE = "CF_LAB_API_KEY"

ALERT_EXAMPLE = "http://alertmanager:9093/api/v2/alerts"
RUNBOOK_EXAMPLE = "https://wiki.example.org/lab/RUNBOOK.md"
API_EXAMPLE = "http://lookups:8000"

DEFAULT_HOME = ".cf_lab"
DEFAULT_EDITOR = "starter://editor"
DEFAULT_AUDITED = parse_audited(STARTERS)
MAX_LINE = 200


class SettingsError(LabError, ValueError):
    """A setting is malformed; the message names the variable, what is wrong and what to do."""


def redact(url: str) -> str:
    """The URL without its password and query, for logs and error messages."""
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        return "<unreadable url>"
    netloc = parts.netloc.rpartition("@")[2]
    if parts.username or password:
        netloc = f"{parts.username or ''}{':***' if password else ''}@{netloc}"
    return urlunsplit((parts.scheme, netloc, parts.path, "***" if parts.query else "", ""))


@dataclass(frozen=True, repr=False)
class Settings:
    """The lab's folder and the addresses of its services; None means the embedded one.

    Attributes:
        home: Absolute folder for everything that the lab writes on this machine.
        postgres_url: libpq URL of the catalog's database.
        redis_url: `redis://`, `rediss://` or `unix://` URL.
        bucket_url: `file://`, `s3://` or `memory://` URL of the object store.
        dagster_postgres_url: libpq URL of Dagster's own database.
        backup_url: `file://` or `s3://` URL of the second place, where backups go.
        editor: URI of the editor's model; see `cf_lab_resources.engine.model_uris`.
        audited: The models that audits are about; see `cf_lab_resources.engine.audited_uris`.
        taxonomy: A user's own taxonomy file, laid over the lab's.
        c2pa_key: PEM file of the key that signs packaged pictures; None for the home's test key.
        c2pa_certificate: PEM file of its certificate chain, the key's own certificate first.
        dataset_license: SPDX identifier or URL of the packaged dataset's licence.
        dataset_publisher: Who publishes the packaged dataset.
        alert_url: Where alerts are posted; None for nowhere.
        runbook_url: Where people read the runbook; None for the file in the source tree.
        api_secret_file: Holds the secret under which the API's keys are hashed.
        api_url: Where people reach the lookup API; None where it is not known.
        api_key_file: Holds a key of that API with the scope shadow: candidates are tried on it.
    """

    home: Path
    postgres_url: str | None = None
    redis_url: str | None = None
    bucket_url: str | None = None
    dagster_postgres_url: str | None = None
    backup_url: str | None = None
    editor: str = DEFAULT_EDITOR
    audited: tuple[AuditedUri, ...] = DEFAULT_AUDITED
    taxonomy: Path | None = None
    c2pa_key: Path | None = None
    c2pa_certificate: Path | None = None
    dataset_license: str | None = None
    dataset_publisher: str | None = None
    alert_url: str | None = None
    runbook_url: str | None = None
    api_secret_file: Path | None = None
    api_url: str | None = None
    api_key_file: Path | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Reads and checks the variables; an empty one counts as not set.

        Raises:
            SettingsError: A value is malformed.
        """

        def value(name: str) -> str | None:
            return environ.get(name, "").strip() or None

        home = Path(value(HOME_VARIABLE) or DEFAULT_HOME).expanduser().absolute()
        if home.exists() and not home.is_dir():
            raise SettingsError(
                f"{HOME_VARIABLE}: {home} is not a folder; name a folder or unset it."
            )
        return cls(
            home=home,
            postgres_url=_postgres_url(POSTGRES_VARIABLE, value(POSTGRES_VARIABLE)),
            redis_url=_redis_url(value(REDIS_VARIABLE)),
            bucket_url=_bucket_url(BUCKET_VARIABLE, value(BUCKET_VARIABLE))
            or _folder_url(home / "bucket"),
            dagster_postgres_url=_postgres_url(
                DAGSTER_POSTGRES_VARIABLE, value(DAGSTER_POSTGRES_VARIABLE)
            ),
            backup_url=_bucket_url(BACKUP_VARIABLE, value(BACKUP_VARIABLE), ("file", "s3"))
            or _folder_url(home / "backups"),
            editor=_model_uri(EDITOR_VARIABLE, value(EDITOR_VARIABLE) or DEFAULT_EDITOR),
            audited=audited_models(environ),
            taxonomy=_file(value(TAXONOMY_VARIABLE)),
            c2pa_key=_file(value(C2PA_KEY_VARIABLE)),
            c2pa_certificate=_file(value(C2PA_CERTIFICATE_VARIABLE)),
            dataset_license=_line(DATASET_LICENSE_VARIABLE, value(DATASET_LICENSE_VARIABLE)),
            dataset_publisher=_line(DATASET_PUBLISHER_VARIABLE, value(DATASET_PUBLISHER_VARIABLE)),
            alert_url=_web_url(ALERT_VARIABLE, value(ALERT_VARIABLE), ALERT_EXAMPLE),
            runbook_url=_web_url(RUNBOOK_VARIABLE, value(RUNBOOK_VARIABLE), RUNBOOK_EXAMPLE),
            api_secret_file=_file(value(API_SECRET_VARIABLE)),
            api_url=_web_url(API_URL_VARIABLE, value(API_URL_VARIABLE), API_EXAMPLE),
            api_key_file=_file(value(API_KEY_VARIABLE)),
        )

    @property
    def bucket(self) -> str:
        """The bucket's URL, which is a folder under `home` where none was set."""
        return self.bucket_url or _folder_url(self.home / "bucket")

    @property
    def backup(self) -> str:
        """The second place's URL, which is a folder under `home` where none was set."""
        return self.backup_url or _folder_url(self.home / "backups")

    @property
    def postgres_folder(self) -> Path:
        """Data of the embedded Postgres."""
        return self.home / "postgres"

    @property
    def redis_folder(self) -> Path:
        """Data of the embedded Redis."""
        return self.home / "redis"

    @property
    def services_folder(self) -> Path:
        """Locks, state and credentials of the embedded services; readable by the owner only."""
        return self.home / "services"

    @property
    def log_folder(self) -> Path:
        """Logs of everything the lab runs."""
        return self.home / "log"

    @property
    def dagster_folder(self) -> Path:
        """DAGSTER_HOME of `cf-lab up`."""
        return self.home / "dagster"

    @property
    def models_folder(self) -> Path:
        """Resolved and verified model artifacts."""
        return self.home / "models"

    @property
    def api_secret(self) -> Path:
        """File of the API's secret, which is made under `home` where none was set."""
        return self.api_secret_file or self.home / "api" / "secret"

    @property
    def signing_folder(self) -> Path:
        """The home's own test key; readable by the owner only."""
        return self.home / "signing"

    def __repr__(self) -> str:
        urls = {
            "postgres_url": self.postgres_url,
            "redis_url": self.redis_url,
            "bucket_url": self.bucket_url,
            "dagster_postgres_url": self.dagster_postgres_url,
            "backup_url": self.backup_url,
        }
        shown = "".join(f", {name}={redact(url)!r}" for name, url in urls.items() if url)
        return f"Settings(home={str(self.home)!r}{shown})"


def audited_models(environ: Mapping[str, str] = os.environ) -> tuple[AuditedUri, ...]:
    """The models that audits are about, by `CF_LAB_AUDITED`; the starter ones where it is not set.

    Raises:
        SettingsError: It is malformed.
    """
    try:
        return parse_audited(environ.get(AUDITED_VARIABLE, "").strip() or STARTERS)
    except AuditedUriError as error:
        raise SettingsError(f"{AUDITED_VARIABLE}: {error}") from error


def _folder_url(folder: Path) -> str:
    return folder.as_uri()


def _web_url(variable: str, url: str | None, example: str) -> str | None:
    if url is not None:
        parts = _parts(variable, url, ("http", "https"), example)
        _check_port(variable, parts, example)
        if not parts.hostname:
            raise SettingsError(f"{variable}: it names no host; write it like {example}.")
    return url


def _file(path: str | None) -> Path | None:
    return Path(path).expanduser().absolute() if path else None


def _model_uri(variable: str, text: str) -> str:
    try:
        return str(parse_model_uri(text))
    except ModelUriError as error:
        raise SettingsError(f"{variable}: {error}") from error


def _line(variable: str, text: str | None) -> str | None:
    if text is not None and (len(text) > MAX_LINE or not text.isprintable()):
        raise SettingsError(
            f"{variable}: it must be one line of at most {MAX_LINE} printable characters."
        )
    return text


def _parts(variable: str, url: str, schemes: tuple[str, ...], example: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        scheme = parts.scheme
    except ValueError as error:
        raise SettingsError(
            f"{variable}: this is not a URL; write it like {example}, special characters of a "
            "password percent-encoded."
        ) from error
    if scheme not in schemes or "://" not in url:
        raise SettingsError(
            f"{variable}: the scheme must be {' or '.join(f'{s}://' for s in schemes)}; "
            f"write it like {example}."
        )
    if any(ord(c) < 33 or ord(c) == 127 for c in url):
        raise SettingsError(
            f"{variable}: there is a space or control character in it; percent-encode it, "
            f"and write it like {example}."
        )
    return parts


def _check_port(variable: str, parts: SplitResult, example: str) -> None:
    try:
        ok = parts.port is None or parts.port > 0
    except ValueError:
        ok = False
    if not ok:
        raise SettingsError(
            f"{variable}: the port must be a number from 1 to 65535, and a '/', '?', '#' or '@' "
            f"in the password percent-encoded; write it like {example}."
        )


def _postgres_url(variable: str, url: str | None) -> str | None:
    return None if url is None else checked_postgres_url(variable, url)


def checked_postgres_url(variable: str, url: str) -> str:
    """Returns a libpq URL that is well formed; `variable` says whose value it is.

    Raises:
        SettingsError: It is malformed.
    """
    example = "postgresql://user:password@host:5432/cf_lab"
    parts = _parts(variable, url, ("postgresql", "postgres"), example)
    if "," not in parts.netloc:  # libpq takes a list of hosts, urlsplit does not
        _check_port(variable, parts, example)
    if not parts.path.strip("/"):
        raise SettingsError(f"{variable}: it names no database; write it like {example}.")
    return url


def _redis_url(url: str | None) -> str | None:
    if url is None:
        return None
    example = "redis://:password@host:6379/0"
    parts = _parts(REDIS_VARIABLE, url, ("redis", "rediss", "unix"), example)
    if parts.scheme == "unix":
        if not parts.path.startswith("/"):
            raise SettingsError(
                f"{REDIS_VARIABLE}: a unix:// URL needs an absolute path, like unix:///run/redis.sock."
            )
        return url
    _check_port(REDIS_VARIABLE, parts, example)
    if not parts.hostname:
        raise SettingsError(f"{REDIS_VARIABLE}: it names no host; write it like {example}.")
    if parts.path.strip("/") and not parts.path.strip("/").isdigit():
        raise SettingsError(
            f"{REDIS_VARIABLE}: the part after the host is the database's number; "
            f"write it like {example}."
        )
    return url


def _bucket_url(
    variable: str, url: str | None, schemes: tuple[str, ...] = ("file", "s3", "memory")
) -> str | None:
    return None if url is None else checked_bucket_url(variable, url, schemes)


def checked_bucket_url(variable: str, url: str, schemes: tuple[str, ...]) -> str:
    """Returns a bucket's URL that is well formed; `variable` says whose value it is.

    Raises:
        SettingsError: It is malformed.
    """
    example = "s3://bucket/prefix or file:///absolute/folder"
    parts = _parts(variable, url, schemes, example)
    if parts.scheme == "file" and (parts.netloc or len(parts.path) < 2):
        raise SettingsError(
            f"{variable}: a file:// URL needs an absolute folder, so three slashes; "
            f"write it like {example}."
        )
    if parts.scheme == "s3" and not parts.hostname:
        raise SettingsError(f"{variable}: it names no bucket; write it like {example}.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SettingsError(
            f"{variable}: no credentials, query or fragment belong in it; S3 credentials "
            f"come from AWS_ACCESS_KEY_ID and its kin; write it like {example}."
        )
    return url
