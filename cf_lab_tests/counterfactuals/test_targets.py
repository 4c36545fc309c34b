import pytest

from cf_lab_assets.counterfactuals.sampling import TargetError
from cf_lab_assets.counterfactuals.targets import SamplingPlan, Target, parse_target
from cf_lab_assets.starter.world import ATTRIBUTES

WORLD = {"woman+old": 6, "man+young": 2}


def target(kind, over=("gender", "age"), total=60, **fields):
    return Target(over, kind, total, **fields)


def test_uniform_means_every_cell_that_can_be_also_those_that_no_source_has():
    shares = target("uniform").shares(WORLD, ATTRIBUTES)
    assert len(shares) == 6
    assert set(shares.values()) == {1.0}


def test_the_cells_of_a_column_are_those_that_the_sources_have():
    shares = target("uniform", ("occupation",)).shares({"judge": 4, "nurse": 1}, ATTRIBUTES)
    assert shares == {"judge": 1.0, "nurse": 1.0}


@pytest.mark.parametrize("kind", ["uniform", "weights", "marginals"])
def test_a_value_of_a_column_may_hold_what_joins_the_values_of_a_cell(kind):
    given = {
        "weights": {"weights": {"R+D engineer": 1.0}},
        "marginals": {"marginals": {"occupation": {"R+D engineer": 1.0}}},
    }.get(kind, {})
    shares = target(kind, ("occupation",), **given).shares({"R+D engineer": 4}, ATTRIBUTES)
    assert shares == {"R+D engineer": 1.0}


def test_as_the_world_means_the_proportions_of_the_sources():
    assert target("as_the_world").shares(WORLD, ATTRIBUTES) == {"man+young": 2, "woman+old": 6}


def test_cells_that_are_not_aimed_at_are_reported_with_no_quota():
    wanted = target("weights", weights={"woman+old": 1.0})
    shares = wanted.shares(WORLD, ATTRIBUTES)
    assert shares == {"man+young": 0.0, "woman+old": 1.0}
    plan = SamplingPlan.make(wanted, ["gender"], shares, {("gender", "man+young"): 2})
    rows = {row["cell"]: row for row in plan.rows()}
    assert rows["man+young"]["quota"] == 0
    assert rows["man+young"]["outcome"] == "met"
    assert rows["woman+old"]["quota"] == 60
    assert rows["woman+old"]["shortfall"] == 60
    assert rows["woman+old"]["outcome"] == "no_sources"


def test_marginals_make_cells_in_the_order_of_the_target():
    marginals = {"age": {"old": 1, "young": 1}, "gender": {"woman": 3, "man": 1}}
    shares = target("marginals", marginals=marginals).shares(WORLD, ATTRIBUTES)
    assert shares["woman+old"] == pytest.approx(0.375)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (target("weights", weights={"woman": 1.0}), r"'woman'.*gender, age"),
        (target("weights", weights={"woman+ancient": 1.0}), r"age 'ancient'.*middle-aged"),
        (target("marginals", marginals={"gender": {"woman": 1}}), r"\['gender'\].*\['age', 'gen"),
        (
            target("marginals", marginals={"gender": {"elf": 1}, "age": {"old": 1}}),
            r"gender 'elf'.*woman",
        ),
    ],
)
def test_a_target_that_cannot_be_is_refused_by_name(made, said):
    with pytest.raises(TargetError, match=said):
        made.shares(WORLD, ATTRIBUTES)


@pytest.mark.parametrize("kind", ["as_the_world", "uniform"])
def test_a_target_of_which_no_source_has_a_cell_says_so(kind):
    with pytest.raises(TargetError, match=r"no source .* one of gender, occupation; name"):
        target(kind, ("gender", "occupation")).shares({}, ATTRIBUTES)


def test_weights_may_be_as_large_as_a_number_can_be():
    huge = {"woman+old": 1.5e308, "man+young": 1.5e308}
    wanted = target("weights", weights=huge)
    plan = SamplingPlan.make(wanted, ["gender"], wanted.shares(WORLD, ATTRIBUTES), {})
    assert plan.shares == [0.5, 0.5]
    marginals = {"gender": {"woman": 1.5e308, "man": 1.5e308}}
    made = target("marginals", ("gender",), marginals=marginals).shares({}, ATTRIBUTES)
    assert made == {"man": 0.5, "woman": 0.5}


@pytest.mark.parametrize(
    ("kind", "over", "said"),
    [
        ("fair", ["age"], "'fair'.*uniform"),
        ("uniform", [], "over"),
        ("uniform", ["age"] * 2, "once"),
    ],
)
def test_configuration_that_says_no_target_is_refused(kind, over, said):
    with pytest.raises(TargetError, match=said):
        parse_target(kind, over=tuple(over), total=1)


def test_each_attribute_set_gets_an_equal_part_and_a_plan_comes_back_from_json():
    wanted = target("uniform", total=600, budget=50, seed=3)
    shares = wanted.shares(WORLD, ATTRIBUTES)
    offered = {(name, cell): 70 for name in ("gender", "gender+age") for cell in shares}
    plan = SamplingPlan.make(wanted, ["gender", "gender+age"], shares, offered)
    assert set(plan.sampler.quota) == {50}
    plan.believe({("gender", "woman+old"): (10, 5)})
    again = SamplingPlan.from_json(plan.to_json())
    assert again.to_json() == plan.to_json()
    assert again.target == wanted
    assert again.identity() == plan.identity()
