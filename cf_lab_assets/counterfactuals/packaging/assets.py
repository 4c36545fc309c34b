"""The package as an asset; making it is in the siblings."""

import dagster as dg

from cf_lab_assets import faces, names
from cf_lab_assets.failures import RETRIES, failure
from cf_lab_resources.dagster import BucketResource, PublicationResource
from cf_lab_resources.errors import LabError


@dg.asset(
    key=names.PACKAGE,
    deps=[names.DATASET],
    group_name=names.COUNTERFACTUALS,
    owners=names.OWNERS,
    kinds={"python", "parquet", "huggingface"},
    code_version="1",
    retry_policy=RETRIES,
)
def package(
    context: dg.AssetExecutionContext, bucket: BucketResource, publication: PublicationResource
) -> dg.MaterializeResult:
    """The newest dataset as others load it, with provenance signed into each picture.

    Parquet for `datasets`, tar shards for `webdataset`, Croissant for `mlcroissant`, a dataset
    card and a datasheet. A package that is there is not made again.
    """
    from cf_lab_assets.counterfactuals.dataset import latest_hash
    from cf_lab_assets.counterfactuals.packaging import rows
    from cf_lab_assets.counterfactuals.packaging.build import build_package

    store = bucket.open()
    dataset_hash = latest_hash(store)
    if dataset_hash is None:
        raise dg.Failure(
            "there is no dataset to package; materialise counterfactuals/dataset",
            allow_retries=False,
        )
    try:
        made = build_package(store, dataset_hash, publication.open(), context.log.info)
    except LabError as error:
        raise failure(error) from error
    files = made.manifest["files"]
    return dg.MaterializeResult(
        metadata={
            **faces.tabular(
                names.PACKAGE,
                made.manifest["pairs"],
                faces.described(rows.described(), unique=["pair_id"]),
                store.url(made.prefix),
            ),
            "dataset_hash": dataset_hash,
            "package_sha256": made.sha256,
            "newly_made": made.new,
            "shards": made.manifest["shards"],
            "bytes": sum(file["bytes"] for file in files),
            "signed_with": "TEST key" if made.manifest["test_key"] else made.manifest["signer"],
            "files": dg.MetadataValue.table(
                [dg.TableRecord({"path": f["path"], "bytes": f["bytes"]}) for f in files[:50]]
            ),
            "card": dg.MetadataValue.md(_card(store.get_bytes(f"{made.prefix}/README.md"))),
        },
        data_version=dg.DataVersion(made.sha256),
    )


def _card(readme: bytes) -> str:
    """The card without its header, and without the picture, which lies beside it."""
    body = readme.decode().split("\n---\n", 1)[-1]
    return "\n".join(line for line in body.splitlines() if not line.startswith("!["))
