"""Assets from edit plan to dataset; each reads tables, calls a pure function, writes tables."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from cf_lab_assets import names
from cf_lab_assets.counterfactuals import (
    checks,
    dataset,
    drawing,
    generation,
    pace,
    plan,
    planning,
    replay,
    rounds,
    tables,
)
from cf_lab_assets.counterfactuals.config import EditPlanConfig, GenerationConfig
from cf_lab_assets.counterfactuals.contact_sheet import contact_sheet, embedded, markdown
from cf_lab_assets.failures import RETRIES, failure
from cf_lab_assets.models import artifacts
from cf_lab_resources.dagster import BucketResource
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from cf_lab_assets.counterfactuals.targets import SamplingPlan
    from cf_lab_resources.bucket import Bucket

# Cells that metadata show; the table in the bucket has all.
MAX_CELLS = 100

MEANING = {
    "pair_id": "set_id and value",
    "set_id": "source_id and attribute",
    "source_id": "of the source's picture and caption",
    "edit_id": "of the source's edit, placebos and bases included",
    "batch": "source batch",
    "strategy": "of the editor that the plan is for",
    "kind": "counterfactual, placebo, or base of sets that are drawn from captions",
    "attribute": "what the set varies, joined by +; null for placebos and bases",
    "from_value": "the source's own value of what the set varies; null where nothing is edited",
    "value": "the member's value of the attribute",
    "values": "the member's values of all known attributes",
    "from_values": "the source's values of all known attributes",
    "to_values": "the values that are asked for",
    "is_placebo": "the member that shows the source's own value, rendered again like the others",
    "cell": "the source's values of what the target distribution is over; empty without one",
    "base_caption": "the source's caption with its own values named; members are made from it",
    "caption": "of the member",
    "reason": "code of why the set can't be made",
    "detail": "the same as a sentence",
    "drawn": "how many were drawn",
    "share": "of the cell in the target, of all attribute sets together",
    "offered": "sets of the cell that can be drawn",
    "quota": "accepted sets that are wanted of the cell",
    "shortfall": "accepted sets that are missing to the quota",
    "outcome": "met, or why not: no_sources, budget_spent, acceptance_too_low; open before drawing",
    "to_value": "the value that was asked for",
    "instruction": "what the editor was told; null where it drew from the caption alone",
    "explanation": "why the caption became this one",
    "image_key": "place of the picture in the bucket",
    "image_sha256": "hash of the picture's PNG",
    "source_image_key": "place of what scores compare with: the source's picture, or the base's",
    "source_image_sha256": "hash of its PNG",
    "source_caption": "as it was delivered",
    "occupation": "the source's, where its metadata name one",
    "draw": "number of the draw that was kept, or of this one",
    "noise_seed": "of the editor's initial noise",
    "engine": "hash of the record of what drew it: models, settings, device, versions (engines/)",
    "accepted": "whether both judges and CITS agree, or how many were accepted",
    "members": "the accepted candidate of each edit",
    "stage": "where it failed: plan, draw or scores",
    "sim_0": "cos of source picture (or base) and base caption",
    "sim_1": "cos of candidate and its caption",
    "sim_dir": "cos of the changes in picture and in caption; null for placebos and bases",
    "sim_img": "cos of source picture (or base) and candidate",
    "preservation": "SSIM to the source picture (or base) where least changed",
    "cits": "Counterfactual Image-Text Score, 0 to 1",
    "reasons": "why the candidate was not accepted",
}


def column_schema(table: str) -> dg.TableSchema:
    """A table's columns for the UI."""
    return dg.TableSchema(
        [
            dg.TableColumn(field.name, str(field.type), MEANING.get(field.name))
            for field in tables.schema(table)
        ]
    )


def table_metadata(table: str, rows: int, uri: str) -> dict[str, Any]:
    """Row count, columns and place of a table."""
    return {
        "dagster/row_count": rows,
        "dagster/column_schema": column_schema(table),
        "dagster/uri": uri,
    }


@dg.asset(
    key=names.EDIT_PLAN,
    deps=[names.SOURCE_PAIRS, names.MODEL_ARTIFACTS],
    partitions_def=names.SOURCE_BATCHES,
    group_name=names.COUNTERFACTUALS,
    owners=names.OWNERS,
    kinds={"python", "parquet"},
    code_version="3",
    retry_policy=RETRIES,
)
def edit_plan(
    context: dg.AssetExecutionContext, config: EditPlanConfig, bucket: BucketResource
) -> dg.MaterializeResult:
    """Each source's edits to every other value of what is varied, and its placebo or base."""
    from cf_lab_assets.counterfactuals.rewrite import Rewriter
    from cf_lab_assets.counterfactuals.taxonomy import default_taxonomy

    store, batch = bucket.open(), context.partition_key
    try:
        target = config.sampling.as_target()
        over = target.over if target else ()
        strategy = artifacts.editor_strategy(store)
        planner = plan.Planner(
            Rewriter(default_taxonomy()), config.attributes, over=over, strategy=strategy
        )
        models = artifacts.generation_models(store)
        made = planning.write_plan(store, batch, planner, target, models)
    except LabError as error:
        raise failure(error) from error
    sample = [
        dg.TableRecord({"caption": e.caption, "instruction": e.instruction, "why": e.explanation})
        for e in made.sample
    ]
    uri = store.url(tables.batch_key(batch, "edit_plan"))
    return dg.MaterializeResult(
        metadata={
            **table_metadata("edit_plan", made.edits, uri),
            "sample": dg.MetadataValue.table(sample) if sample else "no edit was planned",
            "refused": dg.MetadataValue.json(dict(made.refused)),
            **(quota_metadata(made.sampling) if made.sampling else {}),
        }
    )


def quota_metadata(sampling: "SamplingPlan") -> dict[str, Any]:
    """The quota report as a table and a plot."""
    from cf_lab_assets.counterfactuals.quota_plot import quota_plot

    rows = sampling.rows()
    return {
        "quotas": dg.MetadataValue.table([dg.TableRecord(row) for row in rows[:MAX_CELLS]]),
        "quotas plot": dg.MetadataValue.md(markdown(quota_plot(rows[:MAX_CELLS]), "quotas")),
        "cells": len(rows),
        "shortfall": sum(row["shortfall"] for row in rows),
        "rounds": sampling.sampler.rounds,
        "total variation distance": sampling.distance(),
    }


@dg.multi_asset(
    name="draw_and_score",
    specs=[
        dg.AssetSpec(
            key,
            deps=deps,
            partitions_def=names.SOURCE_BATCHES,
            group_name=names.COUNTERFACTUALS,
            owners=names.OWNERS,
            kinds=kinds,
            code_version=generation.GENERATION_VERSION,
            description=description,
        )
        for key, deps, kinds, description in (
            (
                names.CANDIDATES,
                [names.SOURCE_PAIRS, names.EDIT_PLAN, names.MODEL_ARTIFACTS],
                {"pytorch", "parquet"},
                "Every picture the editor drew, accepted or not: one row an edit and draw.",
            ),
            (
                names.PAIR_SCORES,
                [names.CANDIDATES],
                {"pytorch", "parquet"},
                "Similarities, preservation and CITS of every candidate, and what its judges miss.",
            ),
            (
                names.ACCEPTED_SETS,
                [names.PAIR_SCORES],
                {"python", "parquet"},
                "Counterfactual sets of which every member was accepted; the others with reasons.",
            ),
        )
    ],
    check_specs=checks.SPECS,
    pool=names.GPU_POOL,
    op_tags=names.GPU_OP_TAGS,
    retry_policy=RETRIES,
)
def draw_and_score(
    context: dg.AssetExecutionContext, config: GenerationConfig, bucket: BucketResource
) -> Any:
    """Candidates, scores and acceptance in one stream, so that draws stop with acceptance."""
    from cf_lab_assets.counterfactuals.targets import read_sampling

    store, batch = bucket.open(), context.partition_key
    try:
        sampling = read_sampling(store, batch)
        finished = _draw_batch(context, config, store, sampling)
    except LabError as error:
        raise failure(error) from error
    yield from _results(store, batch, finished, sampling)


@dataclass(frozen=True)
class _Finished:
    """What came of a batch: its totals, rows of each table, and the pictures drawn again."""

    drawn: drawing.Drawn
    counts: dict[str, int]
    replayed: replay.Replay


def _draw_batch(
    context: dg.AssetExecutionContext,
    config: GenerationConfig,
    store: "Bucket",
    sampling: "SamplingPlan | None",
) -> _Finished:
    """Draw, score and accept, put the batch's tables in place, and replay a sample."""
    batch = context.partition_key
    goal = int(sampling.sampler.quota.sum()) if sampling else rounds.planned_sources(store, batch)
    going = pace.Pace(goal, of_sets=sampling is not None)

    def load() -> generation.Loaded:
        loaded = _load(store, hashes, config)
        going.loaded()
        return loaded

    models = artifacts.generation_models(store)
    hashes = {role: model["sha256"] for role, model in models.items()}
    generator = generation.Generator(
        store,
        batch,
        load,
        {**hashes, "calibration": artifacts.calibration_hash()},
        config.editor,
        config.max_draws,
        context.log.warning,
    )
    made_with = {"editor": asdict(config.editor), "generation": asdict(config.generation)}
    with tables.staged(*drawing.TABLES) as staged:
        draws = drawing.Drawing(generator, staged, config.chunk_sources)
        for _ in rounds.draw_batch(store, batch, draws, sampling):
            done = staged.count("accepted_sets") if sampling else draws.drawn.sources
            if line := going.chunk(done, draws.drawn.candidates, generator.made):
                context.log.info(line)
        context.log.info(going.line())
        store.delete([tables.batch_key(batch, "accepted_sets")])
        dataset.write_made_with(store, batch, models, made_with)
        for table in drawing.TABLES:
            staged.put(store, batch, table)
        counts = {table: staged.count(table) for table in drawing.TABLES}
    replayed = replay.Replay()
    if draws.drawn.to_replay:
        now = generator.models()
        replayed = replay.replay(store, draws.drawn.to_replay, now.editor, now.engine)
    return _Finished(draws.drawn, counts, replayed)


def _results(
    store: "Bucket", batch: str, finished: _Finished, sampling: "SamplingPlan | None"
) -> Iterator[dg.MaterializeResult]:
    """What the UI shows of the three tables, with their checks."""
    drawn, counts = finished.drawn, finished.counts
    results = {
        names.CANDIDATES: [checks.evaluate_replay(finished.replayed)],
        names.ACCEPTED_SETS: checks.evaluate(drawn.acceptance),
    }
    total = counts["accepted_sets"] + counts["rejected_sets"]
    extra: dict[str, dict[str, Any]] = {
        "candidates": {"contact sheet": dg.MetadataValue.md(_sheet(store, drawn))},
        "pair_scores": {
            "accepted candidates": drawn.accepted_candidates,
            "mean cits": drawn.cits / max(drawn.candidates, 1),
        },
        "accepted_sets": {
            "rejected sets": counts["rejected_sets"],
            "acceptance rate": counts["accepted_sets"] / max(total, 1),
            "rejections": dg.MetadataValue.json(drawn.rejections),
            **(quota_metadata(sampling) if sampling else {}),
        },
    }
    for key in (names.CANDIDATES, names.PAIR_SCORES, names.ACCEPTED_SETS):
        table = key.path[-1]
        uri = store.url(tables.batch_key(batch, table))
        yield dg.MaterializeResult(
            asset_key=key,
            metadata={**table_metadata(table, counts[table], uri), **extra[table]},
            check_results=results.get(key, []),
        )


def _load(store: Any, hashes: dict[str, str], config: GenerationConfig) -> generation.Loaded:
    editor = artifacts.load_editor(config.editor, store)
    engine = replay.record_engine(store, editor, hashes, config.editor)
    return generation.Loaded(editor, artifacts.load_judge(), engine)


def _sheet(store: Any, drawn: drawing.Drawn) -> str:
    pictures = {
        (source["source_id"], "source"): source["image_key"]
        for source, edits, _ in drawn.shown
        if edits[0]["kind"] != plan.BASE
    }
    pictures |= {
        (row["source_id"], row["edit_id"]): row["image_key"]
        for _, _, rows in drawn.shown
        for row in rows
    }
    edits = [
        edit
        for _, edits, _ in drawn.shown
        for edit in edits
        if (edit["source_id"], edit["edit_id"]) in pictures
    ]
    sheet = contact_sheet(
        dataset.candidate_rows(store, pictures, edits, limit=drawing.SHOWN),
        "candidates, newest draw",
    )
    return embedded(sheet, "candidates")


@dg.asset(
    key=names.DATASET,
    deps=[names.ACCEPTED_SETS, names.MODEL_ARTIFACTS],
    group_name=names.COUNTERFACTUALS,
    owners=names.OWNERS,
    kinds={"python", "parquet"},
    code_version="3",
    retry_policy=RETRIES,
)
def counterfactual_dataset(
    bucket: BucketResource,
) -> dg.MaterializeResult:
    """All batches' accepted sets as one content-addressed dataset with its pictures."""
    store = bucket.open()
    try:
        made = dataset.build_dataset(store, dataset.finished_batches(store))
    except LabError as error:
        raise failure(error) from error
    prefix = dataset.dataset_prefix(made.content_hash)
    cells = [
        dg.TableRecord({"attribute": attribute, "value": value, "pairs": count})
        for (attribute, value), count in sorted(made.by_value.items())
    ]
    return dg.MaterializeResult(
        metadata={
            **table_metadata("pairs", made.manifest["pairs"], store.url(prefix)),
            "content hash": made.content_hash,
            "sets": made.manifest["sets"],
            "pairs by value": dg.MetadataValue.table(cells),
            "contact sheet": dg.MetadataValue.md(embedded(made.sheet, "dataset")),
        },
        data_version=dg.DataVersion(made.content_hash),
    )
