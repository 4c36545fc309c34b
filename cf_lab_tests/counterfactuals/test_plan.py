import pytest

from cf_lab_assets.counterfactuals.plan import PLACEBO, plan_edits
from cf_lab_assets.starter import world


def source(caption, **attributes):
    return {"source_id": "s1", "caption": caption, "attributes": attributes}


def starter_source():
    portrait = world.Portrait("woman", "young", "dark", "judge", "street", seed=3)
    return source(portrait.caption, **portrait.attributes)


def test_every_other_value_and_one_placebo_is_planned():
    plan = plan_edits([starter_source()], list(world.ATTRIBUTES))
    assert [edit.edit_id for edit in plan.edits] == [
        "s1-placebo",
        "s1-gender-man",
        "s1-age-middle-aged",
        "s1-age-old",
        "s1-skin_tone-light",
        "s1-skin_tone-medium",
    ]
    assert plan.refusals == []


def test_an_edit_changes_one_value_and_names_all():
    edits = {edit.edit_id: edit for edit in plan_edits([starter_source()], ["gender"]).edits}
    edit = edits["s1-gender-man"]
    assert edit.from_values["gender"] == "woman"
    assert edit.to_values == {"gender": "man", "age": "young", "skin_tone": "dark"}
    assert edit.instruction == "turn the person into a young man with dark skin"
    assert edit.caption == starter_source()["caption"].replace("woman", "man")
    placebo = edits["s1-placebo"]
    assert placebo.kind == PLACEBO
    assert placebo.from_values == placebo.to_values
    assert placebo.caption == starter_source()["caption"]


def test_values_come_from_the_caption_where_metadata_is_silent():
    plan = plan_edits([source("a portrait of an old man")], ["age", "gender"])
    assert len(plan.edits) == 1 + 2 + 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (source("a portrait of a doctor"), "value_unknown"),
        (source("a portrait of a man", gender="woman"), "caption_contradicts"),
        (source("a portrait of a doctor", gender="woman"), "value_not_named"),
        (source("a man feeding his dog", gender="man"), "needs_grammar"),
    ],
)
def test_a_set_that_cannot_be_made_is_refused_with_a_reason(row, reason):
    plan = plan_edits([row], ["gender"])
    assert plan.edits == []
    assert [refusal.reason for refusal in plan.refusals] == [reason]


def test_an_attribute_out_of_the_taxonomy_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'shoe_size'.*gender"):
        plan_edits([starter_source()], ["shoe_size"])


def test_a_contradiction_in_one_attribute_refuses_the_source_whole():
    plan = plan_edits([source("a young man at work", gender="woman", age="young")], ["age"])
    assert plan.edits == []
    assert [refusal.reason for refusal in plan.refusals] == ["caption_contradicts"]
