"""Audited models: loading, embedding, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cf_lab_resources.engine.audited import AuditedModelError, load_audited
from cf_lab_resources.engine.folders import ModelRefused
from cf_lab_tests.audits.synthetic import tiny_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("models") / "clip")


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(1)
    return [
        Image.fromarray(rng.integers(256, size=(50, 70, 3), dtype=np.uint8)) for _ in range(count)
    ]


def test_embeddings_are_unit_norm_float32_and_one_per_input(folder: Path) -> None:
    model = load_audited(folder)
    texts = model.embed_texts(["a portrait of a doctor", "a portrait of a judge", "nurse"])
    images = model.embed_images(iter(pictures(5)), batch=2)
    assert texts.shape == (3, 8)
    assert images.shape == (5, 8)
    assert texts.dtype == images.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    assert not np.allclose(texts[0], texts[1])


def test_batch_size_and_company_do_not_change_an_embedding(folder: Path) -> None:
    model = load_audited(folder)
    whole = model.embed_images(pictures(5), batch=5)
    single = model.embed_images(pictures(5), batch=1)
    np.testing.assert_allclose(whole, single, atol=1e-5)
    together = model.embed_texts(["doctor", "a portrait of a police officer"])
    np.testing.assert_allclose(model.embed_texts(["doctor"])[0], together[0], atol=1e-5)


def test_embeddings_are_those_of_the_model_itself(folder: Path) -> None:
    import torch
    from transformers import CLIPImageProcessorPil, CLIPModel

    model = CLIPModel.from_pretrained(folder)
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(pictures(2), return_tensors="pt")
    with torch.inference_mode():
        vectors = model.visual_projection(model.vision_model(**pixels).pooler_output).numpy()
    expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(load_audited(folder).embed_images(pictures(2)), expected, atol=1e-5)


def test_no_input_gives_no_rows(folder: Path) -> None:
    model = load_audited(folder)
    assert model.embed_images([]).shape == (0, 8)
    assert model.embed_texts([]).shape == (0, 8)


def test_a_text_longer_than_the_model_reads_is_cut(folder: Path) -> None:
    assert np.isfinite(load_audited(folder).embed_texts(["doctor " * 100])).all()


def test_pictures_of_other_modes_are_read_as_rgb(folder: Path) -> None:
    model = load_audited(folder)
    grey = Image.new("L", (30, 30), 128)
    np.testing.assert_allclose(
        model.embed_images([grey]), model.embed_images([grey.convert("RGB")]), atol=1e-6
    )


def test_a_siglip_folder_loads_and_its_texts_are_padded_to_full_length(tmp_path: Path) -> None:
    import torch
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    clip = tiny_clip(tmp_path / "clip")
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    folder = tmp_path / "siglip"
    text = {**sizes, "vocab_size": 100, "max_position_embeddings": 16, "projection_size": 16}
    torch.manual_seed(0)
    SiglipModel(
        SiglipConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 16})
    ).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(clip / name, folder)
    model = load_audited(folder)
    assert model.model_type == "siglip"
    assert model.embed_images(pictures(1)).shape == (1, 16)
    assert model._tokens(["doctor"])["input_ids"].shape == (1, 16)
    assert "attention_mask" not in model._tokens(["doctor"])


def test_the_description_is_json_and_names_the_weights(folder: Path) -> None:
    described = load_audited(folder).describe()
    json.dumps(described, allow_nan=False)
    assert described["model_type"] == "clip"
    assert len(described["sha256"]) == 64
    assert "model.safetensors" in described["files"]
    assert described == load_audited(folder).describe()


def test_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    pickled = shutil.copytree(folder, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelRefused, match=r"pytorch_model\.bin"):
        load_audited(pickled)


@pytest.mark.parametrize("missing", ["config.json", "preprocessor_config.json"])
def test_a_folder_that_lacks_a_file_says_which(folder: Path, tmp_path: Path, missing: str) -> None:
    partial = shutil.copytree(folder, tmp_path / "partial")
    (partial / missing).unlink()
    with pytest.raises(AuditedModelError, match=missing):
        load_audited(partial)


def test_a_model_without_a_shared_space_is_refused(folder: Path, tmp_path: Path) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    partial = shutil.copytree(folder, tmp_path / "text-only")
    CLIPTextModel(
        CLIPTextConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
        )
    ).save_pretrained(partial)
    with pytest.raises(AuditedModelError, match="get_image_features"):
        load_audited(partial)
