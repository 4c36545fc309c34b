"""The audit of a table against fairlearn's bootstrap, in time and memory.

    python -m cf_lab_tests.benchmarks.audit [--sets 100000] [--peer-draws 4]

One table of `sets` counterfactual sets with ten values each, with score, prediction and label.
The lab computes every metric that it has of scores and decisions, with its intervals, tests and
2,000 bootstrap draws. fairlearn's `MetricFrame` computes the rates that both have, with its
bootstrap over rows on the same rows; it is timed with few draws, at two numbers of them, and its
time for 2,000 follows from the difference, since each draw costs the same.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from cf_lab_assets.audits import table_audit

VALUES = tuple(f"group {letter}" for letter in "abcdefghij")
DRAWS = 2000


def scores(sets: int, seed: int = 20260) -> pa.Table:
    """A table with a scene of its own per set, and one group shifted."""
    rng = np.random.default_rng(seed)
    shape = sets, len(VALUES)
    score = rng.normal(0, 1, (sets, 1)) + rng.normal(0, 1, shape)
    score[:, 3] += 0.05
    label = np.broadcast_to(rng.random((sets, 1)) < 0.4, shape)
    return pa.table(
        {
            "set_id": np.char.add("s", np.repeat(np.arange(sets), len(VALUES)).astype(str)),
            "group": pa.array(np.tile(np.array(VALUES), sets)),
            "score": score.ravel(),
            "prediction": (score.ravel() > 0.3).astype(np.int64),
            "label": label.ravel().astype(np.int64),
        }
    )


def peer_seconds(rows: pd.DataFrame, draws: int) -> float:
    """fairlearn's own bootstrap of the rates that both have."""
    import fairlearn.metrics as fair

    start = time.perf_counter()
    fair.MetricFrame(
        metrics={
            "selection rate": fair.selection_rate,
            "true positive rate": fair.true_positive_rate,
            "false positive rate": fair.false_positive_rate,
        },
        y_true=rows["label"],
        y_pred=rows["prediction"],
        sensitive_features=rows["group"],
        n_boot=draws,
        ci_quantiles=[0.025, 0.975],
        random_state=0,
    )
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=100_000)
    parser.add_argument("--peer-draws", type=int, default=4)
    chosen = parser.parse_args()
    made = scores(chosen.sets)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.parquet"
        pq.write_table(made, path)
        start = time.perf_counter()
        document, _ = table_audit.audit_table(path, table_audit.Choices())
        ours = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    frame = made.to_pandas()
    few, many = (peer_seconds(frame, draws) for draws in (1, 1 + chosen.peer_draws))
    theirs = few + (DRAWS - 1) * (many - few) / chosen.peer_draws
    table = Table("way", "numbers", "seconds", "ratio")
    table.add_row(
        "lab, every metric, 2,000 draws", str(len(document["results"])), f"{ours:.1f}", ""
    )
    table.add_row(
        f"fairlearn, three rates, 2,000 draws (from {1 + chosen.peer_draws})",
        str(3 * len(VALUES)),
        f"{theirs:.0f}",
        f"{theirs / ours:.0f}",
    )
    console = Console()
    console.print(f"{len(made):,} scores of {chosen.sets:,} sets; the lab's peak {peak:.0f} MiB")
    console.print(table)


if __name__ == "__main__":
    main()
