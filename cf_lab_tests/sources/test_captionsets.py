from __future__ import annotations

import json
from pathlib import Path

import pytest

from cf_lab_assets.sources import batches, kinds
from cf_lab_assets.sources.batches import read_manifest, read_pairs, read_quarantine
from cf_lab_assets.sources.deliveries import FolderDelivery
from cf_lab_assets.sources.ingest import IngestResult, ingest
from cf_lab_assets.sources.refusals import DeliveryRefused
from cf_lab_resources.bucket import Bucket
from cf_lab_tests.sources.conftest import ATTRIBUTES, make_delivery, png

SHARED = Path(__file__).parents[3] / "shared" / "data" / "social_counterfactuals"
FILE = SHARED / "race_gender_occupation.jsonl"


def write(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(s if isinstance(s, str) else json.dumps(s) for s in lines) + "\n")
    return path


def take(path: Path, bucket: Bucket) -> IngestResult:
    return ingest(path, None, bucket, ATTRIBUTES)


LINE = {"caption": "a White male barber", "output_1": "a White female barber", "filename": "barber"}


def test_a_caption_set_becomes_pairs_without_pictures(tmp_path: Path, bucket: Bucket) -> None:
    plain = {"caption": "a person", "gender": "woman"}
    result = take(write(tmp_path / "spring.jsonl", LINE, plain), bucket)
    assert (result.rows, result.manifest.kind, result.manifest.images) == (2, "caption set", 0)
    first, second = read_pairs(bucket, "spring")
    assert first.image_key is first.image_sha256 is first.width is first.height is None
    assert first.file_name == "spring.jsonl"
    assert first.extra == {"output_1": "a White female barber", "filename": "barber"}
    assert first.source_id == batches.source_id(None, "a White male barber")
    assert second.attributes == {"gender": "woman"}


def test_a_caption_set_is_whole_and_can_be_ingested_again(tmp_path: Path, bucket: Bucket) -> None:
    path = write(tmp_path / "spring.jsonl", LINE)
    take(path, bucket)
    manifest = read_manifest(bucket, "spring")
    assert manifest is not None
    assert batches.inspect(bucket, manifest) == batches.Inspection(0, 0, (), ())
    assert take(path, bucket).status == "unchanged"


def test_bad_lines_are_quarantined(tmp_path: Path, bucket: Bucket) -> None:
    path = write(tmp_path / "spring.jsonl", LINE, "{", {"title": "x"}, {"caption": 3}, LINE)
    assert take(path, bucket).rows == 1
    assert [(row.row, row.reason) for row in read_quarantine(bucket, "spring")] == [
        (2, "malformed_row"),
        (3, "missing_caption"),
        (4, "malformed_row"),
        (5, "duplicate_caption"),
    ]


def test_metadata_under_another_name_is_refused(tmp_path: Path, bucket: Bucket) -> None:
    path = write(tmp_path / "spring.jsonl", {"file_name": "a.png", "text": "x"})
    with pytest.raises(DeliveryRefused, match=r"call it metadata\.jsonl"):
        take(path, bucket)


@pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} is not there")
def test_the_captions_of_social_counterfactuals(bucket: Bucket) -> None:
    result = ingest(FILE, "social", bucket, ATTRIBUTES)
    lines = [json.loads(line) for line in FILE.read_text().splitlines()]
    captions = {line["caption"] for line in lines}
    assert result.rows == len(captions)
    assert result.reasons == {"duplicate_caption": len(lines) - len(captions)}
    by_caption = {line["caption"]: line for line in lines}
    for pair in read_pairs(bucket, "social"):
        assert {"caption": pair.caption, **pair.extra} == by_caption[pair.caption]


# Which kind a delivery is of.


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["metadata.csv", "a.png", "b.tar", "c.parquet"], "ImageFolder"),
        (["state.json", "dataset_info.json", "data-00000-of-00001.arrow"], "Hugging Face dataset"),
        (["dataset_dict.json", "train/state.json", "train/x.arrow"], "Hugging Face dataset"),
        (["data/train-00000-of-00001.parquet", "README.md"], "Parquet"),
        (["a.tar", "b.TAR.GZ", "c.tgz"], "WebDataset"),
        (["a.jsonl", "README.md"], "caption set"),
    ],
)
def test_the_kind_is_told_from_the_names(names: list[str], kind: str) -> None:
    assert kinds.told(names, "spring").kind.name == kind


@pytest.mark.parametrize("names", [["a.jsonl", "a.png"], ["a.png"], []])
def test_names_that_tell_no_kind_are_refused(names: list[str]) -> None:
    with pytest.raises(DeliveryRefused, match="none of the kinds") as caught:
        kinds.told(names, "spring")
    assert caught.value.reason == "unknown_kind"


def test_two_kinds_are_refused(tmp_path: Path) -> None:
    for name in ("a.tar", "b.parquet"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DeliveryRefused, match=r"WebDataset \(a.tar\) and Parquet") as caught:
        kinds.find(FolderDelivery(tmp_path))
    assert caught.value.reason == "two_kinds"


def test_an_unknown_kind_says_what_was_found_and_what_there_is(tmp_path: Path) -> None:
    for name in "abcdefg":
        (tmp_path / f"{name}.png").write_bytes(png())
    with pytest.raises(DeliveryRefused, match=r"a.png, .* and 2 more") as caught:
        kinds.find(FolderDelivery(tmp_path))
    assert caught.value.reason == "unknown_kind"
    for kind in kinds.KINDS:
        assert kind.name in str(caught.value)


def test_near_duplicates_are_kept_and_name_the_first(tmp_path: Path, bucket: Bucket) -> None:
    import io

    from PIL import Image

    folder = make_delivery(tmp_path / "spring", 4)
    picture = Image.open(io.BytesIO(png(0, 6))).resize((96, 96), Image.Resampling.BICUBIC)
    picture.save(folder / "images" / "1.png")
    picture.save(folder / "images" / "3.png", "JPEG", quality=90)
    result = take(folder, bucket)
    assert (result.rows, result.manifest.images, result.manifest.near_duplicates) == (4, 4, 1)
    pairs = list(read_pairs(bucket, "spring"))
    assert [pair.near_duplicate_of for pair in pairs] == [None, None, None, pairs[1].source_id]
    assert "looks like an earlier one" in result.summary()


def test_starter_portraits_are_no_near_duplicates(tmp_path: Path, bucket: Bucket) -> None:
    from cf_lab_assets.starter import world
    from cf_lab_assets.starter.portraits import write_image_folder

    write_image_folder(tmp_path / "demo", 24, 2026)
    result = ingest(tmp_path / "demo", None, bucket, world.ATTRIBUTES)
    assert (result.rows, result.manifest.near_duplicates, result.quarantined) == (24, 0, 0)
