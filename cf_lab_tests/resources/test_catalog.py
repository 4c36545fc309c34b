"""The catalog: schema versions, loading a release whole or not at all, and its states."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psycopg2
import pytest

from cf_lab_resources.catalog import (
    Catalog,
    CatalogError,
    CatalogUnavailable,
    NewRelease,
    Record,
    migrate,
    open_catalog,
)
from cf_lab_resources.catalog import ids as catalog_ids
from cf_lab_resources.catalog.migration import head_revision

SHA = "ab" * 32
SOURCE_SHA = "cd" * 32


def new_release(number: int, content: str | None = None) -> NewRelease:
    return NewRelease(
        release_id=f"r{number:012x}",
        content_hash=content or f"{number:064x}",
        dataset_hash="d" * 64,
        report_key=None,
        manifest={"counts": {"pairs": 2}},
    )


def set_id(number: int) -> str:
    return f"s{number:015x}-gender"


def pair_id(number: int, value: str = "woman") -> str:
    return f"{set_id(number)}-{value}"


def pair_records(count: int, batch: int = 100) -> Iterator[list[Record]]:
    for start in range(0, count, batch):
        yield [
            Record(pair_id(i), set_id(i), SHA, b'{"n":%d,"text":"\xc3\xa9 \\\\ \\t"}' % i)
            for i in range(start, min(start + batch, count))
        ]


def set_records(count: int) -> list[list[Record]]:
    return [[Record(set_id(i), set_id(i), SOURCE_SHA, b'{"set":%d}' % i) for i in range(count)]]


def load(catalog: Catalog, number: int, rows: int = 3) -> str:
    release = new_release(number)
    catalog.load(release, pair_records(rows), set_records(rows))
    return release.release_id


@pytest.fixture
def catalog(postgres_url: str) -> Iterator[Catalog]:
    migrate(postgres_url)
    with open_catalog(postgres_url) as catalog:
        yield catalog


def tables(url: str) -> set[str]:
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            return {row[0] for row in cursor.fetchall()}
    finally:
        connection.close()


def test_migrations_go_up_and_down_with_data_in_the_tables(postgres_url: str) -> None:
    assert migrate(postgres_url) == head_revision() == migrate(postgres_url)
    with open_catalog(postgres_url) as catalog:
        first = load(catalog, 1)
        catalog.publish(first)
        assert migrate(postgres_url, "base") is None
        assert tables(postgres_url) == {"cf_lab_alembic_version"}
        assert migrate(postgres_url) == head_revision()
        assert catalog.list_releases() == []
        assert load(catalog, 1) == first
        assert catalog.publish(first).changed


def test_each_migration_is_undone_and_done_again_on_data(postgres_url: str) -> None:
    seen = []
    with open_catalog(postgres_url) as catalog:
        while migrate(postgres_url, "+1") != head_revision():
            seen.append(tables(postgres_url))
        release_id = load(catalog, 1)
        catalog.publish(release_id)
        migrate(postgres_url, "-1")
        assert catalog.current_id() == release_id
        assert catalog.pair(release_id, pair_id(1)) is not None
        migrate(postgres_url, "+1")
        assert [e.event for e in catalog.events(release_id)] == ["staged", "published"]
        while seen:
            migrate(postgres_url, "-1")
            parents = {name for name in tables(postgres_url) if "_r0" not in name}
            assert parents == seen.pop()
        assert migrate(postgres_url, "0001") == "0001"
        assert migrate(postgres_url, "0003") == "0003"
        assert migrate(postgres_url, "0002") == "0002"


def test_migrating_twice_at_once_is_done_once(postgres_url: str) -> None:
    results: list[str | None] = []
    threads = [
        threading.Thread(target=lambda: results.append(migrate(postgres_url))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [head_revision()] * 2


def test_an_unknown_revision_says_what_to_do(postgres_url: str) -> None:
    with pytest.raises(CatalogError, match="can't be migrated to 'nonsense'"):
        migrate(postgres_url, "nonsense")
    migrate(postgres_url)
    connection = psycopg2.connect(postgres_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("UPDATE cf_lab_alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(CatalogError, match="version of the lab that knows"):
        migrate(postgres_url)


def test_a_release_is_loaded_whole_and_read_back_byte_for_byte(catalog: Catalog) -> None:
    loaded = catalog.load(new_release(1), pair_records(2500), set_records(7))
    release_id = new_release(1).release_id
    assert (loaded.new, loaded.pairs, loaded.sets) == (True, 2500, 7)
    assert catalog.counts(release_id) == {"pair": 2500, "set": 7}
    assert catalog.pair(release_id, pair_id(2499)) == b'{"n":2499,"text":"\xc3\xa9 \\\\ \\t"}'
    assert catalog.set(release_id, set_id(6)) == b'{"set":6}'
    wanted = [pair_id(5), pair_id(5, "nobody"), pair_id(3), pair_id(5)]
    found = catalog.pairs(release_id, wanted)
    assert [body and body[:6] for body in found] == [b'{"n":5', None, b'{"n":3', b'{"n":5']
    assert catalog.pairs(release_id, []) == []
    rows = [row for batch in catalog.iterate("pair", release_id) for row in batch]
    assert sorted(row[0] for row in rows) == sorted(pair_id(i) for i in range(2500))
    assert catalog.has_image(release_id, SHA)
    assert catalog.has_image(release_id, SOURCE_SHA)
    assert not catalog.has_image(release_id, "00" * 32)
    assert not catalog.has_image("r" + "0" * 12, SHA)


def test_loading_the_same_release_again_does_nothing(catalog: Catalog) -> None:
    release_id = load(catalog, 1)
    catalog.publish(release_id)
    assert not catalog.load(new_release(1), pair_records(9), set_records(9)).new
    assert catalog.counts(release_id) == {"pair": 3, "set": 3}
    assert catalog.current_id() == release_id
    with pytest.raises(CatalogError, match="share the first 12 digits"):
        catalog.load(new_release(1, content="f" * 64), [], [])


def test_a_load_that_fails_leaves_nothing_and_shows_its_own_error(
    catalog: Catalog, postgres_url: str
) -> None:
    before = tables(postgres_url)

    def breaks() -> Iterator[list[Record]]:
        yield from pair_records(5000)
        raise RuntimeError("the file ends here")

    with pytest.raises(RuntimeError, match="the file ends here"):
        catalog.load(new_release(1), breaks(), [])
    twice = [[Record(pair_id(1), set_id(1), SHA, b"{}")] * 2]
    with pytest.raises(CatalogError, match="two pairs with the same id"):
        catalog.load(new_release(1), twice, [])
    assert tables(postgres_url) == before
    assert catalog.list_releases() == []
    assert load(catalog, 1)


def test_readers_are_not_held_up_by_a_load(postgres_url: str, catalog: Catalog) -> None:
    first = load(catalog, 1)
    middle, go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[list[Record]]:
        yield from pair_records(1000)
        middle.set()
        assert go_on.wait(30)

    loader = threading.Thread(
        target=lambda: catalog.load(new_release(2), slow(), set_records(1000))
    )
    loader.start()
    try:
        assert middle.wait(30)
        with open_catalog(postgres_url, statement_seconds=2) as reader:
            assert reader.pair(first, pair_id(1)) is not None
            assert reader.get_release(new_release(2).release_id) is None
            assert reader.publish(first).changed
    finally:
        go_on.set()
        loader.join()
    assert catalog.counts(new_release(2).release_id) == {"pair": 1000, "set": 1000}


def test_of_two_loaders_of_one_release_the_second_finds_it_done(catalog: Catalog) -> None:
    results = []
    threads = [
        threading.Thread(
            target=lambda: results.append(
                catalog.load(new_release(1), pair_records(3000), set_records(3000)).new
            )
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, False, True]
    assert catalog.counts(new_release(1).release_id) == {"pair": 3000, "set": 3000}


KILLED_LOADER = """
import sys
from cf_lab_resources.catalog import open_catalog
from cf_lab_tests.resources.test_catalog import new_release, pair_records
def endless():
    while True:
        for batch in pair_records(10_000, batch=1000):
            yield batch
            print("sent", flush=True)
open_catalog(sys.argv[1]).load(new_release(1), endless(), [])
"""


def test_a_loader_killed_amid_copy_leaves_nothing_and_the_rerun_is_whole(
    catalog: Catalog, postgres_url: str
) -> None:
    before = tables(postgres_url)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_LOADER, postgres_url], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        for _ in range(12):
            assert child.stdout.readline() == b"sent\n"
        os.kill(child.pid, signal.SIGKILL)
    assert catalog.load(new_release(1), pair_records(50), set_records(50)).new
    assert catalog.counts(new_release(1).release_id) == {"pair": 50, "set": 50}
    release_id = new_release(1).release_id
    new = {f"release_pairs_{release_id}", f"release_sets_{release_id}"}
    assert tables(postgres_url) == before | new
    assert [event.event for event in catalog.events()] == ["staged"]


def test_exactly_one_release_is_current_and_each_change_is_recorded(catalog: Catalog) -> None:
    first, second = load(catalog, 1), load(catalog, 2)
    assert catalog.current_release() is None
    assert catalog.publish(first).previous is None
    flip = catalog.publish(second)
    assert (flip.previous, flip.changed) == (first, True)
    assert not catalog.publish(second).changed
    assert {r.release_id: r.state for r in catalog.list_releases()} == {
        first: "superseded",
        second: "current",
    }
    assert [r.release_id for r in catalog.list_releases(states=["current"])] == [second]
    assert [(e.release_id, e.event) for e in catalog.events()] == [
        (first, "staged"),
        (second, "staged"),
        (first, "published"),
        (first, "superseded"),
        (second, "published"),
    ]
    current = catalog.current_release()
    assert current is not None
    assert current.manifest == {"counts": {"pairs": 2}}
    assert current.published_at is not None


def test_a_rollback_withdraws_and_a_withdrawn_release_is_not_published_again(
    catalog: Catalog,
) -> None:
    with pytest.raises(CatalogError, match="nothing to roll back to"):
        catalog.roll_back()
    first, second, third = (load(catalog, n) for n in (1, 2, 3))
    catalog.publish(first)
    with pytest.raises(CatalogError, match="nothing to roll back to"):
        catalog.roll_back()
    catalog.publish(second)
    assert catalog.roll_back().release_id == first
    states = {r.release_id: r.state for r in catalog.list_releases()}
    assert states == {first: "current", second: "withdrawn", third: "candidate"}
    with pytest.raises(CatalogError, match="was withdrawn"):
        catalog.publish(second)
    with pytest.raises(CatalogError, match="was never current"):
        catalog.roll_back(third)
    with pytest.raises(CatalogError, match="there is no release"):
        catalog.roll_back("r" + "0" * 12)
    assert catalog.roll_back(second).changed
    assert not catalog.roll_back(second).changed
    assert catalog.current_id() == second
    assert [e.event for e in catalog.events(second)] == [
        "staged",
        "published",
        "withdrawn",
        "rolled_back_to",
    ]


def test_the_database_itself_refuses_a_second_current_release_and_changed_events(
    catalog: Catalog, postgres_url: str
) -> None:
    first, second = load(catalog, 1), load(catalog, 2)
    catalog.publish(first)
    connection = psycopg2.connect(postgres_url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        with pytest.raises(psycopg2.errors.UniqueViolation):
            cursor.execute(
                "UPDATE releases SET state = 'current', published_at = now() WHERE release_id = %s",
                (second,),
            )
        for change in ("UPDATE release_events SET event = 'staged'", "DELETE FROM release_events"):
            with pytest.raises(psycopg2.errors.RaiseException, match="append-only"):
                cursor.execute(change)
    connection.close()


def test_many_publishers_at_once_end_with_one_current_release(catalog: Catalog) -> None:
    releases = [load(catalog, n, rows=1) for n in range(1, 7)]
    failed: list[Exception] = []

    def publish(release_id: str) -> None:
        try:
            catalog.publish(release_id)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=publish, args=(r,)) for r in releases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    states = sorted(r.state for r in catalog.list_releases())
    assert states == ["current"] + ["superseded"] * 5


def test_lookups_survive_the_loss_of_their_connections(catalog: Catalog, postgres_url: str) -> None:
    release_id = load(catalog, 1)
    assert catalog.pair(release_id, pair_id(1)) is not None
    connection = psycopg2.connect(postgres_url)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    connection.close()
    assert catalog.pair(release_id, pair_id(1)) is not None


def test_no_postgres_and_no_tables_are_told_apart(postgres_url: str) -> None:
    with open_catalog("postgresql://nobody:secret@127.0.0.1:1/none") as catalog:
        with pytest.raises(CatalogUnavailable, match="does not answer") as caught:
            catalog.current_id()
        assert "secret" not in str(caught.value)
        with pytest.raises(CatalogUnavailable):
            catalog.migrate()
    with open_catalog(postgres_url) as catalog, pytest.raises(CatalogError, match="migrate it"):
        catalog.current_id()


def test_a_lookup_that_takes_too_long_is_given_up(postgres_url: str, catalog: Catalog) -> None:
    load(catalog, 1)
    connection = psycopg2.connect(postgres_url)
    with open_catalog(postgres_url, statement_seconds=0.2) as hurried:
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE releases IN ACCESS EXCLUSIVE MODE")
            start = time.monotonic()
            with pytest.raises(CatalogUnavailable):
                hurried.current_id()
            assert time.monotonic() - start < 5
        connection.close()
        assert hurried.current_id() is None


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (pair_id(1), True),
        (pair_id(1, "middle-aged"), True),
        (pair_id(1, "two words"), True),
        ("s1-gender-man", False),
        (pair_id(1, "a:b"), False),
        (pair_id(1, 'a"b'), False),
        (pair_id(1, "a\n"), False),
        (pair_id(1) + "\n", False),
        (pair_id(1, "x" * 300), False),
        (pair_id(1, "\u0663"), False),
        ("", False),
    ],
)
def test_ids_have_one_form(text: str, good: bool) -> None:
    assert catalog_ids.is_record_id(text) is good
