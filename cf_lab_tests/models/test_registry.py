import json
import shutil
import subprocess
import sys
import threading

import pytest

from cf_lab_assets.models import artifacts, registry
from cf_lab_assets.models.registry import Manifest, ModelDamaged
from cf_lab_resources.bucket import BucketError, open_bucket
from cf_lab_resources.engine.folders import ModelRefused, folder_hash
from cf_lab_resources.engine.model_sources import DiskError, ModelUnavailable
from cf_lab_resources.engine.model_uris import ModelUri, parse_model_uri
from cf_lab_tests.models.hub import COMMIT


@pytest.fixture
def resolve(bucket, cache):
    """Resolve a URI; what was announced is in `resolve.said`."""

    def run(uri, into=bucket):
        uri = uri if isinstance(uri, ModelUri) else parse_model_uri(uri)
        run.said = []
        return registry.resolve(into, uri, cache, artifacts.WEIGHTS, run.said.append)

    return run


def keys(bucket):
    return sorted(info.key for info in bucket.list())


def snapshot(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def cut(path, by=100):
    path.write_bytes(path.read_bytes()[:-by])


def test_a_folder_is_resolved_with_licence_card_and_hashes(resolve, bucket, cache, tiny):
    manifest = resolve(tiny.as_uri())
    assert manifest.sha256 == folder_hash(tiny)
    assert (manifest.licence, manifest.card, manifest.family) == ("apache-2.0", True, "clip")
    assert set(manifest.files) == {path.name for path in tiny.iterdir()}
    assert manifest.total_bytes == sum(path.stat().st_size for path in tiny.iterdir())
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert registry.recorded(bucket, parse_model_uri(tiny.as_uri())) == manifest
    folder = registry.local_folder(bucket, manifest, cache)
    assert folder_hash(folder) == manifest.sha256
    assert folder == cache / manifest.sha256


def test_resolving_again_fetches_and_changes_nothing(resolve, bucket, tiny):
    manifest, before = resolve(tiny.as_uri()), keys(bucket)
    assert resolve(tiny.as_uri()) == manifest
    assert resolve.said == []
    assert keys(bucket) == before


def test_a_folder_that_has_changed_is_another_model_unless_its_hash_is_asked_for(
    resolve, bucket, tiny
):
    first = resolve(tiny.as_uri())
    pinned = f"{tiny.as_uri()}@{first.sha256}"
    assert resolve(pinned).sha256 == first.sha256
    (tiny / "tokenizer.json").write_text('{"new": 1}')
    assert resolve(tiny.as_uri()).sha256 == folder_hash(tiny) != first.sha256
    assert resolve(pinned).sha256 == first.sha256, "what is pinned is in the bucket already"
    before = keys(bucket)
    with pytest.raises(ModelRefused, match=rf"hash {folder_hash(tiny)}, which is not the one"):
        resolve(f"{tiny.as_uri()}@{'0' * 64}")
    assert keys(bucket) == before


def test_a_bucket_of_s3_is_a_source(resolve, s3, tiny, tmp_path):
    place = open_bucket(f"s3://lab/models/{tmp_path.name}")
    for path in tiny.iterdir():
        place.put_file(path.name, path)
    manifest = resolve(f"s3://lab/models/{tmp_path.name}")
    assert manifest.sha256 == folder_hash(tiny)
    assert resolve(f"s3://lab/models/{tmp_path.name}") == manifest
    assert resolve.said == []
    place.put_bytes("pytorch_model.bin", b"")
    with pytest.raises(ModelRefused, match=r"pytorch_model\.bin"):
        resolve(f"s3://lab/models/{tmp_path.name}")
    with pytest.raises(ModelUnavailable, match="nothing lies there"):
        resolve("s3://lab/models/none")


@pytest.mark.parametrize("folder", artifacts.FOLDERS.values())
def test_the_starter_models_are_in_the_bucket_under_the_hash_of_their_folder(
    resolve, bucket, cache, folder
):
    manifest = resolve(f"starter://{folder}")
    assert manifest.sha256 == folder_hash(artifacts.WEIGHTS / folder)
    assert manifest.licence == "MIT"
    assert resolve(f"artifact://{manifest.sha256}").files == manifest.files
    assert registry.damages(bucket, manifest, cache) == []
    assert not cache.exists(), "they are loaded from the package"


def test_a_branch_of_the_hub_is_the_commit_that_it_was_first_resolved_to(resolve, hub, tiny):
    hub.files |= {"pytorch_model.bin": b"a pickle", ".gitattributes": b""}
    manifest = resolve("hf://lab/tiny@main")
    assert manifest.revision == COMMIT
    assert manifest.sha256 == folder_hash(tiny)
    assert set(manifest.left_out) == {"pytorch_model.bin", ".gitattributes"}
    assert {path for path, _ in hub.asked} == {path.name for path in tiny.iterdir()}
    hub.revisions["main"] = "b" * 40
    hub.files["config.json"] = b'{"model_type": "siglip"}'
    listings = hub.listings
    assert resolve("hf://lab/tiny@main") == manifest
    assert hub.listings == listings, "what is on record needs no hub"
    assert resolve(f"hf://lab/tiny@{'b' * 40}").family == "siglip"


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_broken_download_goes_on_and_what_is_there_is_not_fetched_again(
    resolve, bucket, hub, tiny, ranges
):
    hub.ranges, hub.cut_after = ranges, 9000
    with pytest.raises(ModelUnavailable, match=r"hf://lab/tiny@main.*model\.safetensors.*again"):
        resolve("hf://lab/tiny@main")
    assert keys(bucket) == []
    first = [path for path, _ in hub.asked]
    hub.asked.clear()
    assert resolve("hf://lab/tiny@main").sha256 == folder_hash(tiny)
    assert hub.asked[0] == ("model.safetensors", "bytes=9000-")
    assert not set(first[:-1]) & {path for path, _ in hub.asked}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ((404, "RepoNotFound"), "no such repository.*HF_TOKEN"),
        ((401, "RepoNotFound"), "no such repository, or none for you.*HF_TOKEN"),
        ((401, None), "answers 401.*HF_TOKEN"),
        ((404, "RevisionNotFound"), "revision .* is gone"),
        ((403, "GatedRepo"), "accept their terms"),
        ((403, None), "answers 403.*HF_TOKEN"),
        ((503, None), "answers 503; try again"),
    ],
)
@pytest.mark.parametrize("fault_at", [None, "model.safetensors"], ids=["listing", "file"])
def test_a_revoked_download_says_why_and_leaves_the_bucket_empty(
    resolve, bucket, hub, fault, fault_at, said
):
    hub.fault, hub.fault_at = fault, fault_at
    with pytest.raises(ModelUnavailable, match=rf"(?s)hf://lab/tiny@main.*({said})"):
        resolve("hf://lab/tiny@main")
    assert keys(bucket) == []


def test_a_file_or_revision_that_is_gone_is_told_from_a_hub_out_of_reach(resolve, hub, monkeypatch):
    with pytest.raises(ModelUnavailable, match="revision v9 is gone"):
        resolve("hf://lab/tiny@v9")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelUnavailable, match="can't be reached"):
        resolve("hf://lab/tiny@main")


def test_another_file_than_the_hub_announces_is_not_taken(resolve, bucket, hub, monkeypatch):
    announced = hub.info("main")
    for name in ("config.json", "model.safetensors"):
        good = hub.files[name]
        hub.files[name] = good[:-1] + b"?"
        monkeypatch.setattr(hub, "info", lambda revision: announced)
        with pytest.raises(ModelUnavailable, match=rf"{name} came with other bytes"):
            resolve("hf://lab/tiny@main")
        hub.files[name] = good
    assert keys(bucket) == []


def corrupt_truncate(tiny):
    cut(tiny / "model.safetensors")


def corrupt_auto_map(tiny):
    config = {"model_type": "clip", "auto_map": {"AutoModel": "modeling.Mine"}}
    (tiny / "config.json").write_text(json.dumps(config))


def corrupt_list_class(tiny):
    (tiny / "model_index.json").write_text(json.dumps({"_class_name": ["pipeline", "Mine"]}))


def corrupt_no_type(tiny):
    (tiny / "config.json").write_text("{}")


@pytest.mark.parametrize(
    ("corrupt", "said"),
    [
        (corrupt_truncate, r"model\.safetensors is truncated"),
        (corrupt_auto_map, r"config\.json asks for code.*auto_map"),
        (corrupt_list_class, r"(?s)model_index\.json asks for code.*_class_name|no \.safetensors"),
        (corrupt_no_type, "model_type"),
    ],
)
@pytest.mark.parametrize("scheme", ["file", "hf"])
def test_a_model_that_cannot_be_loaded_safely_leaves_nothing(
    resolve, bucket, cache, hub, tiny, corrupt, said, scheme
):
    corrupt(tiny)
    hub.files.clear()
    hub.put_folder(tiny)
    uri = "hf://lab/tiny@main" if scheme == "hf" else tiny.as_uri()
    with pytest.raises(ModelRefused, match=said) as refused:
        resolve(uri)
    assert uri in str(refused.value)
    assert "fetching" not in str(refused.value)
    assert keys(bucket) == []
    assert [path for path in snapshot(cache) if path.suffix != ".lock"] == []


def test_a_pickle_beside_the_weights_of_a_folder_is_refused(resolve, bucket, tiny):
    (tiny / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelRefused, match=r"a%20tiny%20model holds pytorch_model\.bin"):
        resolve(tiny.as_uri())
    assert keys(bucket) == []


def test_an_unreachable_bucket_says_which(resolve, tiny, monkeypatch, s3):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(BucketError, match=r"s3://lab/here") as failed:
        resolve(tiny.as_uri(), into=open_bucket("s3://lab/here"))
    assert "\n" not in str(failed.value)
    with pytest.raises(ModelUnavailable, match=r"s3://lab/there can't be fetched"):
        resolve("s3://lab/there")


LIMITED = """
import resource, sys
from pathlib import Path
from cf_lab_assets.models import registry
from cf_lab_resources.bucket import open_bucket
from cf_lab_resources.engine.model_uris import parse_model_uri
from cf_lab_resources.errors import LabError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
try:
    registry.resolve(
        open_bucket(sys.argv[1]), parse_model_uri(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[5])
    )
except LabError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("uri", ["folder", "starter://editor"])
def test_a_disk_that_takes_no_more_leaves_no_model_and_a_later_run_succeeds(
    resolve, bucket, cache, tiny, uri
):
    """The kernel refuses the write in the middle of a file, as it does on a full disk."""
    uri = tiny.as_uri() if uri == "folder" else uri
    limit = 10_000 if uri == tiny.as_uri() else 1_000_000
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, bucket.root, uri, cache, str(limit), artifacts.WEIGHTS],
        capture_output=True,
        text=True,
    )
    expected = "DiskError" if uri == tiny.as_uri() else "BucketError"
    assert done.stdout.splitlines()[-1].startswith(expected), done
    assert "File too large" in done.stdout
    assert not [key for key in keys(bucket) if not key.startswith("objects/models/")]
    assert registry.recorded(bucket, parse_model_uri(uri)) is None
    manifest = resolve(uri)
    assert registry.damages(bucket, manifest, cache) == []


def test_a_model_larger_than_the_disk_is_refused_before_it_is_fetched(
    resolve, hub, cache, monkeypatch
):
    announced = hub.info("main")
    announced["siblings"][0] |= {"rfilename": "big.safetensors", "size": 10**11}
    monkeypatch.setattr(hub, "info", lambda revision: announced)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage())
    with pytest.raises(DiskError, match=r"needs 100,0.* bytes more and .* has 7 free"):
        resolve("hf://lab/tiny@main")
    assert hub.asked == []


class Usage:
    """A disk with next to no room: one of a test's own would have to be made by root."""

    free = 7


def test_a_damaged_local_copy_is_made_again_from_the_bucket(resolve, bucket, cache, tiny):
    manifest = resolve(tiny.as_uri())
    folder = cache / manifest.sha256
    (folder / "model.safetensors").write_bytes(b"damaged")
    (folder / "added.json").write_text("{}")
    assert len(registry.damages(bucket, manifest, cache)) == 2
    assert folder_hash(registry.local_folder(bucket, manifest, cache)) == manifest.sha256
    assert registry.damages(bucket, manifest, cache) == []
    assert {path.name for path in cache.iterdir()} == {manifest.sha256, "fetching"}


def test_a_file_damaged_in_the_bucket_is_named_and_never_loaded(resolve, bucket, cache, tiny):
    manifest = resolve(tiny.as_uri())
    shutil.rmtree(cache)
    key = registry.file_key(manifest.files["model.safetensors"])
    good = bucket.get_bytes(key)
    bucket.put_bytes(key, b"x" + good[1:])
    (found,) = registry.damages(bucket, manifest, cache)
    assert "model.safetensors" in found
    assert "changed" in found
    assert key in found
    with pytest.raises(ModelDamaged, match=key):
        registry.local_folder(bucket, manifest, cache)
    assert list(cache.iterdir()) == []
    bucket.delete([key])
    assert "missing" in registry.damages(bucket, manifest, cache)[0]
    assert resolve(tiny.as_uri()) == manifest, "what is missing is fetched again"
    assert registry.damages(bucket, manifest, cache) == []


def test_a_record_that_cannot_be_read_is_named(resolve, bucket, tiny):
    manifest = resolve(tiny.as_uri())
    for key in (
        registry.uri_key(parse_model_uri(tiny.as_uri())),
        registry.manifest_key(manifest.sha256),
    ):
        good = bucket.get_bytes(key)
        for bad in (good[:-9], b"[]", b"{}"):
            bucket.put_bytes(key, bad)
            with pytest.raises(ModelDamaged, match=key.rpartition("/")[2]):
                resolve(tiny.as_uri())
        bucket.put_bytes(key, good)


def test_several_that_resolve_one_model_at_once_agree(resolve, bucket, cache, tiny):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(resolve(tiny.as_uri()))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert {one.sha256 for one in found} == {folder_hash(tiny)}
    assert registry.damages(bucket, found[0], cache) == []


def test_an_artifact_that_is_not_there_is_named(resolve):
    with pytest.raises(ModelUnavailable, match="artifact://000"):
        resolve(f"artifact://{'0' * 64}")
