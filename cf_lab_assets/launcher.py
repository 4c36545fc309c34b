"""Launches runs in the code server, as Dagster does, and tells its daemon which of them are lost.

The code server notices a run's process that has died, but only once: it says so in Postgres, and
where Postgres is away just then, it never looks again. Dagster's own launcher cannot be asked.
"""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus

from cf_lab_assets.lost_runs import run_is_lost

GONE = "The process that executed this run is gone."


class WatchedRunLauncher(DefaultRunLauncher):
    """Dagster's launcher into code servers, for an instance on the same machine as these.

    Launchers are no public API of Dagster: what is used of it is `check_run_worker_health`, which
    run monitoring calls for each started run.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring asks only launchers that say so."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a started run is there."""
        events = self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        home = Path(self._instance.root_directory)
        if run_is_lost(home, run.tags, (event.message for event in events)):
            return CheckRunHealthResult(WorkerStatus.FAILED, GONE)
        return CheckRunHealthResult(WorkerStatus.RUNNING)
