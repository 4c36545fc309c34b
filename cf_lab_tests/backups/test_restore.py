from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cf_lab_assets.backups import catalog, copying
from cf_lab_assets.backups import restore as restore_module
from cf_lab_assets.backups.copying import Progress, data_key
from cf_lab_assets.backups.manifest import (
    RESTORE_MARKER,
    BackupDamaged,
    BackupError,
    NoBackup,
)
from cf_lab_assets.backups.restore import (
    RestoreInconsistent,
    RestoreRefused,
    RestoreResult,
    RestoreUnfinished,
    restore,
)
from cf_lab_resources.bucket import open_bucket
from cf_lab_resources.settings import SettingsError
from cf_lab_tests.backups.conftest import PICTURES, Lab


def restored(lab: Lab, **options: object) -> RestoreResult:
    result = restore(lab.backup_url, lab.postgres_url, lab.bucket_url, **options)  # type: ignore[arg-type]
    lab.bucket = open_bucket(lab.bucket_url)
    return result


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("small_bytes", [copying.SMALL_BYTES, 10])
def test_what_was_destroyed_comes_back_row_by_row_and_byte_by_byte(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, small_bytes: int
) -> None:
    monkeypatch.setattr(copying, "SMALL_BYTES", small_bytes)
    rows, objects = lab.rows(), lab.objects()
    backup = lab.back_up().backup
    lab.destroy()
    result = restored(lab)
    assert lab.rows() == rows
    assert lab.objects() == objects
    assert result.backup == backup
    assert (result.objects, result.rows, result.tables) == (len(objects), 3 + len(PICTURES), 2)
    assert result.pictures == len(PICTURES)
    assert not result.resumed


def test_constraints_and_sequences_come_back_too(lab: Lab) -> None:
    lab.back_up()
    lab.destroy()
    restored(lab)
    lab.sql("INSERT INTO release_pairs (release_id) VALUES ('r2')")
    assert lab.sql("SELECT max(n) FROM release_pairs") == [(len(PICTURES) + 1,)]
    with pytest.raises(Exception, match="one_current"):
        lab.sql("INSERT INTO releases VALUES ('r9', 'current')")
    with pytest.raises(Exception, match="rows are kept"):
        lab.sql("DELETE FROM releases")


def test_an_older_backup_is_restored_as_it_was(lab: Lab) -> None:
    rows, objects = lab.rows(), lab.objects()
    first = lab.back_up().backup
    lab.bucket.put_bytes("datasets/latest.json", b"newer")
    lab.sql("UPDATE releases SET notes = 'newer'")
    lab.back_up()
    lab.destroy()
    assert restored(lab, at=first.created_at).backup == first
    assert (lab.rows(), lab.objects()) == (rows, objects)


def test_a_restored_lab_can_be_backed_up_again_and_copies_nothing(lab: Lab) -> None:
    lab.back_up()
    lab.destroy()
    restored(lab)
    assert lab.back_up().copied == 0


def test_a_database_without_released_pairs_is_restored(lab: Lab) -> None:
    lab.sql("DROP TABLE release_pairs")
    lab.back_up()
    lab.destroy()
    assert restored(lab).pictures == 0


@pytest.mark.parametrize("small_bytes", [copying.SMALL_BYTES, 10])
def test_a_flipped_byte_of_an_object_is_found_and_named(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, small_bytes: int
) -> None:
    monkeypatch.setattr(copying, "SMALL_BYTES", small_bytes)
    lab.back_up()
    key = data_key(copying.hashlib.sha256(PICTURES[3]).hexdigest())
    flip(lab.place_folder / key)
    lab.destroy()
    with pytest.raises(BackupDamaged) as caught:
        restored(lab)
    assert key in str(caught.value)
    assert "The restore is not finished" in str(caught.value)
    assert lab.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


@pytest.mark.parametrize("which", ["dump", "index", "manifest"])
def test_a_flipped_byte_elsewhere_is_found_before_anything_is_restored(
    lab: Lab, which: str
) -> None:
    backup = lab.back_up().backup
    key = {
        "dump": backup.manifest.catalog.key,
        "index": data_key(backup.manifest.objects.sha256),
        "manifest": backup.key,
    }[which]
    flip(lab.place_folder / key)
    lab.destroy()
    with pytest.raises(BackupDamaged, match=key):
        restored(lab)
    assert set(lab.objects()) <= {RESTORE_MARKER}
    assert lab.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_a_broken_row_of_manifests_is_refused_unless_history_is_left_out(lab: Lab) -> None:
    first = lab.back_up().backup
    second = lab.back_up().backup
    third = lab.back_up().backup
    lab.place.put_bytes(second.key, lab.place.get_bytes(first.key))
    lab.destroy()
    with pytest.raises(BackupDamaged, match=second.key):
        restored(lab)
    result = restored(lab, history=False)
    assert (result.backup, result.history) == (third, None)


def test_a_bucket_with_objects_is_refused(lab: Lab) -> None:
    lab.back_up()
    lab.destroy_catalog()
    with pytest.raises(RestoreRefused, match=r"is not empty: it holds .*/"):
        restored(lab)
    assert lab.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_a_database_with_tables_is_refused(lab: Lab) -> None:
    lab.back_up()
    rows = lab.rows()
    lab.destroy_bucket()
    with pytest.raises(RestoreRefused, match=r"public\.release_pairs.*--into-postgres"):
        restored(lab)
    assert lab.rows() == rows
    assert lab.objects() == {}


def test_the_second_place_itself_is_no_target(lab: Lab) -> None:
    lab.back_up()
    lab.destroy()
    with pytest.raises(BackupError, match="overlap"):
        restore(lab.backup_url, lab.postgres_url, f"{lab.backup_url}/objects/restored")


def test_an_older_server_is_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = lab.back_up().backup
    version = backup.manifest.catalog.server_version
    lab.destroy()

    def later(place: object, at: object) -> object:
        dump = backup.manifest.catalog.model_copy(update={"server_version": version + 10000})
        manifest = backup.manifest.model_copy(update={"catalog": dump})
        return restore_module.Backup(backup.key, backup.sha256, manifest)

    monkeypatch.setattr(restore_module, "choose_backup", later)
    with pytest.raises(RestoreRefused, match=f"{version // 10000} is older than"):
        restored(lab)


def test_an_interrupted_restore_is_refused_by_others_and_continued_by_the_same_call(
    lab: Lab,
) -> None:
    rows, objects = lab.rows(), lab.objects()
    first = lab.back_up().backup
    lab.bucket.put_bytes("datasets/latest.json", b"newer")
    lab.back_up()
    lab.destroy()

    def stop(progress: Progress) -> None:
        if progress.done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restored(lab, at=first.created_at, report=stop, threads=1)
    assert 0 < len(lab.objects()) < len(objects)
    with pytest.raises(RestoreRefused, match="unfinished restore of another backup"):
        restored(lab)
    seen: list[Progress] = []
    result = restored(lab, at=first.created_at, report=seen.append)
    assert result.resumed
    assert seen[-1].done == len(objects)
    assert seen[-1].copied <= len(objects) - 10
    assert (lab.rows(), lab.objects()) == (rows, objects)


def test_a_restore_that_was_killed_after_the_database_is_continued(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, objects = lab.rows(), lab.objects()
    lab.back_up()
    lab.destroy()

    def killed(postgres_url: str, dump: object) -> dict[str, int]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(restore_module, "_check_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            restored(lab)
    assert RESTORE_MARKER in {info.key for info in open_bucket(lab.bucket_url).list()}
    assert restored(lab).resumed
    assert (lab.rows(), lab.objects()) == (rows, objects)


def test_damage_to_what_was_restored_before_the_kill_is_repaired(lab: Lab) -> None:
    objects = lab.objects()
    backup = lab.back_up().backup
    lab.destroy()
    bucket = open_bucket(lab.bucket_url)
    bucket.put_bytes(RESTORE_MARKER, backup.sha256.encode())
    bucket.put_bytes("datasets/one/pairs.parquet", b"tabel")
    restored(lab)
    assert lab.objects() == objects


def test_a_dump_that_the_server_refuses_leaves_the_database_empty_and_says_how_to_go_on(
    lab: Lab,
) -> None:
    rows = lab.rows()
    lab.back_up()
    lab.destroy()
    # A type is no table, so it is not seen before the dump creates its own.
    lab.sql("CREATE TYPE public.state AS ENUM ('x')")
    with pytest.raises(RestoreUnfinished, match="already exists") as caught:
        restored(lab)
    assert "run the same command again" in str(caught.value)
    assert lab.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    lab.sql("DROP TYPE public.state")
    assert restored(lab).resumed
    assert lab.rows() == rows


def test_a_dump_that_ends_too_early_is_not_committed(lab: Lab, tmp_path: Path) -> None:
    lab.sql("INSERT INTO releases SELECT 'x' || n, 'candidate' FROM generate_series(1, 90000) n")
    lab.back_up()
    dump = tmp_path / "cut.dump"
    whole = lab.place.get_bytes(catalog.newest_dump(lab.place).key)
    dump.write_bytes(whole[: len(whole) // 2])
    lab.destroy_catalog()
    with pytest.raises(BackupError, match="the database is as it was"):
        catalog.restore_catalog(lab.postgres_url, dump)
    assert lab.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_rows_that_somebody_else_writes_meanwhile_are_noticed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.back_up()
    lab.destroy()

    def and_more(postgres_url: str, dump: Path) -> None:
        catalog.restore_catalog(postgres_url, dump)
        lab.sql("INSERT INTO releases VALUES ('r9', 'candidate')")

    monkeypatch.setattr(restore_module, "restore_catalog", and_more)
    with pytest.raises(RestoreUnfinished, match=r"public\.releases have not the rows"):
        restored(lab)


def test_a_released_picture_that_the_backup_lacks_is_named(lab: Lab) -> None:
    lab.sql(f"INSERT INTO release_pairs (release_id, image_sha256) VALUES ('r2', '{'0' * 64}')")
    objects = lab.objects()
    lab.back_up()
    lab.destroy()
    with pytest.raises(RestoreInconsistent, match=f"1 of 21 released pictures .*{'0' * 64}"):
        restored(lab)
    lab.bucket = open_bucket(lab.bucket_url)
    assert lab.objects() == objects


def test_a_place_without_a_backup_says_so(lab: Lab, tmp_path: Path) -> None:
    lab.destroy()
    (tmp_path / "nothing").mkdir()
    with pytest.raises(NoBackup, match="no finished backup"):
        restore((tmp_path / "nothing").as_uri(), lab.postgres_url, lab.bucket_url)


def test_a_folder_that_does_not_exist_is_not_made(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="--from: there is no folder"):
        restore((tmp_path / "wrong").as_uri(), lab.postgres_url, lab.bucket_url)
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("--into-postgres", "mysql://u:hunter2@h/db"),
        ("--into-postgres", "postgresql://u:hunter2/x@h/db"),
        ("--from", "s3://key:hunter2@bucket"),
        ("--from", "hunter2"),
        ("--into-bucket", "s3://key:hunter2@bucket"),
        ("--into-bucket", "memory://"),
    ],
)
def test_a_wrong_url_is_named_without_its_password(lab: Lab, name: str, url: str) -> None:
    urls = {
        "--from": lab.backup_url,
        "--into-postgres": lab.postgres_url,
        "--into-bucket": lab.bucket_url,
    }
    with pytest.raises(SettingsError) as caught:
        restore(*(urls | {name: url}).values())
    assert str(caught.value).startswith(f"{name}: ")
    assert "hunter2" not in str(caught.value)


def test_a_wrong_password_is_said_before_the_bucket_is_touched(lab: Lab) -> None:
    lab.back_up()
    shutil.rmtree(lab.folder / "bucket")
    with pytest.raises(BackupError, match="no connection") as caught:
        restore(lab.backup_url, "postgresql://u:hunter2@127.0.0.1:1/db", lab.bucket_url)
    assert "hunter2" not in str(caught.value)
    assert list(open_bucket(lab.bucket_url).list()) == []
