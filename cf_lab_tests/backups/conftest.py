"""A small lab: a database with tables and a bucket, a second place, and the way to destroy it."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from cf_lab_assets.backups.bucket import BackupResult, back_up_bucket
from cf_lab_assets.backups.catalog import dump_catalog
from cf_lab_resources.bucket import Bucket, open_bucket

PICTURES = [f"picture {n}".encode() * (n + 1) for n in range(20)]


@dataclass
class Lab:
    postgres_url: str
    folder: Path
    backup_url: str
    bucket: Bucket = field(init=False)
    place: Bucket = field(init=False)

    def __post_init__(self) -> None:
        self.bucket = open_bucket(self.bucket_url)
        self.place = open_bucket(self.backup_url)

    @property
    def bucket_url(self) -> str:
        return (self.folder / "bucket").as_uri()

    @property
    def place_folder(self) -> Path:
        return self.folder / "backups"

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        with (
            closing(psycopg2.connect(self.postgres_url)) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def fill(self) -> None:
        self.sql(
            "CREATE TYPE state AS ENUM ('candidate', 'current')",
            "CREATE TABLE releases (id text PRIMARY KEY, state state NOT NULL, notes text)",
            "CREATE UNIQUE INDEX one_current ON releases (state) WHERE state = 'current'",
            "CREATE TABLE release_pairs (n bigserial, release_id text REFERENCES releases, "
            "image_sha256 text, pair jsonb, raw bytea, PRIMARY KEY (release_id, n)) "
            "PARTITION BY LIST (release_id)",
            "CREATE TABLE pairs_r2 PARTITION OF release_pairs FOR VALUES IN ('r2')",
            "CREATE FUNCTION kept() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE 'rows are kept'; END $$",
            "CREATE TRIGGER append_only BEFORE DELETE ON releases EXECUTE FUNCTION kept()",
            "INSERT INTO releases VALUES ('r1', 'candidate', E'a\\tb\\n\\\\.\\nc'), "
            "('r2', 'current', 'päper ☃'), ('r3', 'candidate', NULL)",
        )
        for data in PICTURES:
            key = self.bucket.put_content("images", data, ".png")
            digest = hashlib.sha256(data).hexdigest()
            self.sql(
                "INSERT INTO release_pairs (release_id, image_sha256, pair, raw) "
                f"""VALUES ('r2', '{digest}', '{{"key": "{key}"}}', '\\x00ff0a')"""
            )
        self.bucket.put_bytes("datasets/latest.json", b'{"content_hash": "one"}')
        self.bucket.put_bytes("datasets/one/pairs.parquet", b"table")
        self.bucket.put_bytes("datasets/two/pairs.parquet", b"table")
        self.bucket.put_bytes("incoming/a batch/empty.txt", b"")

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        return {
            table: [
                tuple(bytes(v) if isinstance(v, memoryview) else v for v in row)
                for row in self.sql(f"SELECT * FROM {table} ORDER BY 1")
            ]
            for table in ("releases", "release_pairs")
        }

    def objects(self) -> dict[str, str]:
        return {
            info.key: hashlib.sha256(self.bucket.get_bytes(info.key)).hexdigest()
            for info in self.bucket.list()
        }

    def back_up(self) -> BackupResult:
        return back_up_bucket(self.bucket, self.place, dump_catalog(self.postgres_url, self.place))

    def destroy_catalog(self) -> None:
        self.sql("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")

    def destroy_bucket(self) -> None:
        shutil.rmtree(self.folder / "bucket")

    def destroy(self) -> None:
        self.destroy_catalog()
        self.destroy_bucket()


@pytest.fixture
def lab(postgres_url: str, tmp_path: Path) -> Lab:
    lab = Lab(postgres_url, tmp_path, (tmp_path / "backups").as_uri())
    lab.fill()
    return lab
