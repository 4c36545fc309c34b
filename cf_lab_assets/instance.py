"""Dagster's own instance on the lab's Postgres, for commands and for ``cf-lab up``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

    from cf_lab_resources.embedded import Endpoints
    from cf_lab_resources.settings import Settings

# The address stays out of the file: it holds a password, and ports change.
INSTANCE_YAML = """\
# Written by cf-lab at every start; what you change here is lost.
telemetry: {enabled: false}
nux: {enabled: false}
storage:
  postgres:
    postgres_url: {env: CF_LAB_DAGSTER_POSTGRES_URL}
run_launcher: {module: cf_lab_assets.launcher, class: WatchedRunLauncher}
concurrency:
  pools: {default_limit: 1, granularity: op}
  runs: {max_concurrent_runs: 2}
run_monitoring:
  enabled: true
  poll_interval_seconds: 10
  start_timeout_seconds: 180
  cancel_timeout_seconds: 60
  free_slots_after_run_end_seconds: 1  # a killed run gives none back by itself
# For crashes: steps have retry policies of their own. A server that is killed again and again may
# take the same run with it each time.
run_retries: {enabled: true, max_retries: 10, retry_on_asset_or_op_failure: false}
retention:
  sensor: {purge_after_days: {skipped: 1, success: 30, failure: 90}}
sensors: {use_threads: true, num_workers: 2}
schedules: {use_threads: true, num_workers: 2}
"""


def is_there(settings: Settings) -> bool:
    """Whether an instance was ever opened in this home."""
    return (settings.dagster_folder / "dagster.yaml").exists()


def offer(instance: dg.DagsterInstance, batches: Sequence[str]) -> None:
    """Make source batches partitions: the UI offers no others, and no run takes others."""
    from cf_lab_assets import names

    instance.add_dynamic_partitions(str(names.SOURCE_BATCHES.name), batches)


def prepare_home(settings: Settings, endpoints: Endpoints) -> Path:
    """Write the instance's folder and point this process and its children at it."""
    home = settings.dagster_folder
    home.mkdir(parents=True, exist_ok=True)
    staged = home / f"dagster.yaml.{os.getpid()}"
    staged.write_text(INSTANCE_YAML)
    staged.replace(home / "dagster.yaml")
    os.environ.update(endpoints.environ())
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def open_instance(settings: Settings, endpoints: Endpoints) -> dg.DagsterInstance:
    """The instance that the lab's commands record their runs in, rid of lost runs."""
    import dagster as dg

    from cf_lab_assets.lost_runs import fail_lost_runs

    home = prepare_home(settings, endpoints)
    instance = dg.DagsterInstance.get()
    fail_lost_runs(instance, home)
    return instance
