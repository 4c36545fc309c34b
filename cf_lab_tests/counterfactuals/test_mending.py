"""Stored candidates that were damaged: found when a batch is run again, and drawn as they were."""

from dataclasses import replace

import dagster as dg
import pytest

from cf_lab_assets import names
from cf_lab_assets.counterfactuals import assets, dataset, tables
from cf_lab_assets.counterfactuals.assets import draw_and_score, edit_plan
from cf_lab_assets.counterfactuals.rounds import planned_work
from cf_lab_resources.dagster import BucketResource
from cf_lab_resources.engine.pictures import decode, encode

DAMAGES = {
    "flipped": lambda png: png[: len(png) // 2] + bytes([png[len(png) // 2] ^ 1]) + png[-9:],
    "truncated": lambda png: png[: len(png) // 2],
    "emptied": lambda png: b"",
    "replaced by another picture": lambda png: encode(decode(png).rotate(90)),
}
DRAW = {"draw_and_score": {"config": {"max_draws": 2, "chunk_sources": 1}}}


@pytest.fixture
def run(bucket, batch, tmp_path):
    """Runs steps on the batch; what they said as warnings."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(names.SOURCE_BATCHES.name), [batch])

        def materialise(*steps):
            of_batch = draw_and_score in steps
            result = dg.materialize(
                [edit_plan, draw_and_score, assets.counterfactual_dataset],
                selection=list(steps),
                instance=instance,
                partition_key=batch if of_batch else None,
                resources={"bucket": BucketResource(url=f"file://{tmp_path / 'bucket'}")},
                run_config={"ops": DRAW} if of_batch else None,
                raise_on_error=False,
            )
            logs = instance.all_logs(result.run_id)
            said = [log.user_message for log in logs if log.level >= 30 and not log.dagster_event]
            return result, said

        yield materialise


@pytest.fixture
def made(run, bucket, batch):
    """A batch that was drawn and made a dataset: its hash and tables."""
    assert run(edit_plan, draw_and_score)[0].success
    assert run(assets.counterfactual_dataset)[0].success
    return dataset.latest_hash(bucket), stored(bucket, batch)


def stored(bucket, batch):
    return {
        table: tables.read_rows(bucket, batch, table)
        for table in ("candidates", "pair_scores", "accepted_sets", "rejected_sets")
    }


def keys_of(written):
    """Keys of the first accepted candidate's picture and of the first that was not."""
    rows = zip(written["candidates"], written["pair_scores"], strict=True)
    by_fate = {scored["accepted"]: row["image_key"] for row, scored in reversed(list(rows))}
    assert by_fate.keys() == {True, False}
    return list(by_fate.values())


def test_damaged_and_missing_candidates_are_drawn_again_as_they_were(run, made, bucket, batch):
    content_hash, written = made
    keys = keys_of(written)
    whole = {key: bucket.get_content(key) for key in keys}
    for what, damage in {**DAMAGES, "deleted": None}.items():
        for key in keys:
            if damage:
                bucket.put_bytes(key, damage(whole[key]))
            else:
                bucket.delete([key])
            assert not bucket.is_intact(key), what
        result, said = run(draw_and_score)
        assert result.success
        assert {key: bucket.get_bytes(key) for key in keys} == whole, what
        assert any("drawn again, and the same" in line for line in said), said
        assert stored(bucket, batch) == written
    assert run(draw_and_score)[1] == [], "nothing is left to say"
    assert run(assets.counterfactual_dataset)[0].success
    assert dataset.latest_hash(bucket) == content_hash


def test_what_does_not_come_out_the_same_is_said_and_its_chunk_is_drawn_anew(
    run, made, bucket, batch, monkeypatch
):
    _, written = made
    key = keys_of(written)[0]
    bucket.delete([key])
    load = assets._load

    def of_another_device(*args):
        loaded = load(*args)
        draw = loaded.editor.draw

        def turned(drawings):
            return [[picture.rotate(180) for picture in drawn] for drawn in draw(drawings)]

        loaded.editor.draw = turned
        return replace(loaded, engine="another")

    monkeypatch.setattr(assets, "_load", of_another_device)
    result, said = run(draw_and_score)
    assert result.success
    assert any("do not come out as they were on this device" in line for line in said), said
    now = stored(bucket, batch)["candidates"]
    lost = {row["source_id"] for row in written["candidates"] if row["image_key"] == key}
    assert {row["source_id"] for row in now if row["engine"] == "another"} == lost
    assert all(bucket.is_intact(row["image_key"]) for row in now)
    others = [row for row in written["candidates"] if row["source_id"] not in lost]
    assert [row for row in now if row["source_id"] not in lost] == others


@pytest.mark.parametrize("what", ["image_key", "source_image_key"])
def test_no_damaged_picture_gets_into_a_dataset(run, made, bucket, what):
    content_hash, _ = made
    pairs = tables.from_bytes(
        bucket.get_bytes(f"{dataset.dataset_prefix(content_hash)}/pairs.parquet")
    )
    key = pairs.column(what).to_pylist()[0]
    bucket.put_bytes(key, bucket.get_bytes(key)[:-1])
    result, _ = run(assets.counterfactual_dataset)
    assert not result.success
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert key in failed.step_failure_data.user_failure_data.description


def test_a_damaged_source_is_named_before_anything_is_drawn_of_it(run, bucket, batch):
    assert run(edit_plan, draw_and_score)[0].success
    bucket.delete(info.key for info in list(bucket.list(f"counterfactuals/{batch}/chunks")))
    key = next(planned_work(bucket, batch))[0]["image_key"]
    bucket.put_bytes(key, bucket.get_bytes(key)[:-1])
    result, _ = run(draw_and_score)
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert f"{key}' is damaged" in failed.step_failure_data.error.cause.message
