"""Keys of the lookup API: of each what recognises it, never the key itself."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Makes the table of keys."""
    op.execute(
        r"""
        CREATE TABLE api_keys (
            key_id text PRIMARY KEY CHECK (key_id ~ '^[0-9a-f]{8}$'),
            digest bytea NOT NULL CHECK (length(digest) = 32),
            name text NOT NULL CHECK (name ~ '\S'),
            scopes text[] NOT NULL CHECK (cardinality(scopes) > 0),
            created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            expires_at timestamptz NOT NULL,
            revoked_at timestamptz
        )
        """
    )


def downgrade() -> None:
    """Drops the keys: who needs one makes it anew."""
    op.execute("DROP TABLE api_keys")
