"""Where audits lie in the bucket, and how tables and documents are read from it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cf_lab_assets.audits.errors import AuditError
from cf_lab_assets.counterfactuals.tables import from_bytes

if TYPE_CHECKING:
    import pyarrow as pa

    from cf_lab_resources.bucket import Bucket

LATEST_DATASET = "datasets/latest.json"
# Every report that was made, oldest first, by the content keys of their JSON.
REPORTS = "audits/reports.json"


def dataset_key(dataset_hash: str, name: str) -> str:
    """Key of a file of a dataset version, such as `pairs.parquet`."""
    return f"datasets/{dataset_hash}/{name}"


def responses_key(dataset_hash: str, model: str) -> str:
    """Key of the scores that an audited model gave to a dataset's pictures."""
    return f"audits/{dataset_hash}/{model}/responses.parquet"


def metrics_key(dataset_hash: str, model: str) -> str:
    """Key of the bias metrics computed from these scores."""
    return f"audits/{dataset_hash}/{model}/metrics.json"


def report_key(dataset_hash: str, suffix: str) -> str:
    """Key of the report over all audited models; the suffix is `.html` or `.json`."""
    return report_file_key(dataset_hash, f"report{suffix}")


def report_file_key(dataset_hash: str, name: str) -> str:
    """Key of a file that is written with a report, such as `results.csv`."""
    return f"audits/{dataset_hash}/report/{name}"


def calibration_key(dataset_hash: str) -> str:
    """Key of what the auditor measured of oracles on a dataset's sets."""
    return f"audits/{dataset_hash}/calibration.json"


def instrument_key(dataset_hash: str) -> str:
    """Key of what was measured of the instrument that made a dataset."""
    return f"audits/{dataset_hash}/instrument.json"


def multiverse_key(dataset_hash: str) -> str:
    """Key of the primary effects under stricter filters."""
    return f"audits/{dataset_hash}/multiverse.json"


def counterfactuals_key(batch: str, table: str) -> str:
    """Key of one of the counterfactual tables of a source batch."""
    return f"counterfactuals/{batch}/{table}.parquet"


def read(bucket: Bucket, key: str, made_by: str) -> bytes:
    """An object's bytes.

    Raises:
        AuditError: It isn't there; the message says which asset makes it.
    """
    from cf_lab_resources.bucket import BucketKeyError

    try:
        return bucket.get_bytes(key)
    except BucketKeyError as error:
        raise AuditError(f"{key} is not in the bucket; materialise {made_by} first") from error


def read_json(bucket: Bucket, key: str, made_by: str) -> dict[str, Any]:
    """A JSON object from the bucket; raises as `read` does."""
    return json.loads(read(bucket, key, made_by))


def read_table(
    bucket: Bucket, key: str, made_by: str, columns: list[str] | None = None
) -> pa.Table:
    """A parquet table from the bucket; raises as `read` does."""
    return from_bytes(read(bucket, key, made_by), columns)


def latest_dataset(bucket: Bucket) -> str:
    """Content hash of the current dataset version."""
    return str(read_json(bucket, LATEST_DATASET, "counterfactuals/dataset")["content_hash"])
