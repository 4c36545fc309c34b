"""What was changed after packaging is found, and what is merely not trusted is told apart."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cf_lab_assets.counterfactuals.packaging.build import build_package
from cf_lab_assets.counterfactuals.packaging.export import export_package
from cf_lab_assets.counterfactuals.packaging.inspection import (
    NothingToVerify,
    table,
    verify_folder,
)
from cf_lab_resources.bucket import open_bucket
from cf_lab_resources.credentials.home_key import home_test_key
from cf_lab_resources.credentials.pictures import Verifier
from cf_lab_tests.releases.sample import publication, write_dataset

SHARD = "data/test-00000-of-00004.parquet"


def change(folder, spoil, path=SHARD, schema=None):
    """Rewrite a shard with changed rows, and have the manifest name the new file."""
    whole = pq.read_table(folder / path)
    rows = whole.to_pylist()
    spoil(rows)
    table = pa.Table.from_pylist(rows, schema=schema or whole.schema)
    pq.write_table(table, folder / path)
    rename(folder, path)


def rename(folder, path):
    manifest = json.loads((folder / "manifest.json").read_text())
    for file in manifest["files"]:
        if file["path"] == path:
            file["sha256"] = hashlib.sha256((folder / path).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def first_picture(folder):
    return pq.read_table(folder / SHARD).to_pylist()[0]


def test_a_package_as_it_was_made_verifies(packaged):
    found = verify_folder(packaged.folder)
    assert found.faults == []
    assert found.count == 20
    assert sum(counter["intact"] for counter in found.states.values()) == 20
    (signer,) = found.signers
    assert "TEST" in signer


def test_the_credentials_say_what_was_done_to_which_source(packaged):
    row = first_picture(packaged.folder)
    verdict = Verifier([publication().key.anchor]).verify(row["image"]["bytes"])
    assert verdict.state == "trusted"
    assert verdict.parents == [f"{row['source_image_sha256']}.png"]
    assert verdict.action("c2pa.opened")["parameters"]["ingredients"]
    edit = verdict.action("c2pa.edited")
    assert edit["digitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    assert edit["parameters"]["cf_lab.pair_id"] == row["pair_id"]
    assert edit["parameters"]["cf_lab.noise_seed"] == row["noise_seed"]
    assert edit["description"] == row["instruction"]
    labels = [assertion["label"] for assertion in verdict.manifest["assertions"]]
    assert "cawg.training-mining" in labels


def test_a_flipped_pixel_breaks_the_credentials(folder):
    def flip(rows):
        png = rows[0]["image"]["bytes"]
        picture = Image.open(io.BytesIO(png))
        red, green, blue = picture.getpixel((3, 4))
        picture.putpixel((3, 4), (red ^ 1, green, blue))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        # The one chunk with the credentials, put back where it was: after the header.
        start = png.index(b"caBX") - 4
        end = start + 12 + int.from_bytes(png[start : start + 4], "big")
        plain = buffer.getvalue()
        rows[0]["image"]["bytes"] = plain[:33] + png[start:end] + plain[33:]

    change(folder, flip)
    found = verify_folder(folder)
    (faults,) = found.pictures.values()
    assert "assertion.dataHash.mismatch" in faults
    assert found.states[SHARD]["broken"] == 1


@pytest.mark.parametrize("place", [0.3, 0.6, 0.99])
def test_a_flipped_byte_breaks_the_credentials(folder, place):
    def flip(rows):
        png = bytearray(rows[1]["image"]["bytes"])
        png[int(len(png) * place)] ^= 1
        rows[1]["image"]["bytes"] = bytes(png)

    change(folder, flip)
    found = verify_folder(folder)
    assert found.states[SHARD]["broken"] == 1
    assert len(found.pictures) == 1


def test_a_picture_whose_credentials_were_taken_out_is_missing_them(folder):
    from cf_lab_resources.credentials.pictures import without_credentials

    def strip(rows):
        rows[0]["image"]["bytes"] = without_credentials(rows[0]["image"]["bytes"])

    change(folder, strip)
    found = verify_folder(folder)
    assert found.states[SHARD]["missing"] == 1
    assert len(found.faults) == 1


def test_pictures_that_changed_places_are_found_though_each_is_intact(folder):
    def swap(rows):
        for column in ("image", "signed_sha256", "image_sha256"):
            rows[0][column], rows[1][column] = rows[1][column], rows[0][column]

    change(folder, swap)
    found = verify_folder(folder)
    assert len(found.pictures) == 2
    assert all("the credentials are of pair" in why[0] for why in found.pictures.values())


def test_a_picture_drawn_from_its_caption_alone_was_created_and_has_no_source(tmp_path):
    def from_captions(pairs, sets):
        for row in pairs:
            row["instruction"] = None

    bucket = open_bucket((tmp_path / "bucket").as_uri())
    dataset_hash = write_dataset(bucket, spoil=from_captions, report=False, package=False)
    package = build_package(bucket, dataset_hash, publication())
    export_package(bucket, package, tmp_path / "exported")
    found = verify_folder(tmp_path / "exported")
    assert found.faults == []
    assert sum(counter["intact"] for counter in found.states.values()) == found.count
    path = next((tmp_path / "exported" / "data").glob("*.parquet"))
    row = pq.read_table(path).to_pylist()[0]
    verdict = Verifier([publication().key.anchor]).verify(row["image"]["bytes"])
    assert verdict.parents == []
    assert verdict.action("c2pa.edited") == {}
    created = verdict.action("c2pa.created")
    assert created["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert row["instruction"] is None
    assert row["source_image"] is None
    assert created["parameters"]["cf_lab.base_image_sha256"] == row["source_image_sha256"]
    papers = [(tmp_path / "exported" / name).read_text() for name in ("README.md", "datasheet.md")]
    assert all("drawn from" in paper and "captions alone" in paper for paper in papers)
    # The same credentials on a row that claims to be an edit are a lie.
    name = str(path.relative_to(tmp_path / "exported"))
    change(tmp_path / "exported", lambda rows: rows[0].update(instruction="turn"), name)
    (faults,) = verify_folder(tmp_path / "exported").pictures.values()
    assert any("their parents are [], not" in fault for fault in faults)


def test_another_source_picture_is_found(folder):
    def exchange(rows):
        rows[0]["source_image"]["bytes"] = rows[0]["image"]["bytes"]

    change(folder, exchange)
    assert "source_image_sha256" in verify_folder(folder).faults[0]


def test_a_signature_of_another_key_is_found(folder, tmp_path):
    from cf_lab_assets.counterfactuals.packaging import provenance
    from cf_lab_resources.credentials.pictures import PictureSigner, without_credentials

    signer = PictureSigner(home_test_key(tmp_path / "other"))

    def sign_again(rows):
        row = rows[0]
        row["image"]["bytes"] = signer.sign(
            without_credentials(row["image"]["bytes"]),
            row["source_image"]["bytes"],
            provenance.source_title(row),
            provenance.credentials(row, {}),
        )

    change(folder, sign_again)
    (faults,) = verify_folder(folder).pictures.values()
    assert "signed with another certificate than the package's" in faults


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("shards/test-000001.tar", "the WebDataset shard has another picture, or none"),
        ("provenance/test-00001-of-00004.jsonl", "the sidecar has another picture, or none"),
        ("data/test-00001-of-00004.parquet", "can't be read"),
        ("sets/test-00000-of-00001.parquet", "is missing"),
        ("README.md", "is missing"),
        ("certificates.pem", "holds no certificate"),
    ],
)
def test_a_file_that_is_gone_or_nonsense_is_found(folder, path, says):
    (folder / path).unlink()
    assert any(f"{path} is missing" in fault for fault in verify_folder(folder).faults)
    (folder / path).write_bytes(b"nonsense")
    faults = verify_folder(folder).faults
    assert any("is not the file that the manifest names" in fault for fault in faults)
    (folder / path).unlink()
    assert any(says in fault for fault in verify_folder(folder).faults)


def test_a_file_that_the_manifest_does_not_name_is_found(folder):
    for extra in ("data/test-00004-of-00004.parquet", "data/.hidden", ".git/HEAD"):
        (folder / extra).parent.mkdir(exist_ok=True)
        (folder / extra).write_bytes((folder / SHARD).read_bytes())
    (folder / "sets" / "test-link.parquet").symlink_to(folder / SHARD)
    assert [fault.partition(";")[0] for fault in verify_folder(folder).faults] == [
        "data/test-00004-of-00004.parquet is not in the manifest",
        "sets/test-link.parquet is not in the manifest",
    ]


@pytest.mark.parametrize("column", ["image", "source_image"])
@pytest.mark.parametrize("null", [None, {"bytes": None, "path": None}])
def test_a_picture_that_is_null_is_found(folder, column, null):
    change(folder, lambda rows: rows[1].update({column: null}))
    found = verify_folder(folder)
    assert found.files == []
    assert len(found.pictures) == found.states[SHARD]["broken"] == 1


def test_a_shard_whose_columns_are_of_other_types_can_not_be_read(folder):
    whole = pq.read_table(folder / SHARD).schema
    schema = whole.set(whole.get_field_index("image"), pa.field("image", pa.string()))
    change(folder, lambda rows: [row.update(image="x") for row in rows], schema=schema)
    assert any(f"{SHARD} can't be read" in fault for fault in verify_folder(folder).files)


def test_files_that_belong_to_no_shard_are_read_too(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    for path in ("data/x.parquet", "shards/test-000009.tar"):
        (folder / path).write_bytes(b"x")
        manifest["files"].append({"path": path, "sha256": "0" * 64, "bytes": 1})
    (folder / "manifest.json").write_text(json.dumps(manifest))
    faults = verify_folder(folder).files
    assert any(fault.startswith("data/x.parquet is not called like a shard") for fault in faults)
    assert "shards/test-000009.tar is not the file that the manifest names" in faults


def test_a_shard_of_another_picture_is_found(folder):
    path = "shards/test-000000.tar"
    with tarfile.open(folder / path) as tar:
        members = [(one, tar.extractfile(one).read()) for one in tar]
    with tarfile.open(folder / path, "w") as tar:
        for one, data in members:
            tar.addfile(one, io.BytesIO(bytes(len(data)) if one.name.endswith(".png") else data))
    rename(folder, path)
    found = verify_folder(folder)
    assert found.files == []
    assert len(found.pictures) == found.states[SHARD].total() == found.states[SHARD]["broken"]


def test_only_who_says_whom_to_trust_is_told_that_pictures_are_trusted(packaged):
    assert "trusted" not in table(verify_folder(packaged.folder)).replace("untrusted", "")
    found = verify_folder(packaged.folder, [publication().key.anchor])
    assert sum(counter["trusted"] for counter in found.states.values()) == 20
    assert "intact" not in table(found)


def test_a_root_that_is_not_trusted_is_no_damage(packaged, tmp_path):
    other = home_test_key(tmp_path / "other").anchor
    found = verify_folder(packaged.folder, [other])
    assert found.faults == []
    assert sum(counter["untrusted"] for counter in found.states.values()) == 20


def test_loose_pictures_are_verified_too(packaged, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    signed = first_picture(packaged.folder)["image"]["bytes"]
    (pictures / "good.png").write_bytes(signed)
    (pictures / "cut.PNG").write_bytes(signed[:-30])
    (pictures / "a folder.png").mkdir()
    (pictures / "bare.png").write_bytes(first_picture(packaged.folder)["source_image"]["bytes"])
    found = verify_folder(pictures)
    assert found.states["."] == {"untrusted": 1, "broken": 1, "missing": 1}
    shown = table(found)
    assert "total" in shown
    assert "TEST KEY, not for production" in shown


def test_a_folder_with_nothing_to_verify_says_so(tmp_path):
    with pytest.raises(NothingToVerify, match="cf-lab export"):
        verify_folder(tmp_path)
    with pytest.raises(NothingToVerify, match="not a folder"):
        verify_folder(tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(NothingToVerify, match="not a package's manifest"):
        verify_folder(tmp_path)
