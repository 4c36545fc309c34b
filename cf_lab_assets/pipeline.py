"""The main job from the command line: every stage in order, each as an ordinary Dagster run.

Dagster's UI and sensors run the same jobs one by one; here they run one after another in this
process, and not at all when nothing has changed since the last release.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_assets import automation, names
from cf_lab_assets.instance import offer
from cf_lab_assets.lost_runs import run_tags
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    import dagster as dg

    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.catalog import Catalog

# What the last release was made from; read to find out whether there is anything to do.
LAST_RUN = "pipeline/last_run.json"


class RunFailed(LabError):
    """A job of the pipeline failed; the message says which and why."""


class NoBatches(LabError):
    """There is nothing to run on."""


@dataclass(frozen=True)
class Outcome:
    """What the pipeline ended in.

    Attributes:
        release_id: the current release.
        changed: whether anything had to be done.
    """

    release_id: str
    changed: bool


def fingerprint(
    definitions: dg.Definitions,
    bucket: Bucket,
    plan: Mapping[str, Any] | None = None,
    announce: Callable[[str], None] = print,
) -> str:
    """A hash of all that a release is made from: batches, models, publication, code, plan.

    An editor whose content nothing pins is looked at anew, and `announce` told what is fetched.
    """
    from cf_lab_assets.models import artifacts
    from cf_lab_assets.sources import batches

    stored = {}
    for batch in batches.stored_batches(bucket):
        manifest = batches.read_manifest(bucket, batch)
        stored[batch] = manifest.content_hash if manifest else None
    inputs = {
        "batches": stored,
        "models": artifacts.starter_manifest(),
        "models in use": artifacts.identity(bucket, announce),
        "publication": dict(definitions.resources or {})["publication"].open().identity,
        "code": {
            spec.key.to_user_string(): spec.code_version
            for spec in definitions.resolve_all_asset_specs()
        },
        "plan": plan,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def run(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    bucket: Bucket,
    catalog: Catalog,
    announce: Callable[[str], None] = print,
    plan: Mapping[str, Any] | None = None,
) -> Outcome:
    """Bring the current release up to date with all ingested batches.

    Args:
        definitions: the lab's.
        instance: records the runs.
        bucket: the same one that the definitions' resources open.
        catalog: likewise.
        announce: called with a line before each job.
        plan: configuration of the edit plan; the asset's own defaults where it is None.

    Raises:
        NoBatches: nothing was ingested yet.
        RunFailed: a job failed; running again goes on where it stopped.
    """
    from cf_lab_assets.sources import batches

    stored = sorted(batches.stored_batches(bucket))
    if not stored:
        raise NoBatches("no source batch is there yet; give one with `cf-lab ingest FOLDER`")
    made_from = fingerprint(definitions, bucket, plan, announce)
    current = catalog.current_release()
    last = _last_run(bucket)
    if current and last and last["fingerprint"] == made_from:
        made = catalog.get_release(last["release_id"])
        if made and made.state == "withdrawn":
            announce(f"release {made.release_id} of these inputs was withdrawn and stays so")
        if made and made.state in ("current", "withdrawn"):
            return Outcome(current.release_id, changed=False)
    offer(instance, stored)
    config = {names.EDIT_PLAN.to_python_identifier(): {"config": dict(plan)}} if plan else {}
    for batch in stored:
        execute(definitions, instance, automation.MAKE_COUNTERFACTUALS, announce, batch, config)
    execute(definitions, instance, automation.MAKE_DATASET, announce)
    for model in names.AUDITED_MODELS.get_partition_keys():
        execute(definitions, instance, automation.AUDIT, announce, model)
    execute(definitions, instance, automation.PUBLISH, announce)
    current = catalog.current_release()
    if current is None:
        raise RunFailed("the release was published and is not current; see the run in the UI")
    execute(definitions, instance, automation.BACK_UP, announce)
    # Last: what was not finished, the backup included, is done again by the next run.
    record = {"fingerprint": made_from, "release_id": current.release_id}
    bucket.put_bytes(LAST_RUN, json.dumps(record).encode())
    return Outcome(current.release_id, changed=True)


def _last_run(bucket: Bucket) -> Mapping[str, Any] | None:
    if not bucket.exists(LAST_RUN):
        return None
    loaded: Mapping[str, Any] = json.loads(bucket.get_bytes(LAST_RUN))
    return loaded


def execute(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    job: str,
    announce: Callable[[str], None],
    partition: str | None = None,
    ops: Mapping[str, Any] | None = None,
) -> None:
    """Run one job in this process; `ops` configures its steps.

    Raises:
        RunFailed: it failed; the message names the step and why.
    """
    announce(f"{job} {partition or ''}".rstrip())
    result = definitions.resolve_job_def(job).execute_in_process(
        instance=instance,
        partition_key=partition,
        raise_on_error=False,
        tags=run_tags(Path(instance.root_directory)),
        # Names the lab's own console logger: Dagster's shows every event.
        run_config={"loggers": {"console": {}}, "ops": dict(ops or {})},
    )
    if not result.success:
        raise RunFailed(f"job {job} failed: {_first_failure(result)} (run {result.run_id})")


def _first_failure(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data and data.user_failure_data.description:
                return f"{event.step_key}: {data.user_failure_data.description}"
            if data.error:
                cause = data.error.cause or data.error
                return f"{event.step_key}: {_without_type(cause.message)}"
    return "see the run's log in the UI"


def _without_type(message: str) -> str:
    """An error's message on one line, without the path of its class before it."""
    first, _, rest = message.strip().partition(": ")
    said = rest if rest and " " not in first else message
    return " ".join(said.split())
