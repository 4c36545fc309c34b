"""The capacity review: measured on real stores, computed over runs, drawn over days."""

from __future__ import annotations

import io
from datetime import date, timedelta

import psycopg2
import pytest
import redis
from PIL import Image

from cf_lab_assets.counterfactuals.contact_sheet import EMBEDDED_BYTES, markdown
from cf_lab_assets.operations import capacity
from cf_lab_assets.operations.capacity import Disk, JobRun
from cf_lab_assets.operations.plots import growth
from cf_lab_resources.cache import Memory, open_cache
from cf_lab_resources.catalog.sizes import Sizes, TableSize


def execute(postgres_url, *statements):
    connection = psycopg2.connect(postgres_url)
    try:
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
    finally:
        connection.close()


def test_a_partitioned_table_counts_as_one_with_all_its_partitions(postgres_url):
    execute(
        postgres_url,
        "CREATE TABLE small AS SELECT 1 AS id",
        "CREATE TABLE parts (id int, filling text) PARTITION BY RANGE (id)",
        "CREATE TABLE first PARTITION OF parts FOR VALUES FROM (0) TO (1000)",
        "CREATE TABLE second PARTITION OF parts FOR VALUES FROM (1000) TO (2000)",
        "INSERT INTO parts SELECT id, repeat('x', 500) FROM generate_series(0, 1999) id",
    )
    with Sizes(postgres_url) as sizes:
        parts, small = sizes.tables(10)
        assert (parts.table, small.table) == ("parts", "small")
        assert parts.bytes > 2000 * 500
        assert sizes.tables(1) == [parts]
        assert sizes.database() > parts.bytes + small.bytes


def test_redis_tells_its_memory_and_its_limit(redis_url):
    with open_cache(redis_url) as cache, redis.Redis.from_url(redis_url) as client:
        before = cache.memory()
        client.set("filling", b"x" * 5_000_000)
        after = cache.memory()
        assert after.used - before.used > 4_900_000
        assert after.maximum == client.info("memory")["maxmemory"] > 0


def test_objects_are_counted_by_the_first_folder_as_they_are_listed(bucket):
    for key, size in (("a/one", 3), ("a/b/two", 4), ("c/three", 5), ("loose", 6)):
        bucket.put_bytes(key, b"x" * size)
    rows = {row["part"]: (row["bytes"], row["objects"]) for row in capacity.folders(bucket.list())}
    assert rows == {"a": (7, 2), "c": (5, 1), "(no folder)": (6, 1)}
    assert capacity.folders(iter(())) == []


def test_the_disk_is_that_of_a_home_which_is_still_to_be_made(tmp_path):
    assert capacity.disk_of(tmp_path / "not" / "yet").total == capacity.disk_of(tmp_path).total > 0
    assert Disk(total=200, free=30).free_percent == 15


def test_durations_are_of_runs_that_succeeded():
    runs = [JobRun("audit", False, float(seconds)) for seconds in range(1, 101)]
    runs += [JobRun("audit", True, 5000.0), JobRun("audit", False, None)]
    runs += [JobRun("publish", True, 2.0)]
    assert capacity.jobs(iter(runs)) == [
        {"job": "audit", "runs": 102, "failed": 1, "median_seconds": 50.5, "p95_seconds": 95.0},
        {"job": "publish", "runs": 1, "failed": 1, "median_seconds": None, "p95_seconds": None},
    ]
    (alone,) = capacity.jobs([JobRun("audit", False, 7.0)])
    assert alone["median_seconds"] == alone["p95_seconds"] == 7.0
    assert capacity.jobs([]) == []


def measured(bucket, scale=1):
    return capacity.stores(
        1000 * scale,
        [TableSize("pairs", 400 * scale)],
        Memory(used=50 * scale, maximum=None),
        bucket.list(),
        Disk(total=10_000, free=9_000 - scale),
    )


def test_curves_show_each_store_once_over_the_days(bucket):
    bucket.put_bytes("a/one", b"xxx")
    bucket.put_bytes("b/two", b"xxxx")
    days = [date(2026, 10, 1), date(2027, 1, 1)]
    documents = {day: {"stores": measured(bucket, scale)} for scale, day in enumerate(days, 1)}
    assert capacity.curves(documents) == {
        "Postgres": [(days[0], 1000), (days[1], 2000)],
        "Redis": [(days[0], 50), (days[1], 100)],
        "bucket": [(days[0], 7), (days[1], 7)],
        "free disk": [(days[0], 8999), (days[1], 8998)],
    }


@pytest.mark.parametrize("reviews", [1, 2, 40])
def test_a_plot_is_the_same_for_the_same_numbers_and_stays_small(bucket, reviews):
    days = [date(2026, 10, 1) + timedelta(days=91 * number) for number in range(reviews)]
    documents = {day: {"stores": measured(bucket, 10**6 * n)} for n, day in enumerate(days, 1)}
    png = growth(capacity.curves(documents))
    assert png == growth(capacity.curves(documents))
    assert len(markdown(png, "growth")) < EMBEDDED_BYTES
    picture = Image.open(io.BytesIO(png))
    assert 300 <= picture.width <= 1100
    assert len(picture.convert("RGB").getcolors(1 << 24)) > 4


def test_rows_have_the_columns_that_are_described(bucket):
    assert all(row.keys() == capacity.COLUMNS["stores"].keys() for row in measured(bucket))
    (row,) = capacity.jobs([JobRun("audit", False, 1.0)])
    assert row.keys() == capacity.COLUMNS["jobs"].keys()
