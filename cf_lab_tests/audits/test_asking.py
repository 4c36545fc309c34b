"""Asking models of every kind, what becomes of their failures, and what is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cf_lab_assets.audits import association, checks, metrics, tallies
from cf_lab_assets.audits.answers import read_answers
from cf_lab_assets.audits.asking import NO_SCORE
from cf_lab_assets.audits.assets import responses
from cf_lab_assets.audits.declaration import AuditConfig
from cf_lab_assets.audits.errors import AuditError
from cf_lab_assets.audits.parsing import OUTCOMES, PARSE_FAILURE, PARSED, REFUSAL
from cf_lab_assets.models import audited
from cf_lab_resources.bucket import Bucket, open_bucket
from cf_lab_resources.dagster import BucketResource
from cf_lab_resources.engine.contract import Ask, Audited
from cf_lab_resources.engine.loading import load_generative
from cf_lab_resources.engine.questions import (
    ASSOCIATION,
    FORCED_CHOICE,
    OPEN,
    Choice,
    Question,
    choose,
)
from cf_lab_tests.audits.synthetic import DATASET_HASH, put_dataset
from cf_lab_tests.resources.engine.vlms import tiny_llava

QUESTION = Question(name="job", text="what is the occupation ?", options=("doctor", "nurse"))
CONFIG = AuditConfig(
    occupations=("doctor", "nurse"), primary=(), questions=(QUESTION,), maximum_failures=0.2
)
SOURCES = 3


class Scripted(Audited):
    """Answers by script; a picture is known by the red of its first pixel."""

    formats = (ASSOCIATION, FORCED_CHOICE, OPEN)

    def __init__(self, broken: Callable[[int], bool] = lambda red: False) -> None:
        self.broken = broken

    def describe(self) -> dict[str, Any]:
        return {"model_type": "scripted", "families": ["scripted"], "sha256": None}

    def _ask(self, answer: Callable[[int], Any]) -> Ask[Any]:
        def ask(images: Sequence[Image.Image]) -> list[Any]:
            reds = [image.getpixel((0, 0))[0] for image in images]
            if any(self.broken(red) for red in reds):
                raise ValueError("a broken picture")
            return [answer(red) for red in reds]

        return ask

    def associate(self, prompts: Sequence[str]) -> Ask[Sequence[float]]:
        return self._ask(lambda red: [red / 255 + place for place in range(len(prompts))])

    def choose(self, question: Question) -> Ask[Choice]:
        # Whatever is listed first is likelier: nothing but a preference for the position.
        first = np.where(np.eye(len(question.options), dtype=bool), -1.0, -3.0)
        return self._ask(lambda red: choose(question, first))

    def speak(self, text: str, max_tokens: int) -> Ask[str]:
        said = ("a nurse, I think", "I cannot tell", "hm")
        return self._ask(lambda red: said[red % 3])


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket"


@pytest.fixture
def bucket(url: str) -> Bucket:
    return open_bucket(url)


@pytest.fixture
def pairs(bucket: Bucket) -> pa.Table:
    return put_dataset(bucket, SOURCES)


@pytest.fixture
def respond(bucket: Bucket, pairs: pa.Table, tmp_path: Path) -> Callable[..., pa.Table]:
    def run(model: Audited, config: AuditConfig = CONFIG, batch: int = 4) -> pa.Table:
        path = tmp_path / "responses.parquet"
        association.respond(model, "m", bucket, pairs, config, path, DATASET_HASH, batch)
        return pq.read_table(path)

    return run


def rows_of(table: pa.Table, kind: str) -> pa.Table:
    return table.filter(pc.equal(table["format"], kind))


def test_every_picture_has_a_row_for_each_thing_asked(
    respond: Callable[..., pa.Table], pairs: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(association, "STREAMED", 5)
    monkeypatch.setattr(association, "WRITTEN", 7)
    table = respond(Scripted(), batch=2)
    assert len(table) == (len(pairs) + SOURCES) * (2 + 2 + 1)
    assert Counter(table["format"].to_pylist()) == {
        ASSOCIATION: 2 * (len(pairs) + SOURCES),
        FORCED_CHOICE: 2 * (len(pairs) + SOURCES),
        OPEN: len(pairs) + SOURCES,
    }
    assert table["failure"].null_count == len(table)
    first = table.filter(pc.equal(table["pair_id"], pairs["pair_id"][4]))
    assert first["format"].to_pylist() == [ASSOCIATION] * 2 + [FORCED_CHOICE] * 2 + [OPEN]
    assert first["prompt"].to_pylist() == ["doctor", "nurse", "doctor", "nurse", None]
    assert first["question"].to_pylist() == [None, None, "job", "job", "job"]
    assert checks.responses_are_complete(table, pairs, CONFIG, Scripted.formats).passed
    short = checks.responses_are_complete(table.slice(0, 4), pairs, CONFIG, Scripted.formats)
    assert not short.passed
    assert short.metadata["members_unanswered"].value == len(pairs)


def test_pure_position_bias_is_averaged_out_and_recorded(
    respond: Callable[..., pa.Table],
) -> None:
    table = rows_of(respond(Scripted()), FORCED_CHOICE)
    np.testing.assert_allclose(table["score"].to_numpy(), 0.5, atol=1e-6)
    assert table["prediction"].null_count == len(table)
    biased = 1 / (1 + np.exp(-2.0)) - 0.5
    np.testing.assert_allclose(table["position_bias"].to_numpy(), biased, atol=1e-6)
    doctor = table.filter(pc.equal(table["prompt"], "doctor"))
    assert doctor["likelihoods"][0].as_py() == [-1.0, -3.0]


def test_parsed_answers_refusals_and_parse_failures_are_counted_apart(
    respond: Callable[..., pa.Table], pairs: pa.Table
) -> None:
    table = respond(Scripted())
    spoken = rows_of(table, OPEN)
    assert set(spoken["outcome"].to_pylist()) == set(OUTCOMES)
    for row in spoken.to_pylist():
        assert row["prediction"] == ("nurse" if row["outcome"] == PARSED else None)
        assert row["answer"] == {
            PARSED: "a nurse, I think", REFUSAL: "I cannot tell", PARSE_FAILURE: "hm"
        }[row["outcome"]]  # fmt: skip
    counted = tallies.outcomes(table)
    groups = {(one["attribute"], one["value"]) for one in counted}
    values = set(zip(pairs["attribute"].to_pylist(), pairs["value"].to_pylist(), strict=True))
    assert groups == values | {("", "")}
    for one in counted:
        parts = (one["answered"], one[REFUSAL], one[PARSE_FAILURE], one["missing"])
        assert sum(parts) == one["pictures"] > 0
    women = next(o for o in counted if o["value"] == "woman" and o["format"] == OPEN)
    told = Counter(row["outcome"] for row in spoken.to_pylist() if row["value"] == "woman")
    assert (women["answered"], women[REFUSAL]) == (told[PARSED], told[REFUSAL])


def test_a_picture_that_fails_is_missing_with_its_reason_and_no_other(
    respond: Callable[..., pa.Table], pairs: pa.Table
) -> None:
    # The source pictures' reds are 255, 3, 6; those of members 253, 5, 8.
    table = respond(Scripted(lambda red: red == 3))
    broken = pc.and_(pc.equal(table["role"], "source"), pc.equal(table["pair_id"], f"s{1:015}"))
    lost, kept = table.filter(broken), table.filter(pc.invert(broken))
    assert len(lost) == 5
    assert set(lost["failure"].to_pylist()) == {"ValueError: a broken picture"}
    for column in ("score", "prediction", "answer", "outcome", "likelihoods", "position_bias"):
        assert lost[column].null_count == len(lost)
    assert kept["failure"].null_count == len(kept)
    assert association.audit_of(table)["failed_pictures"] == 1
    complete = checks.responses_are_complete(table, pairs, CONFIG, Scripted.formats)
    assert complete.passed
    assert complete.metadata["failures"].value == 5
    assert next(o for o in tallies.outcomes(table) if not o["value"])["missing"] == 1
    answers = read_answers(table, CONFIG)["gender"]
    assert np.isnan(answers.sources[1]).all()
    assert np.isfinite(answers.sources[[0, 2]]).all()
    # Of the association format only: a forced choice between the same words has scores too.
    np.testing.assert_allclose(answers.members[..., 1] - answers.members[..., 0], 1, atol=1e-6)


def test_pictures_that_fail_are_counted_across_what_is_streamed(
    respond: Callable[..., pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(association, "STREAMED", 1)
    table = respond(Scripted(lambda red: red in (3, 6)))
    assert association.audit_of(table)["failed_pictures"] == 2
    assert association.audit_of(table)["pictures"] == 27


def test_too_many_failures_leave_no_responses(
    respond: Callable[..., pa.Table], tmp_path: Path
) -> None:
    strict = CONFIG.model_copy(update={"maximum_failures": 0.02})
    with pytest.raises(AuditError, match=r"m failed on 1 of 27 pictures.*2\.0%.*broken picture"):
        respond(Scripted(lambda red: red == 3), strict)
    assert not (tmp_path / "responses.parquet").exists()
    with pytest.raises(AuditError, match="failed on 6 of 27"):
        respond(Scripted(lambda red: True))


def test_a_score_that_is_no_number_is_missing_alone(respond: Callable[..., pa.Table]) -> None:
    class Gaps(Scripted):
        formats = (ASSOCIATION,)

        def associate(self, prompts: Sequence[str]) -> Ask[Sequence[float]]:
            return self._ask(lambda red: [1.0, float("nan") if red == 3 else 0.5])

    table = respond(Gaps())
    lost = table.filter(pc.is_valid(table["failure"]))
    assert lost["prompt"].to_pylist() == ["nurse"]
    assert lost["failure"].to_pylist() == [NO_SCORE]
    assert lost["score"].to_pylist() == [None]
    assert association.audit_of(table)["failed_pictures"] == 1


def test_a_model_that_nothing_declared_suits_is_refused(respond: Callable[..., pa.Table]) -> None:
    class Mute(Scripted):
        formats = (OPEN,)

    with pytest.raises(AuditError, match="declare questions"):
        respond(Mute(), CONFIG.model_copy(update={"questions": ()}))


def test_a_generative_model_is_audited_in_both_formats(
    respond: Callable[..., pa.Table], pairs: pa.Table, tmp_path: Path
) -> None:
    model = load_generative(tiny_llava(tmp_path / "llava"))
    config = CONFIG.model_copy(update={"maximum_tokens": 4})
    table = respond(model, config)
    chosen = rows_of(table, FORCED_CHOICE)
    pictures = len(pairs) + SOURCES
    assert len(chosen) == 2 * pictures
    np.testing.assert_allclose(chosen["score"].to_numpy().reshape(-1, 2).sum(axis=1), 1, atol=1e-5)
    assert len(set(chosen["score"].to_pylist())) > pictures  # pictures make a difference
    assert set(rows_of(table, OPEN)["outcome"].to_pylist()) <= set(OUTCOMES)
    assert checks.responses_are_complete(table, pairs, config, model.formats).passed
    # Metrics of association have no rows here, and say so rather than give numbers.
    computed = metrics.compute(table)
    assert {one["verdict"] for one in computed["results"]} == {"insufficient"}


@pytest.mark.parametrize(
    ("families", "scorer", "passed"),
    [
        (["clip", "llama", "llava"], "clip", False),
        (["clip", "llama", "llava"], "siglip", True),
        (["qwen2_vl", "siglip"], "siglip2", False),
        (["foo"], "siglip", True),
        ([], "siglip", False),
    ],
    ids=["a tower's", "of none", "a kin's", "declared", "not declared"],
)
def test_towers_and_declared_families_count_for_circularity(
    families: list[str], scorer: str, passed: bool
) -> None:
    models = {"encoder": {"name": "s", "family": scorer, "sha256": "1"}}
    described = {"model_type": families[0] if families else None, "families": families}
    result = checks.audited_model_is_not_the_scorer({**described, "sha256": None}, models)
    assert result.passed == passed


@pytest.mark.parametrize("family", ["#family=foo", ""])
def test_a_callable_is_audited_as_an_asset_where_its_family_is_declared(
    family: str, url: str, pairs: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "colours.py").write_text(
        "def score(images, prompts):\n"
        "    reds = [image.getpixel((0, 0))[0] for image in images]\n"
        "    return [[red + len(prompt) for prompt in prompts] for red in reds]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    # The assets are those of the process; which model stands behind one of them is read anew.
    monkeypatch.setenv("CF_LAB_AUDITED", f"starter-balanced=python://colours:score{family}")
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            [responses[0]],
            instance=instance,
            resources={"bucket": BucketResource(url=url)},
            raise_on_error=False,
        )
    evaluated = {one.check_name: one.passed for one in done.get_asset_check_evaluations()}
    assert evaluated == {
        checks.RESPONSES_ARE_COMPLETE: True,
        checks.AUDITED_MODEL_IS_NOT_THE_SCORER: bool(family),
    }
    (event,) = done.asset_materializations_for_node("audits__responses__starter_balanced")
    assert event.metadata["formats"].value == ASSOCIATION
    assert event.metadata["pictures"].value == len(set(pairs["image_sha256"].to_pylist())) + SOURCES


def test_an_audited_model_that_is_not_configured_is_unknown(bucket: Bucket) -> None:
    with pytest.raises(audited.ModelUnknown, match="starter-balanced"):
        audited.open_audited("gpt", bucket, 4)


class Counting(Scripted):
    """A model whose files the lab has, and that counts what it is shown."""

    def __init__(self, broken: Callable[[int], bool] = lambda red: False, files: str = "a") -> None:
        super().__init__(broken)
        self.shown: set[bytes] = set()
        self.files = files

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "files": {"model.safetensors": self.files}}

    def _ask(self, answer: Callable[[int], Any]) -> Ask[Any]:
        asked = super()._ask(answer)

        def ask(images: Sequence[Image.Image]) -> list[Any]:
            self.shown |= {image.tobytes() for image in images}
            return list(asked(images))

        return ask


def test_a_model_is_asked_about_new_pictures_only_and_the_table_is_the_same(
    bucket, pairs, tmp_path, respond
):
    some = pairs.slice(0, len(pairs) // 2)
    first = Counting()
    association.respond(first, "m", bucket, some, CONFIG, tmp_path / "some", DATASET_HASH)
    second, anew = Counting(), Scripted()
    table = respond(second)
    assert first.shown
    assert second.shown
    assert not first.shown & second.shown
    assert table.equals(respond(anew)), "one that was asked about all of them at once"
    third = Counting()
    assert respond(third).equals(table)
    assert not third.shown


def test_other_files_another_declaration_or_a_damaged_memory_have_all_asked_anew(bucket, respond):
    first = Counting()
    respond(first)
    other = Counting(files="b")
    respond(other)
    assert other.shown == first.shown
    declared = Counting()
    respond(declared, CONFIG.model_copy(update={"prompt_template": "a picture of {occupation}"}))
    assert declared.shown == first.shown
    for info in list(bucket.list("audits/answers")):
        bucket.put_bytes(info.key, b"damaged")
    after = Counting()
    respond(after)
    assert after.shown == first.shown


def test_a_picture_that_failed_is_asked_about_again(respond):
    respond(Counting(lambda red: red == 3))
    again = Counting()
    table = respond(again)
    assert {picture[0] for picture in again.shown} == {3}
    assert table["failure"].null_count == len(table)


def test_an_endpoint_is_asked_anew_each_time(bucket, respond):
    respond(Scripted())
    assert not list(bucket.list("audits/answers"))
