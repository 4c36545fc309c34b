"""How much the stores hold, how much room is left, and how long the jobs took."""

from __future__ import annotations

import math
import shutil
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cf_lab_resources.bucket import ObjectInfo
    from cf_lab_resources.cache import Memory
    from cf_lab_resources.catalog.sizes import TableSize

REVIEW = "capacity"
# The longest quarter; a review that comes a day late still sees all of it.
QUARTER = timedelta(days=92)
TABLES = 10
# Below it a database that needs room for a checkpoint or a restore may stand still.
LEAST_FREE_PERCENT = 10.0

POSTGRES, REDIS, BUCKET, DISK = "postgres", "redis", "bucket", "disk"
WHOLE, USED, MAXIMUM, FREE = "whole database", "used memory", "maximum memory", "free"

Row = dict[str, Any]

COLUMNS = {
    "stores": {
        "store": ("string", f"{POSTGRES}, {REDIS}, {BUCKET}, or {DISK}: that of the lab's home"),
        "part": ("string", "of the store: a table, or the first folder of the objects' keys"),
        "bytes": ("int", "that it takes; null where there is no limit"),
        "objects": ("int", "how many objects; null of what is no folder"),
    },
    "jobs": {
        "job": ("string", "Dagster's name of it; __ASSET_JOB where assets were chosen by hand"),
        "runs": ("int", "that began in the quarter and have ended"),
        "failed": ("int", "of them"),
        "median_seconds": ("float", "of those that succeeded; null where none did"),
        "p95_seconds": ("float", "nearest rank, of those that succeeded; null where none did"),
    },
}


@dataclass(frozen=True)
class JobRun:
    """A run that has ended.

    Attributes:
        job: Its name.
        failed: Whether it failed; one that was cancelled did not.
        seconds: How long it took, without waiting; None where it never started.
    """

    job: str
    failed: bool
    seconds: float | None


@dataclass(frozen=True)
class Disk:
    """The disk that a folder is on.

    Attributes:
        total: Bytes.
        free: Bytes that the lab may still write.
    """

    total: int
    free: int

    @property
    def free_percent(self) -> float:
        """The free share, 0 to 100."""
        return 100 * self.free / self.total


def disk_of(folder: Path) -> Disk:
    """The disk on which a folder is, or would be made."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    usage = shutil.disk_usage(there)
    return Disk(usage.total, usage.free)


def folders(objects: Iterable[ObjectInfo]) -> list[Row]:
    """Bytes and objects by the first folder of their keys, in alphabetical order.

    Args:
        objects: are read once, and none of them is kept.
    """
    sizes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one in objects:
        folder, slash, _ = one.key.partition("/")
        total = sizes[folder if slash else "(no folder)"]
        total[0] += one.size
        total[1] += 1
    return [_row(BUCKET, folder, *sizes[folder]) for folder in sorted(sizes)]


def stores(
    database: int,
    tables: Sequence[TableSize],
    memory: Memory,
    objects: Iterable[ObjectInfo],
    disk: Disk,
) -> list[Row]:
    """What every store holds, with the columns of `COLUMNS`."""
    return [
        _row(POSTGRES, WHOLE, database),
        *(_row(POSTGRES, one.table, one.bytes) for one in tables),
        _row(REDIS, USED, memory.used),
        _row(REDIS, MAXIMUM, memory.maximum),
        *folders(objects),
        _row(DISK, FREE, disk.free),
        _row(DISK, "total", disk.total),
    ]


def _row(store: str, part: str, size: int | None, objects: int | None = None) -> Row:
    return {"store": store, "part": part, "bytes": size, "objects": objects}


def jobs(runs: Iterable[JobRun]) -> list[Row]:
    """Runs and their durations by job, with the columns of `COLUMNS`."""
    by_job: dict[str, list[JobRun]] = defaultdict(list)
    for run in runs:
        by_job[run.job].append(run)
    return [_of_job(job, by_job[job]) for job in sorted(by_job)]


def _of_job(job: str, runs: Sequence[JobRun]) -> Row:
    took = sorted(run.seconds for run in runs if not run.failed and run.seconds is not None)
    return {
        "job": job,
        "runs": len(runs),
        "failed": sum(run.failed for run in runs),
        "median_seconds": round(statistics.median(took), 3) if took else None,
        "p95_seconds": round(took[math.ceil(0.95 * len(took)) - 1], 3) if took else None,
    }


def curves(documents: Mapping[date, Mapping[str, Any]]) -> dict[str, list[tuple[date, int]]]:
    """What a plot over the kept dates shows: bytes by day, oldest first, of each store."""
    shown = {
        "Postgres": (POSTGRES, WHOLE),
        "Redis": (REDIS, USED),
        "bucket": (BUCKET, None),
        "free disk": (DISK, FREE),
    }
    return {
        label: [(day, _sum(document["stores"], store, part)) for day, document in documents.items()]
        for label, (store, part) in shown.items()
    }


def _sum(rows: Sequence[Mapping[str, Any]], store: str, part: str | None) -> int:
    return sum(
        row["bytes"] for row in rows if row["store"] == store and part in (None, row["part"])
    )
