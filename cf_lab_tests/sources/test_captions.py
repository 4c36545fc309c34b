from __future__ import annotations

import pytest

from cf_lab_assets.sources.captions import (
    Rules,
    clean_caption,
    is_utf8,
    printable,
    split_columns,
    starter_rules,
)
from cf_lab_assets.sources.refusals import RowRefused

RULES = Rules({"gender": ("woman", "man")}, max_tokens=5, count_tokens=lambda t: len(t.split()))


def reason(text: str, rules: Rules = RULES) -> str:
    with pytest.raises(RowRefused) as caught:
        clean_caption(text, rules)
    return caught.value.reason


def test_white_space_is_made_single_spaces_and_unicode_is_composed() -> None:
    assert clean_caption("  a\tcafe\u0301\r\n \u00a0in  Rome ", RULES) == "a café in Rome"


@pytest.mark.parametrize("text", ["", "  \n\t ", "\ufeff"])
def test_an_empty_caption_is_refused(text: str) -> None:
    assert reason(text) == "empty_caption"


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b", "\x7f", "\x9b", "\u202e", "\u2066"])
def test_control_characters_are_refused(character: str) -> None:
    assert reason(f"a per{character}son") == "control_characters"


def test_joiners_that_scripts_and_emoji_need_are_kept() -> None:
    family = "\U0001f469\u200d\U0001f467 \u0646\u200c\u0648"
    assert clean_caption(family, RULES) == family


def test_captions_at_the_limit_are_taken_and_over_it_refused() -> None:
    assert clean_caption("one two three four five", RULES)
    assert reason("one two three four five six") == "caption_too_long"


def test_a_book_is_refused_before_it_is_counted() -> None:
    def never(text: str) -> int:
        raise AssertionError("counted")

    assert reason("x" * 20_000, Rules({}, 5, never)) == "caption_too_long"


def test_without_a_limit_long_captions_are_taken() -> None:
    assert clean_caption("word " * 500, Rules({}))


def test_a_limit_without_a_counter_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="together"):
        Rules({}, max_tokens=5)


def test_columns_are_split_into_attributes_and_the_rest() -> None:
    columns = {"gender": " man ", "note": "x", "empty": ""}
    assert split_columns(columns, RULES) == ({"gender": "man"}, {"note": "x"})


def test_an_absent_attribute_is_fine() -> None:
    assert split_columns({"gender": ""}, RULES) == ({}, {})
    assert split_columns({}, RULES) == ({}, {})


@pytest.mark.parametrize("value", ["Woman", "male", "woman, man"])
def test_an_unknown_value_is_refused_with_the_known_ones(value: str) -> None:
    with pytest.raises(RowRefused, match="one of woman, man") as caught:
        split_columns({"gender": value}, RULES)
    assert caught.value.reason == "unknown_attribute_value"


def test_what_goes_to_quarantine_is_valid_and_short() -> None:
    assert printable(None) is None
    assert printable("caf\udce9 \ud800") == "caf\\udce9 \\ud800"
    assert printable("x" * 2000) == "x" * 997 + "..."
    assert not is_utf8("caf\udce9")
    assert is_utf8("café \U0001f469")


def test_the_starter_rules_hold_captions_of_the_starter_world() -> None:
    from cf_lab_assets.starter import world

    rules = starter_rules()
    portrait = next(iter(world.sample(1, seed=3)))
    assert clean_caption(portrait.caption, rules) == portrait.caption
    assert split_columns(portrait.attributes, rules)[0] == portrait.attributes
    assert reason("zebra " * 100, rules) == "caption_too_long"
