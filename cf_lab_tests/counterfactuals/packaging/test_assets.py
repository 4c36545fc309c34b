"""The package as Dagster makes and checks it."""

from __future__ import annotations

import dagster as dg
import pytest

from cf_lab_assets import automation, names
from cf_lab_assets.counterfactuals.packaging import assets, checks
from cf_lab_assets.counterfactuals.packaging.manifest import find_package
from cf_lab_assets.definitions import build_defs
from cf_lab_resources.dagster import BucketResource, PublicationResource
from cf_lab_tests.counterfactuals.packaging.conftest import spoil
from cf_lab_tests.releases.sample import write_dataset

PLANNED = sorted(checks.DESCRIPTIONS)


@pytest.fixture
def run(tmp_path):
    def run(*definitions):
        return dg.materialize(
            [
                *(definitions or (assets.package, checks.package_checks)),
                dg.AssetSpec(names.DATASET),
            ],
            resources={
                "bucket": BucketResource(url=(tmp_path / "bucket").as_uri()),
                "publication": PublicationResource(home=str(tmp_path)),
            },
            raise_on_error=False,
        )

    return run


def evaluated(result):
    return {check.check_name: check for check in result.get_asset_check_evaluations()}


def test_a_package_is_made_checked_and_not_made_again(run, bucket):
    dataset_hash = write_dataset(bucket, spoil=spoil, report=False, package=False)
    result = run()
    assert result.success
    found = evaluated(result)
    assert sorted(found) == PLANNED
    for check in found.values():
        assert check.passed
        assert (check.metadata["measured"].value, check.metadata["limit"].value) == (0, 0)
    assert found["every_picture_carries_its_provenance"].metadata["pictures"].value == 20
    (made,) = result.asset_materializations_for_node("counterfactuals__package")
    assert made.metadata["newly_made"].value is True
    assert made.metadata["signed_with"].value == "TEST key"
    assert len(str(made.metadata["card"].value)) < 100_000
    (again,) = run().asset_materializations_for_node("counterfactuals__package")
    assert again.metadata["newly_made"].value is False
    assert again.metadata["package_sha256"] == made.metadata["package_sha256"]
    assert find_package(bucket, dataset_hash).sha256 == made.metadata["package_sha256"].value


def test_a_damaged_package_fails_its_blocking_checks(run, bucket):
    dataset_hash = write_dataset(bucket, report=False, package=False)
    assert run().success
    package = find_package(bucket, dataset_hash)
    for path, damage in (("croissant.json", b"{}"), ("shards/test-000000.tar", b"x" * 1024)):
        key = f"{package.prefix}/{path}"
        size = bucket.size(key)
        bucket.put_bytes(key, damage.ljust(size))  # the size does not give it away
    result = run()
    assert not result.success
    assert not any(check.passed for check in evaluated(result).values())
    assert all(spec.blocking for spec in checks.package_checks.check_specs)
    found = evaluated(result)["every_picture_carries_its_provenance"]
    assert found.metadata["measured"].value == 22
    assert "shards/test-000000.tar is not the file" in str(found.metadata["faults"].value)


def test_without_a_dataset_it_says_what_to_do(run, bucket):
    result = run()
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "materialise counterfactuals/dataset" in str(
        failure.step_failure_data.user_failure_data.description
    )


def test_the_job_of_the_dataset_makes_the_package_too_and_it_follows_by_itself():
    definitions = build_defs()
    job = definitions.resolve_job_def(automation.MAKE_DATASET)
    assert names.PACKAGE in job.asset_layer.executable_asset_keys
    spec = next(s for s in definitions.resolve_all_asset_specs() if s.key == names.PACKAGE)
    assert spec.automation_condition is not None
