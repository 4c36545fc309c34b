"""Assets from edit plan to dataset; each reads tables, calls a pure function, writes tables."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from cf_lab_assets import charts, faces, names
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
from cf_lab_assets.counterfactuals.contact_sheet import contact_sheet, embedded
from cf_lab_assets.failures import RETRIES, failure
from cf_lab_assets.models import artifacts
from cf_lab_resources.dagster import BucketResource
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from cf_lab_assets.counterfactuals.targets import SamplingPlan
    from cf_lab_resources.bucket import Bucket

# Cells that metadata show; the table in the bucket has all.
MAX_CELLS = 100


def table_metadata(key: dg.AssetKey, table: str, rows: int, uri: str) -> dict[str, Any]:
    """Row count, columns, lineage and place of a table."""
    schema = faces.columns(tables.schema(table), tables.MEANING, unique=tables.UNIQUE[table])
    return faces.tabular(key, rows, schema, uri)


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
    """Each source's edits to every other value of what is varied, and its placebo or base.

    Captions are rewritten by rules that say why a word was changed. What can't be planned is in
    the table `refused_edits` with a reason code. Where a target distribution is configured, quotas
    say how many accepted sets are wanted of each cell.
    """
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
            **table_metadata(names.EDIT_PLAN, "edit_plan", made.edits, uri),
            "sample": dg.MetadataValue.table(sample) if sample else "no edit was planned",
            "planned edits": faces.picture(_planned_plot(made), "planned edits by value"),
            "refused": dg.MetadataValue.json(dict(made.refused)),
            **(quota_metadata(made.sampling) if made.sampling else {}),
        }
    )


def _planned_plot(made: planning.Planned) -> bytes:
    rows = sorted(made.asked.items())
    bars = [(f"{attribute}: {value}", count, count) for (attribute, value), count in rows]
    return charts.parts(bars, "planned edits, by attribute and the value that is asked for")


def quota_metadata(sampling: "SamplingPlan") -> dict[str, Any]:
    """The quota report as a table and a plot."""
    from cf_lab_assets.counterfactuals.quota_plot import quota_plot

    rows = sampling.rows()
    return {
        "quotas": dg.MetadataValue.table([dg.TableRecord(row) for row in rows[:MAX_CELLS]]),
        "quotas plot": faces.picture(quota_plot(rows[:MAX_CELLS]), "quotas"),
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
                "Every picture the editor drew, accepted or not: one row an edit and draw.\n\n"
                "Draws of a set stop as soon as all its members are accepted, or its budget is "
                "spent. The contact sheet shows the first sources, each with its newest draws.",
            ),
            (
                names.PAIR_SCORES,
                [names.CANDIDATES],
                {"pytorch", "parquet"},
                "Similarities, preservation and CITS of every candidate, and what its judges "
                "miss.\n\nCITS, the Counterfactual Image-Text Score, is between 0 and 1 and was "
                "calibrated on the starter world, where the truth is known. Two judges of "
                "different architecture must see what was asked.",
            ),
            (
                names.ACCEPTED_SETS,
                [names.PAIR_SCORES],
                {"python", "parquet"},
                "Counterfactual sets of which every member was accepted; the others with reasons."
                "\n\nA set is accepted whole or not at all. Rejected sets are kept in the table "
                "`rejected_sets`, and acceptance by group of source is compared by the checks.",
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
            "histogram of CITS": faces.picture(_cits_plot(drawn), "CITS by what was varied"),
            "accepted candidates": drawn.accepted_candidates,
            "mean cits": drawn.cits / max(drawn.candidates, 1),
        },
        "accepted_sets": {
            "rejected sets": counts["rejected_sets"],
            "acceptance rate": counts["accepted_sets"] / max(total, 1),
            "acceptance": faces.picture(_acceptance_plot(drawn), "accepted sets by source group"),
            "rejections": dg.MetadataValue.json(drawn.rejections),
            **(quota_metadata(sampling) if sampling else {}),
        },
    }
    for key in (names.CANDIDATES, names.PAIR_SCORES, names.ACCEPTED_SETS):
        table = key.path[-1]
        uri = store.url(tables.batch_key(batch, table))
        yield dg.MaterializeResult(
            asset_key=key,
            metadata={**table_metadata(key, table, counts[table], uri), **extra[table]},
            check_results=results.get(key, []),
        )


def _cits_plot(drawn: drawing.Drawn) -> bytes:
    edges = [number / drawing.CITS_BINS for number in range(drawing.CITS_BINS + 1)]
    limit = artifacts.acceptance_threshold()
    return charts.histograms(dict(sorted(drawn.cits_bins.items())), edges, "CITS", limit)


def _acceptance_plot(drawn: drawing.Drawn) -> bytes:
    rows = [
        (f"{attribute}: {value}", accepted, total)
        for (attribute, value), (accepted, total) in drawn.acceptance.by_value().items()
    ]
    return charts.parts(rows, "sets: drawn (grey) and accepted (blue), by what the source shows")


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
    """All batches' accepted sets as one content-addressed dataset with its pictures.

    One row a member of a set. The same accepted sets give the same content hash, whichever batch
    came first; what audits, package and release are made from is named by it.
    """
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
            **table_metadata(names.DATASET, "pairs", made.manifest["pairs"], store.url(prefix)),
            "content hash": made.content_hash,
            "sets": made.manifest["sets"],
            "pairs by value": dg.MetadataValue.table(cells),
            "contact sheet": dg.MetadataValue.md(embedded(made.sheet, "dataset")),
        },
        data_version=dg.DataVersion(made.content_hash),
    )
