"""Edit plan, draws and checks as Dagster runs them, on the shipped models."""

import dagster as dg
import pytest

from cf_lab_assets import names
from cf_lab_assets.counterfactuals import checks, config, tables
from cf_lab_assets.counterfactuals.assets import draw_and_score, edit_plan
from cf_lab_resources.dagster import BucketResource

SAMPLING = {"target": "as_the_world", "over": ["gender"], "total_sets": 4, "seed": 1}


@pytest.fixture
def materialise(bucket, batch, tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(names.SOURCE_BATCHES.name), [batch])

        def run(selection, **plan):
            return dg.materialize(
                [edit_plan, draw_and_score],
                selection=selection,
                instance=instance,
                partition_key=batch,
                resources={"bucket": BucketResource(url=f"file://{tmp_path / 'bucket'}")},
                run_config={"ops": {"counterfactuals__edit_plan": {"config": plan}}}
                if edit_plan in selection
                else None,
                raise_on_error=False,
            )

        yield run


def metadata(result, node, key):
    (event,) = [
        event for event in result.asset_materializations_for_node(node) if event.asset_key == key
    ]
    return {
        name: [record.data for record in value.records]
        if isinstance(value, dg.TableMetadataValue)
        else value.value
        for name, value in event.metadata.items()
    }


def failure(result):
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data.user_failure_data.description


def test_a_sampled_batch_reports_its_quotas_and_evaluates_every_check(materialise, bucket, batch):
    result = materialise(
        [edit_plan, draw_and_score], attributes=["gender", "age+gender"], sampling=SAMPLING
    )
    assert result.success
    evaluated = {one.check_name: one for one in result.get_asset_check_evaluations()}
    assert evaluated.keys() == {spec.name for spec in checks.SPECS}
    replayed = evaluated.pop(checks.REPLAY)
    assert replayed.passed
    assert replayed.metadata["compared"].value == replayed.metadata["identical"].value >= 1
    assert not any(one.passed for one in evaluated.values()), "too few to tell"

    planned = metadata(result, "counterfactuals__edit_plan", names.EDIT_PLAN)
    assert sum(row["quota"] for row in planned["quotas"]) == 4
    assert {row["attribute"] for row in planned["quotas"]} == {"gender", "gender+age"}
    assert planned["quotas plot"].startswith("![")
    assert len(planned["quotas plot"]) < 100_000
    drawn = metadata(result, "draw_and_score", names.ACCEPTED_SETS)
    stored = tables.read_rows(bucket, batch, "quotas")
    assert [row["accepted"] for row in drawn["quotas"]] == [row["accepted"] for row in stored]
    accepted = tables.read_rows(bucket, batch, "accepted_sets")
    assert len(accepted) == drawn["dagster/row_count"] == sum(row["accepted"] for row in stored)
    assert drawn["rounds"] >= 1

    chunks = {info.key: bucket.get_bytes(info.key) for info in bucket.list("counterfactuals")}
    again = materialise([draw_and_score])
    assert again.success
    assert {i.key: bucket.get_bytes(i.key) for i in bucket.list("counterfactuals")} == chunks


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"attributes": ["shoe_size"]}, "'shoe_size'.*gender"),
        ({"attributes": ["race"]}, "'race'.*can't be drawn"),
        ({"sampling": {**SAMPLING, "target": "fair"}}, "'fair'"),
        (
            {"sampling": {**SAMPLING, "target": "weights", "weights": {"elf": 1.0}}},
            "gender 'elf'.*woman",
        ),
    ],
)
def test_a_plan_that_cannot_be_fails_by_name_and_leaves_the_old_one(
    materialise, bucket, batch, plan, said
):
    assert materialise([edit_plan]).success
    before = {info.key: bucket.get_bytes(info.key) for info in bucket.list("counterfactuals")}
    result = materialise([edit_plan], **plan)
    assert not result.success
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(failure(result))
    assert {i.key: bucket.get_bytes(i.key) for i in bucket.list("counterfactuals")} == before


@pytest.mark.parametrize("table", tables.TABLES)
def test_every_column_is_explained(table):
    assert set(tables.schema(table).names) <= set(tables.MEANING)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("attributes: [gender]\nsampling: {total_sets: -1}\n", "sampling.total_sets"),
        ("atributes: [gender]\n", "atributes"),
        ("sampling: {targets: uniform}\n", "sampling.targets"),
        ("[gender]", "must hold fields"),
        ("a: [", "can't be read as YAML"),
    ],
)
def test_a_plan_file_that_cannot_be_taken_is_refused_by_field(tmp_path, text, said):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(config.PlanFileError, match=said) as refused:
        config.read_plan_file(path)
    assert str(path) in str(refused.value)


def test_a_plan_file_gives_the_configuration_of_the_edit_plan(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("attributes: [gender+age]\nsampling: {target: uniform, over: [age]}\n")
    read = config.read_plan_file(path)
    assert read["attributes"] == ["gender+age"]
    assert read["sampling"]["target"] == "uniform"
