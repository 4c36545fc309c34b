from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cf_lab_assets.sources import batches
from cf_lab_assets.sources.batches import read_manifest, read_pairs, read_quarantine, stored_batches
from cf_lab_assets.sources.ingest import IngestResult, ingest, ingest_from_bucket
from cf_lab_assets.sources.refusals import BatchExists, DeliveryRefused, Rejected
from cf_lab_resources.bucket import Bucket, BucketError, open_bucket
from cf_lab_resources.images import Limits
from cf_lab_tests.resources.test_images import bomb_png, encoded, noise
from cf_lab_tests.sources.conftest import ATTRIBUTES, good_rows, make_delivery, png, write_csv


def take(folder: Path, bucket: Bucket, batch: str | None = None, **options: object) -> IngestResult:
    return ingest(folder, batch, bucket, ATTRIBUTES, **options)


def quarantined(result: IngestResult, bucket: Bucket) -> dict[int | None, Rejected]:
    rows = read_quarantine(bucket, result.batch)
    assert len(rows) == result.quarantined + result.manifest.stray_files
    assert len({row.row for row in rows}) == len(rows)
    return {row.row: row for row in rows}


def with_row(folder: Path, **values: str) -> None:
    """Adds a fourth row to the delivery."""
    extra = {"file_name": "images/extra.png", "text": "one more person"} | values
    write_csv(folder, [*good_rows(), extra])


def with_picture(folder: Path, data: bytes, name: str = "images/extra.png") -> None:
    (folder / name).write_bytes(data)
    with_row(folder, file_name=name)


def fourth_row_is_refused(folder: Path, bucket: Bucket, reason: str, **options: object) -> Rejected:
    """The fourth row is quarantined, and the three good ones go on."""
    result = take(folder, bucket, **options)
    assert result.rows == 3
    assert result.reasons == {reason: 1}
    row = quarantined(result, bucket)[4]
    assert row.reason == reason
    assert row.detail
    return row


def fourth_picture(folder: Path, bucket: Bucket) -> np.ndarray:
    result = take(folder, bucket)
    assert (result.rows, result.quarantined) == (4, 0)
    key = list(read_pairs(bucket, result.batch))[3].image_key
    return np.asarray(Image.open(io.BytesIO(bucket.get_bytes(key))))


def test_a_good_delivery_is_stored_whole(folder: Path, bucket: Bucket) -> None:
    result = take(folder, bucket)
    assert (result.status, result.batch) == ("stored", "spring")
    assert (result.rows, result.quarantined, result.reasons) == (3, 0, {})
    assert stored_batches(bucket) == ["spring"]
    assert read_manifest(bucket, "spring") == result.manifest
    first, second, _ = read_pairs(bucket, "spring")
    assert first.source_id == batches.source_id(first.image_sha256, first.caption)
    assert len(first.source_id) == 16
    assert first.batch == "spring"
    assert (first.file_name, first.caption) == ("images/0.png", "a person, number 0")
    assert (first.width, first.height) == (24, 24)
    assert first.attributes == {"gender": "woman"}
    assert second.attributes == {"gender": "man"}
    assert first.extra == {"occupation": "judge"}
    assert first.image_key == f"objects/images/{first.image_sha256[:2]}/{first.image_sha256}.png"
    assert bucket.get_bytes(first.image_key)
    assert result.manifest.attribute_values == {"gender": {"man": 1, "woman": 2}}
    assert result.manifest.images == 3


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_the_form_of_the_metadata_does_not_change_the_content(
    folder: Path, bucket: Bucket, form: str
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    by_csv = take(folder, bucket)
    (folder / "metadata.csv").unlink()
    if form == "jsonl":
        lines = "\n".join(json.dumps(row) for row in good_rows())
        (folder / "metadata.jsonl").write_text(lines)
    else:
        pq.write_table(pa.Table.from_pylist(good_rows()), folder / "metadata.parquet")
    assert take(folder, bucket, "other").content_hash == by_csv.content_hash


def test_from_the_bucket_as_from_a_folder(folder: Path, bucket: Bucket) -> None:
    expected = take(folder, bucket)
    store = open_bucket("memory://")
    for path in folder.rglob("*.*"):
        store.put_file(f"incoming/summer/{path.relative_to(folder).as_posix()}", path)
    result = ingest_from_bucket(store, "incoming/summer", ATTRIBUTES)
    assert result.batch == "summer"
    assert result.content_hash == expected.content_hash
    assert result.manifest.delivery == expected.manifest.delivery
    assert [pair.source_id for pair in read_pairs(store, "summer")] == [
        pair.source_id for pair in read_pairs(bucket, "spring")
    ]


def test_from_a_local_bucket(tmp_path: Path, bucket: Bucket) -> None:
    make_delivery(tmp_path / "bucket" / "incoming" / "spring")
    assert ingest_from_bucket(bucket, "incoming/spring/", ATTRIBUTES).rows == 3


def test_progress_is_told(folder: Path, bucket: Bucket) -> None:
    told: list[int] = []
    take(folder, bucket, progress=told.append)
    assert told == [3]


def test_many_rows_keep_their_order(tmp_path: Path, bucket: Bucket) -> None:
    result = take(make_delivery(tmp_path / "many", 150), bucket)
    assert result.rows == 150
    names = [pair.file_name for pair in read_pairs(bucket, "many")]
    assert names == [f"images/{i}.png" for i in range(150)]


# Pictures that are refused.


def test_a_missing_picture(folder: Path, bucket: Bucket) -> None:
    with_row(folder)
    row = fourth_row_is_refused(folder, bucket, "missing_file")
    assert (row.file_name, row.caption) == ("images/extra.png", "one more person")


def test_a_picture_of_zero_bytes(folder: Path, bucket: Bucket) -> None:
    with_picture(folder, b"")
    fourth_row_is_refused(folder, bucket, "empty_file")


def test_a_truncated_jpeg(folder: Path, bucket: Bucket) -> None:
    with_picture(folder, encoded(noise(256, 256), "JPEG")[:3000], "images/extra.jpg")
    fourth_row_is_refused(folder, bucket, "truncated_image")


def test_a_text_file_named_png(folder: Path, bucket: Bucket) -> None:
    with_picture(folder, b"this is only text\n")
    fourth_row_is_refused(folder, bucket, "not_an_image")


def test_a_format_that_is_not_read(folder: Path, bucket: Bucket) -> None:
    with_picture(folder, b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", "images/extra.svg")
    fourth_row_is_refused(folder, bucket, "unsupported_format")


def test_a_bomb_of_40000_by_40000_pixels(folder: Path, bucket: Bucket) -> None:
    with_picture(folder, bomb_png())
    fourth_row_is_refused(folder, bucket, "too_many_pixels")


def test_a_picture_of_too_many_bytes(folder: Path, bucket: Bucket) -> None:
    with_picture(folder, encoded(noise(200, 200)))
    fourth_row_is_refused(folder, bucket, "too_many_bytes", limits=Limits(max_bytes=10_000))


# Pictures that are taken.


def test_a_cmyk_jpeg_is_taken(folder: Path, bucket: Bucket) -> None:
    data = encoded(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=95)
    with_picture(folder, data, "images/extra.jpg")
    assert fourth_picture(folder, bucket)[..., 0].mean() > 200


def test_a_16_bit_picture_is_taken(folder: Path, bucket: Bucket) -> None:
    with_picture(folder, encoded(Image.fromarray(np.full((16, 16), 0x8000, np.uint16))))
    assert (fourth_picture(folder, bucket) == 128).all()


def test_the_first_frame_of_an_animation_is_taken(folder: Path, bucket: Bucket) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with_picture(folder, data, "images/extra.gif")
    assert (fourth_picture(folder, bucket) == (255, 0, 0)).all()


def test_a_picture_turned_by_exif_is_taken_upright(folder: Path, bucket: Bucket) -> None:
    exif = Image.Exif()
    exif[274] = 6
    with_picture(folder, encoded(noise(32, 16), "JPEG", exif=exif), "images/extra.jpg")
    assert fourth_picture(folder, bucket).shape == (32, 16, 3)


# File names.


@pytest.mark.parametrize("name", ["../secret.png", "images/../../secret.png", "ABSOLUTE"])
def test_names_that_lead_out_of_the_delivery(folder: Path, bucket: Bucket, name: str) -> None:
    secret = folder.parent / "secret.png"
    secret.write_bytes(png(9))
    with_row(folder, file_name=str(secret) if name == "ABSOLUTE" else name)
    fourth_row_is_refused(folder, bucket, "path_escapes")


@pytest.mark.parametrize("name", ["images/extra.png", "linked/secret.png"])
def test_symbolic_links(folder: Path, bucket: Bucket, name: str) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(png(9))
    (folder / "images" / "extra.png").symlink_to(outside / "secret.png")
    (folder / "linked").symlink_to(outside)
    with_row(folder, file_name=name)
    fourth_row_is_refused(folder, bucket, "symlink")


def test_an_empty_file_name(folder: Path, bucket: Bucket) -> None:
    with_row(folder, file_name="")
    fourth_row_is_refused(folder, bucket, "missing_file_name")


def test_a_file_name_with_control_characters(folder: Path, bucket: Bucket) -> None:
    with_row(folder, file_name="images/a\x00.png")
    fourth_row_is_refused(folder, bucket, "bad_file_name")


def test_a_file_name_that_no_file_system_takes(folder: Path, bucket: Bucket) -> None:
    with_row(folder, file_name="n" * 5000 + ".png")
    row = fourth_row_is_refused(folder, bucket, "missing_file")
    assert row.file_name is not None
    assert len(row.file_name) == 300


# Duplicates.


def test_the_same_file_with_the_same_caption_is_taken_once(folder: Path, bucket: Bucket) -> None:
    write_csv(folder, [*good_rows(), good_rows()[0]])
    fourth_row_is_refused(folder, bucket, "duplicate_file_name")


def test_the_same_picture_under_another_name_with_the_same_caption_is_taken_once(
    folder: Path, bucket: Bucket
) -> None:
    (folder / "images" / "extra.bmp").write_bytes(
        encoded(Image.open(folder / "images" / "0.png"), "BMP")
    )
    with_row(folder, file_name="images/extra.bmp", text=good_rows()[0]["text"])
    fourth_row_is_refused(folder, bucket, "duplicate_picture")


def test_a_picture_may_have_several_captions(folder: Path, bucket: Bucket) -> None:
    (folder / "images" / "copy.png").write_bytes((folder / "images" / "0.png").read_bytes())
    rows = [
        *good_rows(),
        {"file_name": "images/0.png", "text": "another caption"},
        {"file_name": "images/copy.png", "text": "a third caption"},
    ]
    write_csv(folder, rows)
    result = take(folder, bucket)
    assert (result.rows, result.manifest.images, result.quarantined) == (5, 3, 0)
    assert len({pair.source_id for pair in read_pairs(bucket, "spring")}) == 5


def test_one_picture_can_not_show_two_values(folder: Path, bucket: Bucket) -> None:
    with_row(folder, file_name="images/0.png", gender="man")
    row = fourth_row_is_refused(folder, bucket, "conflicting_attributes")
    assert "'man' here and 'woman'" in row.detail


def test_a_rejected_row_does_not_stand_in_the_way_of_its_correction(
    folder: Path, bucket: Bucket
) -> None:
    wrong = good_rows()[0] | {"gender": "unknown"}
    write_csv(folder, [wrong, *good_rows()])
    result = take(folder, bucket)
    assert (result.rows, result.reasons) == (3, {"unknown_attribute_value": 1})


# Captions.


def test_an_empty_caption(folder: Path, bucket: Bucket) -> None:
    with_picture(folder, png(9))
    with_row(folder, text=" ")
    fourth_row_is_refused(folder, bucket, "empty_caption")


def test_a_caption_over_the_token_limit(folder: Path, bucket: Bucket) -> None:
    with_picture(folder, png(9))
    with_row(folder, text="a caption of six long words")
    row = fourth_row_is_refused(
        folder, bucket, "caption_too_long", max_tokens=5, count_tokens=lambda t: len(t.split())
    )
    assert "6 tokens" in row.detail


def test_control_characters_in_a_caption(folder: Path, bucket: Bucket) -> None:
    with_picture(folder, png(9))
    with_row(folder, text="ring the \x07 bell")
    row = fourth_row_is_refused(folder, bucket, "control_characters")
    assert "U+0007" in row.detail


def test_a_row_that_is_not_utf8(folder: Path, bucket: Bucket) -> None:
    with (folder / "metadata.csv").open("ab") as file:
        file.write(b"images/0.png,caf\xe9,,,\r\n")
    row = fourth_row_is_refused(folder, bucket, "not_utf8")
    assert row.caption == "caf\\udce9"


def test_a_lone_surrogate_in_json(folder: Path, bucket: Bucket) -> None:
    (folder / "metadata.csv").unlink()
    lines = [json.dumps(row) for row in good_rows()]
    lines.append('{"file_name": "images/0.png", "text": "x", "note": "\\ud800"}')
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    fourth_row_is_refused(folder, bucket, "not_utf8")


# Columns.


def test_a_malformed_row(folder: Path, bucket: Bucket) -> None:
    with (folder / "metadata.csv").open("a") as file:
        file.write("images/0.png,one, two, three,woman,,judge\n")
    row = fourth_row_is_refused(folder, bucket, "malformed_row")
    assert row.file_name == "images/0.png"


def test_unknown_columns_are_kept_as_strings(folder: Path, bucket: Bucket) -> None:
    rows = [row | {"photographer": "Ada", "iso": "100"} for row in good_rows()]
    write_csv(folder, rows)
    take(folder, bucket)
    expected = {"occupation": "judge", "photographer": "Ada", "iso": "100"}
    assert all(pair.extra == expected for pair in read_pairs(bucket, "spring"))


def test_an_unknown_attribute_value_names_the_known_ones(folder: Path, bucket: Bucket) -> None:
    with_picture(folder, png(9))
    with_row(folder, gender="female")
    row = fourth_row_is_refused(folder, bucket, "unknown_attribute_value")
    assert "'female'" in row.detail
    assert "woman, man" in row.detail


def test_attribute_columns_may_be_absent(folder: Path, bucket: Bucket) -> None:
    rows = [{"file_name": row["file_name"], "text": row["text"]} for row in good_rows()]
    write_csv(folder, rows)
    assert take(folder, bucket).rows == 3
    assert all(pair.attributes == {} for pair in read_pairs(bucket, "spring"))


def test_pictures_that_no_row_names_are_reported(folder: Path, bucket: Bucket) -> None:
    (folder / "images" / "stray.PNG").write_bytes(png(8))
    (folder / "README.txt").write_text("not a picture")
    result = take(folder, bucket)
    assert (result.rows, result.quarantined) == (3, 0)
    assert result.manifest.stray_files == 1
    assert result.stray_files == ("images/stray.PNG",)
    row = quarantined(result, bucket)[None]
    assert (row.reason, row.file_name) == ("not_in_metadata", "images/stray.PNG")
    assert "images/stray.PNG" in result.summary()


def test_the_picture_of_a_rejected_row_is_no_stray(folder: Path, bucket: Bucket) -> None:
    with_picture(folder, png(9))
    with_row(folder, text="")
    assert take(folder, bucket).manifest.stray_files == 0


# Whole deliveries.


def refused(folder: Path, bucket: Bucket, batch: str | None = None) -> DeliveryRefused:
    with pytest.raises(DeliveryRefused) as caught:
        take(folder, bucket, batch)
    assert stored_batches(bucket) == []
    return caught.value


def test_a_folder_that_is_not_there(tmp_path: Path, bucket: Bucket) -> None:
    assert refused(tmp_path / "absent", bucket).reason == "missing_folder"


def test_an_empty_folder(tmp_path: Path, bucket: Bucket) -> None:
    (tmp_path / "empty").mkdir()
    error = refused(tmp_path / "empty", bucket)
    assert error.reason == "unknown_kind"
    assert "has no files" in str(error)
    assert "metadata.csv, metadata.jsonl, metadata.parquet" in str(error)


def test_an_empty_prefix_of_the_bucket(bucket: Bucket) -> None:
    for store in (bucket, open_bucket("memory://")):
        with pytest.raises(DeliveryRefused):
            ingest_from_bucket(store, "incoming/nothing", ATTRIBUTES)


def test_metadata_in_a_folder_below(tmp_path: Path, bucket: Bucket) -> None:
    make_delivery(tmp_path / "outer" / "train")
    assert "train/metadata.csv" in str(refused(tmp_path / "outer", bucket))


def test_two_metadata_files(folder: Path, bucket: Bucket) -> None:
    (folder / "metadata.jsonl").write_text("{}")
    error = refused(folder, bucket)
    assert error.reason == "two_metadata_files"
    assert "metadata.csv and metadata.jsonl" in str(error)


def test_metadata_behind_a_link(folder: Path, bucket: Bucket) -> None:
    (folder / "metadata.csv").rename(folder.parent / "elsewhere.csv")
    (folder / "metadata.csv").symlink_to(folder.parent / "elsewhere.csv")
    error = refused(folder, bucket)
    assert error.reason == "unknown_kind"
    assert "and 1 symbolic link, which is not followed (`cp -rL`" in str(error)


def test_a_folder_of_links_alone_says_so(folder: Path, bucket: Bucket, tmp_path: Path) -> None:
    cached = tmp_path / "cached"
    cached.mkdir()
    for path in folder.iterdir():
        (cached / path.name).symlink_to(path)
    error = refused(cached, bucket)
    assert "has no files and 2 symbolic links, which are not followed (`cp -rL`" in str(error)


def test_links_that_were_passed_over_are_counted(folder: Path, bucket: Bucket) -> None:
    (folder / "images" / "link.png").symlink_to(folder / "images" / "0.png")
    result = take(folder, bucket)
    assert result.links == 1
    assert "1 symbolic link, which is not followed" in result.summary()


def test_a_link_that_is_named_as_the_delivery_is_followed(bucket: Bucket, tmp_path: Path) -> None:
    blob = tmp_path / "0123abcd"
    blob.write_text('{"caption": "a person"}\n')
    (tmp_path / "spring.jsonl").symlink_to(blob)
    result = take(tmp_path / "spring.jsonl", bucket)
    assert (result.batch, result.rows) == ("spring", 1)


def test_a_missing_column(folder: Path, bucket: Bucket) -> None:
    (folder / "metadata.csv").write_text("file_name,caption\nimages/0.png,x\n")
    assert refused(folder, bucket).reason == "missing_column"


def test_metadata_without_rows(folder: Path, bucket: Bucket) -> None:
    (folder / "metadata.csv").write_text("file_name,text\n")
    error = refused(folder, bucket)
    assert error.reason == "nothing_accepted"
    assert "no rows" in str(error)


def test_a_batch_of_which_nothing_is_good_is_not_stored(folder: Path, bucket: Bucket) -> None:
    rows = [row | {"text": ""} for row in good_rows()]
    rows[2] |= {"text": "x", "file_name": "absent.png"}
    write_csv(folder, rows)
    error = refused(folder, bucket)
    assert error.reason == "nothing_accepted"
    assert "none of the 3 rows" in str(error)
    assert "2 empty_caption, 1 missing_file" in str(error)
    (table,) = (key for key in contents(bucket) if key.startswith("quarantine/spring/"))
    assert bucket.url(table) in str(error)
    rejected = pq.read_table(io.BytesIO(bucket.get_bytes(table))).to_pylist()
    assert [row["reason"] for row in rejected if row["row"]] == [
        "empty_caption",
        "empty_caption",
        "missing_file",
    ]
    write_csv(folder, good_rows())
    assert take(folder, bucket).status == "stored"


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("My Photos (2)", "my-photos-2"),
        ("-x", "x"),
        ("../up", "up"),
        ("a/b", "a-b"),
        ("", "batch-1"),
        ("ü", "batch-1"),
        ("x" * 64, "x" * 63),
        ("a\n", "a"),
    ],
)
def test_names_that_no_batch_can_have(
    folder: Path, bucket: Bucket, name: str, suggestion: str
) -> None:
    error = refused(folder, bucket, name)
    assert error.reason == "bad_batch_name"
    assert repr(suggestion) in str(error)
    assert batches.check_batch_name(suggestion)


def test_the_name_of_the_folder_is_held_to_the_same_rule(tmp_path: Path, bucket: Bucket) -> None:
    make_delivery(tmp_path / "My Photos")
    assert refused(tmp_path / "My Photos", bucket).reason == "bad_batch_name"
    assert take(tmp_path / "My Photos", bucket, "my-photos").rows == 3


# The same name again.


def contents(bucket: Bucket) -> dict[str, bytes]:
    return {info.key: bucket.get_bytes(info.key) for info in bucket.list()}


def test_the_same_delivery_again_changes_nothing(folder: Path, bucket: Bucket) -> None:
    first = take(folder, bucket)
    before = contents(bucket)
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    again = take(folder, bucket)
    assert again.status == "unchanged"
    assert again.manifest == first.manifest
    assert "nothing to do" in again.summary()
    assert contents(bucket) == before


def test_the_order_of_rows_is_not_content(folder: Path, bucket: Bucket) -> None:
    take(folder, bucket)
    write_csv(folder, good_rows()[::-1])
    assert take(folder, bucket).status == "unchanged"


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: write_csv(folder, good_rows()[:2]),
        lambda folder: write_csv(folder, [r | {"text": r["text"] + "!"} for r in good_rows()]),
        lambda folder: write_csv(folder, [r | {"age": "old"} for r in good_rows()]),
        lambda folder: write_csv(folder, [r | {"note": "x"} for r in good_rows()]),
        lambda folder: (folder / "images" / "0.png").write_bytes(png(77)),
    ],
    ids=["fewer rows", "other captions", "other attributes", "more columns", "another picture"],
)
def test_other_content_under_the_same_name_is_refused(
    folder: Path, bucket: Bucket, change: Callable[[Path], object]
) -> None:
    take(folder, bucket)
    before = contents(bucket)
    change(folder)
    with pytest.raises(BatchExists, match=r"another name, for example 'spring-2'") as caught:
        take(folder, bucket)
    assert caught.value.reason == "batch_exists"
    assert contents(bucket) == before
    assert take(folder, bucket, "spring-2").status == "stored"


def test_a_bad_delivery_under_the_name_of_a_good_batch_leaves_it_alone(
    folder: Path, bucket: Bucket
) -> None:
    take(folder, bucket)
    before = contents(bucket)
    write_csv(folder, [row | {"text": ""} for row in good_rows()])
    with pytest.raises(DeliveryRefused, match="none of the 3 rows"):
        take(folder, bucket)
    assert contents(bucket) == before


@pytest.mark.parametrize("loss", ["picture", "damage", "table"])
def test_the_same_delivery_repairs_what_was_lost(folder: Path, bucket: Bucket, loss: str) -> None:
    manifest = take(folder, bucket).manifest
    before = contents(bucket)
    picture = next(read_pairs(bucket, "spring")).image_key
    if loss == "damage":
        bucket.put_bytes(picture, b"x" * len(before[picture]))
    else:
        bucket.delete([picture if loss == "picture" else batches.pairs_key(manifest)])
    result = take(folder, bucket)
    assert result.status == "repaired"
    assert "lost" in result.summary()
    assert contents(bucket) == before


def test_of_two_ingests_of_one_name_at_once_the_first_stays_whole(
    folder: Path, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faster = make_delivery(tmp_path / "faster", 4)
    (faster / "images" / "3.png").write_bytes(b"")
    put_file = Bucket.put_file

    def late(self: Bucket, key: str, path: Path) -> None:
        monkeypatch.setattr(Bucket, "put_file", put_file)
        write_csv(faster, [*good_rows(2), *good_rows(4)[3:]])
        take(faster, bucket, "spring")
        put_file(self, key, path)

    monkeypatch.setattr(Bucket, "put_file", late)
    with pytest.raises(BatchExists):
        take(folder, bucket)
    assert len(list(read_pairs(bucket, "spring"))) == 2
    assert [row.reason for row in read_quarantine(bucket, "spring") if row.row] == ["empty_file"]
    assert take(faster, bucket, "spring").status == "unchanged"


# Failures of the machine.

KILLED = """
import os, signal, sys
from pathlib import Path
from cf_lab_assets.sources.ingest import ingest
from cf_lab_resources.bucket import Bucket, open_bucket

left = int(sys.argv[3])

def counted(method):
    def call(self, *arguments):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return method(self, *arguments)
    return call

for name in ("create", "put_bytes", "put_file"):
    setattr(Bucket, name, counted(getattr(Bucket, name)))
ingest(Path(sys.argv[1]), None, open_bucket(sys.argv[2]), {"gender": ("woman", "man")})
"""


@pytest.mark.parametrize("writes", [0, 2, 3, 4, 5])
def test_a_run_killed_between_any_two_writes_leaves_nothing_visible(
    folder: Path, bucket: Bucket, tmp_path: Path, writes: int
) -> None:
    # Three pictures, then quarantine, pairs and the manifest.
    command = [sys.executable, "-c", KILLED, str(folder), (tmp_path / "bucket").as_uri()]
    killed = subprocess.run([*command, str(writes)], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert stored_batches(bucket) == []
    assert read_manifest(bucket, "spring") is None
    with pytest.raises(DeliveryRefused, match="not stored"):
        list(read_pairs(bucket, "spring"))
    assert take(folder, bucket).status == "stored"
    clean = open_bucket((tmp_path / "clean").as_uri())
    take(folder, clean)
    assert contents(bucket) == contents(clean)


def test_a_failing_store_is_an_error_and_not_a_rejected_row(
    folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Bucket, key: str, data: bytes) -> bool:
        raise BucketError("the store is down")

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "create", fail)
        with pytest.raises(BucketError, match="down"):
            take(folder, bucket)
    assert stored_batches(bucket) == []
    assert take(folder, bucket).rows == 3


def test_a_failing_disk_is_an_error_and_not_a_rejected_row(
    folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cf_lab_assets.sources import deliveries

    def fail(path: Path, limits: Limits) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(deliveries, "read_image_file", fail)
    with pytest.raises(OSError, match="Input/output"):
        take(folder, bucket)
    assert stored_batches(bucket) == []
