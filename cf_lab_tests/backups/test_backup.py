from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from cf_lab_assets.backups import catalog, copying
from cf_lab_assets.backups.bucket import back_up_bucket
from cf_lab_assets.backups.catalog import dump_catalog, newest_dump
from cf_lab_assets.backups.copying import Progress, data_key, problems
from cf_lab_assets.backups.manifest import (
    MANIFESTS,
    RESTORE_MARKER,
    BackupDamaged,
    BackupError,
    NoBackup,
    check_history,
    choose_backup,
    list_backups,
    manifest_keys,
    parse_time,
    stamp,
)
from cf_lab_resources.bucket import BucketError, open_bucket
from cf_lab_resources.settings import SettingsError
from cf_lab_tests.backups.conftest import PICTURES, Lab


def test_a_second_backup_copies_only_what_is_new(lab: Lab) -> None:
    first = lab.back_up()
    assert first.backup.manifest.objects.count == len(PICTURES) + 4
    assert first.copied == len(PICTURES) + 3  # two tables have the same bytes
    lab.bucket.put_content("images", b"a new picture", ".png")
    lab.bucket.put_bytes("datasets/latest.json", b'{"content_hash": "two"}')
    second = lab.back_up()
    assert (second.copied, second.copied_bytes) == (2, 13 + 23)
    third = lab.back_up()
    assert (third.copied, third.copied_bytes) == (0, 0)
    assert third.backup.manifest.objects == second.backup.manifest.objects
    assert third.backup.manifest.previous
    assert third.backup.manifest.previous.key == second.backup.key


def test_old_bytes_of_a_changing_key_are_kept(lab: Lab) -> None:
    first = lab.back_up()
    lab.bucket.put_bytes("datasets/latest.json", b"new")
    lab.back_up()
    with copying.open_index(lab.place, first.backup.manifest.objects) as entries:
        old = next(entry for entry in entries if entry.key == "datasets/latest.json")
    assert lab.place.get_bytes(data_key(old.sha256)) == b'{"content_hash": "one"}'


def test_a_backup_changes_no_object_of_the_second_place(lab: Lab) -> None:
    lab.back_up()
    before = {info.key: lab.place.get_bytes(info.key) for info in lab.place.list()}
    lab.bucket.put_bytes("datasets/latest.json", b"new")
    lab.back_up()
    after = {info.key: lab.place.get_bytes(info.key) for info in lab.place.list()}
    assert before.items() <= after.items()


def test_large_objects_go_through_a_file_with_the_same_result(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "SMALL_BYTES", 10)
    result = lab.back_up()
    assert result.copied == len(PICTURES) + 3
    assert problems(lab.place, result.backup) == []


def test_an_interrupted_backup_has_no_manifest_and_the_next_one_continues(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = dump_catalog(lab.postgres_url, lab.place)

    def stop(progress: Progress) -> None:
        if progress.copied >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up_bucket(lab.bucket, lab.place, dump, stop, threads=1)
    assert manifest_keys(lab.place) == []
    with pytest.raises(NoBackup):
        choose_backup(lab.place)
    there = len(copying.sizes_of(lab.place))
    assert 10 <= there < len(PICTURES) + 3
    assert back_up_bucket(lab.bucket, lab.place, dump).copied == len(PICTURES) + 3 - there


def test_a_store_that_fails_ends_the_backup_without_a_manifest(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = dump_catalog(lab.postgres_url, lab.place)
    put = lab.place.put_bytes

    def failing(key: str, data: bytes) -> None:
        if data == PICTURES[7]:
            raise BucketError("the disk is full")
        put(key, data)

    monkeypatch.setattr(lab.place, "put_bytes", failing)
    with pytest.raises(BucketError, match="the disk is full"):
        back_up_bucket(lab.bucket, lab.place, dump)
    assert manifest_keys(lab.place) == []


def test_progress_comes_to_its_end(lab: Lab) -> None:
    seen: list[Progress] = []
    dump = dump_catalog(lab.postgres_url, lab.place)
    back_up_bucket(lab.bucket, lab.place, dump, seen.append)
    total = len(PICTURES) + 4
    assert [p.done for p in seen] == list(range(1, total + 1))
    assert seen[-1].copied == len(PICTURES) + 3
    assert {p.total for p in seen} == {total}


def test_an_object_that_vanishes_meanwhile_is_no_part_of_the_backup(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = list(lab.bucket.list())
    lab.bucket.delete(["datasets/latest.json"])
    monkeypatch.setattr(lab.bucket, "list", lambda: iter(listed))
    assert lab.back_up().backup.manifest.objects.count == len(listed) - 1


def test_a_damaged_original_is_left_out_and_said(lab: Lab) -> None:
    key = lab.bucket.put_content("images", b"a good picture", ".png")
    lab.bucket.put_bytes(key, b"a bad picture!")
    backup = lab.back_up().backup
    assert backup.manifest.damaged == (key,)
    assert backup.manifest.objects.count == len(PICTURES) + 4
    assert [key in problem for problem in problems(lab.place, backup)] == [True]


def test_an_object_damaged_after_its_backup_stays_good_there(lab: Lab) -> None:
    key = lab.bucket.put_content("images", b"a good picture", ".png")
    lab.back_up()
    lab.bucket.put_bytes(key, b"a bad picture!")
    backup = lab.back_up().backup
    assert backup.manifest.damaged == ()
    assert lab.place.get_bytes(data_key(key.split("/")[3][:64])) == b"a good picture"


def test_a_truncated_object_of_the_second_place_is_found_and_copied_again(lab: Lab) -> None:
    backup = lab.back_up().backup
    key = data_key(copying.hashlib.sha256(PICTURES[-1]).hexdigest())
    data = lab.place.get_bytes(key)
    lab.place.put_bytes(key, data[:-1])
    assert [key in problem for problem in problems(lab.place, backup)] == [True]
    assert lab.back_up().copied == 1
    assert lab.place.get_bytes(key) == data
    assert problems(lab.place, backup) == []


def test_missing_objects_and_a_damaged_dump_are_problems(lab: Lab) -> None:
    backup = lab.back_up().backup
    dump = backup.manifest.catalog.key
    data = lab.place.get_bytes(dump)
    lab.place.put_bytes(dump, data[:-1] + bytes([data[-1] ^ 1]))
    missing = next(iter(copying.sizes_of(lab.place)))
    lab.place.delete([data_key(missing)])
    found = "\n".join(problems(lab.place, backup))
    assert dump in found
    assert missing in found


def test_overlapping_places_are_refused(lab: Lab, tmp_path: Path) -> None:
    dump = dump_catalog(lab.postgres_url, lab.place)
    for inside in (lab.bucket_url, f"{lab.bucket_url}/backups", tmp_path.as_uri()):
        with pytest.raises(BackupError, match="overlap"):
            back_up_bucket(lab.bucket, open_bucket(inside), dump)
    # A name that begins with the other's is beside it and not in it.
    copying.check_apart(lab.bucket, open_bucket(f"{lab.bucket_url}-2"))


def test_an_emptied_bucket_is_not_taken_for_the_new_state(lab: Lab) -> None:
    lab.back_up()
    lab.destroy_bucket()
    lab.bucket = open_bucket(lab.bucket_url)
    with pytest.raises(BackupError, match="is empty, and the last backup has 24 objects"):
        lab.back_up()
    assert len(manifest_keys(lab.place)) == 1


def test_a_half_restored_bucket_is_not_backed_up(lab: Lab) -> None:
    lab.bucket.put_bytes(RESTORE_MARKER, b"x")
    with pytest.raises(BackupError, match="restore that did not finish"):
        lab.back_up()


def test_the_dump_has_the_rows_of_one_snapshot(lab: Lab) -> None:
    dump = dump_catalog(lab.postgres_url, lab.place)
    assert dump.tables == {"public.releases": 3, "public.pairs_r2": len(PICTURES)}
    assert lab.place.size(dump.key) == dump.bytes
    assert newest_dump(lab.place) == dump


def test_the_newest_dump_is_taken(lab: Lab) -> None:
    dump_catalog(lab.postgres_url, lab.place)
    second = dump_catalog(lab.postgres_url, lab.place)
    lab.place.put_bytes(f"catalog/{stamp(parse_time('2999-01-01'))}-{'0' * 12}.dump", b"unfinished")
    assert newest_dump(lab.place) == second


def test_a_bucket_backup_without_a_dump_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="backups/catalog first"):
        newest_dump(open_bucket(tmp_path.as_uri()))


def test_no_password_is_on_a_command_line(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    password = lab.postgres_url.split(":")[2].partition("@")[0]
    run, seen = subprocess.run, []

    def spying(command: list[str], **options: object) -> object:
        environ = options["env"]
        assert isinstance(environ, dict)
        service = Path(environ["PGSERVICEFILE"])
        seen.append((" ".join(command), service.read_text()))
        assert stat.S_IMODE(os.stat(service.parent).st_mode) == 0o700
        return run(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(catalog.subprocess, "run", spying)
    dump_catalog(lab.postgres_url, lab.place)
    [(command, service)] = seen
    assert "pg_dump" in command
    assert password not in command + service


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.replace(url.split(":")[2].partition("@")[0], "hunter2"),
        lambda url: url.replace(url.split(":")[2].partition("@")[0], "hunter2%40%2F"),
        lambda url: "postgresql://u:hunter2@127.0.0.1:1/db",
        lambda url: "postgresql://u@127.0.0.1:1/db?password=hunter2",
        lambda url: "postgresql://u:hunter2@127.0.0.1:1/db?nonsense=1",
        lambda url: "postgresql://u:hunter2/x@127.0.0.1:1/db",
        lambda url: "mysql://u:hunter2@h/db",
        lambda url: "u:hunter2@h",
    ],
)
def test_an_error_about_the_catalog_names_it_without_the_password(
    services: object, postgres_url: str, tmp_path: Path, change: object
) -> None:
    assert callable(change)
    place = open_bucket(tmp_path.as_uri())
    with pytest.raises((BackupError, SettingsError)) as caught:
        dump_catalog(change(postgres_url), place)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.__context__)
    assert list(place.list()) == []


def test_what_pg_dump_says_is_shown(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "LOCK_WAIT", "nonsense")
    with pytest.raises(BackupError, match=r"pg_dump failed: .*nonsense"):
        dump_catalog(lab.postgres_url, lab.place)
    assert list(lab.place.list()) == []


def test_backups_are_listed_newest_first_and_a_damaged_one_with_its_problem(lab: Lab) -> None:
    backups = [lab.back_up().backup for _ in range(3)]
    assert [line.backup for line in list_backups(lab.place)] == backups[::-1]
    lab.place.put_bytes(backups[1].key, b"{}")
    newest, middle, oldest = list_backups(lab.place)
    assert (newest.problem, oldest.problem) == (None, None)
    assert middle.backup is None
    assert middle.created_at == backups[1].created_at
    assert middle.problem
    assert backups[1].key in middle.problem


def test_a_time_chooses_the_newest_backup_up_to_it(lab: Lab) -> None:
    first, second = (lab.back_up().backup for _ in range(2))
    assert choose_backup(lab.place) == second
    assert choose_backup(lab.place, second.created_at) == second
    assert choose_backup(lab.place, stamp(first.created_at)) == first
    assert choose_backup(lab.place, first.created_at.isoformat()) == first
    with pytest.raises(NoBackup, match="the oldest is of"):
        choose_backup(lab.place, "2001-01-01")
    with pytest.raises(BackupError, match="is not a time"):
        choose_backup(lab.place, "yesterday")


def test_a_clock_that_was_set_back_does_not_hide_the_newest_backup(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = f"{MANIFESTS}/{stamp(parse_time('2999-01-01'))}"
    first = lab.back_up().backup
    manifest = first.manifest.model_copy(update={"created_at": parse_time("2999-01-01")})
    data = manifest.model_dump_json().encode()
    sha = copying.hashlib.sha256(data).hexdigest()
    lab.place.put_bytes(f"{key}-{sha[:12]}.json", data)
    second = lab.back_up().backup
    assert choose_backup(lab.place) == second
    assert second.created_at > parse_time("2999-01-01")


def test_the_row_of_manifests_is_checked(lab: Lab) -> None:
    backups = [lab.back_up().backup for _ in range(4)]
    assert check_history(lab.place, backups[3]) == 3
    lab.place.delete([backups[0].key])  # what a retention rule does
    assert check_history(lab.place, backups[3]) == 2
    lab.place.delete([backups[2].key])
    with pytest.raises(BackupDamaged, match=backups[2].key):
        check_history(lab.place, backups[3])
    assert check_history(lab.place, backups[1]) == 0


def test_an_exchanged_manifest_is_found(lab: Lab) -> None:
    backups = [lab.back_up().backup for _ in range(2)]
    lab.place.put_bytes(backups[0].key, lab.place.get_bytes(backups[1].key))
    with pytest.raises(BackupDamaged, match=backups[0].key):
        check_history(lab.place, backups[1])


def test_a_manifest_of_a_later_format_is_refused(lab: Lab) -> None:
    backup = lab.back_up().backup
    data = lab.place.get_bytes(backup.key).replace(b'"format": 1', b'"format": 2')
    assert b'"format": 2' in data
    sha = copying.hashlib.sha256(data).hexdigest()
    key = f"{MANIFESTS}/{stamp(parse_time('2999-01-01'))}-{sha[:12]}.json"
    lab.place.put_bytes(key, data)
    with pytest.raises(BackupDamaged, match="this version of the lab"):
        choose_backup(lab.place)


def test_times_in_keys_read_back() -> None:
    moment = parse_time("2026-01-31T12:00:00.000001+01:00")
    assert stamp(moment) == "20260131T110000.000001Z"
    assert parse_time(stamp(moment)) == moment
    assert data_key("ab" * 32) == f"objects/data/ab/{'ab' * 32}"
