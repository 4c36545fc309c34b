"""Model artifacts as assets."""

import dagster as dg

from cf_lab_assets import names
from cf_lab_assets.models import artifacts, registry
from cf_lab_resources.dagster import BucketResource
from cf_lab_resources.errors import LabError

COLUMNS = dg.TableSchema(
    [
        dg.TableColumn("model", "string", "the lab's name for it"),
        dg.TableColumn("uri", "string", "where it came from"),
        dg.TableColumn("revision", "string", "the hub's commit, or the package's version"),
        dg.TableColumn("licence", "string", "as its card names it"),
        dg.TableColumn("bytes", "int"),
        dg.TableColumn("sha256", "string", "of the folder's files and their names"),
    ]
)


@dg.asset(
    key=names.MODEL_ARTIFACTS,
    group_name=names.MODELS,
    owners=names.OWNERS,
    kinds={"python", "pytorch"},
    code_version="2",
)
def model_artifacts(
    context: dg.AssetExecutionContext, bucket: BucketResource
) -> dg.MaterializeResult:
    """Editor, scorers and audited models in the bucket, each under the hash of its files."""
    store = bucket.open()
    try:
        found = {
            name: artifacts.resolve(store, name, context.log.info)
            for name in artifacts.models_in_use()
        }
    except LabError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    records = [
        dg.TableRecord({"model": name, **registry.file_metadata(manifest)})
        for name, manifest in found.items()
    ]
    return dg.MaterializeResult(
        metadata={
            "models": dg.MetadataValue.table(records, COLUMNS),
            "dagster/row_count": len(found),
        },
        data_version=dg.DataVersion("-".join(one.sha256[:12] for one in found.values())),
    )
