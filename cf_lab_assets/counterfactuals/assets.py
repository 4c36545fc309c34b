"""Assets from edit plan to dataset; each reads tables, calls a pure function, writes tables."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import dagster as dg
from pydantic import Field

from cf_lab_assets import names
from cf_lab_assets.counterfactuals import dataset, generation, plan, tables
from cf_lab_assets.counterfactuals.contact_sheet import contact_sheet, markdown, png_bytes
from cf_lab_assets.models import artifacts
from cf_lab_assets.sources.batches import pairs_key
from cf_lab_resources.dagster import BucketResource
from cf_lab_resources.engine.editors import EditorSettings
from cf_lab_resources.errors import LabError

SHEET_COLOURS = 64

MEANING = {
    "pair_id": "set_id and value",
    "set_id": "source_id and attribute",
    "source_id": "of the source's picture and caption",
    "edit_id": "of the source's edit, placebos included",
    "batch": "source batch",
    "kind": "counterfactual or placebo",
    "attribute": "what the set varies; null for placebos of the plan",
    "value": "the member's value of the attribute",
    "values": "the member's values of all known attributes",
    "from_values": "the source's values of all known attributes",
    "to_values": "the values that are asked for",
    "is_placebo": "the member that shows the source's own value, rendered again like the others",
    "caption": "of the member",
    "instruction": "what the editor was told",
    "explanation": "why the caption became this one",
    "image_key": "place of the picture in the bucket",
    "image_sha256": "hash of the picture's PNG",
    "source_image_key": "place of the source's picture in the bucket",
    "source_image_sha256": "hash of the source's PNG",
    "source_caption": "as it was delivered",
    "occupation": "the source's, where its metadata name one",
    "draw": "number of the draw that was kept, or of this one",
    "noise_seed": "of the editor's initial noise",
    "accepted": "whether both judges and CITS agree",
    "members": "the accepted candidate of each edit",
    "stage": "where it failed: plan or scores",
    "sim_0": "cos of source picture and source caption",
    "sim_1": "cos of candidate and its caption",
    "sim_dir": "cos of the change in picture and the change in caption; null for placebos",
    "sim_img": "cos of source picture and candidate",
    "preservation": "SSIM to the source where least changed",
    "cits": "Counterfactual Image-Text Score, 0 to 1",
    "reasons": "why the candidate was not accepted",
}


class EditPlanConfig(dg.Config):
    """Which attributes are varied."""

    attributes: list[str] = Field(
        default=["gender", "age", "skin_tone"], description="attributes of the taxonomy"
    )


class GenerationConfig(dg.Config):
    """How candidates are drawn."""

    steps: int = Field(default=2, gt=0, description="denoising steps")
    guidance_scale: float = Field(default=1.0, ge=1.0, description="1 is no guidance")
    image_guidance_scale: float = Field(default=1.0, ge=1.0, description="1 is no guidance")
    batch_size: int = Field(default=32, gt=0, description="candidates drawn at once")
    max_draws: int = Field(default=3, gt=0, description="draws of an edit before it is given up")
    chunk_sources: int = Field(default=8, gt=0, description="sources a resumable chunk")

    @property
    def editor(self) -> EditorSettings:
        """The editor's part."""
        return EditorSettings(
            self.steps, self.guidance_scale, self.image_guidance_scale, self.batch_size
        )

    @property
    def generation(self) -> generation.GenerationSettings:
        """The streaming step's part."""
        return generation.GenerationSettings(self.max_draws, self.chunk_sources)


def column_schema(table: str) -> dg.TableSchema:
    """A table's columns for the UI."""
    return dg.TableSchema(
        [
            dg.TableColumn(field.name, str(field.type), MEANING.get(field.name))
            for field in tables.schema(table)
        ]
    )


def table_metadata(table: str, rows: Sequence[Any], uri: str) -> dict[str, Any]:
    """Row count, columns and place of a table."""
    return {
        "dagster/row_count": len(rows),
        "dagster/column_schema": column_schema(table),
        "dagster/uri": uri,
    }


def refuse(error: Exception) -> dg.Failure:
    """A failure that is not retried: the same input would fail again."""
    return dg.Failure(str(error), allow_retries=False)


@dg.asset(
    key=names.EDIT_PLAN,
    deps=[names.SOURCE_PAIRS],
    partitions_def=names.SOURCE_BATCHES,
    group_name=names.COUNTERFACTUALS,
    owners=names.OWNERS,
    kinds={"python", "parquet"},
    code_version="1",
)
def edit_plan(
    context: dg.AssetExecutionContext, config: EditPlanConfig, bucket: BucketResource
) -> dg.MaterializeResult:
    """Each source's edits to every other value of its attributes, and one placebo."""
    store, batch = bucket.open(), context.partition_key
    sources = tables.to_rows(tables.from_bytes(store.get_bytes(pairs_key(batch))))
    try:
        planned = plan.plan_edits(sources, config.attributes)
    except ValueError as error:
        raise refuse(error) from error
    rows = [asdict(edit) for edit in planned.edits]
    if _is_new_plan(store, batch, rows):
        # What was accepted under another plan must not be read with this one.
        store.delete([tables.batch_key(batch, "accepted_sets")])
    tables.write_rows(store, batch, "refused_edits", [asdict(r) for r in planned.refusals])
    tables.write_rows(store, batch, "edit_plan", rows)
    sample = [
        dg.TableRecord({"caption": e.caption, "instruction": e.instruction, "why": e.explanation})
        for e in planned.edits[:8]
    ]
    reasons = Counter(refusal.reason for refusal in planned.refusals)
    return dg.MaterializeResult(
        metadata={
            **table_metadata("edit_plan", rows, store.url(tables.batch_key(batch, "edit_plan"))),
            "sample": dg.MetadataValue.table(sample) if sample else "no edit was planned",
            "refused": dg.MetadataValue.json(dict(reasons)),
        }
    )


def _is_new_plan(store: Any, batch: str, rows: list[dict[str, Any]]) -> bool:
    if not store.exists(tables.batch_key(batch, "edit_plan")):
        return False
    return tables.read_rows(store, batch, "edit_plan") != rows


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
    pool=names.GPU_POOL,
    op_tags=names.GPU_OP_TAGS,
)
def draw_and_score(
    context: dg.AssetExecutionContext, config: GenerationConfig, bucket: BucketResource
) -> Any:
    """Candidates, scores and acceptance in one stream, so that draws stop with acceptance."""
    store, batch = bucket.open(), context.partition_key
    sources = tables.to_rows(tables.from_bytes(store.get_bytes(pairs_key(batch))))
    edits = tables.read_rows(store, batch, "edit_plan")
    models = {role: model["sha256"] for role, model in artifacts.generation_models().items()}
    models["calibration"] = artifacts.calibration_hash()
    name = generation.fingerprint(edits, models, config.editor, config.generation)
    work = generation.lay_out(batch, sources, edits, config.chunk_sources, name)
    rows: list[dict[str, Any]] = []
    chunks = generation.run_chunks(
        work,
        store,
        lambda: (artifacts.load_editor(config.editor), artifacts.load_judge()),
        config.max_draws,
    )
    for done, chunk in enumerate(chunks, start=1):
        rows += chunk
        context.log.info(f"{done} of {len(work.chunks)} chunks: {len(rows)} candidates")
    accepted, rejected = generation.accept_sets(edits, rows)
    rejected += [
        {
            "set_id": f"{refusal['source_id']}-{refusal['attribute']}",
            "source_id": refusal["source_id"],
            "attribute": refusal["attribute"],
            "stage": "plan",
            "reasons": [f"{refusal['reason']}: {refusal['detail']}"],
        }
        for refusal in tables.read_rows(store, batch, "refused_edits")
    ]
    made_with = {"editor": asdict(config.editor), "generation": asdict(config.generation)}
    store.delete([tables.batch_key(batch, "accepted_sets")])
    dataset.write_made_with(store, batch, artifacts.generation_models(), made_with)
    written = {
        "candidates": rows,
        "pair_scores": rows,
        "rejected_sets": rejected,
        "accepted_sets": accepted,  # last: a batch counts as finished once this is there
    }
    for table, content in written.items():
        tables.write_rows(store, batch, table, content)
    total = len(accepted) + len(rejected)
    extra: dict[str, dict[str, Any]] = {
        "candidates": {"contact sheet": dg.MetadataValue.md(_sheet(store, sources, edits, rows))},
        "pair_scores": {
            "accepted candidates": sum(row["accepted"] for row in rows),
            "mean cits": float(sum(row["cits"] for row in rows) / max(len(rows), 1)),
        },
        "accepted_sets": {
            "rejected sets": len(rejected),
            "acceptance rate": len(accepted) / max(total, 1),
            "rejections": dg.MetadataValue.json([r["reasons"] for r in rejected[:20]]),
        },
    }
    for key in (names.CANDIDATES, names.PAIR_SCORES, names.ACCEPTED_SETS):
        table = key.path[-1]
        uri = store.url(tables.batch_key(batch, table))
        yield dg.MaterializeResult(
            asset_key=key,
            metadata={**table_metadata(table, written[table], uri), **extra[table]},
        )


def _sheet(
    store: Any,
    sources: list[dict[str, Any]],
    edits: list[dict[str, Any]],
    rows: list[dict[str, Any]],
) -> str:
    pictures = {(source["source_id"], "source"): source["image_key"] for source in sources} | {
        (row["source_id"], row["edit_id"]): row["image_key"] for row in rows
    }
    sheet = contact_sheet(
        dataset.candidate_rows(store, pictures, edits, limit=6), "candidates, newest draw"
    )
    return markdown(png_bytes(sheet, SHEET_COLOURS), "candidates")


@dg.asset(
    key=names.DATASET,
    deps=[names.ACCEPTED_SETS, names.MODEL_ARTIFACTS],
    group_name=names.COUNTERFACTUALS,
    owners=names.OWNERS,
    kinds={"python", "parquet"},
    code_version="2",
)
def counterfactual_dataset(
    bucket: BucketResource,
) -> dg.MaterializeResult:
    """All batches' accepted sets as one content-addressed dataset with its pictures."""
    store = bucket.open()
    try:
        made = dataset.build_dataset(store, dataset.finished_batches(store))
    except LabError as error:
        raise refuse(error) from error
    prefix = dataset.dataset_prefix(made.content_hash)
    sheet = png_bytes(dataset.dataset_sheet(store, made), SHEET_COLOURS)
    counts = Counter((row["attribute"], row["value"]) for row in tables.to_rows(made.pairs))
    cells = [
        dg.TableRecord({"attribute": attribute, "value": value, "pairs": count})
        for (attribute, value), count in sorted(counts.items())
    ]
    return dg.MaterializeResult(
        metadata={
            **table_metadata("pairs", range(made.pairs.num_rows), store.url(prefix)),
            "content hash": made.content_hash,
            "sets": made.sets.num_rows,
            "pairs by value": dg.MetadataValue.table(cells),
            "contact sheet": dg.MetadataValue.md(markdown(sheet, "dataset")),
        },
        data_version=dg.DataVersion(made.content_hash),
    )
