"""What happened to each release and when; rows are only ever added."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Makes the table of events, begun with what the releases' own columns tell."""
    op.execute(
        """
        CREATE TABLE release_events (
            event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            release_id text COLLATE "C" NOT NULL REFERENCES releases,
            event text NOT NULL CHECK (
                event IN ('staged', 'published', 'superseded', 'withdrawn', 'rolled_back_to')
            ),
            at timestamptz NOT NULL DEFAULT clock_timestamp(),
            detail jsonb NOT NULL DEFAULT '{}'
        )
        """
    )
    op.execute("CREATE INDEX release_events_release ON release_events (release_id, event_id)")
    op.execute(
        """
        CREATE FUNCTION release_events_are_kept() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'release_events is append-only';
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON release_events
        FOR EACH STATEMENT EXECUTE FUNCTION release_events_are_kept()
        """
    )
    op.execute(
        """
        INSERT INTO release_events (release_id, event, at)
        SELECT release_id, 'staged', created_at FROM releases
        UNION ALL
        SELECT release_id, 'published', published_at FROM releases WHERE published_at IS NOT NULL
        ORDER BY 3
        """
    )


def downgrade() -> None:
    """Drops the events; the releases stay as they are."""
    op.execute("DROP TABLE release_events")
    op.execute("DROP FUNCTION release_events_are_kept")
