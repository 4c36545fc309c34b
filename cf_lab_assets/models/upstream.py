"""Models that changed where they come from, found without fetching them.

A folder or an S3 prefix that no revision pins is listed: sizes and versions of its files tell of a
change. Once the change has settled, the model is resolved anew. A branch of a hub that moved
changes nothing here, since what it stood for when it was first resolved it stands for from then on:
people are told, and may name the new commit.

Annotations are evaluated here (no `__future__` import): Dagster refuses a context whose type is
a string.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import dagster as dg

from cf_lab_assets import names
from cf_lab_assets.alerting import ALERT
from cf_lab_assets.models import artifacts
from cf_lab_resources.engine.model_sources import open_source
from cf_lab_resources.engine.model_uris import FOLDER, HUB, S3, ModelUri
from cf_lab_resources.errors import LabError

RESOLVE_MODELS = "resolve_models"
INTERVAL_SECONDS = 600
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Seen:
    """What a look at the sources remembers for the next one.

    Attributes:
        last: Version of each model at the last look.
        known: Version that was taken, or that people were told of.
    """

    last: dict[str, str] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """What a look found.

    Attributes:
        changed: Models whose files changed and have settled.
        moved: Hub models whose branch moved, with the commit that it is at.
        unreachable: Why sources could not be looked at.
        seen: For the next look.
    """

    changed: list[str]
    moved: dict[str, str]
    unreachable: list[str]
    seen: Seen


def look(models: Mapping[str, ModelUri], before: Seen) -> Look:
    """Looks at the sources of models that nothing pins.

    A change counts once two looks in a row have found the same, so that no half-written folder is
    taken. Of a source that can't be reached, nothing is forgotten.
    """
    now, unreachable = {}, []
    for name, uri in models.items():
        if is_pinned(uri):
            continue
        try:
            listing = open_source(uri).listing()
        except LabError as error:
            unreachable.append(str(error))
            continue
        now[name] = listing.revision or listing.version
    settled = {name for name in now if before.last.get(name) == now[name]}
    new = {name for name in now if name not in before.known}
    differing = [name for name in sorted(settled - new) if before.known[name] != now[name]]
    moved = {name: now[name] for name in differing if models[name].scheme == HUB}
    kept = {name: version for name, version in before.known.items() if name in models}
    known = kept | {name: now[name] for name in [*differing, *new]}
    last = {name: version for name, version in before.last.items() if name in models} | now
    changed = [name for name in differing if name not in moved]
    return Look(changed, moved, unreachable, Seen(last, known))


def is_pinned(uri: ModelUri) -> bool:
    """Whether what a URI stands for can't change."""
    if uri.scheme == HUB:
        return _COMMIT.fullmatch(uri.revision or "") is not None
    return uri.scheme not in (FOLDER, S3) or uri.revision is not None


@dg.sensor(
    job_name=RESOLVE_MODELS,
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Resolves models anew whose folder or bucket changed, and tells of hub branches "
    "that moved.",
)
def models_changed_upstream(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """A run for what changed, an alert for what moved."""
    found = look(artifacts.models_in_use(), Seen(**json.loads(context.cursor or "{}")))
    for why in found.unreachable:
        context.log.warning(why)
    told = [
        dg.AssetObservation(
            names.MODEL_ARTIFACTS,
            description=f"the branch of {name} moved to {commit}; the lab stays with the commit "
            "that it stood for at first: name the new one to take it",
            metadata={ALERT: "ModelMovedUpstream", "model": name, "commit": commit},
        )
        for name, commit in found.moved.items()
    ]
    cursor = json.dumps(asdict(found.seen))
    requests = [dg.RunRequest(tags={"cf_lab/changed": ", ".join(found.changed)[:200]})]
    return dg.SensorResult(
        run_requests=requests if found.changed else [],
        asset_events=told,
        cursor=cursor,
        skip_reason=None if found.changed else "no model changed that has settled",
    )
