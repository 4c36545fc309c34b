"""Whether the auditor is calibrated on a dataset large enough for all of its oracles.

    python -m cf_lab_tests.benchmarks.calibration [--portraits 100] [--audits 1000]

Portraits that nothing was trained on are taken in, edited and filtered as the lab does it; oracles
with planted effects then answer in the place of models. `audits/calibration` does the same on any
dataset, with fewer audits of rankings, which cost most.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cf_lab_assets.audits import calibration, store
from cf_lab_assets.audits.declaration import AuditConfig
from cf_lab_assets.sources.ingest import ingest
from cf_lab_assets.starter import world
from cf_lab_assets.starter.portraits import write_image_folder
from cf_lab_resources.bucket import open_bucket
from cf_lab_tests.benchmarks.growth import BATCH, load_real, make

SEED = 77


def main() -> None:
    """Print each quantity beside its limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--portraits", type=int, default=100)
    parser.add_argument("--audits", type=int, default=1000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bucket = open_bucket(f"file://{scratch}/bucket")
        write_image_folder(Path(scratch) / "portraits", chosen.portraits, SEED)
        ingest(Path(scratch) / "portraits", BATCH, bucket, world.ATTRIBUTES)
        make(bucket, load_real())
        key = store.dataset_key(store.latest_dataset(bucket), "pairs.parquet")
        pairs = store.read_table(bucket, key, "a dataset", calibration.PAIR_COLUMNS)
    config = AuditConfig()
    skeletons = calibration.skeletons(pairs, config)
    found = calibration.calibrate(skeletons, config, chosen.audits, chosen.audits)
    table = Table("oracle", "attribute", "quantity", "measured", "from", "to", "sets")
    for one in found["quantities"]:
        numbers = [one["measured"], one["low"], one["high"]]
        shown = ["" if number is None else f"{number:.3g}" for number in numbers]
        table.add_row(one["oracle"], one["attribute"], one["name"], *shown, str(one["sets"]))
    power = Table("attribute", "effect in MDE", "found")
    for one in found["power"]:
        power.add_row(one["attribute"], f"{one['multiple_of_mde']:g}", f"{one['found']:.3f}")
    for printed in (table, power):
        Console().print(printed)


if __name__ == "__main__":
    main()
