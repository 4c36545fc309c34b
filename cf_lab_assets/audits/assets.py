"""Assets from an audited model's responses to the bias report; each reads, calls, writes.

Annotations are evaluated here: Dagster does not resolve the string form of a `config`'s.
"""

import datetime
import hashlib
import itertools
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from cf_lab_assets import charts, faces, names
from cf_lab_assets.audits import checks, store
from cf_lab_assets.audits.results import COLUMNS as RESULT_COLUMNS
from cf_lab_assets.audits.results import PRIMARY
from cf_lab_assets.audits.signature import sha256
from cf_lab_assets.failures import RETRIES, readable
from cf_lab_resources.dagster import BucketResource, CatalogResource, PublicationResource

if TYPE_CHECKING:
    from cf_lab_assets.audits.declaration import AuditConfig
    from cf_lab_resources.bucket import Bucket

# A plot in the event log is kept smaller than the one in the report, and legible in a dialog.
METADATA_DPI = 110


class ResponsesConfig(dg.Config):
    """What is asked, and how much at a time."""

    declaration: str = Field(
        default="",
        description="bucket key of a JSON audit declaration; empty: the starter world's",
    )
    batch: int = Field(default=64, gt=0, description="pictures a forward pass")


def _step(key: dg.AssetKey) -> str:
    """Name of the step that makes an asset, whose key may hold a model's name."""
    return re.sub(r"\W", "_", "__".join(key.path))


def responses_of(name: str) -> dg.AssetsDefinition:
    """The asset of what an audited model says."""

    @dg.multi_asset(
        name=_step(names.RESPONSES[name]),
        specs=[
            dg.AssetSpec(
                names.RESPONSES[name],
                deps=[names.DATASET, names.MODEL_ARTIFACTS],
                group_name=names.AUDITS,
                owners=names.OWNERS,
                kinds={"python", "pytorch", "parquet"},
                code_version="2",
                description=f"What {name} says of every member and source picture, raw, in all "
                "its formats.\n\nEach picture is asked once for each prompt or question of the "
                "declaration. Nothing is decided here: metrics are computed from these rows, and "
                "may be computed anew without asking again.",
            )
        ],
        pool=names.GPU_POOL,
        op_tags=names.GPU_OP_TAGS,
        retry_policy=RETRIES,
        check_specs=checks.response_checks(name),
    )
    def responses(config: ResponsesConfig, bucket: BucketResource) -> dg.MaterializeResult:
        from cf_lab_assets.audits import association, tallies
        from cf_lab_assets.models.audited import open_audited

        opened = bucket.open()
        with readable():
            dataset_hash = store.latest_dataset(opened)
            manifest = _manifest(opened, dataset_hash)
            pairs = store.read_table(
                opened,
                store.dataset_key(dataset_hash, "pairs.parquet"),
                "counterfactuals/dataset",
                association.PAIR_COLUMNS,
            )
            declared = _declaration(opened, config.declaration)
            model = open_audited(name, opened, config.batch)
            key = store.responses_key(dataset_hash, name)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "responses.parquet"
                pictures = association.respond(
                    model, name, opened, pairs, declared, path, dataset_hash, config.batch
                )
                opened.put_file(key, path)
                with path.open("rb") as file:
                    content_hash = hashlib.file_digest(file, "sha256").hexdigest()
            written = store.read_table(opened, key, f"audits/responses/{name}")
        return dg.MaterializeResult(
            asset_key=names.RESPONSES[name],
            metadata={
                **faces.tabular(
                    names.RESPONSES[name],
                    len(written),
                    faces.columns(association.responses_schema(), association.RESPONSES_MEANING),
                    opened.url(key),
                ),
                "distribution": _distribution(tallies.quantiles(written)),
                "pictures": pictures,
                "formats": ", ".join(model.formats),
                "outcomes": _outcome_table(tallies.outcomes(written)),
                "dataset_hash": dataset_hash,
                "declaration_hash": declared.hash,
            },
            data_version=dg.DataVersion(content_hash),
            check_results=[
                checks.responses_are_complete(written, pairs, declared, model.formats),
                checks.audited_model_is_not_the_scorer(model.describe(), manifest["models"]),
            ],
        )

    return responses


def bias_metrics_of(name: str) -> dg.AssetsDefinition:
    """The asset of an audited model's bias metrics."""

    @dg.multi_asset(
        name=_step(names.BIAS_METRICS[name]),
        specs=[
            dg.AssetSpec(
                names.BIAS_METRICS[name],
                deps=[names.RESPONSES[name]],
                group_name=names.AUDITS,
                owners=names.OWNERS,
                kinds={"python", "json"},
                code_version="1",
                description=f"Effects and skews of {name}, with intervals, p, q, floors and "
                "verdicts.\n\nThe unit of resampling is the counterfactual set. An effect counts "
                "as found where its interval leaves out no effect, it is larger than what "
                "re-rendering alone moves, and q is below alpha.",
            )
        ],
        retry_policy=RETRIES,
    )
    def bias_metrics(bucket: BucketResource) -> dg.MaterializeResult:
        from cf_lab_assets.audits import figures, metrics, sentences
        from cf_lab_assets.audits.declaration import canonical_json
        from cf_lab_assets.audits.results import FOUND, INSUFFICIENT

        opened = bucket.open()
        with readable():
            dataset_hash = store.latest_dataset(opened)
            key = store.responses_key(dataset_hash, name)
            computed = metrics.compute(store.read_table(opened, key, f"audits/responses/{name}"))
            key = store.metrics_key(dataset_hash, name)
            document = canonical_json(computed)
            opened.put_bytes(key, document)
        results = computed["results"]
        plot = figures.primary_plot({name: results}, dpi=METADATA_DPI)
        return dg.MaterializeResult(
            asset_key=names.BIAS_METRICS[name],
            metadata={
                **faces.tabular(
                    names.BIAS_METRICS[name],
                    len(results),
                    faces.described(RESULT_COLUMNS),
                    opened.url(key),
                ),
                "headlines": dg.MetadataValue.md(_list_of(sentences.headlines(computed))),
                "primary": _primary_table(results),
                "plot": faces.picture(plot, "primary effects"),
                "found": sum(result["verdict"] == FOUND for result in results),
                "insufficient": sum(r["verdict"] == INSUFFICIENT for r in results),
                "dataset_hash": dataset_hash,
            },
            data_version=dg.DataVersion(sha256(document)),
        )

    return bias_metrics


responses = [responses_of(name) for name in names.AUDITED_MODELS]
bias_metrics = [bias_metrics_of(name) for name in names.AUDITED_MODELS]


class CalibrationConfig(dg.Config):
    """How many audits are simulated."""

    declaration: str = Field(
        default="",
        description="bucket key of a JSON audit declaration; empty: the starter world's",
    )
    audits: int = Field(
        default=1000, ge=1000, description="simulated audits of each oracle; limits are for as many"
    )
    ranked: int = Field(default=100, ge=20, description="of them, those whose rankings are tested")


@dg.asset(
    key=names.CALIBRATION,
    deps=[names.DATASET],
    group_name=names.AUDITS,
    owners=names.OWNERS,
    kinds={"python", "json"},
    code_version="2",
    retry_policy=RETRIES,
    check_specs=checks.CALIBRATION_CHECKS,
)
def calibration(config: CalibrationConfig, bucket: BucketResource) -> dg.MaterializeResult:
    """The auditor audited: what it measures of oracles with planted effects on these sets.

    An oracle answers in place of a model, with scores whose truth is known, on the dataset's own
    sets. What the auditor reports must be what was planted, and nothing where nothing was.
    """
    from cf_lab_assets.audits import calibration as calibrating
    from cf_lab_assets.audits.declaration import canonical_json

    opened = bucket.open()
    with readable():
        dataset_hash = store.latest_dataset(opened)
        pairs = store.read_table(
            opened,
            store.dataset_key(dataset_hash, "pairs.parquet"),
            "counterfactuals/dataset",
            calibrating.PAIR_COLUMNS,
        )
        declared = _declaration(opened, config.declaration)
        skeletons = calibrating.skeletons(pairs, declared)
        found = calibrating.calibrate(skeletons, declared, config.audits, config.ranked)
        key = store.calibration_key(dataset_hash)
        document = canonical_json({"dataset_hash": dataset_hash, **found})
        opened.put_bytes(key, document)
    shown = ("oracle", "attribute", "name", "measured", "low", "high", "sets", "passed")
    rows = [dg.TableRecord({name: one[name] for name in shown}) for one in found["quantities"]]
    return dg.MaterializeResult(
        metadata={
            **faces.tabular(
                names.CALIBRATION,
                len(rows),
                faces.described(calibrating.QUANTITY_COLUMNS),
                opened.url(key),
            ),
            "quantities": dg.MetadataValue.table(rows),
            **_power(found["power"]),
            "audits of each oracle": config.audits,
            "dataset_hash": dataset_hash,
        },
        data_version=dg.DataVersion(sha256(document)),
        check_results=[checks.the_auditor_is_calibrated(found)],
    )


@dg.asset(
    key=names.BIAS_REPORT,
    deps=[*names.BIAS_METRICS.values(), names.CALIBRATION, names.INSTRUMENT],
    group_name=names.AUDITS,
    owners=names.OWNERS,
    kinds={"python", "json"},
    code_version="2",
    retry_policy=RETRIES,
    check_specs=checks.REPORT_CHECKS,
)
def bias_report(
    context: dg.AssetExecutionContext,
    bucket: BucketResource,
    publication: PublicationResource,
    catalog: CatalogResource,
) -> dg.MaterializeResult:
    """The signed bias report over all audited models: page, JSON, CSVs and a summary.

    The page needs no network. `cf-lab verify-report` says whether a report was changed.
    """
    from cf_lab_assets.audits import dataset_report, figures

    opened = bucket.open()
    audited = names.AUDITED_MODELS
    with readable():
        dataset_hash = store.latest_dataset(opened)
        manifest = _manifest(opened, dataset_hash)
        computed = [
            store.read_json(
                opened,
                store.metrics_key(dataset_hash, name),
                f"audits/responses/{name} and audits/bias_metrics/{name}",
            )
            for name in audited
        ]
        with catalog.open() as opened_catalog:
            opened_catalog.migrate()
            waivers = opened_catalog.waivers()
        making = dataset_report.Making(
            publication.open().key, _today(), context.run.run_id, waivers
        )
        drawn = _drawn_sets(opened, manifest)
        built = dataset_report.make(opened, manifest, computed, drawn, making)
    body = built["body"]
    plot = figures.primary_plot(body["results"], dpi=METADATA_DPI)
    return dg.MaterializeResult(
        metadata={
            **faces.tabular(
                names.BIAS_REPORT,
                sum(len(results) for results in body["results"].values()),
                faces.described({"model": ("string", "the audited model"), **RESULT_COLUMNS}),
                opened.url(store.report_key(dataset_hash, ".html")),
            ),
            "report_id": built["report_id"],
            "version": built["version"],
            "signed with a test key": making.key.is_test,
            "headlines": dg.MetadataValue.md(_list_of(body["headlines"])),
            "plot": faces.picture(plot, "primary effects"),
            "dataset_hash": dataset_hash,
        },
        data_version=dg.DataVersion(built["report_id"]),
        check_results=[checks.every_primary_endpoint_is_reported(built, audited)],
    )


def _manifest(bucket: "Bucket", dataset_hash: str) -> dict[str, Any]:
    key = store.dataset_key(dataset_hash, "manifest.json")
    return store.read_json(bucket, key, "counterfactuals/dataset")


def _declaration(bucket: "Bucket", key: str) -> "AuditConfig":
    from cf_lab_assets.audits.declaration import AuditConfig, parse_declaration

    if not key:
        return AuditConfig()
    return parse_declaration(store.read(bucket, key, "nothing; put the declaration there"), key)


def _drawn_sets(bucket: "Bucket", manifest: Mapping[str, Any]) -> list[Any] | None:
    """Sets of the dataset's batches that were drawn; None, unknown, where a table is gone."""
    import pyarrow.compute as pc

    accepted, rejected = (
        [store.counterfactuals_key(batch, table) for batch in sorted(manifest["batches"])]
        for table in ("accepted_sets", "rejected_sets")
    )
    if not all(bucket.exists(key) for key in [*accepted, *rejected]):
        return None
    asset = "counterfactuals/accepted_sets"
    refused = [store.read_table(bucket, key, asset) for key in rejected]
    return [
        *(store.read_table(bucket, key, asset) for key in accepted),
        # The others failed before anything was drawn.
        *(table.filter(pc.field("stage") == "scores") for table in refused),
    ]


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


def _power(curve: list[dict[str, Any]]) -> dict[str, dg.MarkdownMetadataValue]:
    """Planted effects beside their estimates, and how often they were found."""
    from cf_lab_assets.audits import plots

    if not curve:
        too_few = "the dataset has too few sets of every attribute to plant an effect in"
        return {"power": dg.MetadataValue.md(too_few)}
    planted = {
        attribute: [(one["effect"], one["estimate"]) for one in ones]
        for attribute, ones in itertools.groupby(curve, lambda one: one["attribute"])
    }
    recovered = charts.lines(
        planted,
        "planted effect, in standard deviations of the noise",
        "mean estimate, likewise",
        ideal=True,
    )
    power = plots.power_curves(curve, METADATA_DPI)
    return {
        "estimated and planted": faces.picture(recovered, "estimated by planted effects"),
        "power": faces.picture(power, "power by size of effect"),
    }


def _distribution(rows: dict[str, list[tuple[str, list[float]]]]) -> dg.MarkdownMetadataValue:
    """Scores of the first format that gives any, by value; what else there is stands in a table."""
    for name, shown in rows.items():
        picture = charts.spreads(shown, f"score in format {name}, of all prompts and questions")
        return faces.picture(picture, "scores by value")
    return dg.MetadataValue.md("no format of this model gives scores; see the outcomes")


def _list_of(headlines: list[dict[str, str]]) -> str:
    return "\n".join(f"- {line['sentence']}" for line in headlines)


def _outcome_table(records: list[dict[str, Any]]) -> dg.TableMetadataValue:
    texts = ("format", "question", "attribute", "value")
    columns = [
        *(dg.TableColumn(name, "string") for name in texts),
        *(dg.TableColumn(name, "int") for name in records[0] if name not in texts),
    ]
    return dg.MetadataValue.table([dg.TableRecord(one) for one in records], dg.TableSchema(columns))


def _primary_table(results: list[dict[str, Any]]) -> dg.TableMetadataValue:
    shown = ("endpoint", "estimate", "ci_low", "ci_high", "placebo_floor", "q", "n_sets", "verdict")
    records = [
        dg.TableRecord({name: result.get(name) for name in shown})
        for result in results
        if result["family"] == PRIMARY
    ]
    kinds = {"endpoint": "string", "verdict": "string", "n_sets": "int"}
    columns = [dg.TableColumn(name, kinds.get(name, "float")) for name in shown]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))
