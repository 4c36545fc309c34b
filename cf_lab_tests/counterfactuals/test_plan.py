import pytest
from hypothesis import given
from hypothesis import strategies as st

from cf_lab_assets.counterfactuals.attribute_sets import AttributeSet, AttributeUnknown, value_of
from cf_lab_assets.counterfactuals.plan import PLACEBO, Planner
from cf_lab_assets.counterfactuals.rewrite import CannotRewrite, Rewriter
from cf_lab_assets.counterfactuals.taxonomy import default_taxonomy
from cf_lab_assets.starter import world
from cf_lab_resources.catalog.ids import is_record_id

SOURCE_ID = "s0123456789abcde"


def source(caption, image_key="objects/images/00/0.png", extra=None, **attributes):
    return {
        "source_id": SOURCE_ID,
        "caption": caption,
        "attributes": attributes,
        "extra": extra or {},
        "image_key": image_key,
    }


def starter_source():
    portrait = world.Portrait("woman", "young", "dark", "judge", "street", seed=3)
    return source(portrait.caption, **portrait.attributes)


def plan_one(row, *attributes, **options):
    (planned,) = Planner(Rewriter(default_taxonomy()), attributes, **options).plan([row])
    return planned


def names(planned):
    return [edit.edit_id.removeprefix(f"{SOURCE_ID}-") for edit in planned.edits]


def test_every_other_value_and_one_placebo_is_planned():
    planned = plan_one(starter_source(), *world.ATTRIBUTES)
    assert names(planned) == [
        "placebo",
        "gender-man",
        "age-middle-aged",
        "age-old",
        "skin_tone-light",
        "skin_tone-medium",
    ]
    assert planned.refusals == []


def test_an_edit_changes_one_value_and_names_all():
    placebo, edit = plan_one(starter_source(), "gender").edits
    assert edit.from_values["gender"] == "woman"
    assert edit.to_values == {"gender": "man", "age": "young", "skin_tone": "dark"}
    assert edit.instruction == "turn the person into a young man with dark skin"
    assert edit.caption == starter_source()["caption"].replace("woman", "man")
    assert placebo.kind == PLACEBO
    assert placebo.from_values == placebo.to_values
    assert placebo.caption == starter_source()["caption"]


def test_an_intersection_has_all_combinations_but_the_sources_own():
    planned = plan_one(starter_source(), "age+gender")
    assert names(planned) == [
        "placebo",
        "gender+age-woman+middle-aged",
        "gender+age-woman+old",
        "gender+age-man+young",
        "gender+age-man+middle-aged",
        "gender+age-man+old",
    ]
    captions = {edit.caption for edit in planned.edits}
    assert len(captions) == 6
    edit = planned.edits[-1]
    assert "an old man with dark skin" in edit.caption
    assert edit.to_values == {"gender": "man", "age": "old", "skin_tone": "dark"}
    assert value_of(edit.from_values, edit.attribute) == "woman+young"


def test_the_ids_of_an_intersection_are_ids_that_can_be_looked_up():
    for edit in plan_one(starter_source(), "gender+age+skin_tone").edits[1:]:
        assert is_record_id(edit.edit_id)


def test_all_members_are_made_from_a_caption_that_names_what_is_varied():
    planned = plan_one(source("a photo of a doctor", gender="woman"), "gender")
    placebo, edit = planned.edits
    assert placebo.base_caption == placebo.caption == edit.base_caption
    assert "female" in placebo.caption
    assert edit.caption == placebo.caption.replace("female", "male")


def test_what_is_not_varied_is_not_inserted():
    planned = plan_one(source("a photo of a woman", gender="woman", age="old"), "gender")
    assert [edit.caption for edit in planned.edits] == ["a photo of a woman", "a photo of a man"]


def test_values_come_from_the_caption_where_metadata_is_silent():
    planned = plan_one(source("a portrait of an old man"), "age", "gender")
    assert len(planned.edits) == 1 + 2 + 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (source("a portrait of a doctor"), "value_unknown"),
        (source("a portrait of a man", gender="woman"), "caption_contradicts"),
        (source("a portrait of a nonbinary doctor"), "value_not_drawable"),
        (source("a woman and a man", gender="man"), None),
    ],
)
def test_a_set_that_cannot_be_made_is_refused_with_a_reason(row, reason):
    planned = plan_one(row, "gender")
    assert planned.edits == []
    (refusal,) = planned.refusals
    assert refusal.attribute == "gender"
    assert refusal.reason
    assert reason in (None, refusal.reason)
    assert row["caption"] in refusal.detail or "nonbinary" in refusal.detail


@pytest.mark.parametrize("text", ["shoe_size", "gender+shoe_size", "gender+gender", "race", ""])
def test_what_the_editor_cannot_draw_is_refused_by_name(text):
    with pytest.raises(AttributeUnknown, match=repr(text.split("+")[-1]) + "|twice"):
        AttributeSet.parse(text, world.ATTRIBUTES)


def test_a_value_that_can_not_be_said_does_not_refuse_the_others():
    row = source("A portrait of a girl", gender="woman", age="young", skin_tone="dark")
    planned = plan_one(row, *world.ATTRIBUTES)
    assert [(refusal.attribute, refusal.detail) for refusal in planned.refusals] == [
        ("age", refusal_of(row["caption"], age="young"))
    ]
    assert names(planned) == ["placebo", "gender-man", "skin_tone-light", "skin_tone-medium"]
    assert {edit.base_caption for edit in planned.edits} == {"A portrait of a dark-skinned girl"}


def refusal_of(caption, **values):
    with pytest.raises(CannotRewrite) as refused:
        Rewriter(default_taxonomy()).rewrite(caption, values)
    return str(refused.value)


def test_a_value_that_makes_a_cell_ambiguous_refuses_the_source():
    row = source("a portrait of a woman", extra={"occupation": "R+D engineer"})
    planned = plan_one(row, "gender", over=("occupation", "gender"))
    assert (planned.cell, planned.edits) == (None, [])
    assert [refusal.reason for refusal in planned.refusals] == ["cell_ambiguous"]
    assert plan_one(row, "gender", over=("occupation",)).cell == "R+D engineer"


def test_nothing_to_vary_is_refused():
    with pytest.raises(AttributeUnknown, match="gender"):
        Planner(Rewriter(default_taxonomy()), [])


def test_other_editors_draw_other_values():
    drawable = {"gender": ("woman", "man", "nonbinary")}
    planned = plan_one(source("a portrait of a woman"), "gender", drawable=drawable)
    assert names(planned) == ["placebo", "gender-man", "gender-nonbinary"]


def test_a_contradiction_in_one_attribute_refuses_the_source_whole():
    row = source("a young man at work", gender="woman", age="young")
    planned = plan_one(row, "age", "skin_tone")
    assert planned.edits == []
    assert [refusal.reason for refusal in planned.refusals] == ["caption_contradicts"] * 2


def test_for_captions_alone_all_values_are_edits_where_its_own_is_unknown():
    alone = {"strategy": "captions"}
    planned = plan_one(source("a photo of a doctor", image_key=None), "gender", "age", **alone)
    assert names(planned) == [
        "base",
        "gender-woman",
        "gender-man",
        "age-young",
        "age-middle-aged",
        "age-old",
    ]
    named = plan_one(source("a photo of a woman", image_key=None), "gender", **alone)
    assert names(named) == ["base", "gender-man"]
    assert {edit.instruction for edit in named.edits} == {None}


def test_a_cell_is_made_of_attributes_and_columns():
    row = source("a portrait of a woman", extra={"occupation": "judge"})
    planned = plan_one(row, "gender", over=("gender", "occupation"))
    assert planned.cell == "woman+judge"
    assert {edit.cell for edit in planned.edits} == {"woman+judge"}


def test_a_source_without_a_cell_is_refused_with_a_reason():
    planned = plan_one(source("a portrait of a woman"), "gender", over=("occupation",))
    assert planned.edits == []
    assert [refusal.reason for refusal in planned.refusals] == ["cell_unknown"]


@given(st.permutations(list(world.ATTRIBUTES)), st.integers(1, 3))
def test_the_written_form_of_an_intersection_does_not_depend_on_the_order(order, count):
    parsed = AttributeSet.parse("+".join(order[:count]), world.ATTRIBUTES)
    again = AttributeSet.parse(parsed.name, world.ATTRIBUTES)
    assert parsed == again
    members = list(parsed.members())
    sizes = [len(world.ATTRIBUTES[name]) for name in order[:count]]
    expected = 1
    for size in sizes:
        expected *= size
    assert len(members) == len({value_of(member, parsed.name) for member in members}) == expected
