"""What the audit finds of the starter models, whose bias is known, over many samples.

    python -m cf_lab_tests.benchmarks.starter_audit [--seeds 20] [--portraits 40]

For each seed: portraits that nothing was trained on, taken in, edited, filtered and audited as the
lab does it, without Dagster. The skewed model has its bias planted on both primary endpoints, the
balanced one on neither. An endpoint is flagged where the effect is found and its whole interval
lies beyond the declared limit; effects that are found and smaller stand in a column of their own,
as training on finite data leaves small ones even in the balanced model.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from cf_lab_assets.audits import association, metrics, store
from cf_lab_assets.audits.declaration import AuditConfig
from cf_lab_assets.audits.results import EXCEEDED, FOUND, INSUFFICIENT, WITHIN
from cf_lab_assets.models.artifacts import model_folder
from cf_lab_assets.sources.ingest import ingest
from cf_lab_assets.starter import world
from cf_lab_assets.starter.portraits import write_image_folder
from cf_lab_resources.bucket import Bucket, open_bucket
from cf_lab_resources.engine.audited import load_audited
from cf_lab_tests.benchmarks.growth import BATCH, load_real, make

FIRST_SEED = 5_000
MODELS = "starter-balanced", "starter-skewed"


def audited(bucket: Bucket, name: str, folder: Path) -> dict[str, Any]:
    """Bias metrics of a starter model on the bucket's dataset."""
    dataset = store.latest_dataset(bucket)
    key = store.dataset_key(dataset, "pairs.parquet")
    pairs = store.read_table(bucket, key, "a dataset", association.PAIR_COLUMNS)
    path = folder / f"{name}.parquet"
    model = load_audited(model_folder(name))
    association.respond(model, name, bucket, pairs, AuditConfig(), path, dataset)
    return metrics.compute(pq.read_table(path))


def primaries(seeds: int, portraits: int) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Primary results of each model on each sample."""
    models = load_real()
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            bucket = open_bucket(f"file://{folder}/bucket")
            write_image_folder(folder / "portraits", portraits, seed)
            ingest(folder / "portraits", BATCH, bucket, world.ATTRIBUTES)
            make(bucket, models)
            for name in MODELS:
                for result in audited(bucket, name, folder)["results"]:
                    if result["family"] == "primary":
                        yield seed, name, result


def main() -> None:
    """Print what was found of each endpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--portraits", type=int, default=40)
    chosen = parser.parse_args()
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for seed, name, result in primaries(chosen.seeds, chosen.portraits):
        found.setdefault((name, result["endpoint"]), []).append(result)
        estimate = result.get("estimate")
        verdict = result["verdict"], result["against_limit"]
        print(seed, name, result["endpoint"], *verdict, estimate, result["n_sets"], flush=True)
    columns = "flagged", "found", "within limit", "insufficient", "of samples", "estimates"
    table = Table("audited model", "endpoint", *columns)
    for (name, endpoint), results in sorted(found.items()):
        verdicts = [one["verdict"] for one in results]
        against = [one["against_limit"] for one in results]
        flagged = sum(
            one == FOUND and other == EXCEEDED for one, other in zip(verdicts, against, strict=True)
        )
        estimates = [one["estimate"] for one in results if "estimate" in one]
        table.add_row(
            name,
            endpoint,
            str(flagged),
            str(verdicts.count(FOUND)),
            str(against.count(WITHIN)),
            str(verdicts.count(INSUFFICIENT)),
            str(len(verdicts)),
            f"{min(estimates):+.3f} to {max(estimates):+.3f}" if estimates else "",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
