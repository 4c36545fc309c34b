"""What editors of other strategies need: captions alone, drawn and accepted whole, and masks.

The pipelines are tiny ones of Stable Diffusion's own class with random weights, which draw noise;
so what accepts their pictures is a script, and all else is the lab's own.
"""

import functools
import hashlib
from types import SimpleNamespace

import numpy as np
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
from cf_lab_assets.counterfactuals.acceptance import accept_sets, to_draw
from cf_lab_assets.counterfactuals.budget import Budget
from cf_lab_assets.counterfactuals.plan import BASE, Planner
from cf_lab_assets.counterfactuals.rewrite import Rewriter
from cf_lab_assets.counterfactuals.targets import Target, read_sampling
from cf_lab_assets.counterfactuals.taxonomy import default_taxonomy
from cf_lab_assets.sources import batches
from cf_lab_assets.sources.ingest import ingest
from cf_lab_assets.starter import world
from cf_lab_resources.engine.editors import EditorSettings, load_editor, strategy_of
from cf_lab_resources.engine.folders import ModelRefused
from cf_lab_resources.engine.pictures import decode, square
from cf_lab_tests.resources.engine import tiny

CAPTIONS = ["a portrait of a doctor", "a photo of a woman who is a nurse", "a man with a hat"]
SETTINGS = EditorSettings(steps=2, guidance_scale=3.0, batch_size=6)


@pytest.fixture
def batch(bucket, tmp_path):
    folder = tmp_path / "captions"
    folder.mkdir()
    lines = "".join(f'{{"caption": "{caption}"}}\n' for caption in CAPTIONS)
    (folder / "captions.jsonl").write_text(lines)
    ingest(folder, "captions", bucket, world.ATTRIBUTES)
    return "captions"


def plan(bucket, batch, target=None, strategy="captions"):
    planner = Planner(
        Rewriter(default_taxonomy()),
        ["gender", "age"],
        over=target.over if target else (),
        strategy=strategy,
    )
    planning.write_plan(bucket, batch, planner, target, {})
    return tables.read_rows(bucket, batch, "edit_plan")


@pytest.fixture(scope="module")
def editor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines") / "captions"
    tiny.saved(folder, "captions", "euler")
    return load_editor(folder, SETTINGS, "cpu")


@pytest.fixture(scope="module")
def inpainter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines") / "inpainting"
    tiny.saved(folder, "inpainting", "euler")
    return load_editor(folder, SETTINGS, "cpu")


class Judge:
    """Accepts a picture by a hash of it and its caption; notes what it was asked."""

    calibration = SimpleNamespace(threshold=0.5)

    def __init__(self, share=0.6):
        self.share, self.asked = share, []

    def score(self, pairs):
        self.asked += pairs
        return [self._scores(pair) for pair in pairs]

    def _scores(self, pair):
        content = pair.candidate.tobytes() + pair.caption.encode()
        fate = int(hashlib.sha256(content).hexdigest()[:8], 16) / 16**8
        number = 0.9 if fate < self.share else 0.1
        similarities = ("sim_0", "sim_1", "sim_dir", "sim_img", "preservation")
        return {**dict.fromkeys(similarities, 0.5), "cits": number, "missed": []}


def draw(bucket, batch, editor, judge, max_draws=8):
    models = generation.Loaded(editor, judge, "e1")
    generator = generation.Generator(bucket, batch, lambda: models, {}, SETTINGS, max_draws)
    with tables.staged(*drawing.TABLES) as staged:
        drawn = drawing.Drawing(generator, staged, 2)
        for _ in rounds.draw_batch(bucket, batch, drawn, read_sampling(bucket, batch)):
            pass
        dataset.write_made_with(bucket, batch, {}, {})
        for table in drawing.TABLES:
            staged.put(bucket, batch, table)
    return drawn.drawn, {table: tables.read_rows(bucket, batch, table) for table in drawing.TABLES}


def dataset_rows(bucket, made, table):
    key = f"{dataset.dataset_prefix(made.content_hash)}/{table}.parquet"
    return list(tables.stream_rows(bucket, key))


def test_every_value_is_a_member_and_an_own_one_is_the_bases(bucket, batch):
    edits = plan(bucket, batch)
    by_caption = {}
    for edit in edits:
        by_caption.setdefault(edit["base_caption"], []).append(edit)
    doctor, nurse = (by_caption[CAPTIONS[number]] for number in (0, 1))
    values = sum(len(world.ATTRIBUTES[name]) for name in ("gender", "age"))
    assert [edit["kind"] for edit in doctor] == [BASE] + ["counterfactual"] * values
    genders = {e["to_values"]["gender"] for e in doctor if e["attribute"] == "gender"}
    assert genders == {"woman", "man"}, "the caption leaves it open"
    others = [e["to_values"]["gender"] for e in nurse if e["attribute"] == "gender"]
    assert others == ["man"], "the base shows the woman"
    assert nurse[0]["to_values"] == {"gender": "woman"}


def test_an_editing_editor_refuses_captions_in_the_plan(bucket, batch):
    assert plan(bucket, batch, strategy="instruction") == []
    refused = tables.read_rows(bucket, batch, "refused_edits")
    assert {row["reason"] for row in refused} == {"no_picture"}
    assert len(refused) == 2 * len(CAPTIONS)


def test_members_of_a_set_are_of_one_draw_and_have_their_base_beside_them(bucket, batch, editor):
    edits = {edit["edit_id"]: edit for edit in plan(bucket, batch)}
    judge = Judge()
    drawn, written = draw(bucket, batch, editor, judge)
    assert written["accepted_sets"]
    assert len(written["accepted_sets"]) + len(written["rejected_sets"]) == 2 * len(CAPTIONS)
    for row in written["accepted_sets"]:
        assert len({member["draw"] for member in row["members"]}) == 1
        values = [edits[m["edit_id"]]["to_values"][row["attribute"]] for m in row["members"]]
        assert sorted(values) == sorted(world.ATTRIBUTES[row["attribute"]])
        assert row["from_value"] is None
    names = [(row["edit_id"], row["draw"]) for row in written["candidates"]]
    assert len(names) == len(set(names))
    # Each is scored beside the base of its own draw, which is scored beside itself.
    rows = {(row["edit_id"], row["draw"]): row for row in written["candidates"]}
    pictures = {row["image_sha256"] for row in written["candidates"]}
    assert len(pictures) > len(CAPTIONS)
    for pair in judge.asked:
        if pair.caption == pair.source_caption:
            assert pair.source is pair.candidate
    assert all(
        (f"{source}-base", draw) in rows
        for (name, draw) in rows
        for source in [rows[name, draw]["source_id"]]
    )
    assert written["directions"] == [], "nothing was edited"
    assert drawn.candidates == len(names)


def test_a_draw_stops_with_the_acceptance_of_its_sets(bucket, batch, editor):
    plan(bucket, batch)
    _, written = draw(bucket, batch, editor, Judge(share=1.0))
    assert {row["draw"] for row in written["candidates"]} == {0}
    assert len(written["accepted_sets"]) == 2 * len(CAPTIONS)
    made = dataset.build_dataset(bucket, [batch])
    rows = dataset_rows(bucket, made, "pairs")
    assert not any(row["is_placebo"] for row in rows)
    assert all(row["source_image_sha256"] for row in rows)
    bases = {row["edit_id"]: row for row in written["candidates"] if row["edit_id"].endswith(BASE)}
    for row in rows:
        base = bases[f"{row['source_id']}-{BASE}"]
        assert row["source_image_sha256"] == base["image_sha256"]
    by_set = {}
    for row in rows:
        by_set.setdefault(row["set_id"], set()).add(row["value"])
    assert set(map(frozenset, by_set.values())) == set(
        map(frozenset, (world.ATTRIBUTES["gender"], world.ATTRIBUTES["age"]))
    )
    assert {row["from_value"] for row in dataset_rows(bucket, made, "sets")} == {None}
    assert made.sheet.height > 100


def test_nothing_is_accepted_of_parts_of_several_draws(bucket, batch, editor):
    plan(bucket, batch)
    _, written = draw(bucket, batch, editor, Judge(share=0.0), max_draws=3)
    assert written["accepted_sets"] == []
    assert max(row["draw"] for row in written["candidates"]) == 2
    assert all("cits 0.100 is under 0.500" in row["reasons"][0] for row in written["rejected_sets"])


def test_rounds_draw_sets_of_a_source_one_by_one_and_its_base_counts_once(bucket, batch, editor):
    plan(bucket, batch, Target(("gender",), "as_the_world", total=2, seed=3))
    _, written = draw(bucket, batch, editor, Judge(share=0.9))
    names = [(row["edit_id"], row["draw"]) for row in written["candidates"]]
    assert len(names) == len(set(names))
    assert sum(row["accepted"] for row in written["quotas"]) == len(written["accepted_sets"]) >= 1


def test_a_candidate_is_drawn_again_to_the_last_bit(bucket, batch, editor):
    plan(bucket, batch)
    drawn, written = draw(bucket, batch, editor, Judge())
    edits = {edit["edit_id"]: edit for edit in tables.read_rows(bucket, batch, "edit_plan")}
    sources = {
        row["source_id"]: {"source_id": row["source_id"], "image_key": None}
        for row in written["candidates"]
    }
    every = [
        replay.Candidate(
            sources[row["source_id"]],
            edits[row["edit_id"]],
            row,
            edits[f"{row['source_id']}-{BASE}"],
        )
        for row in written["candidates"]
    ]
    result = replay.replay(bucket, every, editor, "e1")
    assert result.passed
    assert result.identical == result.compared == len(every) >= 12
    assert drawn.to_replay[0].base is not None


def test_a_plan_for_another_kind_of_editor_is_refused(bucket, batch, editor):
    edits = plan(bucket, batch)
    models = generation.Loaded(editor, Judge(), "e1")
    for other in ("instruction", "inpainting"):
        turned = [{**edit, "strategy": other} for edit in edits]
        with pytest.raises(generation.PlanOfAnotherEditor, match="materialise counterfactuals/ed"):
            generation.make_chunk(turned, {}, bucket, models, [1] * len(turned))


def edit(name, attribute, gender="man"):
    return {
        "edit_id": name,
        "source_id": "s",
        "kind": "counterfactual" if attribute else BASE,
        "attribute": attribute,
        "from_values": {"gender": gender} if gender else {},
        "to_values": {"gender": name, "age": name},
    }


EDITS = [edit("s-base", None), edit("w", "gender"), edit("young", "age"), edit("old", "age")]


def row(name, draw, accepted):
    return {
        "edit_id": name,
        "source_id": "s",
        "draw": draw,
        "accepted": accepted,
        "reasons": [] if accepted else [f"draw {draw}"],
    }


def test_a_set_waits_for_a_draw_in_which_all_its_members_are_good():
    rows = [row("s-base", 0, True), row("w", 0, False), row("young", 0, True), row("old", 0, False)]
    rows += [
        row("s-base", 1, False),
        row("w", 1, True),
        row("young", 1, False),
        row("old", 1, True),
    ]
    accepted, rejected = accept_sets(EDITS, rows)
    assert accepted == []
    assert [one["reasons"] for one in rejected] == [["s-base: draw 1"], ["young: draw 1"]]
    # Of a base that other sets had drawn further, only draws that this set had too tell why.
    further = [*rows, row("s-base", 2, False), row("s-base", 3, True)]
    _, rejected = accept_sets(EDITS, further)
    assert [one["reasons"] for one in rejected] == [["s-base: draw 1"], ["young: draw 1"]]
    rows += [row("young", 2, True), row("old", 2, True), row("s-base", 2, False)]
    accepted, _ = accept_sets(EDITS, rows)
    assert [one["attribute"] for one in accepted] == ["age"], "the base is no member of this set"
    budgets = {"s-base": 9, "w": 9, "young": 9, "old": 9}
    names = functools.partial(map, lambda one: one["edit_id"])
    assert list(names(to_draw(EDITS, rows, budgets, 3))) == ["s-base", "w"]
    assert list(names(to_draw(EDITS, rows, {**budgets, "w": 3}, 3))) == []


def test_the_budget_of_a_set_follows_the_acceptance_of_whole_sets():
    budget = Budget(50)
    assert budget.allowed(EDITS) == [50, 7, 7, 7]
    good = [row(name, draw, True) for draw in range(98) for name in ("s-base", "w")]
    parts = [row("young", draw, True) for draw in range(98)]
    budget.record(EDITS, [*good, *parts, *(row("old", draw, False) for draw in range(98))])
    assert budget.allowed(EDITS) == [50, 2, 50, 50]


def test_the_strategy_is_read_from_the_index_alone():
    assert strategy_of(b'{"_class_name": "StableDiffusionXLPipeline"}', "m") == "captions"
    with pytest.raises(ModelRefused, match="m holds a Mine"):
        strategy_of(b'{"_class_name": "Mine"}', "m")
    with pytest.raises(ModelRefused, match="m is no pipeline folder"):
        strategy_of(b"{", "m")


def test_masks_come_with_their_pictures_and_reach_the_editor(bucket, tmp_path, inpainter):
    folder = tmp_path / "masked"
    folder.mkdir()
    lines = ["file_name,text,gender,mask_file_name,mask_image_key"]
    portraits = list(world.sample(4, seed=3))
    for number, portrait in enumerate(portraits):
        world.render(portrait).save(folder / f"{number}.png")
        mask = Image.new("L", (64, 64) if number != 2 else (32, 32))
        mask.paste(255, (16, 8, 40, 30))
        mask.save(folder / f"m{number}.png")
        name = f"m{number}.png" if number != 3 else ""
        gender = portrait.attributes["gender"]
        lines.append(f"{number}.png,{portrait.caption},{gender},{name},objects/elsewhere")
    (folder / "metadata.csv").write_text("\n".join(lines))
    made = ingest(folder, "masked", bucket, world.ATTRIBUTES)
    assert made.reasons == {"mask_size": 1}
    assert made.stray_files == ("m3.png",)
    planner = Planner(Rewriter(default_taxonomy()), ["gender"], strategy="inpainting")
    planning.write_plan(bucket, "masked", planner, None, {})
    refused = tables.read_rows(bucket, "masked", "refused_edits")
    assert [row["reason"] for row in refused] == ["no_mask"]
    _, written = draw(bucket, "masked", inpainter, Judge(share=1.0))
    assert len(written["accepted_sets"]) == 2
    for row in written["candidates"]:
        drawn = np.asarray(decode(bucket.get_bytes(row["image_key"])), np.int16)
        number = next(n for n, p in enumerate(portraits) if differs_only_inside(p, drawn))
        assert number in (0, 1)


def differs_only_inside(portrait, drawn):
    source = square(world.render(portrait), len(drawn))
    changed = (np.asarray(source, np.int16) != drawn).any(axis=-1)
    scale = len(drawn) / 64
    inside = np.zeros_like(changed)
    inside[round(8 * scale) : round(30 * scale) + 1, round(16 * scale) : round(40 * scale) + 1] = 1
    return changed.any() and not (changed & ~inside).any()


def test_a_lost_mask_is_found_by_the_batchs_inspection(bucket, tmp_path):
    folder = tmp_path / "masked"
    folder.mkdir()
    portrait = next(world.sample(1, seed=3))
    world.render(portrait).save(folder / "p.png")
    Image.new("L", (64, 64), 255).save(folder / "m.png")
    rows = f"file_name,text,mask_file_name\np.png,{portrait.caption},m.png\n"
    (folder / "metadata.csv").write_text(rows)
    made = ingest(folder, "masked", bucket, world.ATTRIBUTES)
    (pair,) = batches.read_pairs(bucket, "masked")
    assert batches.inspect(bucket, made.manifest).whole
    bucket.delete([pair.extra["mask_image_key"]])
    assert batches.inspect(bucket, made.manifest).missing == (pair.extra["mask_image_key"],)
    assert ingest(folder, "masked", bucket, world.ATTRIBUTES).status == "repaired"
    assert batches.inspect(bucket, made.manifest).whole
