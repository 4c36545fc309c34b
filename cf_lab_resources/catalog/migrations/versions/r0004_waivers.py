"""Who let a release through although a gate failed, why, and until when; rows are never deleted."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Makes the table of waivers."""
    op.execute(
        r"""
        CREATE TABLE gate_waivers (
            waiver_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            gate text NOT NULL,
            person text NOT NULL CHECK (person ~ '\S'),
            reason text NOT NULL CHECK (reason ~ '\S'),
            granted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            until date NOT NULL,
            revoked_at timestamptz
        )
        """
    )


def downgrade() -> None:
    """Drops the waivers: who granted one grants it anew."""
    op.execute("DROP TABLE gate_waivers")
