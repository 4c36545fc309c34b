"""A dataset from the newest one and new batches is the one that is put together from nothing."""

import json

import pytest

from cf_lab_assets.counterfactuals import carried, dataset, generation, tables
from cf_lab_assets.sources.ingest import ingest
from cf_lab_assets.starter import world
from cf_lab_assets.starter.portraits import write_image_folder
from cf_lab_resources.bucket import Bucket, open_bucket
from cf_lab_tests.benchmarks import growth

LIMITS = generation.GenerationSettings()


class Watched(Bucket):
    """Notes which objects are read whole; those of these tests are small."""

    read: list[str]

    def get_bytes(self, key):
        self.read.append(key)
        return super().get_bytes(key)


@pytest.fixture
def bucket(tmp_path):
    opened = open_bucket(f"file://{tmp_path}/bucket")
    watched = Watched(opened._store, opened._url, opened._folder)
    watched.read = []
    return watched


@pytest.fixture
def make(bucket, tmp_path, monkeypatch):
    """Take in a batch of two portraits, and make its sets."""

    def make(name, seed):
        monkeypatch.setattr(growth, "BATCH", name)
        folder = tmp_path / f"{name}-{seed}"
        write_image_folder(folder, 2, seed)
        ingest(folder, name, bucket, world.ATTRIBUTES)
        growth.plan(bucket)
        growth.draw(bucket, growth.load_fake(), LIMITS.max_draws, LIMITS.chunk_sources)

    return make


def objects(bucket, made):
    """A dataset's objects by name."""
    prefix = dataset.dataset_prefix(made.content_hash)
    return {info.key: bucket.get_bytes(info.key) for info in bucket.list(prefix)}


def build(bucket):
    """The dataset of all batches, its objects, and the batches' tables that were read for it."""
    bucket.read.clear()
    made = dataset.build_dataset(bucket, dataset.finished_batches(bucket))
    read = {key.split("/")[1] for key in bucket.read if key.startswith("counterfactuals/")}
    return made, objects(bucket, made), read


def build_from_nothing(bucket):
    bucket.delete([dataset.LATEST])
    return build(bucket)


def test_only_new_batches_are_read_and_the_dataset_is_the_one_made_from_nothing(bucket, make):
    make("b", seed=1)
    _, _, read = build(bucket)
    assert read == {"b"}
    make("c", seed=2)
    make("a", seed=3)
    made, stored, read = build(bucket)
    assert read == {"a", "c"}
    again, same, read = build(bucket)
    assert read == set()
    whole, other, read = build_from_nothing(bucket)
    assert read == {"a", "b", "c"}
    assert made == again == whole
    assert stored == same == other


def test_a_batch_that_was_made_again_has_all_put_together_anew(bucket, make):
    for name, seed in (("a", 1), ("b", 2)):
        make(name, seed)
    before, _, _ = build(bucket)
    rows = tables.read_rows(bucket, "a", "accepted_sets")
    tables.write_rows(bucket, "a", "accepted_sets", rows[1:])
    made, stored, read = build(bucket)
    assert read == {"a", "b"}
    assert made.content_hash != before.content_hash
    assert (made, stored) == build_from_nothing(bucket)[:2]


def test_the_first_batch_to_bring_a_source_keeps_it_also_where_it_comes_late(bucket, make):
    make("b", seed=1)
    build(bucket)
    make("c", seed=1)
    made, _, read = build(bucket)
    assert read == {"c"}
    assert {row["batch"] for row in _sets(bucket, made)} == {"b"}
    make("a", seed=1)
    made, stored, read = build(bucket)
    assert read == {"a", "b", "c"}
    assert {row["batch"] for row in _sets(bucket, made)} == {"a"}
    assert (made, stored) == build_from_nothing(bucket)[:2]


def _sets(bucket, made):
    key = f"{dataset.dataset_prefix(made.content_hash)}/sets.parquet"
    return tables.to_rows(tables.from_bytes(bucket.get_bytes(key)))


def drop_a_row(bucket, prefix):
    table = tables.from_bytes(bucket.get_bytes(f"{prefix}/pairs.parquet"))
    bucket.put_bytes(f"{prefix}/pairs.parquet", tables.to_bytes(table.slice(1)))


def cut_off(bucket, prefix):
    bucket.put_bytes(f"{prefix}/sets.parquet", b"PAR1")


def forget(bucket, prefix):
    bucket.delete([f"{prefix}/made_from.json"])


def make_another(bucket, prefix):
    key = f"{prefix}/made_from.json"
    origins = json.loads(bucket.get_bytes(key))
    origins["gone"] = origins["a"]
    bucket.put_bytes(key, json.dumps(origins).encode())


@pytest.mark.parametrize("damage", [drop_a_row, cut_off, forget, make_another])
def test_a_newest_dataset_that_is_not_whole_is_not_built_upon(bucket, make, damage):
    make("a", seed=1)
    before, _, _ = build(bucket)
    make("b", seed=2)
    damage(bucket, dataset.dataset_prefix(before.content_hash))
    made, stored, read = build(bucket)
    assert read == {"a", "b"}
    assert (made, stored) == build_from_nothing(bucket)[:2]
    assert set(carried.tags(bucket)) == {"a", "b"}
