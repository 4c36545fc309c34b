import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cf_lab_resources.engine import model_sources
from cf_lab_resources.engine.folders import ModelRefused
from cf_lab_resources.engine.model_sources import (
    DiskError,
    FolderSource,
    ModelSource,
    ModelUnavailable,
    SourceFile,
    fetch,
    select,
)


def files(*paths, size=10):
    return [SourceFile(path, size, "1") for path in paths]


def taken(*paths, own=False):
    return {file.path for file in select("m", files(*paths), None, own).files}


def test_of_a_hubs_repository_only_what_a_safe_load_needs_is_taken():
    needed = {"config.json", "merges.txt", "spiece.model", "model.safetensors", "README.md"}
    others = {
        "pytorch_model.bin",
        "flax_model.msgpack",
        "model.onnx",
        "custom.py",
        ".gitattributes",
    }
    assert taken(*needed, *others, "LICENSE", "LICENSE.md") == {*needed, "LICENSE", "LICENSE.md"}
    listing = select("m", files(*needed, *others), "c0ffee", own=False)
    assert set(listing.left_out) == others
    assert listing.revision == "c0ffee"


def test_of_a_pipeline_neither_the_same_weights_again_nor_a_variant_of_them_is_taken():
    parts = {"model_index.json", "unet/config.json", "unet/model.safetensors"}
    assert taken(*parts, "v1-5-pruned.safetensors", "unet/model.fp16.safetensors") == parts
    only = {"model_index.json", "unet/model.fp16.safetensors"}
    assert taken(*only) == only, "a variant that there is no other of is taken"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling.py", "old/weights.ckpt"])
def test_a_pickle_or_code_in_a_place_of_ones_own_is_refused(name):
    with pytest.raises(ModelRefused, match=rf"{name}.*safetensors"):
        taken("config.json", "model.safetensors", name, own=True)


def test_a_repository_that_has_only_pickles_is_refused_by_their_name():
    with pytest.raises(ModelRefused, match=r"pytorch_model\.bin"):
        taken("config.json", "pytorch_model.bin")
    with pytest.raises(ModelRefused, match=r"no \.safetensors"):
        taken("config.json")


def test_what_is_too_large_is_refused_before_anything_is_fetched():
    with pytest.raises(ModelRefused, match=r"tokenizer\.json has 64,000,001 bytes"):
        select(
            "m", [*files("m.safetensors"), *files("tokenizer.json", size=64_000_001)], None, True
        )
    with pytest.raises(ModelRefused, match="120,000,000,000 are allowed"):
        select("m", files("a.safetensors", "b.safetensors", size=70_000_000_000), None, True)
    with pytest.raises(ModelRefused, match="1,001 files"):
        taken(*(f"{n}.safetensors" for n in range(1001)))


def test_a_path_that_leads_out_is_never_taken_and_one_that_has_no_key_is_refused():
    out = ("../x.safetensors", "a/../../x.safetensors")
    assert taken("model.safetensors", *out) == {"model.safetensors"}
    for path in ("a*.safetensors", "/x.safetensors", "a//x.safetensors"):
        with pytest.raises(ModelRefused, match="can't be kept"):
            taken("model.safetensors", path)


def test_the_version_of_a_listing_changes_with_any_file(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = FolderSource(tmp_path).listing().version
    assert FolderSource(tmp_path).listing().version == first
    os.utime(tmp_path / "model.safetensors", ns=(1, 1))
    assert FolderSource(tmp_path).listing().version != first


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelUnavailable, match="nowhere"):
        FolderSource(tmp_path / "nowhere").listing()


class Broken(ModelSource):
    """Sends at most some bytes a call."""

    def __init__(self, data: bytes, at_once: int) -> None:
        self.data, self.at_once, self.offsets = data, at_once, list[int]()

    def listing(self):
        raise NotImplementedError

    def read(self, file: SourceFile, offset: int) -> Iterator[bytes]:
        self.offsets.append(offset)
        yield self.data[offset : offset + self.at_once]


def test_a_download_goes_on_where_it_stopped_and_appears_when_it_is_whole(tmp_path):
    source, target = Broken(b"0123456789", 4), tmp_path / "new" / "model.safetensors"
    file = SourceFile("model.safetensors", 10, "1")
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match=r"of 10 bytes; run again"):
            fetch(source, file, target)
        assert not target.exists()
    fetch(source, file, target)
    assert target.read_bytes() == b"0123456789"
    assert source.offsets == [0, 4, 8]
    fetch(source, file, target)
    assert source.offsets == [0, 4, 8], "a file that is there is not fetched again"


@pytest.mark.parametrize("data", [b"other bytes", b"other byte", b"0123456789x"])
def test_other_bytes_than_announced_are_thrown_away(tmp_path, data):
    sha256 = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"
    file = SourceFile("model.safetensors", 10, "1", sha256)
    with pytest.raises(ModelUnavailable, match="other bytes"):
        fetch(Broken(data, 99), file, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
def test_a_full_disk_says_how_much_room_is_needed(tmp_path):
    (tmp_path / "model.safetensors.part").symlink_to("/dev/full")
    file = SourceFile("model.safetensors", 10, "1")
    with pytest.raises(DiskError, match=r"No space left.*make room for 10 bytes"):
        fetch(Broken(b"0123456789", 99), file, tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


def test_only_models_of_outside_have_a_source():
    from cf_lab_resources.engine.model_uris import parse_model_uri

    with pytest.raises(ValueError, match="starter://editor"):
        model_sources.open_source(parse_model_uri("starter://editor"))
