"""Alembic's entry: runs the revisions on the connection that `migration.migrate` opened."""

from alembic import context

from cf_lab_resources.catalog.migration import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
