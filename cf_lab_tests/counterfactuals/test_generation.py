import json
from types import SimpleNamespace

import pytest
from PIL import Image

from cf_lab_assets.counterfactuals import (
    dataset,
    drawing,
    generation,
    planning,
    replay,
    rounds,
    tables,
)
from cf_lab_assets.counterfactuals.acceptance import accept_sets
from cf_lab_assets.counterfactuals.budget import Budget
from cf_lab_assets.counterfactuals.plan import Planner
from cf_lab_assets.counterfactuals.rewrite import Rewriter
from cf_lab_assets.counterfactuals.taxonomy import default_taxonomy
from cf_lab_assets.models import artifacts
from cf_lab_assets.starter import world
from cf_lab_resources.engine.editors import EditorSettings
from cf_lab_resources.engine.pictures import encode

SETTINGS = EditorSettings(steps=4, batch_size=8)
HASHES = {"editor": "a"}


@pytest.fixture(scope="module")
def models():
    return generation.Loaded(artifacts.load_editor(SETTINGS), artifacts.load_judge(), "e1")


@pytest.fixture
def work(bucket, batch):
    planner = Planner(Rewriter(default_taxonomy()), list(world.ATTRIBUTES))
    planning.write_plan(bucket, batch, planner, None, {})
    return list(rounds.planned_work(bucket, batch))


def draw(bucket, batch, load, announce=print):
    """Draw all of a batch, a source a chunk; its tables."""
    return drawn_and_tables(bucket, batch, load, announce)[1]


def drawn_and_tables(bucket, batch, load, announce=print):
    generator = generation.Generator(bucket, batch, load, HASHES, SETTINGS, 2, announce)
    with tables.staged(*drawing.TABLES) as staged:
        draws = drawing.Drawing(generator, staged, chunk_sources=1)
        for _ in rounds.draw_batch(bucket, batch, draws, None):
            pass
        for table in drawing.TABLES:
            staged.put(bucket, batch, table)
    return draws.drawn, {table: tables.read_rows(bucket, batch, table) for table in drawing.TABLES}


def test_every_edit_is_drawn_until_accepted_or_spent(work, bucket, batch, models):
    written = draw(bucket, batch, lambda: models)
    draws = {}
    for row in written["pair_scores"]:
        draws.setdefault(row["edit_id"], []).append(row)
    assert set(draws) == {edit["edit_id"] for _, edits in work for edit in edits}
    for attempts in draws.values():
        assert [row["draw"] for row in attempts] == list(range(len(attempts)))
        assert len(attempts) <= 2
        assert not any(row["accepted"] for row in attempts[:-1])
        assert all(row["reasons"] or row["accepted"] for row in attempts)
    assert all(bucket.exists(row["image_key"]) for row in written["candidates"])
    made = {row["set_id"] for row in written["accepted_sets"] + written["rejected_sets"]}
    assert made == {f"{s['source_id']}-{name}" for s, _ in work for name in world.ATTRIBUTES}
    counted = sum(row["drawn"] for row in written["acceptance"])
    assert counted == len(made) == len(written["accepted_sets"] + written["rejected_sets"])
    counted = sum(row["drawn"] for row in written["directions"])
    assert counted == sum(len(edits) - 1 for _, edits in work)


def test_a_run_that_stopped_goes_on_and_ends_in_the_same_rows(work, bucket, batch, models):
    whole = draw(bucket, batch, lambda: models)
    chunks = [info.key for info in bucket.list(f"counterfactuals/{batch}/chunks")]
    assert len(chunks) == 3
    contents = {key: bucket.get_bytes(key) for key in chunks}
    bucket.delete(chunks[1:])
    loads = []

    def load():
        loads.append(1)
        return models

    assert draw(bucket, batch, load) == whole
    assert {key: bucket.get_bytes(key) for key in chunks} == contents
    assert len(loads) == 1, "models are loaded once a run, and only where a chunk is missing"
    assert draw(bucket, batch, load) == whole
    assert len(loads) == 1


def test_a_candidate_does_not_depend_on_its_company(work, bucket, batch, models):
    source, edits = work[1]
    sources = {source["source_id"]: source}
    together = generation.make_chunk(edits, sources, bucket, models, [1] * len(edits))
    (alone,) = generation.make_chunk([edits[2]], sources, bucket, models, [1])
    assert alone["image_sha256"] == together[2]["image_sha256"]
    assert {row["noise_seed"] for row in together} == {alone["noise_seed"]}, "one scene, one noise"
    for score in ("cits", "sim_1", "preservation"):
        assert alone[score] == pytest.approx(together[2][score], abs=0.001)


def test_a_placebo_has_no_direction_also_where_its_caption_says_more(work, bucket, models):
    source, edits = work[0]
    sources = {source["source_id"]: {**source, "caption": "a portrait"}}
    placebo, other = generation.make_chunk(edits[:2], sources, bucket, models, [1, 1])
    assert placebo["sim_dir"] is None
    assert other["sim_dir"] is not None


def edit(edit_id, attribute):
    values = {"gender": "man", "age": "old"}
    return {
        "edit_id": edit_id,
        "source_id": "s1",
        "strategy": "instruction",
        "kind": "counterfactual" if attribute else "placebo",
        "attribute": attribute,
        "from_values": values,
        "to_values": values,
        "base_caption": "a portrait",
        "caption": edit_id,
        "instruction": edit_id,
    }


def row(edit_id, accepted, draw=0):
    reasons = [] if accepted else ["blurred"]
    return {"edit_id": edit_id, "draw": draw, "accepted": accepted, "reasons": reasons}


EDITS = [edit("p", None), edit("g", "gender"), edit("a1", "age"), edit("a2", "age")]


def test_a_set_is_accepted_whole():
    accepted, rejected = accept_sets(
        EDITS,
        [row("p", True), row("g", False), row("g", True, 1), row("a1", True), row("a2", False)],
    )
    assert [s["attribute"] for s in accepted] == ["gender"]
    assert accepted[0]["members"] == [{"edit_id": "p", "draw": 0}, {"edit_id": "g", "draw": 1}]
    assert [(s["attribute"], s["reasons"]) for s in rejected] == [("age", ["a2: blurred"])]


def test_no_set_is_accepted_without_its_placebo():
    rows = [row("p", False), row("g", True), row("a1", True), row("a2", True)]
    accepted, rejected = accept_sets(EDITS, rows)
    assert accepted == []
    assert len(rejected) == 2


def test_a_set_of_a_source_whose_placebo_failed_before_says_so():
    _, rejected = accept_sets([EDITS[0], EDITS[1]], [row("p", False)])
    assert rejected[0]["reasons"] == ["p: blurred", "g: not drawn"]


def test_the_fingerprint_changes_with_whatever_matters():
    others = [
        generation.fingerprint(EDITS[1:], {"editor": "a"}, SETTINGS, [3] * 3),
        generation.fingerprint(EDITS, {"editor": "b"}, SETTINGS, [3] * 4),
        generation.fingerprint(EDITS, {"editor": "a"}, EditorSettings(), [3] * 4),
        generation.fingerprint(EDITS, {"editor": "a"}, SETTINGS, [3, 3, 3, 5]),
        generation.fingerprint(
            [{**EDITS[0], "base_caption": "a picture"}, *EDITS[1:]],
            {"editor": "a"},
            SETTINGS,
            [3] * 4,
        ),
    ]
    base = generation.fingerprint(EDITS, {"editor": "a"}, SETTINGS, [3] * 4)
    assert len({base, *others}) == 6


def test_the_fingerprint_does_not_change_with_what_does_not_determine_the_rows():
    told = [{**edit, "cell": "man", "explanation": "why"} for edit in EDITS]
    assert generation.fingerprint(told, HASHES, SETTINGS, [3] * 4) == generation.fingerprint(
        EDITS, HASHES, SETTINGS, [3] * 4
    )


class Scripted:
    """Draws and judges by a script: which draw of which caption is the first to be accepted."""

    size = 8
    strategy, draws_whole_sets = "instruction", False
    accepted_from: dict[str, int]

    def __init__(self, **accepted_from):
        self.accepted_from, self.drawn = accepted_from, []
        self.calibration = SimpleNamespace(threshold=0.5)

    def draw(self, drawings):
        self.now = [(m.caption, d.draw) for d in drawings for m in d.members]
        self.drawn += self.now
        return [[Image.new("RGB", (8, 8), (d.draw,) * 3) for _ in d.members] for d in drawings]

    def score(self, pairs):
        return [
            {"cits": 0.9 if draw >= self.accepted_from.get(caption, 99) else 0.1, "missed": []}
            for caption, draw in self.now
        ]


def scripted_rows(bucket, budgets, **accepted_from):
    model = Scripted(**accepted_from)
    key = bucket.put_content("images", encode(Image.new("RGB", (8, 8))), ".png")
    models = generation.Loaded(model, model, "e1")
    generation.make_chunk(EDITS, {"s1": {"image_key": key, "extra": {}}}, bucket, models, budgets)
    return model.drawn


def test_draws_of_a_set_stop_when_it_is_accepted_or_can_not_be(bucket):
    drawn = scripted_rows(bucket, [4, 4, 4, 4], p=0, g=2, a1=0, a2=1)
    assert drawn == [("p", 0), ("g", 0), ("a1", 0), ("a2", 0), ("g", 1), ("a2", 1), ("g", 2)]
    drawn = scripted_rows(bucket, [9, 9, 1, 9], p=0, g=1)
    assert ("a2", 1) not in drawn, "its set has lost a1, whose budget is spent"
    assert ("g", 1) in drawn
    drawn = scripted_rows(bucket, [1, 9, 9, 9], g=5, a1=5, a2=5)
    assert len(drawn) == 4, "without its placebo a source has no set"
    drawn = scripted_rows(bucket, [9, 1, 1, 9], a2=0)
    assert ("p", 1) not in drawn, "a placebo of lost sets helps nobody"
    drawn = scripted_rows(bucket, [9, 1, 2, 9], a2=0)
    assert ("p", 1) in drawn
    assert ("p", 2) not in drawn, "the sets were lost one after the other"


def test_the_budget_follows_the_acceptance_seen_so_far():
    budget = Budget(50)
    assert budget.allowed(EDITS)[1] == 7, "half is assumed: a hundredth is missed after seven"
    often = [{"edit_id": "g", "accepted": True}] * 98
    budget.record(EDITS, often)
    assert budget.allowed(EDITS)[1] == 2
    seldom = [{"edit_id": "a1", "accepted": n % 10 == 0} for n in range(98)]
    budget.record(EDITS, seldom)
    assert 35 <= budget.allowed(EDITS)[2] <= 45
    budget.record(EDITS, [{"edit_id": "p", "accepted": False}] * 1000)
    assert budget.allowed(EDITS)[0] == 50, "never more than is allowed"
    assert Budget(1).allowed(EDITS) == [1] * 4


def test_a_share_of_the_candidates_is_drawn_again_to_the_last_bit(work, bucket, batch, models):
    drawn, _ = drawn_and_tables(bucket, batch, lambda: models)
    assert drawn.to_replay
    found = replay.replay(bucket, drawn.to_replay, models.editor, "e1")
    assert found.passed
    assert found.identical == found.compared == len(drawn.to_replay)
    first = drawn.to_replay[0]
    other = replay.Candidate(first.source, first.edit, {**first.row, "draw": 5})
    differing = replay.replay(bucket, [other], models.editor, "e1")
    assert not differing.passed
    assert differing.worst > 0
    elsewhere = replay.replay(bucket, [other], models.editor, "e2")
    assert elsewhere.passed == (elsewhere.worst <= replay.TOLERANCE)


def test_a_stored_picture_that_was_damaged_is_found(work, bucket, batch, models):
    drawn, _ = drawn_and_tables(bucket, batch, lambda: models)
    first = drawn.to_replay[0]
    png = bytearray(bucket.get_bytes(first.row["image_key"]))
    png[len(png) // 2] ^= 1
    bucket.put_bytes(first.row["image_key"], bytes(png))
    assert replay.replay(bucket, [first], models.editor, "e1").damaged
    bucket.delete([first.row["image_key"]])
    assert replay.replay(bucket, [first], models.editor, "e1").damaged


def test_about_two_in_a_hundred_are_chosen():
    chosen = sum(replay.is_chosen(f"e{n}", 0) for n in range(20_000))
    assert 320 <= chosen <= 480


def test_the_record_of_an_engine_is_named_by_its_content(bucket, models):
    name = replay.record_engine(bucket, models.editor, HASHES, SETTINGS)
    record = json.loads(bucket.get_bytes(replay.engine_key(name)))
    assert record["models"] == HASHES
    assert record["settings"]["steps"] == 4
    assert record["commit"]
    assert record["libraries"]["torch"]
    assert replay.record_engine(bucket, models.editor, HASHES, SETTINGS) == name
    assert replay.record_engine(bucket, models.editor, {"editor": "b"}, SETTINGS) != name


@pytest.fixture
def made(work, bucket, batch, models):
    """The batch's tables, with every candidate taken as accepted."""
    written = draw(bucket, batch, lambda: models)
    rows = [{**row, "accepted": True, "reasons": []} for row in written["pair_scores"]]
    edits = [edit for _, planned in work for edit in planned]
    accepted, _ = accept_sets(edits, rows)
    dataset.write_made_with(bucket, batch, {"editor": {"name": "e"}}, {"steps": 4})
    for table, content in (("pair_scores", rows), ("accepted_sets", accepted)):
        tables.write_rows(bucket, batch, table, content)
    return batch


def stored_table(bucket, made, table):
    key = f"{dataset.dataset_prefix(made.content_hash)}/{table}.parquet"
    return tables.from_bytes(bucket.get_bytes(key))


def rows_of(bucket, made, table):
    return tables.to_rows(stored_table(bucket, made, table))


def test_a_dataset_holds_complete_sets_and_the_same_inputs_give_the_same_hash(made, bucket):
    first = dataset.build_dataset(bucket, [made])
    again = dataset.build_dataset(bucket, [made])
    dataset.write_made_with(bucket, made, {"editor": {"name": "e"}}, {"steps": 5})
    other = dataset.build_dataset(bucket, [made])
    assert first.content_hash == again.content_hash != other.content_hash
    pairs = rows_of(bucket, first, "pairs")
    assert [pair["pair_id"] for pair in pairs] == sorted(pair["pair_id"] for pair in pairs)
    for one in rows_of(bucket, first, "sets"):
        members = [pair for pair in pairs if pair["set_id"] == one["set_id"]]
        assert sorted(m["value"] for m in members) == sorted(world.ATTRIBUTES[one["attribute"]])
        assert [m["value"] for m in members if m["is_placebo"]] == [one["from_value"]]
        for member in members:
            assert member["value"] in member["caption"]
            assert member["values"][one["attribute"]] == member["value"]
    whole = [stored_table(bucket, first, table) for table in ("pairs", "sets")]
    assert dataset.dataset_content_hash(*whole, first.manifest["config"]) == first.content_hash
    prefix = dataset.dataset_prefix(first.content_hash)
    stored = json.loads(bucket.get_bytes(f"{prefix}/manifest.json"))
    images = stored.pop("images")
    assert stored == first.manifest
    assert list(images) == sorted(images)
    named = [(row["image_sha256"], row["image_key"]) for row in pairs]
    named += [(row["source_image_sha256"], row["source_image_key"]) for row in pairs]
    assert images == {digest: bucket.size(key) for digest, key in named}
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
    ids = [[row["pair_id"] for row in rows_of(bucket, made, "pairs")] for made in (both, alone)]
    assert ids[0] == ids[1]
    assert set(both.manifest["batches"]) == set(made_twice)


def test_batches_of_different_models_make_no_dataset(made_twice, bucket):
    dataset.write_made_with(bucket, "twin", {"editor": {"name": "newer"}}, {"steps": 4})
    with pytest.raises(dataset.MixedModels, match=r"'small' and 'twin'.*cf-lab run"):
        dataset.build_dataset(bucket, made_twice)
