"""Model artifacts as assets."""

from __future__ import annotations

import dagster as dg

from cf_lab_assets import names
from cf_lab_assets.models import artifacts


@dg.asset(
    key=names.MODEL_ARTIFACTS,
    group_name=names.MODELS,
    owners=names.OWNERS,
    kinds={"python", "pytorch"},
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(
            "every_file_is_the_one_on_record", asset=names.MODEL_ARTIFACTS, blocking=True
        )
    ],
)
def model_artifacts() -> dg.MaterializeResult:
    """Editor, scorers and audited models, each compared with its manifest of hashes."""
    found, damaged = [], []
    for name in artifacts.FOLDERS:
        try:
            found.append(artifacts.verify(name))
        except artifacts.ModelDamaged as error:
            damaged.append(str(error))
    records = [
        dg.TableRecord({"model": a.name, "bytes": a.bytes, "sha256": a.sha256}) for a in found
    ]
    schema = dg.TableSchema(
        [
            dg.TableColumn("model", "string"),
            dg.TableColumn("bytes", "int"),
            dg.TableColumn("sha256", "string", "of the folder's files and their names"),
        ]
    )
    return dg.MaterializeResult(
        metadata={
            "models": dg.MetadataValue.table(records, schema),
            "dagster/row_count": len(found),
        },
        data_version=dg.DataVersion("-".join(artifact.sha256[:12] for artifact in found)),
        check_results=[
            dg.AssetCheckResult(
                check_name="every_file_is_the_one_on_record",
                passed=not damaged,
                metadata={"damaged": dg.MetadataValue.json(damaged), "limit": 0},
            )
        ],
    )
