from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cf_lab_assets.sources.batches import read_pairs, read_quarantine
from cf_lab_assets.sources.ingest import IngestResult, ingest, ingest_from_bucket
from cf_lab_assets.sources.refusals import DeliveryRefused
from cf_lab_resources.bucket import Bucket, open_bucket
from cf_lab_tests.sources.conftest import ATTRIBUTES, png


def rows(count: int = 3) -> list[dict[str, Any]]:
    return [
        {
            "image": {"bytes": png(i), "path": f"/home/ada/{i}.png"},
            "text": f"person {i}",
            "gender": ("woman", "man")[i % 2],
            "score": 0.5,
        }
        for i in range(count)
    ]


def write(path: Path, values: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(values), path)
    return path


def take(path: Path, bucket: Bucket, batch: str | None = None) -> IngestResult:
    return ingest(path, batch, bucket, ATTRIBUTES)


def test_a_parquet_file_with_the_image_feature(tmp_path: Path, bucket: Bucket) -> None:
    result = take(write(tmp_path / "spring.parquet", rows()), bucket)
    assert (result.batch, result.rows, result.quarantined) == ("spring", 3, 0)
    assert result.manifest.kind == "Parquet"
    first, *_ = read_pairs(bucket, "spring")
    assert (first.file_name, first.caption) == ("spring.parquet/1", "person 0")
    assert first.attributes == {"gender": "woman"}
    assert first.extra == {"score": "0.5", "image_path": "0.png"}


def test_a_plain_binary_column_and_a_caption(tmp_path: Path, bucket: Bucket) -> None:
    values = [{"picture": png(i), "caption": f"person {i}"} for i in range(3)]
    assert take(write(tmp_path / "spring.parquet", values), bucket).rows == 3


def test_the_hub_layout_keeps_the_split(tmp_path: Path, bucket: Bucket) -> None:
    folder = tmp_path / "hub"
    write(folder / "data" / "train-00000-of-00001.parquet", rows(4)[:2])
    write(folder / "data" / "test-00000-of-00001.parquet", rows(4)[2:])
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    take(folder, bucket)
    assert [pair.extra["split"] for pair in read_pairs(bucket, "hub")] == ["test"] * 2 + [
        "train"
    ] * 2


def test_parquet_in_an_object_store_is_read_as_on_disk(tmp_path: Path, bucket: Bucket) -> None:
    path = write(tmp_path / "spring.parquet", rows())
    store = open_bucket("memory://")
    store.put_file("incoming/spring/spring.parquet", path)
    result = ingest_from_bucket(store, "incoming/spring", ATTRIBUTES)
    assert result.content_hash == take(path, bucket).content_hash


@pytest.mark.parametrize("splits", [False, True], ids=["Dataset", "DatasetDict"])
def test_a_folder_of_save_to_disk(tmp_path: Path, bucket: Bucket, splits: bool) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value

    features = Features(
        {"image": Image(), "caption": Value("string"), "gender": ClassLabel(names=["man", "woman"])}
    )
    values = {
        "image": [{"bytes": png(i), "path": None} for i in range(4)],
        "caption": [f"person {i}" for i in range(4)],
        "gender": [1, 0, 1, 0],
    }
    dataset = Dataset.from_dict(values, features=features)
    saved = DatasetDict({"train": dataset}) if splits else dataset
    saved.save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / ("train" if splits else "") / "cache-1.arrow").write_bytes(b"of no use")
    result = take(tmp_path / "saved", bucket)
    assert (result.rows, result.manifest.kind) == (4, "Hugging Face dataset")
    pairs = list(read_pairs(bucket, "saved"))
    assert [pair.attributes["gender"] for pair in pairs] == ["woman", "man"] * 2
    assert {pair.extra.get("split") for pair in pairs} == ({"train"} if splits else {None})


def test_rows_without_bytes_or_caption_are_quarantined(tmp_path: Path, bucket: Bucket) -> None:
    values = rows(5)
    values[1]["image"] = {"bytes": None, "path": "elsewhere.png"}
    values[2]["image"] = {"bytes": b"no picture", "path": None}
    values[3]["text"] = None
    result = take(write(tmp_path / "spring.parquet", values), bucket)
    assert result.rows == 2
    assert [row.reason for row in read_quarantine(bucket, "spring")] == [
        "missing_picture",
        "not_an_image",
        "empty_caption",
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([{"text": "x", "n": 1}], "0 columns that may hold pictures"),
        ([{"a": b"x", "b": b"y", "text": "x"}], "2 columns that may hold pictures"),
        ([{"image": b"x", "title": "x"}], "neither `text` nor `caption`.*'title'"),
    ],
)
def test_columns_that_can_not_be_told(
    tmp_path: Path, bucket: Bucket, values: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(DeliveryRefused, match=said) as caught:
        take(write(tmp_path / "spring.parquet", values), bucket)
    assert caught.value.reason == "missing_column"


def test_files_that_can_not_be_read(tmp_path: Path, bucket: Bucket) -> None:
    path = write(tmp_path / "spring.parquet", rows())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DeliveryRefused, match=r"spring.parquet can't be read as Parquet"):
        take(path, bucket)
    saved = tmp_path / "saved"
    saved.mkdir()
    for state, said in (
        ("{", "not valid JSON"),
        ("{}", "no data files"),
        ('{"_data_files": [{"filename": "../spring.parquet"}]}', "not there"),
    ):
        (saved / "state.json").write_text(state)
        with pytest.raises(DeliveryRefused, match=said):
            take(saved, bucket)
    (saved / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    (saved / "data.arrow").write_bytes(b"no arrow")
    with pytest.raises(DeliveryRefused, match="can't be read as an Arrow stream"):
        take(saved, bucket)
