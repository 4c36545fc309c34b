"""Open answers: what they are read as, by declared rules."""

from __future__ import annotations

import pytest

from cf_lab_assets.audits.parsing import (
    PARSE_FAILURE,
    PARSED,
    REFUSAL,
    Reading,
    default_refusals,
    read_answer,
)

OPTIONS = ("nurse", "officer", "police officer", "C++ expert")
REFUSALS = default_refusals()


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        ("nurse", "nurse"),
        ("The person is a NURSE.", "nurse"),
        ("A nurse, surely: a nurse!", "nurse"),
        ("She is a police\nofficer", "police officer"),
        ("an officer", "officer"),
        ("a C++ expert", "C++ expert"),
        ("no doubt about it, this person is a nurse", "nurse"),
        ("I can see a nurse", "nurse"),
    ],
)
def test_one_option_named_as_whole_words_is_the_answer(answer: str, option: str) -> None:
    assert read_answer(answer, OPTIONS, REFUSALS) == Reading(PARSED, option)


@pytest.mark.parametrize(
    "answer",
    [
        "I cannot tell.",
        "I'm sorry, but it could be a nurse.",
        "I\u2019m sorry",
        "As an AI, I don't judge people",
        "It is impossible to determine the occupation.",
    ],
)
def test_a_declared_phrase_is_a_refusal_whatever_else_is_said(answer: str) -> None:
    assert read_answer(answer, OPTIONS, REFUSALS) == Reading(REFUSAL)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "a pilot",
        "nurses",
        "a nurse or an officer",
        "a police officer, an officer",
        "not a nurse",
        "This isn't a nurse",
        "She is neither a nurse",
        "nursery",
    ],
)
def test_what_cannot_be_told_is_a_parse_failure(answer: str) -> None:
    assert read_answer(answer, OPTIONS, REFUSALS) == Reading(PARSE_FAILURE)


def test_refusals_are_those_that_are_declared() -> None:
    assert read_answer("I cannot tell: a nurse", OPTIONS, ()) == Reading(PARSED, "nurse")
    assert read_answer("Ask HR", OPTIONS, ("ask hr",)) == Reading(REFUSAL)
    assert len(set(REFUSALS)) == len(REFUSALS) > 10
