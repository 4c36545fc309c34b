"""Records of releases, ready to be sent: one partition a release, so that they come and go whole.

`record` is bytea, since the database's encoding must not matter to bytes that are sent as stored.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

TABLES = ("release_pairs", "release_sets")


def upgrade() -> None:
    """Makes the partitioned tables, without partitions."""
    for table in TABLES:
        op.execute(
            f"""
            CREATE TABLE {table} (
                release_id text COLLATE "C" NOT NULL,
                id text COLLATE "C" NOT NULL,
                set_id text COLLATE "C" NOT NULL,
                image_sha256 text COLLATE "C" NOT NULL,
                record bytea NOT NULL,
                PRIMARY KEY (release_id, id)
            ) PARTITION BY LIST (release_id)
            """
        )
        op.execute(f"CREATE INDEX {table}_image ON {table} (release_id, image_sha256)")


def downgrade() -> None:
    """Drops the records of all releases, and the releases with them: they'd have no records.

    Nothing is lost for good: a release is staged again from the bucket under the same id.
    """
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
    op.execute("DELETE FROM releases")
