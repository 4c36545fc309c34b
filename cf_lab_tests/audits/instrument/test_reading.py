"""What is read of a dataset's tables, and of the pictures of its sources."""

import numpy as np
import pytest
from PIL import Image

from cf_lab_assets.audits.instrument import document, examination
from cf_lab_assets.audits.instrument.reading import Readings, read_batches
from cf_lab_assets.counterfactuals import tables
from cf_lab_assets.sources.ingest import ingest
from cf_lab_assets.starter import world
from cf_lab_assets.starter.portraits import write_image_folder
from cf_lab_resources.bucket import BucketKeyError, open_bucket
from cf_lab_resources.engine.pictures import encode

MISSED = [
    "classifier saw gender woman instead of man",
    "encoder saw age old instead of young",
    "cits 0.300 is under 0.500",
]


@pytest.fixture
def bucket(tmp_path):
    return open_bucket(f"file://{tmp_path / 'bucket'}")


def deliver(bucket, tmp_path, batch, count=2):
    """Portraits as a batch, each with a placebo and one edit that is drawn twice."""
    folder = tmp_path / batch
    write_image_folder(folder, count, seed=3)
    ingest(folder, batch, bucket, world.ATTRIBUTES)
    from cf_lab_assets.sources.batches import stored_pairs_key

    sources = list(tables.stream_rows(bucket, stored_pairs_key(bucket, batch)))
    picture = Image.new("RGB", (64, 64), (200, 150, 120))
    key = bucket.put_content("images", encode(picture), ".png")
    plan, candidates, scores, accepted, rejected = [], [], [], [], []
    for source in sources:
        name = source["source_id"]
        values = {"gender": "woman", "age": "young"}
        shared = {"source_id": name, "strategy": "instruction", "from_values": values}
        plan += [
            {**shared, "edit_id": f"{name}-p", "kind": "placebo", "to_values": values},
            {
                **shared,
                "edit_id": f"{name}-gender-man",
                "kind": "counterfactual",
                "attribute": "gender",
                "to_values": {**values, "gender": "man"},
            },
        ]
        for edit, draw, reasons in (("p", 0, []), ("gender-man", 0, MISSED), ("gender-man", 1, [])):
            row = {"edit_id": f"{name}-{edit}", "source_id": name, "draw": draw}
            candidates.append({**row, "image_key": key})
            scores.append({**row, "preservation": 0.9, "cits": 0.7, "reasons": reasons})
        one = {"set_id": f"{name}-gender", "source_id": name, "attribute": "gender"}
        accepted.append({**one, "from_value": "woman", "members": []})
        rejected.append({**one, "set_id": f"{name}-age", "attribute": "age", "stage": "plan"})
    for table, rows in (
        ("edit_plan", plan),
        ("candidates", candidates),
        ("pair_scores", scores),
        ("accepted_sets", accepted),
        ("rejected_sets", rejected),
    ):
        tables.write_rows(bucket, batch, table, rows)
    return sources


def test_first_draws_are_read_as_they_came_before_any_filter(bucket, tmp_path):
    sources = deliver(bucket, tmp_path, "b1")
    found = read_batches(bucket, ["b1"])
    assert found.source_ids == [source["source_id"] for source in sources]
    placebo, edit = found.edits[:2]
    assert (placebo.attribute, placebo.success, placebo.over_edit) == ("placebo", None, False)
    assert (edit.attribute, edit.start, edit.end) == ("gender", "woman", "man")
    assert (edit.success, edit.over_edit) == (False, True)
    assert edit.before == sources[0]["image_key"]
    assert len(found.edits) == 4, "second draws are not first ones"


def test_every_draw_counts_for_agreement_and_what_is_not_missed_was_seen(bucket, tmp_path):
    deliver(bucket, tmp_path, "b1", count=1)
    found = read_batches(bucket, ["b1"]).answers
    assert found["gender"] == {
        (0, "woman", "woman"): 1,
        (0, "woman", "man"): 1,
        (0, "man", "man"): 1,
    }
    assert found["age"] == {(0, "young", "young"): 2, (0, "young", "old"): 1}


def test_sets_refused_before_the_filter_are_offered_and_not_drawn(bucket, tmp_path):
    deliver(bucket, tmp_path, "b1", count=1)
    gender, age = read_batches(bucket, ["b1"]).sets
    assert (gender.drawn, gender.accepted) == (True, True)
    assert (age.drawn, age.accepted) == (False, False)
    assert gender.values == {"gender": "woman", "age": "young"}
    assert gender.occupation in world.OCCUPATIONS


def test_a_source_that_came_twice_counts_once(bucket, tmp_path):
    deliver(bucket, tmp_path, "b1")
    once = read_batches(bucket, ["b1"])
    deliver(bucket, tmp_path, "b2")
    twice = read_batches(bucket, ["b2", "b1"])
    assert twice == once


def test_a_missing_table_is_named(bucket, tmp_path):
    deliver(bucket, tmp_path, "b1")
    bucket.delete([tables.batch_key("b1", "pair_scores")])
    with pytest.raises(BucketKeyError, match="b1/pair_scores"):
        read_batches(bucket, ["b1"])


def test_pictures_of_the_chosen_sources_are_measured_and_of_no_others(bucket, tmp_path):
    deliver(bucket, tmp_path, "b1", count=5)
    readings = read_batches(bucket, ["b1"])
    found = examination.examine(bucket, readings, [], most=3)
    names = examination.chosen(readings.source_ids, 3)
    looked_at = [readings.source_ids[edit.source] in names for edit in readings.edits]
    assert found.sources == len(names) == 3
    assert np.isfinite(found.realism).tolist() == looked_at
    assert np.isfinite(found.drift).sum() <= sum(looked_at)


def test_sources_are_chosen_by_their_ids_alone():
    names = [f"s{number}" for number in range(100)]
    assert examination.chosen(names, 10) == examination.chosen(names[::-1], 10)
    assert len(examination.chosen(names, 10)) == 10


def test_of_nothing_a_document_is_made_in_which_all_is_insufficient(bucket):
    readings = Readings()
    made = document.judge(readings, examination.examine(bucket, readings, []))
    written = document.as_document(made, "d")
    assert written["sources"] == 0
    assert not made.gaps
    assert not written["filter"]["cells"]
