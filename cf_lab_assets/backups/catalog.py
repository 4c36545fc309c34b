"""The catalog's database as a dump in the second place, and a dump as a database again.

Nothing here knows the catalog's tables. Passwords reach the PostgreSQL programs through the
environment, never through a command line or a message.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

from cf_lab_assets.backups import copying
from cf_lab_assets.backups.manifest import BackupError, CatalogDump, stamp
from cf_lab_resources.bucket import Bucket
from cf_lab_resources.embedded import postgres_binary
from cf_lab_resources.settings import checked_postgres_url, redact

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

CATALOG = "catalog"
CONNECT_SECONDS = 10
LOCK_WAIT = "60s"  # behind a migration; a backup that waits longer should say so
_SERVICE = "cf_lab_backup"
_TAIL_LINES = 8
_HEADER_LINES = 60  # of the script that pg_restore makes; the settings stand in its first 20
# pg_restore 17 and later sets this, and servers before 17 do not know it.
_TRANSACTION_TIMEOUT = b"SET transaction_timeout = 0;\n"
_HAS_TRANSACTION_TIMEOUT = 170000

_RELATIONS = """
    SELECT n.nspname, c.relname, c.relkind
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
      AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_depend d
                      WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                        AND d.deptype = 'e')
    ORDER BY 1, 2
"""


def dump_catalog(postgres_url: str, place: Bucket) -> CatalogDump:
    """Dumps the whole database and records what is in the dump.

    Raises:
        SettingsError: The URL is malformed.
        BackupError: The server refuses or pg_dump fails.
    """
    with (
        closing(connect(postgres_url)) as connection,
        tempfile.TemporaryDirectory(prefix="cf_lab_") as folder,
    ):
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        created_at = datetime.now(UTC)
        snapshot = str(_query(connection, "SELECT pg_export_snapshot()")[0][0])
        path = Path(folder) / "dump"
        _pg_dump(postgres_url, snapshot, path)
        dump = copying.from_file(path)
        stem = f"{CATALOG}/{stamp(created_at)}-{dump.sha256[:12]}"
        record = CatalogDump(
            key=f"{stem}.dump",
            sha256=dump.sha256,
            bytes=dump.size,
            created_at=created_at,
            server_version=connection.server_version,
            tables=row_counts(connection),
        )
        dump.put(place, record.key)
    place.create(f"{stem}.json", record.model_dump_json(indent=1).encode())
    return record


def newest_dump(place: Bucket) -> CatalogDump:
    """The record of the last finished dump.

    Raises:
        BackupError: There is none.
    """
    keys = [info.key for info in place.list(CATALOG) if info.key.endswith(".json")]
    if not keys:
        raise BackupError(
            f"{place!r} has no dump of the catalog; materialize backups/catalog first."
        )
    return CatalogDump.model_validate_json(place.get_bytes(max(keys)))


def restore_catalog(postgres_url: str, dump: Path) -> None:
    """Fills an empty database from a dump, all of it or, after an error, nothing.

    Owners and privileges stay those of the user that restores: the roles of the old server need
    not exist on the new one.

    Raises:
        BackupError: The server refuses the dump.
    """
    with closing(connect(postgres_url)) as connection:
        version = connection.server_version
    options = ["--no-owner", "--no-privileges", "--file=-", str(dump)]
    with (
        _libpq(postgres_url) as environ,
        tempfile.TemporaryFile() as messages,
        subprocess.Popen(
            [str(postgres_binary("pg_restore")), *options],
            stdout=subprocess.PIPE,
            stderr=messages,
        ) as reader,
        subprocess.Popen(
            [str(postgres_binary("psql")), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d",
             f"service={_SERVICE}", "-f", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=messages,
            env=environ,
        ) as writer,
    ):  # fmt: skip
        assert reader.stdout
        assert writer.stdin
        read = _in_one_transaction(reader, writer.stdin, version)
        failed = writer.wait() or reader.wait() or not read
        if failed:
            raise BackupError(
                f"{redact(postgres_url)}: the dump was not restored, and the database is as it "
                f"was: {_tail(messages, postgres_url)}"
            )


def _in_one_transaction(
    reader: subprocess.Popen[bytes], writer: IO[bytes], server_version: int
) -> bool:
    """Pipes the script to psql; commits only if pg_restore came to its end."""
    assert reader.stdout
    try:
        with writer:
            writer.write(b"BEGIN;\n")
            for _ in range(_HEADER_LINES):
                line = reader.stdout.readline()
                old = server_version < _HAS_TRANSACTION_TIMEOUT
                if not (old and line == _TRANSACTION_TIMEOUT):
                    writer.write(line)
            while chunk := reader.stdout.read(2**16):
                writer.write(chunk)
            if reader.wait() == 0:
                writer.write(b"\nCOMMIT;\n")
                return True
    except BrokenPipeError:  # psql gave up and says why
        reader.kill()
    return False


def connect(postgres_url: str) -> Connection:
    """A connection; its error names the server and no password.

    Raises:
        SettingsError: The URL is malformed.
        BackupError: The server can't be reached or refuses.
    """
    import psycopg2

    checked_postgres_url("Postgres", postgres_url)
    try:
        return psycopg2.connect(postgres_url, connect_timeout=CONNECT_SECONDS)
    except psycopg2.OperationalError as error:
        said = _scrub(str(error), postgres_url).strip()
    except psycopg2.Error:
        said = "the URL is not one that libpq reads"
    # Outside of the handler, so that no traceback shows the error with the URL in it.
    raise BackupError(
        f"{redact(postgres_url)}: no connection: {said}. Check address, user and password."
    )


def relations(connection: Connection) -> list[str]:
    """Tables, views and sequences that are not the server's own, as `schema.name`."""
    return [f"{schema}.{name}" for schema, name, _ in _query(connection, _RELATIONS)]


def row_counts(connection: Connection) -> dict[str, int]:
    """Rows of each table, `schema.table`."""
    from psycopg2 import sql

    counts = {}
    for schema, name, kind in _query(connection, _RELATIONS):
        if kind == "r":
            query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, name))
            counts[f"{schema}.{name}"] = int(_query(connection, query)[0][0])
    return counts


def named_pictures(connection: Connection) -> Iterator[str]:
    """SHA-256 of each picture that a released pair names; none where there is no such table."""
    found = _query(
        connection,
        "SELECT table_schema FROM information_schema.columns "
        "WHERE table_name = 'release_pairs' AND column_name = 'image_sha256'",
    )
    from psycopg2 import sql

    for (schema,) in found:
        query = sql.SQL("SELECT DISTINCT image_sha256 FROM {} WHERE image_sha256 IS NOT NULL")
        with connection.cursor(name="cf_lab_pictures") as cursor:
            cursor.execute(query.format(sql.Identifier(schema, "release_pairs")))
            for (value,) in cursor:
                yield value if isinstance(value, str) else bytes(value).hex()


def _query(connection: Connection, query: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def _pg_dump(postgres_url: str, snapshot: str, path: Path) -> None:
    options = ["--format=custom", f"--lock-wait-timeout={LOCK_WAIT}", f"--snapshot={snapshot}"]
    with (
        _libpq(postgres_url) as environ,
        path.open("wb") as file,
        tempfile.TemporaryFile() as messages,
    ):
        done = subprocess.run(
            [str(postgres_binary("pg_dump")), *options, "-d", f"service={_SERVICE}"],
            stdout=file,
            stderr=messages,
            env=environ,
            check=False,
        )
        if done.returncode:
            raise BackupError(
                f"{redact(postgres_url)}: pg_dump failed: {_tail(messages, postgres_url)}"
            )


@contextmanager
def _libpq(postgres_url: str) -> Iterator[dict[str, str]]:
    """The environment in which `service=cf_lab_backup` is the database of the URL."""
    from psycopg2.extensions import parse_dsn

    parameters = {**{"connect_timeout": str(CONNECT_SECONDS)}, **parse_dsn(postgres_url)}
    password = parameters.pop("password", None)
    if any("\n" in value or "\r" in value for value in parameters.values()):
        raise BackupError(f"{redact(postgres_url)}: a line break is no part of an address.")
    with tempfile.TemporaryDirectory(prefix="cf_lab_") as folder:  # only its owner reads it
        path = Path(folder) / "pg_service.conf"
        lines = [f"{name}={value}" for name, value in parameters.items()]
        path.write_text("\n".join([f"[{_SERVICE}]", *lines, ""]))
        environ = {**os.environ, "PGSERVICEFILE": str(path), "LC_ALL": "C"}
        if password is not None:
            # The service file would cut off spaces at its end.
            environ["PGPASSWORD"] = password
        yield environ


def _tail(messages: IO[bytes], postgres_url: str) -> str:
    messages.seek(0)
    lines = messages.read().decode(errors="replace").splitlines()
    return _scrub("\n".join(lines[-_TAIL_LINES:]) or "it said nothing", postgres_url)


def _scrub(text: str, postgres_url: str) -> str:
    """The text without the URL's password, however it is written there."""
    import psycopg2
    from psycopg2.extensions import parse_dsn

    text = text.replace(postgres_url, redact(postgres_url))
    try:
        password = parse_dsn(postgres_url).get("password")
    except psycopg2.Error:
        return "a message that may hold the password"
    for secret in {password, quote(password, safe="")} if password else set():
        text = text.replace(secret, "***")
    return text
