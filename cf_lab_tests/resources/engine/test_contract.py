"""What becomes of pictures that a model fails on, and which families are kin."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from PIL import Image

from cf_lab_resources.engine.batching import OutOfMemory
from cf_lab_resources.engine.contract import AuditedModelError, Missing, isolated
from cf_lab_resources.engine.families import families, family


def pictures(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (1, 1), (index, 0, 0)) for index in range(count)]


def number(image: Image.Image) -> int:
    return image.getpixel((0, 0))[0]


def test_only_the_picture_that_is_to_blame_has_no_answer() -> None:
    asked, reasons = [], []

    def ask(images: Sequence[Image.Image]) -> list[int]:
        asked.append([number(image) for image in images])
        if 4 in asked[-1]:
            raise ValueError("four\nis too many")
        return asked[-1]

    found = isolated(ask, pictures(7), 3, lambda *told: reasons.append(told))
    assert found == [0, 1, 2, 3, Missing("ValueError: four is too many"), 5, 6]
    assert reasons == [(4, "ValueError: four is too many")]
    assert asked == [[0, 1, 2], [3, 4, 5], [3], [4], [5], [6]]


def test_too_few_answers_are_no_answers() -> None:
    found = isolated(lambda images: [1], pictures(2), 1, lambda *_: None)
    assert found == [1, 1]
    (first, second) = isolated(lambda images: [], pictures(2), 2, lambda *_: None)
    assert first == second == Missing("0 answers to 1 pictures")


def test_whoever_is_told_of_a_failure_may_give_up() -> None:
    calls = []

    def ask(images: Sequence[Image.Image]) -> list[int]:
        calls.append(len(images))
        raise ValueError("broken")

    def give_up(index: int, why: str) -> None:
        raise KeyError(why)

    with pytest.raises(KeyError, match="broken"):
        isolated(ask, pictures(50), 10, give_up)
    assert calls == [10, *[1] * 10]


def test_what_is_wrong_with_the_model_is_no_picture_s_fault() -> None:
    def ask(images: Sequence[Image.Image]) -> list[int]:
        raise AuditedModelError("the key is wrong")

    with pytest.raises(AuditedModelError, match="key"):
        isolated(ask, pictures(5), 2, lambda *_: None)


def test_where_memory_runs_out_batches_are_halved() -> None:
    sizes = []

    def ask(images: Sequence[Image.Image]) -> list[int]:
        sizes.append(len(images))
        if len(images) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return [number(image) for image in images]

    assert isolated(ask, pictures(8), 8, lambda *_: None) == list(range(8))
    assert sizes == [8, 4, 2, 2, 4, 2, 2]

    def never(images: Sequence[Image.Image]) -> list[int]:
        raise RuntimeError("can't allocate memory")

    with pytest.raises(OutOfMemory, match="smaller batch"):
        isolated(never, pictures(2), 2, lambda *_: None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clip", "clip"),
        ("clip_vision_model", "clip"),
        ("siglip_text_model", "siglip"),
        ("siglip2_vision_model", "siglip"),
        ("idefics3_vision", "siglip"),
        ("llama", "llama"),
        ("resnet", "resnet"),
    ],
)
def test_towers_are_of_the_family_that_they_come_from(name: str, expected: str) -> None:
    assert family(name) == expected


def test_a_model_is_of_the_families_of_all_its_towers() -> None:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, SiglipConfig

    llava = LlavaConfig(vision_config=CLIPVisionConfig(), text_config=LlamaConfig())
    assert families(llava) == ("clip", "llama", "llava")
    assert families(SiglipConfig()) == ("siglip",)
