import pytest

from cf_lab_assets.counterfactuals.rewrite import CannotRewrite, mentions, named_value, rewrite


@pytest.mark.parametrize(
    ("caption", "attribute", "value", "expected"),
    [
        ("a young woman in a park", "age", "old", "an old woman in a park"),
        ("An old man", "age", "young", "A young man"),
        ("a man with light skin", "skin_tone", "dark", "a man with dark skin"),
        ("two women talking", "gender", "man", "two men talking"),
        ("Woman at work", "gender", "man", "Man at work"),
        ("a female doctor", "gender", "man", "a male doctor"),
        ("a light-skinned judge", "skin_tone", "medium", "a medium-skinned judge"),
        ("the middle-aged chef", "age", "old", "the old chef"),
    ],
)
def test_a_value_is_changed_and_the_article_with_it(caption, attribute, value, expected):
    assert rewrite(caption, attribute, value).caption == expected


@pytest.mark.parametrize(
    ("caption", "attribute", "reason"),
    [
        ("a doctor in a park", "gender", "value_not_named"),
        ("a woman and a man", "gender", "several_mentions"),
        ("a woman with her dog", "gender", "needs_grammar"),
        ("a woman and his dog", "gender", "needs_grammar"),
        ("an old house behind a woman", "age", "needs_grammar"),
    ],
)
def test_what_is_not_sure_is_refused_with_a_reason(caption, attribute, reason):
    with pytest.raises(CannotRewrite) as refused:
        rewrite(caption, attribute, {"gender": "man", "age": "young"}[attribute])
    assert refused.value.reason == reason
    assert caption in str(refused.value)


def test_an_unknown_value_is_refused():
    with pytest.raises(CannotRewrite, match="no forms are known for gender"):
        rewrite("a woman", "gender", "robot")


def test_words_inside_other_words_are_no_mentions():
    assert mentions("a salesman in Manchester with a ladybird", "gender") == []
    assert named_value("a policewoman", "gender") is None


def test_there_and_back_is_the_same_caption():
    caption = "a portrait of an old woman with dark skin working as a judge"
    there = rewrite(caption, "age", "young").caption
    assert there != caption
    assert rewrite(there, "age", "old").caption == caption


def test_an_explanation_says_what_was_changed():
    assert rewrite("a young man", "age", "old").explanation == 'age: "young" became "old"'
