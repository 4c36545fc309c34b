from __future__ import annotations

import subprocess
import sys

import dagster as dg
import pytest

from cf_lab_assets.backups import assets, checks
from cf_lab_assets.backups.copying import data_key
from cf_lab_assets.backups.manifest import choose_backup
from cf_lab_assets.backups.restore import restore
from cf_lab_assets.names import BACKUPS, BUCKET_BACKUP, CATALOG_BACKUP, RELEASE_CURRENT
from cf_lab_resources.dagster import BackupResource, BucketResource, CatalogResource
from cf_lab_tests.backups.conftest import PICTURES, Lab


def run(lab: Lab) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [assets.catalog_backup, assets.bucket_backup, checks.newest_backup_is_complete],
            instance=instance,
            resources={
                "bucket": BucketResource(url=lab.bucket_url),
                "catalog": CatalogResource(url=lab.postgres_url),
                "backup": BackupResource(url=lab.backup_url),
            },
            raise_on_error=False,
        )


def test_a_run_makes_a_backup_that_restores_and_its_rerun_copies_nothing(lab: Lab) -> None:
    result = run(lab)
    assert result.success
    [evaluation] = result.get_asset_check_evaluations()
    assert (evaluation.check_name, evaluation.passed) == ("newest_backup_is_complete", True)
    [done] = result.asset_materializations_for_node("backups__bucket")
    assert done.metadata["manifest"].value == choose_backup(lab.place).key
    assert done.metadata["objects_copied"].value == len(PICTURES) + 3
    [dumped] = result.asset_materializations_for_node("backups__catalog")
    assert dumped.metadata["dagster/row_count"].value == len(PICTURES) + 3
    [again] = run(lab).asset_materializations_for_node("backups__bucket")
    assert again.metadata["objects_copied"].value == 0
    rows = lab.rows()
    lab.destroy()
    restore(lab.backup_url, lab.postgres_url, lab.bucket_url)
    assert lab.rows() == rows


def test_the_check_fails_on_a_backup_that_lacks_an_object(lab: Lab) -> None:
    lab.back_up()
    place = BackupResource(url=lab.backup_url)
    assert checks.newest_backup_is_complete(place).passed
    lab.place.delete([data_key(choose_backup(lab.place).manifest.objects.sha256)])
    assert not checks.newest_backup_is_complete(place).passed


def test_the_check_fails_where_there_is_no_backup(lab: Lab) -> None:
    result = checks.newest_backup_is_complete(BackupResource(url=lab.backup_url))
    assert not result.passed
    assert "no finished backup" in str(result.metadata["problems"])


def test_what_a_rerun_cannot_mend_is_not_retried(lab: Lab) -> None:
    lab.postgres_url = "postgresql://u:hunter2@127.0.0.1:1/db"
    result = run(lab)
    [failure] = [e for e in result.all_events if e.is_step_failure]
    data = failure.step_failure_data
    assert data.user_failure_data is not None
    assert "no connection" in str(data.user_failure_data.description)
    assert "hunter2" not in repr(result.all_events)


@pytest.mark.parametrize("asset", [assets.catalog_backup, assets.bucket_backup])
def test_the_assets_are_described_owned_and_kept_after_the_release(
    asset: dg.AssetsDefinition,
) -> None:
    [spec] = asset.specs
    assert spec.key in (CATALOG_BACKUP, BUCKET_BACKUP)
    assert spec.group_name == BACKUPS
    assert spec.description
    assert spec.owners
    assert spec.kinds
    assert spec.code_version
    assert RELEASE_CURRENT in {dep.asset_key for dep in spec.deps}


def test_loading_the_assets_imports_nothing_heavy() -> None:
    code = (
        "import sys, cf_lab_assets.backups.assets, cf_lab_assets.backups.checks;"
        "print({'obstore', 'psycopg2', 'pandas', 'pyarrow', 'redis', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
