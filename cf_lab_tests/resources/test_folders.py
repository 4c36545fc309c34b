import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from cf_lab_resources.engine.folders import ModelRefused, check_folder, check_safetensors


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model" / "model.safetensors"
    path.parent.mkdir()
    tensors = {"a": np.ones((3, 5), np.float32), "b": np.ones(7, np.float16)}
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def test_whole_weights_pass(weights):
    check_safetensors(weights)
    check_folder(weights.parent)


@pytest.mark.parametrize("left", [0, 4, 8, 40, -1])
def test_weights_cut_anywhere_are_called_truncated(weights, left):
    data = weights.read_bytes()
    weights.write_bytes(data[:left])
    with pytest.raises(ModelRefused, match=r"model\.safetensors is truncated"):
        check_folder(weights.parent)


def test_weights_with_something_behind_them_are_refused(weights):
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(ModelRefused, match="longer than it may be"):
        check_safetensors(weights)


@pytest.mark.parametrize(
    "header", [b"[]", b"no json", json.dumps({"a": {"dtype": "F32"}}).encode(), b"\xff\xfe"]
)
def test_what_is_no_safetensors_header_is_refused(weights, header):
    weights.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ModelRefused, match="no safetensors file"):
        check_safetensors(weights)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("config.json", {"auto_map": {"AutoModel": "modeling.Mine"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tok.Mine", None]}}),
        ("config.json", {"trust_remote_code": True}),
        ("model_index.json", {"_class_name": ["pipeline", "Mine"]}),
    ],
)
def test_a_configuration_that_names_code_is_refused(weights, name, config):
    (weights.parent / name).write_text(json.dumps(config))
    with pytest.raises(ModelRefused, match=rf"{name} asks for code of its own"):
        check_folder(weights.parent)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling_mine.py", "unet/model.ckpt"])
def test_a_pickle_or_code_beside_the_weights_is_refused_by_name(weights, name):
    path = weights.parent / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    with pytest.raises(ModelRefused, match=path.name):
        check_folder(weights.parent)


def test_a_configuration_that_cannot_be_read_is_named(weights):
    (weights.parent / "config.json").write_text("{")
    with pytest.raises(ModelRefused, match=r"config\.json can't be read"):
        check_folder(weights.parent)
