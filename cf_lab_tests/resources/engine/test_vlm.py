"""Generative models: likelihoods, greedy answers, prompts, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cf_lab_resources.engine import contract
from cf_lab_resources.engine.audited import AuditedModel
from cf_lab_resources.engine.contract import AuditedModelError, Missing
from cf_lab_resources.engine.folders import ModelRefused
from cf_lab_resources.engine.loading import load_generative, load_model
from cf_lab_resources.engine.questions import FORCED_CHOICE, OPEN, Question
from cf_lab_resources.engine.vlm import GenerativeModel
from cf_lab_tests.audits.synthetic import tiny_clip
from cf_lab_tests.resources.engine.vlms import (
    EDGE,
    pictures,
    tiny_idefics3,
    tiny_llava,
    tiny_paligemma,
    tiny_qwen2_vl,
)

QUESTION = Question(
    name="occupation",
    text="what is the occupation of the person in this picture ?",
    options=("nurse", "police officer"),
)
MAKERS = {"llava": tiny_llava, "idefics3": tiny_idefics3, "qwen2_vl": tiny_qwen2_vl}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("vlms")
    return {name: make(root / name) for name, make in MAKERS.items()}


@pytest.fixture(params=MAKERS)
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


def given(model: GenerativeModel, image: Image.Image, prompt: str) -> Any:
    """A prompt as the model's own processor makes it."""
    return model._processor(
        text=[prompt], images=[[image]], add_special_tokens=False, return_tensors="pt"
    )


def next_logits(model: GenerativeModel, inputs: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model._model(**inputs).logits[0, -1].double()


def append(inputs: Any, token: int) -> None:
    import torch

    more = torch.tensor([[token]])
    for name, value in (("input_ids", token), ("attention_mask", 1), ("mm_token_type_ids", 0)):
        if name in inputs:
            inputs[name] = torch.cat([inputs[name], torch.full_like(more, value)], dim=1)


def by_hand(folder: Path, image: Image.Image, prompt: str, answer: str) -> float:
    """Mean log-likelihood of an answer, token by token, each by a forward pass of its own."""
    model = load_generative(folder)
    tokens = model._processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
    inputs, total = given(model, image, prompt), 0.0
    for token in tokens:
        logits = next_logits(model, inputs)
        total += float(logits[token] - logits.logsumexp(0))
        append(inputs, token)
    return total / len(tokens)


def test_a_likelihood_is_the_mean_over_the_option_s_tokens(folder: Path) -> None:
    model = load_generative(folder)
    (image,) = pictures(1)
    (choice,) = model.choose(QUESTION)([image])
    for order, row in zip(QUESTION.orders, choice.likelihoods, strict=True):
        prompt = model.prompt(QUESTION.prompt(order))
        for option, found in zip(QUESTION.options, row, strict=True):
            assert found == pytest.approx(by_hand(folder, image, prompt, option), abs=1e-5)
    # Two tokens of one option and one of the other: a sum in the mean's place would differ.
    tokenizer = model._processor.tokenizer
    assert len(tokenizer("police officer", add_special_tokens=False)["input_ids"]) == 2


def test_batches_change_no_choice_and_no_answer(folder: Path) -> None:
    # Of two sizes, which some models see as more or fewer tokens.
    model, images = load_generative(folder, batch=7), [*pictures(2, 2 * EDGE), *pictures(3)]
    whole = model.choose(QUESTION)(images)
    single = replace(model, batch=1).choose(QUESTION)
    for image, choice in zip(images, whole, strict=True):
        (alone,) = single([image])
        np.testing.assert_allclose(choice.likelihoods, alone.likelihoods, atol=1e-5)
    assert len({choice.likelihoods for choice in whole}) == 5
    answers = model.speak("what is shown ?", 6)(images)
    assert answers == [model.speak("what is shown ?", 6)([image])[0] for image in images]


def test_an_open_answer_is_greedy_and_bounded(folder: Path) -> None:
    model = load_generative(folder)
    assert model._model.generation_config.temperature is None
    (image,) = pictures(1)
    inputs, tokens = given(model, image, model.prompt("what is shown ?")), []
    for _ in range(4):
        tokens.append(int(next_logits(model, inputs).argmax()))
        append(inputs, tokens[-1])
    for length in (1, 4):
        said = model._processor.tokenizer.decode(tokens[:length], skip_special_tokens=True)
        assert model.speak("what is shown ?", length)([image]) == [said.strip()]


def test_prompts_follow_the_model_s_template_or_name_the_picture(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    model = load_generative(folders["llava"])
    assert model.prompt("Who?") == "<s>USER: <image>Who? ASSISTANT:"
    assert not model._adds_special_tokens(model.prompt("Who?"))
    plain = load_generative(tiny_llava(tmp_path / "plain", template=None))
    assert plain.prompt("Who?") == "<image>\nWho?\nAnswer:"
    (choice,) = plain.choose(QUESTION)(pictures(1))
    assert sum(choice.probabilities) == pytest.approx(1.0)


def test_a_model_that_sees_what_it_is_to_guess_is_asked_in_open_format_only(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    for folder in folders.values():
        assert load_generative(folder).formats == (FORCED_CHOICE, OPEN)
    model = load_generative(tiny_paligemma(tmp_path / "paligemma"))
    assert model.formats == (OPEN,)
    assert "siglip" in model.describe()["families"]
    answers = model.speak("what is shown ?", 3)(pictures(2))
    assert answers == [model.speak("what is shown ?", 3)([one])[0] for one in pictures(2)]


def test_a_template_without_the_picture_is_refused(tmp_path: Path) -> None:
    folder = tiny_llava(tmp_path / "blind", template="{{ messages[0]['role'] }}:")
    with pytest.raises(AuditedModelError, match="leaves out the picture"):
        load_generative(folder)


def test_the_description_names_weights_and_the_families_of_the_towers(
    folders: dict[str, Path],
) -> None:
    described = load_generative(folders["llava"]).describe()
    json.dumps(described, allow_nan=False)
    assert described["families"] == ["clip", "llama", "llava"]
    assert described["parameters"] > 10_000
    assert "model.safetensors" in described["files"]
    assert "siglip" in load_generative(folders["idefics3"]).describe()["families"]


def test_a_folder_is_loaded_as_what_it_is(folders: dict[str, Path], tmp_path: Path) -> None:
    assert isinstance(load_model(folders["qwen2_vl"]), GenerativeModel)
    assert isinstance(load_model(tiny_clip(tmp_path / "clip")), AuditedModel)


def test_weights_that_are_no_numbers_give_no_answer(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(folders["llava"], tmp_path / "nan")
    weights = load_file(folder / "model.safetensors")
    name = next(one for one in weights if one.endswith("lm_head.weight"))
    weights[name][:] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = load_generative(folder)
    for ask in (model.choose(QUESTION), model.speak("what is shown ?", 2)):
        (answer,) = contract.isolated(ask, pictures(1), 1, lambda *_: None)
        assert isinstance(answer, Missing)
        assert "not a finite number" in answer.reason


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "can't be loaded"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
    ],
    ids=["tokenizer", "config"],
)
def test_an_incomplete_folder_says_what_is_missing(
    folders: dict[str, Path], tmp_path: Path, damage: Callable[[Path], Any], complaint: str
) -> None:
    folder = shutil.copytree(folders["llava"], tmp_path / "partial")
    damage(folder)
    with pytest.raises(AuditedModelError, match=complaint):
        load_generative(folder)


def test_a_processor_of_another_model_is_told_when_it_is_loaded(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders["llava"], tmp_path / "mixed")
    settings = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({**settings, "patch_size": 8}))
    with pytest.raises(AuditedModelError, match="fails on a grey picture"):
        load_generative(folder)


def test_pickles_and_code_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["llava"], tmp_path / "pickled")
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelRefused, match=r"pytorch_model\.bin"):
        load_model(folder)
    folder = shutil.copytree(folders["llava"], tmp_path / "code")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForImageTextToText": "mine.Mine"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelRefused, match="auto_map"):
        load_model(folder)


def test_a_model_that_reads_the_prompt_in_an_encoder_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders["llava"], tmp_path / "encoder")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "is_encoder_decoder": True}))
    with pytest.raises(AuditedModelError, match="encoder"):
        load_generative(folder)
