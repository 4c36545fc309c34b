"""A model small enough to be fetched often, and the places it is fetched from."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from cf_lab_resources.bucket import open_bucket
from cf_lab_tests.models import hub as stand_in

CARD = "---\nlicense: apache-2.0\n---\n# A tiny model\n"


@pytest.fixture
def tiny(tmp_path):
    """A folder like a transformers model's: weights, configuration, tokenizer, card."""
    folder = tmp_path / "a tiny model"
    folder.mkdir()
    weights = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    save_file({"weight": weights}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture
def bucket(tmp_path):
    return open_bucket((tmp_path / "bucket").as_uri())


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "home" / "models"


@pytest.fixture
def hub(tiny, monkeypatch):
    """A running stand-in for the hub that has the tiny model."""
    served = stand_in.Hub()
    served.put_folder(tiny)
    # Tests are offline, and this server is no exception to that but a neighbour.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with stand_in.running(served) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield served
