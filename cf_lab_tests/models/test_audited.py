"""Audited models of one's own, from their URI to being asked."""

import pytest

from cf_lab_assets.models import artifacts, inspection
from cf_lab_assets.models.audited import open_audited
from cf_lab_assets.models.smoke import SmokeTestFailed, try_model
from cf_lab_resources.engine.model_sources import ModelUnavailable
from cf_lab_resources.engine.vlm import GenerativeModel
from cf_lab_tests.resources.engine.vlms import pictures, tiny_llava


@pytest.fixture
def llava(tmp_path, monkeypatch, cache):
    folder = tiny_llava(tmp_path / "llava")
    monkeypatch.setenv("CF_LAB_HOME", str(cache.parent))
    monkeypatch.setenv("CF_LAB_AUDITED", f"mine={folder.as_uri()}")
    return folder


def test_a_model_of_one_s_own_is_fetched_verified_and_asked(llava, bucket):
    with pytest.raises(ModelUnavailable, match="models/artifacts"):
        open_audited("mine", bucket, 3)
    manifest = artifacts.resolve(bucket, "mine", lambda _: None)
    assert manifest.family == "llava"
    (state,) = [one.state for one in inspection.verify(bucket) if one.name == "mine"]
    assert state == "intact"
    assert try_model(artifacts.in_use_folder("mine", bucket))["kind"] == "llava"
    model = open_audited("mine", bucket, 3)
    assert isinstance(model, GenerativeModel)
    assert model.batch == 3
    # Its template travels with it; without, the model would be asked as it never was in training.
    assert model.prompt("Who?") == "<s>USER: <image>Who? ASSISTANT:"
    assert len(model.speak("what is shown ?", 2)(pictures(2))) == 2


def test_starter_models_stay_in_use_and_keep_their_names(llava, bucket, monkeypatch):
    assert list(artifacts.models_in_use()) == [*artifacts.FOLDERS, "mine"]
    monkeypatch.setenv("CF_LAB_AUDITED", f"starter-siglip={llava.as_uri()}")
    with pytest.raises(artifacts.ModelUnknown, match=r"starter-siglip is starter://scorer-siglip"):
        artifacts.models_in_use()


def test_another_list_of_audited_models_is_told_from_the_first(bucket, monkeypatch):
    found = []
    for line in ("", "a=python://m:f#family=x", "a=python://m:f#family=y"):
        monkeypatch.setenv("CF_LAB_AUDITED", line)
        found.append(artifacts.identity(bucket, lambda _: None))
    assert found[0] != found[1] != found[2] != found[0]


def test_a_generative_model_of_broken_weights_fails_the_smoke_test(llava):
    from safetensors.torch import load_file, save_file

    weights = load_file(llava / "model.safetensors")
    for tensor in weights.values():
        tensor[:] = float("nan")
    save_file(weights, llava / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SmokeTestFailed, match="not finite"):
        try_model(llava)
