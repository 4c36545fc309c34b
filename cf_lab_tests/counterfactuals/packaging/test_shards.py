"""Shards hold whole sets and no more than they should."""

import pyarrow as pa
import pytest

from cf_lab_assets.counterfactuals.packaging.shards import (
    CREDENTIALS_BYTES,
    Shard,
    plan_shards,
    sample_key,
)


def table(*sizes_of_sets):
    rows = [
        {"set_id": f"s{number}", "image_sha256": f"{number}-{member}"}
        for number, members in enumerate(sizes_of_sets)
        for member in range(members)
    ]
    return pa.Table.from_pylist(rows), {row["image_sha256"]: 0 for row in rows}


@pytest.mark.parametrize(
    ("sets", "pictures", "expected"),
    [
        ((2, 2, 2), 6, [6]),
        ((2, 2, 2), 5, [4, 2]),
        ((3, 3, 1), 2, [3, 3, 1]),
        ((1, 9, 1), 4, [1, 9, 1]),
        ((1,), 1, [1]),
    ],
)
def test_a_set_is_never_cut_and_a_large_one_stands_alone(sets, pictures, expected):
    pairs, sizes = table(*sets)
    shards = plan_shards(pairs, sizes, pictures * CREDENTIALS_BYTES)
    assert [shard.rows for shard in shards] == expected
    assert [shard.start for shard in shards] == [sum(expected[:n]) for n in range(len(expected))]
    assert {shard.count for shard in shards} == {len(expected)}


def test_files_are_named_as_the_hub_and_webdataset_name_them():
    shard = Shard(index=1, count=12, start=0, rows=1)
    assert shard.parquet == "data/test-00001-of-00012.parquet"
    assert shard.tar == "shards/test-000001.tar"
    assert shard.sidecar == "provenance/test-00001-of-00012.jsonl"


def test_keys_of_samples_have_no_dot_and_stay_apart():
    keys = {sample_key(pair_id) for pair_id in ("s1-a.b", "s1-a_b", "s1-a..b", "s1-ab")}
    assert len(keys) == 4
    assert not any("." in key for key in keys)
