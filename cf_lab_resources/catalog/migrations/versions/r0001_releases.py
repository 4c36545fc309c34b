"""Releases and their states; at most one is current, by a partial unique index."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the table of releases."""
    op.execute(
        """
        CREATE TABLE releases (
            release_id text COLLATE "C" PRIMARY KEY CHECK (release_id ~ '^r[0-9a-f]{12}$'),
            content_hash text NOT NULL,
            dataset_hash text NOT NULL,
            state text NOT NULL
                CHECK (state IN ('candidate', 'current', 'superseded', 'withdrawn')),
            created_at timestamptz NOT NULL DEFAULT now(),
            published_at timestamptz,
            report_key text,
            manifest jsonb NOT NULL,
            CONSTRAINT published_unless_candidate
                CHECK ((state = 'candidate') = (published_at IS NULL))
        )
        """
    )
    op.execute("CREATE UNIQUE INDEX one_current ON releases (state) WHERE state = 'current'")


def downgrade() -> None:
    """Drops the table of releases."""
    op.execute("DROP TABLE releases")
