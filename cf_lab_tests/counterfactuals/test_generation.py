from dataclasses import asdict

import pytest

from cf_lab_assets.counterfactuals import dataset, generation, plan, tables
from cf_lab_assets.models import artifacts
from cf_lab_assets.starter import world
from cf_lab_resources.engine.editors import EditorSettings

SETTINGS = EditorSettings(steps=4, batch_size=8)


@pytest.fixture(scope="module")
def models():
    return artifacts.load_editor(SETTINGS), artifacts.load_judge()


@pytest.fixture
def work(bucket, batch):
    sources = tables.to_rows(tables.from_bytes(bucket.get_bytes(f"sources/{batch}/pairs.parquet")))
    edits = [asdict(edit) for edit in plan.plan_edits(sources, list(world.ATTRIBUTES)).edits]
    tables.write_rows(bucket, batch, "edit_plan", edits)
    return generation.lay_out(batch, sources, edits, chunk_sources=1, name="f" * 64)


def rows_of(work, bucket, models):
    return [
        row for chunk in generation.run_chunks(work, bucket, lambda: models, 2) for row in chunk
    ]


def test_chunks_hold_whole_sources(work):
    assert len(work.chunks) == 3
    assert all(len({edit["source_id"] for edit in chunk}) == 1 for chunk in work.chunks)


def test_every_edit_is_drawn_until_accepted_or_spent(work, bucket, models):
    rows = rows_of(work, bucket, models)
    draws = {}
    for row in rows:
        draws.setdefault(row["edit_id"], []).append(row)
    assert set(draws) == {edit["edit_id"] for chunk in work.chunks for edit in chunk}
    for attempts in draws.values():
        assert [row["draw"] for row in attempts] == list(range(len(attempts)))
        assert len(attempts) <= 2
        assert not any(row["accepted"] for row in attempts[:-1])
        assert attempts[-1]["accepted"] or len(attempts) == 2
        assert all(row["reasons"] or row["accepted"] for row in attempts)
    assert all(bucket.exists(row["image_key"]) for row in rows)


def test_a_run_that_stopped_goes_on_and_ends_in_the_same_rows(work, bucket, models):
    whole = rows_of(work, bucket, models)
    bucket.delete([work.key(1), work.key(2)])
    kept = bucket.get_bytes(work.key(0))

    loads = []

    def load():
        loads.append(1)
        return models

    chunks = generation.run_chunks(work, bucket, load, 2)
    next(chunks)
    next(chunks)
    chunks.close()  # the run ends here, with one chunk still to make
    again = [row for chunk in generation.run_chunks(work, bucket, load, 2) for row in chunk]
    assert again == whole
    assert bucket.get_bytes(work.key(0)) == kept
    assert len(loads) == 2, "models are loaded once a run, and only where a chunk is missing"
    assert [row for c in generation.run_chunks(work, bucket, load, 2) for row in c] == whole
    assert len(loads) == 2


def test_a_candidate_does_not_depend_on_its_company(work, bucket, models):
    together = {(r["edit_id"], r["draw"]): r for r in rows_of(work, bucket, models)}
    editor, judge = models
    edit = work.chunks[1][2]
    alone = generation.make_chunk([edit], work.sources, bucket, editor, judge, 1)[0]
    assert alone["noise_seed"] == together[edit["edit_id"], 0]["noise_seed"]
    for score in ("cits", "sim_1", "preservation"):
        assert alone[score] == pytest.approx(together[edit["edit_id"], 0][score], abs=0.02)


def edit(edit_id, attribute):
    return {"edit_id": edit_id, "source_id": "s1", "attribute": attribute}


def row(edit_id, accepted, draw=0):
    reasons = [] if accepted else ["blurred"]
    return {"edit_id": edit_id, "draw": draw, "accepted": accepted, "reasons": reasons}


EDITS = [edit("p", None), edit("g", "gender"), edit("a1", "age"), edit("a2", "age")]


def test_a_set_is_accepted_whole():
    accepted, rejected = generation.accept_sets(
        EDITS,
        [row("p", True), row("g", False), row("g", True, 1), row("a1", True), row("a2", False)],
    )
    assert [s["attribute"] for s in accepted] == ["gender"]
    assert accepted[0]["members"] == [{"edit_id": "p", "draw": 0}, {"edit_id": "g", "draw": 1}]
    assert [(s["attribute"], s["reasons"]) for s in rejected] == [("age", ["a2: blurred"])]


def test_no_set_is_accepted_without_its_placebo():
    rows = [row("p", False), row("g", True), row("a1", True), row("a2", True)]
    accepted, rejected = generation.accept_sets(EDITS, rows)
    assert accepted == []
    assert len(rejected) == 2


def test_the_fingerprint_changes_with_whatever_matters():
    base = generation.fingerprint(EDITS, {"editor": "a"}, SETTINGS, generation.GenerationSettings())
    others = [
        generation.fingerprint(
            EDITS[1:], {"editor": "a"}, SETTINGS, generation.GenerationSettings()
        ),
        generation.fingerprint(EDITS, {"editor": "b"}, SETTINGS, generation.GenerationSettings()),
        generation.fingerprint(
            EDITS, {"editor": "a"}, EditorSettings(), generation.GenerationSettings()
        ),
        generation.fingerprint(EDITS, {"editor": "a"}, SETTINGS, generation.GenerationSettings(5)),
    ]
    assert len({base, *others}) == 5


@pytest.fixture
def made(work, bucket, batch, models):
    """The batch's tables, with every candidate taken as accepted."""
    rows = [{**r, "accepted": True, "reasons": []} for r in rows_of(work, bucket, models)]
    edits = [edit for chunk in work.chunks for edit in chunk]
    accepted, _ = generation.accept_sets(edits, rows)
    dataset.write_made_with(bucket, batch, {"editor": {"name": "e"}}, {"steps": 4})
    for table, content in (
        ("candidates", rows),
        ("pair_scores", rows),
        ("accepted_sets", accepted),
    ):
        tables.write_rows(bucket, batch, table, content)
    return batch


def test_a_dataset_holds_complete_sets_and_the_same_inputs_give_the_same_hash(made, bucket):
    first = dataset.build_dataset(bucket, [made])
    again = dataset.build_dataset(bucket, [made])
    dataset.write_made_with(bucket, made, {"editor": {"name": "e"}}, {"steps": 5})
    other = dataset.build_dataset(bucket, [made])
    assert first.content_hash == again.content_hash != other.content_hash
    pairs = tables.to_rows(first.pairs)
    for one in tables.to_rows(first.sets):
        members = [pair for pair in pairs if pair["set_id"] == one["set_id"]]
        assert sorted(m["value"] for m in members) == sorted(world.ATTRIBUTES[one["attribute"]])
        assert [m["value"] for m in members if m["is_placebo"]] == [one["from_value"]]
        for member in members:
            assert member["value"] in member["caption"]
            assert member["values"][one["attribute"]] == member["value"]
    assert first.manifest["sets"] == 9
    assert first.manifest["pairs"] == 3 * (2 + 3 + 3)
    assert dataset.latest_hash(bucket) == other.content_hash
    for name in ("pairs.parquet", "sets.parquet", "manifest.json", "contact_sheet.png"):
        assert bucket.exists(f"{dataset.dataset_prefix(first.content_hash)}/{name}")


def test_without_an_accepted_set_there_is_no_dataset(bucket):
    with pytest.raises(dataset.NothingAccepted, match="accepted set"):
        dataset.build_dataset(bucket, [])
    assert dataset.latest_hash(bucket) is None


@pytest.fixture
def made_twice(made, bucket):
    """The same source pairs delivered, and made, in a second batch too."""
    for info in list(bucket.list("")):
        if f"/{made}/" in info.key and "/chunks/" not in info.key:
            bucket.put_bytes(info.key.replace(f"/{made}/", "/twin/"), bucket.get_bytes(info.key))
    return [made, "twin"]


def test_a_source_pair_of_two_batches_counts_once(made_twice, bucket):
    both = dataset.build_dataset(bucket, made_twice)
    alone = dataset.build_dataset(bucket, made_twice[:1])
    assert both.pairs.column("pair_id").to_pylist() == alone.pairs.column("pair_id").to_pylist()
    assert set(both.manifest["batches"]) == set(made_twice)


def test_batches_of_different_models_make_no_dataset(made_twice, bucket):
    dataset.write_made_with(bucket, "twin", {"editor": {"name": "newer"}}, {"steps": 4})
    with pytest.raises(dataset.MixedModels, match=r"'small' and 'twin'.*cf-lab run"):
        dataset.build_dataset(bucket, made_twice)
