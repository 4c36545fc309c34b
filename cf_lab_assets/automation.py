"""What runs by itself: jobs, schedules, and conditions from a new batch to a current release.

A delivery is found by the sensor on ``incoming/``, which runs `MAKE_COUNTERFACTUALS` for it. From
the accepted sets on, each asset is made again when the content of what it is made from has changed.
All of them, from dataset to current release, are asked for at one look and so by one run, in which
the checks between them are gates: what follows a blocking check that failed is not made.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import dagster as dg

from cf_lab_assets import alerting, names
from cf_lab_assets.models import checks as model_checks
from cf_lab_assets.releases import checks as release_checks
from cf_lab_assets.releases import withdrawal
from cf_lab_assets.sources.sensors import INTERVAL_SECONDS, incoming_sensor

MAKE_COUNTERFACTUALS = "make_counterfactuals"
MAKE_DATASET = "make_dataset"
AUDIT = "audit"
PUBLISH = "publish"
REFRESH = "refresh"
BACK_UP = "back_up"
TRAIN_STARTER = "train_starter"
VERIFY_MODELS = "verify_models"
VERIFY_RELEASE = "verify_release"

AUTOMATION = dg.AutomationCondition
Condition = dg.AutomationCondition[Any]

BY_BATCH = [
    names.SOURCE_PAIRS,
    names.EDIT_PLAN,
    names.CANDIDATES,
    names.PAIR_SCORES,
    names.ACCEPTED_SETS,
]
_BATCHES = dg.AssetSelection.assets(*BY_BATCH)
_BACKUPS = [names.CATALOG_BACKUP, names.BUCKET_BACKUP]
_FOLLOWS = [
    names.DATASET,
    names.PACKAGE,
    names.INSTRUMENT,
    *names.RESPONSES.values(),
    *names.BIAS_METRICS.values(),
    names.CALIBRATION,
    names.MULTIVERSE,
    names.BIAS_REPORT,
]
# These wait for the blocking checks of what they are made from.
_GATED = [names.RELEASE_CANDIDATE, names.RELEASE_CURRENT]

JOBS = [
    dg.define_asset_job(
        MAKE_COUNTERFACTUALS,
        dg.AssetSelection.assets(names.MODEL_ARTIFACTS) | _BATCHES,
        description="One source batch, from pairs to accepted counterfactual sets.",
    ),
    dg.define_asset_job(
        MAKE_DATASET,
        dg.AssetSelection.assets(names.DATASET, names.PACKAGE, names.INSTRUMENT),
        description="All batches' accepted sets as one dataset, and as a package for others; and "
        "how even the instrument is that made it.",
    ),
    dg.define_asset_job(
        AUDIT,
        dg.AssetSelection.assets(*names.RESPONSES.values(), *names.BIAS_METRICS.values()),
        description="All audited models' responses to the dataset, and their bias metrics.",
    ),
    dg.define_asset_job(
        PUBLISH,
        dg.AssetSelection.assets(
            names.CALIBRATION,
            names.MULTIVERSE,
            names.BIAS_REPORT,
            names.RELEASE_CANDIDATE,
            names.RELEASE_CURRENT,
        ),
        description="Calibration, bias report and release candidate, its gates, and the release.",
    ),
    dg.define_asset_job(
        REFRESH,
        dg.AssetSelection.assets(*_FOLLOWS, *_GATED),
        description="All of the three before: from the accepted sets to the current release.",
    ),
    dg.define_asset_job(
        BACK_UP,
        dg.AssetSelection.assets(*_BACKUPS),
        description="Catalog and bucket to the second place.",
    ),
    dg.define_asset_job(
        TRAIN_STARTER,
        dg.AssetSelection.groups(names.STARTER),
        description="The starter models from nothing: hours on a CPU, minutes on a GPU.",
    ),
    dg.define_asset_job(
        VERIFY_MODELS,
        dg.AssetSelection.checks(model_checks.every_file_is_the_one_on_record),
        description="Hashes every file of every model in use anew, and makes nothing.",
    ),
    dg.define_asset_job(
        VERIFY_RELEASE,
        dg.AssetSelection.checks(release_checks.every_gate_still_holds),
        description="Judges the current release anew, and makes nothing.",
    ),
]


SCHEDULES = [
    dg.ScheduleDefinition(
        name="weekly_full_audit",
        job_name=AUDIT,
        cron_schedule="0 2 * * 0",
        description="Asks every audited model anew each Sunday, as an endpoint may have changed; "
        "the report and what depends on it follow.",
    ),
    dg.ScheduleDefinition(
        name="daily_refresh",
        job_name=MAKE_DATASET,
        cron_schedule="0 3 * * *",
        description="Makes the dataset again each night; what depends on it follows.",
    ),
    dg.ScheduleDefinition(
        name="daily_backup",
        job_name=BACK_UP,
        cron_schedule="30 4 * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Backs catalog and bucket up each night.",
    ),
    dg.ScheduleDefinition(
        name="daily_model_verification",
        job_name=VERIFY_MODELS,
        cron_schedule="0 5 * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Looks each night whether the models' files are still the ones on record.",
    ),
    dg.ScheduleDefinition(
        name="daily_release_verification",
        job_name=VERIFY_RELEASE,
        cron_schedule="30 5 * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Looks each night whether every gate still holds on the current release.",
    ),
    dg.ScheduleDefinition(
        name="monthly_retention",
        job_name=withdrawal.drop_old_releases.name,
        cron_schedule="0 6 1 * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Drops the records of releases that no rollback will want soon.",
    ),
]

SENSORS = [
    incoming_sensor(MAKE_COUNTERFACTUALS),
    withdrawal.withdraw_failed_release,
    alerting.alert_of_failures,
    dg.AutomationConditionSensorDefinition(
        "follow_upstream",
        target=dg.AssetSelection.assets(*_FOLLOWS, *_GATED),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=INTERVAL_SECONDS,
        description="From new accepted sets to a new current release, as upstream changes.",
    ),
]


def _eager(changed: Condition) -> Condition:
    """Dagster's own, but for what counts as a change, and whatever became of single batches.

    A batch that was refused has no accepted sets and never will have: it must not keep the others
    waiting.
    """
    eager: Condition = AUTOMATION.eager()
    missing = AUTOMATION.any_deps_missing().ignore(_BATCHES)
    return eager.replace("any_deps_updated", changed).replace("any_deps_missing", missing)


def _conditions() -> dict[dg.AssetKey, Condition]:
    """When the assets from dataset to current release are made again.

    The dataset follows its batches. Of all others only another content of what they are made from
    is a change, so that what is made again the same (the nightly dataset, the model artifacts of
    each batch) has no consequences.
    """
    elsewhere = ~AUTOMATION.executed_with_root_target()
    coming = AUTOMATION.will_be_requested()
    batch_made = AUTOMATION.any_deps_match(AUTOMATION.newly_updated() & elsewhere).allow(_BATCHES)
    # One refresh after the other: their steps read the newest dataset, which must stay the same.
    refreshing = AUTOMATION.asset_matches(names.RELEASE_CURRENT, AUTOMATION.in_progress())

    another = AUTOMATION.data_version_changed()
    changed = AUTOMATION.any_deps_match((another & elsewhere) | coming).ignore(_BATCHES)

    # What a gate has kept back is made as soon as the gate, evaluated again, lets it through.
    judged = AUTOMATION.any_checks_match(AUTOMATION.newly_updated() & elsewhere, blocking_only=True)
    kept_back = AUTOMATION.any_deps_match(another).since(AUTOMATION.newly_updated())
    released = AUTOMATION.any_deps_match(judged) & kept_back
    # Where a dependency is made by the same run, that run itself stops at its blocking checks.
    passed = AUTOMATION.all_checks_match(AUTOMATION.check_passed(), blocking_only=True)
    gates_passed = AUTOMATION.all_deps_match(coming | passed)
    return {
        **dict.fromkeys(_FOLLOWS, _eager(changed)),
        names.DATASET: _eager(batch_made) & ~refreshing,
        **dict.fromkeys(_GATED, _eager(changed | released) & gates_passed),
    }


CONDITIONS = _conditions()


def with_policies(spec: dg.AssetSpec) -> dg.AssetSpec:
    """An asset's spec with the lab's automation and freshness for its key."""
    if spec.key in CONDITIONS:
        return spec.replace_attributes(automation_condition=CONDITIONS[spec.key])
    if spec.key in _BACKUPS:
        nightly = dg.FreshnessPolicy.time_window(
            fail_window=timedelta(hours=48), warn_window=timedelta(hours=26)
        )
        return spec.replace_attributes(freshness_policy=nightly)
    return spec
