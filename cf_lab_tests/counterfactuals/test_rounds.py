"""Whole batches with a generator that accepts at random: what is drawn, and what comes of it."""

import hashlib
import io
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cf_lab_assets.counterfactuals import dataset, drawing, generation, planning, rounds, tables
from cf_lab_assets.counterfactuals.plan import Planner
from cf_lab_assets.counterfactuals.rewrite import Rewriter
from cf_lab_assets.counterfactuals.targets import Target, read_sampling
from cf_lab_assets.sources.batches import Manifest, manifest_key, pairs_key, pairs_schema
from cf_lab_assets.starter import world
from cf_lab_resources.bucket import Bucket
from cf_lab_resources.engine.editors import EditorSettings

SOURCES = 400
RATES = {"woman": 0.95, "man": 0.8}
MODELS = {"editor": {"name": "e"}}


class Killed(BaseException):
    """Stands for the end of the process."""


class Fake:
    """Takes the place of `make_chunk`; an edit's fate hangs on its id and source alone."""

    def __init__(self):
        self.drawn, self.dies_at = [], 0

    def __call__(self, edits, sources, bucket, *_):
        if self.dies_at and len(self.drawn) >= self.dies_at:
            raise Killed
        self.drawn += [edit["edit_id"] for edit in edits]
        picture = bucket.put_content("images", b"a picture", ".png")
        return [self.row(edit, picture) for edit in edits]

    @staticmethod
    def row(edit, picture):
        fate = int(hashlib.sha256(edit["edit_id"].encode()).hexdigest()[:8], 16) / 16**8
        accepted = fate < RATES[edit["from_values"]["gender"]]
        return {
            "edit_id": edit["edit_id"],
            "source_id": edit["source_id"],
            "draw": 0,
            "noise_seed": 1,
            "image_key": picture,
            "image_sha256": "h",
            "cits": 0.5,
            "accepted": accepted,
            "reasons": [] if accepted else ["blurred"],
        }


@pytest.fixture
def fake(monkeypatch):
    made = Fake()
    monkeypatch.setattr(generation, "make_chunk", made)
    return made


def source(number, portrait, batch, picture=True):
    return {
        "source_id": f"s{number:015x}",
        "batch": batch,
        "file_name": f"{number}.png",
        "image_key": f"objects/images/00/{number}.png" if picture else None,
        "image_sha256": "0" * 64 if picture else None,
        "caption": portrait.caption,
        "attributes": portrait.attributes,
        "extra": {"occupation": portrait.occupation},
    }


def store_batch(bucket, batch, rows):
    buffer = io.BytesIO()
    columns = [field for field in pairs_schema() if field.name in rows[0]]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(columns)), buffer)
    manifest = Manifest(batch, "h", len(rows), len(rows), 0, 0, 0, "k", "d", "p")
    bucket.put_bytes(pairs_key(manifest), buffer.getvalue())
    bucket.put_bytes(manifest_key(batch), manifest.to_json())


@pytest.fixture
def batch(bucket):
    rows = [source(n, p, "small") for n, p in enumerate(world.sample(SOURCES, seed=2))]
    store_batch(bucket, "small", [*rows, source(SOURCES, next(world.sample(1, 9)), "small", False)])
    return "small"


@pytest.fixture(scope="module")
def rewriter():
    from cf_lab_assets.counterfactuals.taxonomy import default_taxonomy

    return Rewriter(default_taxonomy())


UNIFORM = Target(("gender", "age"), "uniform", total=240, seed=5)


def plan(bucket, batch, rewriter, target=UNIFORM, attributes=("gender", "skin_tone")):
    planner = Planner(rewriter, attributes, over=target.over if target else ())
    return planning.write_plan(bucket, batch, planner, target, MODELS)


def draw(bucket, batch):
    sampling = read_sampling(bucket, batch)
    generator = generation.Generator(bucket, batch, lambda: (0, 0), {}, EditorSettings(), 1)
    with tables.staged(*drawing.TABLES) as staged:
        for _ in rounds.draw_batch(bucket, batch, drawing.Drawing(generator, staged, 8), sampling):
            pass
        dataset.write_made_with(bucket, batch, MODELS, {})
        for table in drawing.TABLES:
            staged.put(bucket, batch, table)
    return {table: tables.read_rows(bucket, batch, table) for table in drawing.TABLES}


def test_accepted_sets_meet_the_target_and_no_edit_is_drawn_twice(bucket, batch, rewriter, fake):
    made = plan(bucket, batch, rewriter)
    assert set(made.sampling.sampler.quota) == {20}
    written = draw(bucket, batch)
    assert len(fake.drawn) == len(set(fake.drawn))
    quotas = {(row["attribute"], row["cell"]): row for row in written["quotas"]}
    assert len(quotas) == 12
    for row in quotas.values():
        assert row["outcome"] == "met"
        assert 20 <= row["accepted"] <= 23
        assert row["drawn"] < row["offered"]
    edits = {row["source_id"]: row for row in tables.read_rows(bucket, batch, "edit_plan")}
    accepted = Counter(
        (row["attribute"], edits[row["source_id"]]["cell"]) for row in written["accepted_sets"]
    )
    assert accepted == {cell: row["accepted"] for cell, row in quotas.items()}
    rates = {"woman": [0, 0], "man": [0, 0]}
    for row in quotas.values():
        count = rates[row["cell"].split("+")[0]]
        count[0] += row["drawn"]
        count[1] += row["accepted"]
    assert rates["man"][0] > 1.2 * rates["woman"][0], "harder cells are drawn more often"


def test_without_a_target_everything_is_drawn(bucket, batch, rewriter, fake):
    made = plan(bucket, batch, rewriter, target=None)
    assert read_sampling(bucket, batch) is None
    written = draw(bucket, batch)
    assert written["quotas"] == []
    rejected = [row for row in written["rejected_sets"] if row["stage"] == "scores"]
    assert len(rejected) + len(written["accepted_sets"]) == 2 * SOURCES
    assert len(fake.drawn) == made.edits


def test_sets_of_captions_alone_are_rejected_with_a_reason(bucket, batch, rewriter, fake):
    for target in (UNIFORM, None):
        plan(bucket, batch, rewriter, target=target)
        found = [row for row in draw(bucket, batch)["rejected_sets"] if row["stage"] == "plan"]
        assert [row["attribute"] for row in found] == ["gender", "skin_tone"]
        assert all(row["reasons"][0].startswith("no_picture: ") for row in found)
        assert all("CF_LAB_EDITOR" in row["reasons"][0] for row in found)


def test_a_run_killed_in_any_round_goes_on_and_ends_in_the_same_sets(bucket, batch, rewriter, fake):
    plan(bucket, batch, rewriter)
    whole = draw(bucket, batch)
    total = len(fake.drawn)
    first_round = sum(row["quota"] for row in whole["quotas"])
    for moment in (1, first_round, total - 20):
        bucket.delete(info.key for info in list(bucket.list(f"counterfactuals/{batch}/chunks")))
        bucket.delete([tables.batch_key(batch, "accepted_sets")])
        fake.drawn, fake.dies_at = [], moment
        with pytest.raises(Killed):
            draw(bucket, batch)
        assert not bucket.exists(tables.batch_key(batch, "accepted_sets"))
        fake.dies_at = 0
        assert draw(bucket, batch) == whole
        assert len(fake.drawn) == len(set(fake.drawn)) == total, "nothing finished is drawn again"


def test_planning_again_keeps_what_was_accepted_and_another_target_does_not(
    bucket, batch, rewriter, fake
):
    plan(bucket, batch, rewriter)
    whole = draw(bucket, batch)
    plan(bucket, batch, rewriter)
    assert bucket.exists(tables.batch_key(batch, "accepted_sets"))
    fake.drawn = []
    assert draw(bucket, batch) == whole
    assert fake.drawn == []
    plan(bucket, batch, rewriter, target=Target(("gender",), "uniform", total=10))
    assert not bucket.exists(tables.batch_key(batch, "accepted_sets"))


def test_a_plan_of_which_the_refusals_alone_have_changed_is_another(bucket, rewriter, fake):
    rows = [source(n, p, "small") for n, p in enumerate(world.sample(8, seed=2))]
    plans = []
    for caption in ("a portrait of a doctor", "a photo of a doctor"):
        rows[-1] |= {"caption": caption, "attributes": {}}
        store_batch(bucket, "small", rows)
        plan(bucket, "small", rewriter, target=None, attributes=("gender",))
        assert not bucket.exists(tables.batch_key("small", "accepted_sets"))
        plans.append(tables.read_rows(bucket, "small", "edit_plan"))
        (refused,) = (r for r in draw(bucket, "small")["rejected_sets"] if r["stage"] == "plan")
        assert caption in refused["reasons"][0]
    assert plans[0] == plans[1]


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_planning_that_is_killed_leaves_no_parts_of_two_plans(
    bucket, rewriter, fake, monkeypatch, writes
):
    rows = [source(n, p, "small") for n, p in enumerate(world.sample(24, seed=2))]
    store_batch(bucket, "small", rows)
    plan(bucket, "small", rewriter)
    draw(bucket, "small")
    other = Target(("occupation",), "uniform", total=20)
    left = writes

    def killing(write):
        def call(*arguments):
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            return write(*arguments)

        return call

    with monkeypatch.context() as patched:
        for name in ("put_bytes", "put_file"):
            patched.setattr(Bucket, name, killing(getattr(Bucket, name)))
        with pytest.raises(Killed):
            plan(bucket, "small", rewriter, target=other)
    assert not bucket.exists(tables.batch_key("small", "edit_plan"))
    assert not bucket.exists(tables.batch_key("small", "accepted_sets"))
    plan(bucket, "small", rewriter, target=other)
    assert {row["cell"] for row in draw(bucket, "small")["quotas"]} == set(
        read_sampling(bucket, "small").target.shares(
            Counter(row["extra"]["occupation"] for row in rows), {}
        )
    )


def test_a_plan_that_grows_redoes_no_chunk(bucket, rewriter, fake):
    rows = [source(n, p, "small") for n, p in enumerate(world.sample(48, seed=2))]
    store_batch(bucket, "small", rows[:32])
    plan(bucket, "small", rewriter, target=None)
    draw(bucket, "small")
    fake.drawn = []
    store_batch(bucket, "small", rows)
    plan(bucket, "small", rewriter, target=None)
    draw(bucket, "small")
    assert {edit_id.split("-")[0] for edit_id in fake.drawn} == {
        row["source_id"] for row in rows[32:]
    }


def test_a_later_batch_knows_rates_and_an_earlier_one_is_not_changed_by_it(
    bucket, batch, rewriter, fake
):
    first = plan(bucket, batch, rewriter)
    whole = draw(bucket, batch)
    later = [source(1000 + n, p, "later") for n, p in enumerate(world.sample(300, seed=3))]
    store_batch(bucket, "later", later)
    second = plan(bucket, "later", rewriter)
    assert first.sampling.sampler.seen_drawn.sum() == 0
    assert (second.sampling.sampler.seen_drawn > 0).all()
    draw(bucket, "later")
    plan(bucket, batch, rewriter)
    assert draw(bucket, batch) == whole
    dataset.write_made_with(bucket, batch, {"editor": {"name": "other"}}, {})
    assert planning.evidence(bucket, "later", UNIFORM.over, MODELS) == {}


def test_what_cannot_be_met_is_reported_cell_by_cell(bucket, batch, rewriter, fake):
    plan(bucket, batch, rewriter, Target(("occupation",), "uniform", total=2000), ("gender",))
    written = draw(bucket, batch)
    short = [row for row in written["quotas"] if row["shortfall"]]
    assert short
    for row in short:
        assert row["outcome"] == "no_sources"
        assert row["drawn"] == row["offered"]
        assert row["shortfall"] == row["quota"] - row["accepted"]
    plan(bucket, batch, rewriter, Target(("gender",), "uniform", total=200, budget=60), ("age",))
    written = draw(bucket, batch)
    assert sum(row["drawn"] for row in written["quotas"]) == 60
    assert {row["outcome"] for row in written["quotas"]} == {"budget_spent"}


def test_a_plan_of_other_sources_says_so(bucket, batch, rewriter, fake):
    plan(bucket, batch, rewriter, target=None)
    rows = [source(n, p, "small") for n, p in enumerate(world.sample(3, seed=5), start=900)]
    store_batch(bucket, "small", rows)
    with pytest.raises(rounds.StalePlan, match="materialise counterfactuals/edit_plan again"):
        draw(bucket, batch)
