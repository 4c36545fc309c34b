"""When a release's records were dropped; what is known of the release itself stays."""

from alembic import op

revision = "0005"
down_revision = "0004"

EVENTS = "'staged', 'published', 'superseded', 'withdrawn', 'rolled_back_to'"


def upgrade() -> None:
    """Makes the column, and lets the event of dropping be recorded."""
    op.execute("ALTER TABLE releases ADD COLUMN dropped_at timestamptz")
    op.execute(
        "ALTER TABLE releases ADD CONSTRAINT current_has_records"
        " CHECK (state <> 'current' OR dropped_at IS NULL)"
    )
    op.execute("ALTER TABLE release_events DROP CONSTRAINT release_events_event_check")
    op.execute(
        "ALTER TABLE release_events ADD CONSTRAINT release_events_event_check"
        f" CHECK (event IN ({EVENTS}, 'dropped'))"
    )


def downgrade() -> None:
    """Forgets which releases were dropped: staging them again finds them empty, so drop none."""
    op.execute("ALTER TABLE release_events DROP CONSTRAINT release_events_event_check")
    # Events of dropping stay, as events are only ever added.
    op.execute(
        "ALTER TABLE release_events ADD CONSTRAINT release_events_event_check"
        f" CHECK (event IN ({EVENTS})) NOT VALID"
    )
    op.execute("ALTER TABLE releases DROP COLUMN dropped_at")
