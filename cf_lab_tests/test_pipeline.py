"""The whole way of the data on real services and the shipped models."""

import json
import shutil

import dagster as dg
import pytest

from cf_lab_assets import names, pipeline
from cf_lab_assets.counterfactuals import assets as counterfactuals
from cf_lab_assets.counterfactuals import tables
from cf_lab_assets.counterfactuals.dataset import latest_hash
from cf_lab_assets.definitions import build_defs
from cf_lab_assets.models import artifacts
from cf_lab_assets.releases.gates import GATES
from cf_lab_assets.releases.pointer import rollback
from cf_lab_assets.sources import batches
from cf_lab_assets.sources.ingest import ingest
from cf_lab_assets.starter import world
from cf_lab_assets.starter.portraits import write_image_folder
from cf_lab_resources.bucket import open_bucket
from cf_lab_resources.cache import open_cache
from cf_lab_resources.catalog import migrate, open_catalog
from cf_lab_resources.dagster import (
    BackupResource,
    BucketResource,
    CacheResource,
    CatalogResource,
    PublicationResource,
)
from cf_lab_tests.benchmarks import growth


@pytest.fixture
def definitions(tmp_path, postgres_url, redis_url):
    migrate(postgres_url)
    return build_defs(
        {
            "bucket": BucketResource(url=f"file://{tmp_path / 'bucket'}"),
            "catalog": CatalogResource(url=postgres_url),
            "cache": CacheResource(url=redis_url),
            "backup": BackupResource(url=f"file://{tmp_path / 'backups'}"),
            "publication": PublicationResource(home=str(tmp_path)),
        }
    )


@pytest.fixture
def bucket(tmp_path):
    return open_bucket(f"file://{tmp_path / 'bucket'}")


def take_in(bucket, tmp_path, name, count, seed):
    write_image_folder(tmp_path / name, count, seed)
    ingest(tmp_path / name, name, bucket, world.ATTRIBUTES)


@pytest.mark.timeout(900)
def test_from_a_folder_of_portraits_to_a_release_and_no_further_without_change(
    definitions, bucket, tmp_path, postgres_url, redis_url
):
    said = []
    with (
        dg.DagsterInstance.ephemeral() as instance,
        open_catalog(postgres_url) as catalog,
        open_cache(redis_url) as cache,
    ):
        with pytest.raises(pipeline.NoBatches, match="cf-lab ingest"):
            pipeline.run(definitions, instance, bucket, catalog, said.append)

        take_in(bucket, tmp_path, "first", 3, seed=5)
        first = pipeline.run(definitions, instance, bucket, catalog, said.append)
        assert first.changed
        assert catalog.current_id() == cache.pointer() == first.release_id
        assert said[0] == "make_counterfactuals first"

        again = pipeline.run(definitions, instance, bucket, catalog, said.append)
        assert again == pipeline.Outcome(first.release_id, changed=False)

        take_in(bucket, tmp_path, "second", 2, seed=6)
        said.clear()
        second = pipeline.run(definitions, instance, bucket, catalog, said.append)
        assert second.changed
        assert said[0] == "make_counterfactuals second"
        assert "make_counterfactuals first" not in said
        assert second.release_id != first.release_id
        assert [(r.release_id, r.state) for r in catalog.list_releases()] == [
            (second.release_id, "current"),
            (first.release_id, "superseded"),
        ]

        planned = definitions.resolve_asset_graph().asset_check_keys
        gates = {gate.name for gate in GATES}
        for key in planned:
            record = instance.get_latest_asset_check_evaluation_record(key)
            if key.name in gates:
                assert record.event.dagster_event.asset_check_evaluation_data.passed

        pair_id = catalog.first_pair_id(second.release_id)
        record = json.loads(catalog.pair(second.release_id, pair_id))
        assert record["pair_id"] == pair_id
        assert record["value"] in record["caption"]

        rollback(catalog, cache)
        stays = pipeline.run(definitions, instance, bucket, catalog, said.append)
        assert stays == pipeline.Outcome(first.release_id, changed=False)
        assert "withdrawn" in said[-1]


def test_sets_are_made_again_only_where_they_are_not_what_this_command_made(
    definitions, bucket, tmp_path, monkeypatch
):
    monkeypatch.setattr(counterfactuals, "_load", lambda *_: growth.load_fake())
    said = []
    with dg.DagsterInstance.ephemeral() as instance:

        def made(plan=None):
            said.clear()
            stored = batches.stored_batches(bucket)
            instance.add_dynamic_partitions(names.SOURCE_BATCHES.name, stored)
            pipeline._make_sets(definitions, instance, bucket, said.append, plan)
            return [line.removeprefix("make_counterfactuals ") for line in said]

        take_in(bucket, tmp_path, "first", 1, seed=5)
        assert made() == ["first"]
        assert made() == []

        take_in(bucket, tmp_path, "second", 1, seed=6)
        assert made() == ["second"]

        plan = {"attributes": ["gender"]}
        assert made(plan) == ["first", "second"]
        assert made(plan) == []

        key = tables.batch_key("first", "accepted_sets")
        bucket.put_bytes(key, bucket.get_bytes(key))
        assert made(plan) == ["first"]


@pytest.mark.timeout(900)
def test_a_release_that_fails_has_every_batch_looked_at_again(
    definitions, bucket, tmp_path, postgres_url, monkeypatch
):
    monkeypatch.setattr(counterfactuals, "_load", lambda *_: growth.load_fake())
    take_in(bucket, tmp_path, "first", 1, seed=5)
    said = []
    with dg.DagsterInstance.ephemeral() as instance, open_catalog(postgres_url) as catalog:
        instance.add_dynamic_partitions(names.SOURCE_BATCHES.name, ["first"])
        pipeline._make_sets(definitions, instance, bucket, said.append, None)
        (accepted, *_) = tables.read_rows(bucket, "first", "accepted_sets")
        drawn = tables.read_rows(bucket, "first", "candidates")
        used = accepted["members"][0]["edit_id"]
        key = next(row["image_key"] for row in drawn if row["edit_id"] == used)
        whole = bucket.get_bytes(key)
        bucket.put_bytes(key, b"damaged")

        with pytest.raises(pipeline.RunFailed, match="damaged"):
            pipeline.run(definitions, instance, bucket, catalog, said.append)
        said.clear()
        pipeline._make_sets(definitions, instance, bucket, said.append, None)
        assert said == ["make_counterfactuals first"]
        assert bucket.get_bytes(key) == whole


def test_a_job_that_fails_says_which_and_why(definitions, bucket, tmp_path, postgres_url):
    take_in(bucket, tmp_path, "broken", 2, seed=7)
    for info in list(bucket.list("objects/")):
        bucket.delete([info.key])
    with (
        dg.DagsterInstance.ephemeral() as instance,
        open_catalog(postgres_url) as catalog,
        pytest.raises(pipeline.RunFailed, match=r"make_counterfactuals failed"),
    ):
        pipeline.run(definitions, instance, bucket, catalog, lambda line: None)


@pytest.mark.timeout(900)
def test_the_audit_finds_the_planted_skew_and_nothing_in_the_balanced_model(
    definitions, bucket, tmp_path, postgres_url
):
    take_in(bucket, tmp_path, "audited", 26, seed=314)
    with (
        dg.DagsterInstance.ephemeral() as instance,
        open_catalog(postgres_url) as catalog,
    ):
        pipeline.run(definitions, instance, bucket, catalog, lambda line: None)
    dataset_hash = latest_hash(bucket)
    for model, planted in (("starter-skewed", True), ("starter-balanced", False)):
        metrics = json.loads(bucket.get_bytes(f"audits/{dataset_hash}/{model}/metrics.json"))
        primary = [result for result in metrics["results"] if result["family"] == "primary"]
        assert {result["attribute"] for result in primary} == {"gender", "skin_tone"}
        for result in primary:
            found = result["ci_low"] > 0 and result["estimate"] > result["placebo_floor"]
            assert found is planted, result
            assert (result["verdict"] == "found") is planted


def test_another_edit_plan_is_something_to_do(definitions, bucket):
    plans = [None, {"attributes": ["gender"]}, {"attributes": ["gender+age"]}]
    assert len({pipeline.fingerprint(definitions, bucket, plan) for plan in plans}) == 3


def test_another_editor_or_a_changed_one_is_something_to_do(
    definitions, bucket, tmp_path, monkeypatch
):
    monkeypatch.setenv("CF_LAB_HOME", str(tmp_path / "home"))
    folder = tmp_path / "editor"
    shutil.copytree(artifacts.model_folder(artifacts.EDITOR), folder)
    found, said = [pipeline.fingerprint(definitions, bucket)], []
    monkeypatch.setenv("CF_LAB_EDITOR", folder.as_uri())
    found += [pipeline.fingerprint(definitions, bucket, None, said.append) for _ in range(2)]
    assert len(said) == len(list(folder.rglob("*.*"))), "it is fetched once"
    (folder / "README.md").write_text("another card")
    found.append(pipeline.fingerprint(definitions, bucket, None, said.append))
    monkeypatch.setenv("CF_LAB_EDITOR", "hf://lab/editor@main")
    found.append(pipeline.fingerprint(definitions, bucket))
    assert found[1] == found[2]
    assert len(set(found)) == 4
