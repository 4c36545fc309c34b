"""An export is whole or not there."""

from pathlib import Path

import pytest

from cf_lab_assets.counterfactuals.packaging.export import choose_package, export_package
from cf_lab_assets.counterfactuals.packaging.inspection import verify_folder
from cf_lab_assets.counterfactuals.packaging.manifest import PackageError, find_package
from cf_lab_assets.releases.candidate import read_content, stage_candidate
from cf_lab_resources.catalog import open_catalog
from cf_lab_tests.releases.sample import publication, write_dataset


def test_an_empty_folder_is_taken_and_another_refused(packaged, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    done = []
    export_package(packaged.bucket, packaged.package, target, done.append)
    assert sum(done) == sum(file["bytes"] for file in packaged.package.manifest["files"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    with pytest.raises(PackageError, match="is not empty"):
        export_package(packaged.bucket, packaged.package, target)
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(PackageError, match="is not empty"):
        export_package(packaged.bucket, packaged.package, file)
    assert file.read_text() == "mine"


def test_a_folder_that_is_there_is_filled_also_by_another_name(packaged, tmp_path, monkeypatch):
    target, link = tmp_path / "out", tmp_path / "link"
    target.mkdir()
    link.symlink_to(target)
    export_package(packaged.bucket, packaged.package, link)
    assert link.is_symlink()
    assert verify_folder(target).faults == []
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    export_package(packaged.bucket, packaged.package, Path("."))
    assert Path("manifest.json").exists(), "whoever stands in the folder sees it filled"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "link", "out"]


def test_a_damaged_package_leaves_nothing_behind(bucket, tmp_path):
    package = find_package(bucket, write_dataset(bucket, report=False))
    key = f"{package.prefix}/README.md"
    bucket.put_bytes(key, bucket.get_bytes(key) + b"x")
    with pytest.raises(PackageError, match=r"README\.md is damaged"):
        export_package(bucket, package, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bucket"]


def test_a_release_has_its_own_package_whatever_was_packaged_since(bucket, postgres_url, tmp_path):
    from dataclasses import replace

    from cf_lab_assets.counterfactuals.packaging.build import build_package

    dataset_hash = write_dataset(bucket)
    with open_catalog(postgres_url) as catalog:
        catalog.migrate()
        with pytest.raises(PackageError, match="no current release"):
            choose_package(bucket, catalog, None, None)
        content = read_content(bucket)
        stage_candidate(bucket, catalog, content)
        build_package(bucket, dataset_hash, replace(publication(), publisher="Someone else"))
        released = choose_package(bucket, catalog, content.release_id, None)
        assert released.manifest["publisher"] is None
        newest = choose_package(bucket, catalog, None, dataset_hash)
        assert newest.manifest["publisher"] == "Someone else"
        with pytest.raises(PackageError, match="no release 'r0'"):
            choose_package(bucket, catalog, "r0", None)
        with pytest.raises(PackageError, match="no package of dataset 'x'"):
            choose_package(bucket, catalog, None, "x")

        bucket.delete([f"{released.prefix}/README.md"])
        build_package(bucket, dataset_hash, publication())
        lost = choose_package(bucket, catalog, content.release_id, None)
        assert lost.sha256 == released.sha256
        with pytest.raises(PackageError, match=r"README\.md is missing; restore .* by --dataset"):
            export_package(bucket, lost, tmp_path / "out")
        export_package(
            bucket, choose_package(bucket, catalog, None, dataset_hash), tmp_path / "out"
        )

        manifest = f"{released.prefix}/manifest.json"
        bucket.put_bytes(manifest, bucket.get_bytes(manifest) + b"\n")
        with pytest.raises(PackageError, match="is not the one that release"):
            choose_package(bucket, catalog, content.release_id, None)
        bucket.delete([manifest])
        with pytest.raises(PackageError, match="is missing or damaged; restore the bucket"):
            choose_package(bucket, catalog, content.release_id, None)
