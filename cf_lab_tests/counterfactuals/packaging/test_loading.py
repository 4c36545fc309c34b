"""Others load the package as they load anything else."""

import json

import datasets
import mlcroissant
import webdataset

from cf_lab_assets.counterfactuals.packaging.loading import trial_folder, try_all
from cf_lab_assets.counterfactuals.tables import from_bytes, to_rows


def expected(packaged):
    data = packaged.bucket.get_bytes(f"datasets/{packaged.dataset_hash}/pairs.parquet")
    return {row["pair_id"]: row for row in to_rows(from_bytes(data))}


def test_datasets_loads_pairs_with_decoded_pictures(packaged, tmp_path):
    loaded = datasets.load_dataset(str(packaged.folder), split="test", cache_dir=str(tmp_path))
    rows = expected(packaged)
    assert isinstance(loaded.features["image"], datasets.Image)
    assert isinstance(loaded.features["source_image"], datasets.Image)
    assert loaded.num_rows == len(rows) == 20
    for row in loaded:
        known = rows[row["pair_id"]]
        assert row["image"].size == row["source_image"].size == (8, 8)
        assert row["values"] == known["values"]
        for column in ("caption", "source_caption", "is_placebo", "image_sha256", "noise_seed"):
            assert row[column] == known[column]
        assert "image_key" not in row


def test_datasets_loads_sets_as_a_config_and_the_parquet_without_the_card(packaged, tmp_path):
    sets = datasets.load_dataset(
        str(packaged.folder), "sets", split="test", cache_dir=str(tmp_path / "sets")
    )
    assert sets.num_rows == 8
    assert sets[0]["member_values"] == ["middle-aged", "old", "young"]
    bare = datasets.load_dataset(
        "parquet",
        data_files=str(packaged.folder / "data" / "*.parquet"),
        split="train",
        cache_dir=str(tmp_path / "bare"),
    )
    assert bare[0]["image"].size == (8, 8)


def test_webdataset_decodes_picture_caption_and_json(packaged):
    shards = sorted(map(str, (packaged.folder / "shards").iterdir()))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    rows = expected(packaged)
    assert {sample["json"]["pair_id"] for sample in samples} == set(rows)
    for sample in samples:
        known = rows[sample["json"]["pair_id"]]
        assert sample["png"].size == (8, 8)
        assert sample["txt"] == known["caption"] == sample["json"]["caption"]
        assert sample["json"]["values"] == known["values"]


def test_mlcroissant_reads_the_records_of_all_shards(packaged):
    found = mlcroissant.Dataset(jsonld=packaged.folder / "croissant.json")
    rows = expected(packaged)
    records = list(found.records("pairs"))
    assert {record["pairs/pair_id"].decode() for record in records} == set(rows)
    for record in records:
        known = rows[record["pairs/pair_id"].decode()]
        assert record["pairs/image"].size == (8, 8)
        assert record["pairs/caption"].decode() == known["caption"]
        assert record["pairs/values"]["pairs/values/age"].decode() == known["values"]["age"]
    sets = list(found.records("sets"))
    assert len(sets) == 8
    assert sets[0]["sets/member_values"] == [b"middle-aged", b"old", b"young"]


def test_a_trial_reads_the_first_shard_alike_in_three_libraries(packaged):
    with trial_folder(packaged.bucket, packaged.package) as folder:
        assert len(list((folder / "data").iterdir())) == 1
        loaded = try_all(folder)
    assert set(loaded) == {"datasets", "webdataset", "mlcroissant"}
    first, *others = loaded.values()
    assert first
    assert all(other == first for other in others)


def test_parquet_tar_and_manifest_hold_the_same_signed_pictures(packaged, tmp_path):
    import hashlib

    loaded = datasets.load_dataset(
        str(packaged.folder), split="test", cache_dir=str(tmp_path)
    ).cast_column("image", datasets.Image(decode=False))
    in_parquet = {
        row["pair_id"]: hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in loaded
    }
    shards = sorted(map(str, (packaged.folder / "shards").iterdir()))
    in_tar = {
        json.loads(sample["json"])["pair_id"]: hashlib.sha256(sample["png"]).hexdigest()
        for sample in webdataset.WebDataset(shards, shardshuffle=False)
    }
    assert in_parquet == in_tar
    assert in_parquet == {row["pair_id"]: row["signed_sha256"] for row in loaded}
