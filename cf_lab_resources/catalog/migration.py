"""Brings the catalog's schema to a revision, up or down, with Alembic and without its command line.

The version table is not Alembic's usual one, since Dagster keeps that for itself and may share
the database.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cf_lab_resources.catalog.connections import CatalogError, connect, translated

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection

FOLDER = Path(__file__).with_name("migrations")
VERSION_TABLE = "cf_lab_alembic_version"


def migrate(url: str, revision: str = "head") -> str | None:
    """Migrates the catalog in one transaction, and returns the revision that it then has.

    Migrating at the same time from elsewhere is safe: the second waits for the first.

    Args:
        url: libpq URL.
        revision: "head", "base", a revision's id, or steps such as "+1" and "-1". Downgrading
            deletes what the older schema has no place for.

    Returns:
        The revision's id; None for an empty schema.

    Raises:
        CatalogError: There is no such revision, or the catalog's own is not known here.
        CatalogUnavailable: Postgres can't be reached.
    """
    from alembic.util import CommandError
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    # A creator rather than a URL: libpq's URLs, with several hosts say, are not all SQLAlchemy's.
    engine = create_engine(
        "postgresql+psycopg2://", creator=lambda: connect(url), poolclass=NullPool
    )
    try:
        with translated(url), engine.begin() as connection:
            _run(connection, revision)
            return _current(connection)
    except CommandError as error:
        raise CatalogError(
            f"the catalog can't be migrated to {revision!r}: {error}; install the version of the "
            "lab that knows the revision, or name another"
        ) from error
    except DBAPIError as error:
        with translated(url):
            raise error.orig or error from error
    finally:
        engine.dispose()


def head_revision() -> str:
    """The newest revision that this version of the lab has."""
    return str(_script(_config()).get_current_head())


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    return config


def _script(config: Config) -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(config)


def _run(connection: Connection, revision: str) -> None:
    from alembic import command
    from sqlalchemy import text

    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('cf_lab migrate', 0))"))
    config = _config()
    config.attributes["connection"] = connection
    if _is_down(_script(config), _current(connection), revision):
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)


def _current(connection: Connection) -> str | None:
    from alembic.migration import MigrationContext

    options = {"version_table": VERSION_TABLE}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _is_down(script: ScriptDirectory, current: str | None, revision: str) -> bool:
    if revision == "base" or revision.startswith("-"):
        return True
    if current is None or revision == "head" or revision.startswith("+"):
        return False
    wanted = script.get_revision(revision)
    older = {older.revision for older in script.walk_revisions("base", current)}
    return wanted is not None and wanted.revision != current and wanted.revision in older
