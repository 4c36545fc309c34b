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
# What each batch's sets were last made from by this command, so that one new batch is one run.
LAST_BATCHES = "pipeline/last_batches.json"
# Steps that read what the batches hold.
_READING_BATCHES = {
    key.to_python_identifier() for key in (names.DATASET, names.PACKAGE, names.INSTRUMENT)
}


class RunFailed(LabError):
    """A job of the pipeline failed; the message says which and why.

    Attributes:
        step: key of the step that failed first; None where no step did.
    """

    def __init__(self, message: str, step: str | None = None) -> None:
        super().__init__(message)
        self.step = step


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

    inputs = {
        "batches": _contents(bucket),
        "models": artifacts.starter_manifest(),
        "models in use": artifacts.identity(bucket, announce),
        "publication": dict(definitions.resources or {})["publication"].open().identity,
        "code": {
            spec.key.to_user_string(): spec.code_version
            for spec in definitions.resolve_all_asset_specs()
        },
        "plan": plan,
    }
    return _hash(inputs)


def _contents(bucket: Bucket) -> dict[str, str | None]:
    """Content hash of each stored batch; None where its manifest is gone."""
    from cf_lab_assets.sources import batches

    manifests = {
        batch: batches.read_manifest(bucket, batch) for batch in batches.stored_batches(bucket)
    }
    return {
        batch: manifest.content_hash if manifest else None for batch, manifest in manifests.items()
    }


def _hash(inputs: Mapping[str, Any]) -> str:
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
    last = _read_json(bucket, LAST_RUN)
    if current and last and last["fingerprint"] == made_from:
        made = catalog.get_release(last["release_id"])
        if made and made.state == "withdrawn":
            announce(f"release {made.release_id} of these inputs was withdrawn and stays so")
        if made and made.state in ("current", "withdrawn"):
            return Outcome(current.release_id, changed=False)
    offer(instance, stored)
    _make_sets(definitions, instance, bucket, announce, plan)
    try:
        execute(definitions, instance, automation.REFRESH, announce)
    except RunFailed as error:
        if error.step in _READING_BATCHES:
            # What is damaged of a batch shows here, and is mended where the batch is made again.
            bucket.delete([LAST_BATCHES])
        raise
    current = catalog.current_release()
    if current is None:
        raise RunFailed("the release was published and is not current; see the run in the UI")
    execute(definitions, instance, automation.BACK_UP, announce)
    # Last: what was not finished, the backup included, is done again by the next run.
    record = {"fingerprint": made_from, "release_id": current.release_id}
    bucket.put_bytes(LAST_RUN, json.dumps(record).encode())
    return Outcome(current.release_id, changed=True)


def _make_sets(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    bucket: Bucket,
    announce: Callable[[str], None],
    plan: Mapping[str, Any] | None,
) -> None:
    """Make the sets of each batch whose own are not there, or were made from something else.

    A batch is left alone where its table of accepted sets is the very object that this command
    wrote for the same content, models, code and plan: whoever makes it by other means replaces it.
    """
    from cf_lab_assets.counterfactuals.dataset import accepted_tables
    from cf_lab_assets.models import artifacts

    made_by = automation.MAKE_COUNTERFACTUALS
    assets = definitions.resolve_job_def(made_by).asset_layer.selected_asset_keys
    shared = {
        "models": artifacts.identity(bucket, lambda line: None),
        "starter": artifacts.starter_manifest(),
        "code": {
            spec.key.to_user_string(): spec.code_version
            for spec in definitions.resolve_all_asset_specs()
            if spec.key in assets
        },
        "plan": plan,
    }
    config = {names.EDIT_PLAN.to_python_identifier(): {"config": dict(plan)}} if plan else {}
    before = _read_json(bucket, LAST_BATCHES) or {}
    tables, known = accepted_tables(bucket), {}
    for batch, content in sorted(_contents(bucket).items()):
        made_from, table = _hash({**shared, "content": content}), tables.get(batch)
        if table and before.get(batch) == [made_from, table]:
            known[batch] = before[batch]
            continue
        execute(definitions, instance, made_by, announce, batch, config)
        known[batch] = [made_from, accepted_tables(bucket, batch)[batch]]
        # At once, and with what follows as it was: a run that is killed has not lost the others.
        bucket.put_bytes(LAST_BATCHES, json.dumps({**before, **known}).encode())


def _read_json(bucket: Bucket, key: str) -> Mapping[str, Any] | None:
    if not bucket.exists(key):
        return None
    loaded: Mapping[str, Any] = json.loads(bucket.get_bytes(key))
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
        step, why = _first_failure(result)
        said = f"{step}: {why}" if step else why
        raise RunFailed(f"job {job} failed: {said} (run {result.run_id})", step)


def _first_failure(result: dg.ExecuteInProcessResult) -> tuple[str | None, str]:
    """The step that failed first, and why."""
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data and data.user_failure_data.description:
                return event.step_key, data.user_failure_data.description
            if data.error:
                cause = data.error.cause or data.error
                return event.step_key, _without_type(cause.message)
    return None, "see the run's log in the UI"


def _without_type(message: str) -> str:
    """An error's message on one line, without the path of its class before it."""
    first, _, rest = message.strip().partition(": ")
    said = rest if rest and " " not in first else message
    return " ".join(said.split())
