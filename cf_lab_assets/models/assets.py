"""Model artifacts as assets."""

from dataclasses import replace

import dagster as dg
from pydantic import Field

from cf_lab_assets import faces, names
from cf_lab_assets.counterfactuals.config import GenerationConfig
from cf_lab_assets.failures import RETRIES, failure
from cf_lab_assets.models import artifacts, registry, variants
from cf_lab_resources.dagster import BucketResource
from cf_lab_resources.errors import LabError

COLUMNS = faces.described(
    {
        "model": ("string", "the lab's name for it"),
        "uri": ("string", "where it came from"),
        "revision": ("string", "the hub's commit, or the package's version"),
        "licence": ("string", "as its card names it"),
        "bytes": ("int", "of all its files"),
        "sha256": ("string", "of the folder's files and their names"),
    },
    unique=["model"],
)


@dg.asset(
    key=names.MODEL_ARTIFACTS,
    group_name=names.MODELS,
    owners=names.OWNERS,
    kinds={"python", "pytorch"},
    code_version="2",
    retry_policy=RETRIES,
)
def model_artifacts(
    context: dg.AssetExecutionContext, bucket: BucketResource
) -> dg.MaterializeResult:
    """Editor, scorers and audited models in the bucket, each under the hash of its files.

    The starter models ship with the lab; others are named by `CF_LAB_EDITOR` and `CF_LAB_AUDITED`
    and fetched once. Only safetensors are taken, and every file is held against its hash.
    """
    store = bucket.open()
    try:
        found = {
            name: artifacts.resolve(store, name, context.log.info)
            for name in artifacts.models_in_use()
        }
    except LabError as error:
        raise failure(error) from error
    records = [
        dg.TableRecord({"model": name, **registry.file_metadata(manifest)})
        for name, manifest in found.items()
    ]
    return dg.MaterializeResult(
        metadata={
            **faces.tabular(names.MODEL_ARTIFACTS, len(found), COLUMNS, store.url(registry.MODELS)),
            "models": dg.MetadataValue.table(records, COLUMNS),
        },
        data_version=dg.DataVersion("-".join(one.sha256[:12] for one in found.values())),
    )


KEEP_QUALITY = "optimised_variants_keep_quality"
VARIANT_COLUMNS = faces.described(
    {
        "variant": ("string", "original, bf16 or int8"),
        "state": ("string", "made, or why not"),
        "uri": ("string", "what CF_LAB_EDITOR takes for it"),
        "bytes": ("int", "of all its files"),
        "mean cits": ("float", "of the fixed portraits' edits"),
        "edit success": ("float", "share in which both scorers see what was asked"),
    },
    unique=["variant"],
)


class OptimisedConfig(GenerationConfig):
    """How the editor draws, and how many portraits its variants are measured on."""

    portraits: int = Field(
        default=variants.PORTRAITS, gt=0, description="of the fixed ones, six edits each"
    )


@dg.asset(
    key=names.OPTIMISED_MODELS,
    deps=[names.MODEL_ARTIFACTS],
    group_name=names.MODELS,
    owners=names.OWNERS,
    kinds={"python", "pytorch"},
    code_version="1",
    retry_policy=RETRIES,
    check_specs=[
        dg.AssetCheckSpec(
            KEEP_QUALITY,
            asset=names.OPTIMISED_MODELS,
            blocking=True,
            description="Mean CITS within 1 % of the original's, edit success within a point.",
        )
    ],
    pool=names.GPU_POOL,
    op_tags=names.GPU_OP_TAGS,
)
def optimised_models(
    context: dg.AssetExecutionContext, config: OptimisedConfig, bucket: BucketResource
) -> dg.MaterializeResult:
    """Smaller variants of the editor, bf16 and int8, each measured against the original.

    `CF_LAB_EDITOR` takes the URI of one; nothing uses it before.
    """
    from cf_lab_resources.engine.editors import load_editor

    store, settings = bucket.open(), config.editor
    try:
        name, uri = next(iter(artifacts.models_in_use().items()))
        folder, parent = artifacts.in_use_folder(name, store), artifacts.on_record(store, uri)
        made = variants.make_variants(store, folder, parent, settings)
        judge = artifacts.load_judge()
        full = replace(settings, precision="float32")
        original = variants.measure(load_editor(folder, full), judge, config.portraits)
        records = [_variant_record("original", "", parent, original)]
        lost = {}
        for one in made:
            context.log.info(f"{one.name}: {one.state}")
            quality = None
            if one.manifest and one.settings:
                editor = load_editor(artifacts.cached(store, one.manifest), one.settings)
                quality = variants.measure(editor, judge, config.portraits)
                lost[one.name] = list(variants.losses(original, quality))
            records.append(_variant_record(one.name, one.state, one.manifest, quality))
    except LabError as error:
        raise failure(error) from error
    return dg.MaterializeResult(
        metadata={
            **faces.tabular(
                names.OPTIMISED_MODELS, len(records), VARIANT_COLUMNS, store.url(registry.MODELS)
            ),
            "variants": dg.MetadataValue.table(records, VARIANT_COLUMNS),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name=KEEP_QUALITY,
                passed=not any(lost.values()),
                metadata={
                    **faces.held_against(
                        sum(map(len, lost.values())), 0, "losses of quality beyond their limits"
                    ),
                    "lost": dg.MetadataValue.json(lost),
                    "draws": original.draws,
                    "limit of mean cits": variants.MAX_CITS_LOSS,
                    "limit of edit success": variants.MAX_SUCCESS_LOSS,
                },
            )
        ],
    )


def _variant_record(
    name: str,
    state: str,
    manifest: registry.Manifest | None,
    quality: variants.Quality | None,
) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "variant": name,
            "state": state,
            "uri": manifest.uri if manifest else "",
            "bytes": manifest.total_bytes if manifest else 0,
            "mean cits": round(quality.cits, 4) if quality else None,
            "edit success": round(quality.success, 4) if quality else None,
        }
    )
