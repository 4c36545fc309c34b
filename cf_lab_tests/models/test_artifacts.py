import json
import shutil

import pytest

from cf_lab_assets.models import artifacts
from cf_lab_resources.engine.editors import EditorSettings, load_editor, noise_seed
from cf_lab_resources.engine.folders import ModelRefused, check_folder, folder_hash


@pytest.mark.parametrize("name", artifacts.FOLDERS)
def test_every_shipped_model_is_the_one_on_record(name):
    artifact = artifacts.verify(name)
    assert artifact.bytes > 10_000
    record = artifacts.starter_manifest()["models"][artifacts.FOLDERS[name]]
    assert {"files", "training", "metrics"} <= set(record)
    assert "seed" in record["training"]


def test_the_shipped_weights_are_safetensors_and_at_most_24_mb():
    files = [path for path in artifacts.WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 24_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt"}


def test_a_changed_file_is_named(tmp_path, monkeypatch):
    copy = tmp_path / "weights"
    shutil.copytree(artifacts.WEIGHTS, copy)
    monkeypatch.setattr(artifacts, "WEIGHTS", copy)
    config = copy / "editor" / "unet" / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(artifacts.ModelDamaged, match=r"unet/config\.json.*train-starter"):
        artifacts.verify(artifacts.EDITOR)


def test_an_unknown_model_is_refused_and_the_known_ones_are_named():
    with pytest.raises(artifacts.ModelUnknown, match="starter-editor"):
        artifacts.model_folder("gpt")


def test_a_pickle_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelRefused, match=r"pytorch_model\.bin"):
        check_folder(tmp_path)


def test_a_missing_or_empty_folder_is_refused(tmp_path):
    with pytest.raises(ModelRefused, match="does not exist"):
        check_folder(tmp_path / "none")
    with pytest.raises(ModelRefused, match="safetensors"):
        check_folder(tmp_path)


def test_a_folder_of_another_kind_is_no_editor():
    with pytest.raises(ModelRefused, match="no pipeline folder"):
        load_editor(artifacts.model_folder(artifacts.CLASSIFIER), EditorSettings())


def test_the_hash_of_a_folder_covers_names_and_bytes(tmp_path):
    (tmp_path / "a.json").write_text("1")
    first = folder_hash(tmp_path)
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    assert folder_hash(tmp_path) != first


def test_noise_comes_from_edit_and_draw_alone():
    seeds = {noise_seed(edit, draw) for edit in ("a", "b") for draw in (0, 1)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert noise_seed("a", 0) == noise_seed("a", 0)


def test_families_of_scorers_are_on_record():
    models = artifacts.generation_models()
    for role in ("encoder", "classifier"):
        config = json.loads(
            (artifacts.model_folder(models[role]["name"]) / "config.json").read_text()
        )
        assert config["model_type"] == models[role]["family"]
        assert config["model_type"] != "clip"
