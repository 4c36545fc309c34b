"""`cf-lab verify-models` as people meet it."""

import subprocess

import pytest

from cf_lab_assets.models import artifacts, inspection, registry
from cf_lab_resources.bucket import open_bucket
from cf_lab_tests.running import CF_LAB, environment


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CF_LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def bucket(home):
    return open_bucket((home / "bucket").as_uri())


@pytest.fixture
def verify_models(home):
    def run(**variables):
        return subprocess.run(
            [CF_LAB, "verify-models"],
            env={**environment(home), **variables},
            capture_output=True,
            text=True,
        )

    return run


def test_intact_models_are_shown_with_hash_licence_and_places(verify_models, bucket):
    manifest = artifacts.resolve(bucket, artifacts.EDITOR, lambda line: None)
    done = verify_models()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = [line.split() for line in done.stdout.splitlines() if "starter-" in line]
    assert [line[0] for line in lines] == list(artifacts.FOLDERS)
    shown = [manifest.revision, "MIT", f"{manifest.total_bytes:,}", manifest.sha256[:16]]
    assert lines[0][1:] == [*shown, "package,", "bucket", "intact"]
    assert lines[1][-2:] == ["package", "intact"]


def test_each_damaged_file_is_named_wherever_it_lies(verify_models, bucket, home, tiny):
    uri = artifacts.parse_model_uri(tiny.as_uri())
    manifest = registry.resolve(bucket, uri, home / "models", artifacts.WEIGHTS, lambda line: None)
    assert verify_models(CF_LAB_EDITOR=str(uri)).returncode == 0
    key = registry.file_key(manifest.files["model.safetensors"])
    data = bytearray(bucket.get_bytes(key))
    data[5000] ^= 1
    bucket.put_bytes(key, bytes(data))
    bucket.delete([registry.file_key(manifest.files["README.md"])])
    (home / "models" / manifest.sha256 / "config.json").write_text("{}")
    done = verify_models(CF_LAB_EDITOR=str(uri))
    assert done.returncode == 1
    assert "3 damaged" in done.stdout
    changed, missing, copy = sorted(done.stderr.splitlines(), key=lambda line: "config" in line)
    if "README.md" in changed:
        changed, missing = missing, changed
    assert "model.safetensors" in changed
    assert key in changed
    assert "README.md" in missing
    assert "missing" in missing
    assert str(home / "models" / manifest.sha256) in copy


def test_an_editor_that_was_never_fetched_is_told_how_to_be(verify_models):
    done = verify_models(CF_LAB_EDITOR="hf://lab/tiny@main")
    assert done.returncode == 1
    assert "not fetched" in done.stdout
    assert "hf://lab/tiny@main was not fetched yet; materialise models/artifacts" in done.stderr


def test_a_setting_that_names_no_editor_is_one_clear_line(verify_models):
    done = verify_models(CF_LAB_EDITOR="starter://scorer-siglip")
    assert done.returncode == 1
    assert done.stderr.startswith("cf-lab: CF_LAB_EDITOR: starter://scorer-siglip is no editor")
    assert len(done.stderr.splitlines()) == 1


def test_a_record_in_the_bucket_that_cannot_be_read_is_damage(home, bucket):
    manifest = artifacts.resolve(bucket, artifacts.EDITOR, lambda line: None)
    bucket.put_bytes(registry.manifest_key(manifest.sha256), b"{")
    (damaged,) = [one for one in inspection.verify(bucket) if one.damaged]
    assert damaged.name == artifacts.EDITOR
    assert "manifest.json can't be read" in damaged.damaged[0]
