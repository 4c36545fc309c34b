"""What runs by itself: jobs, schedules, and conditions from new batch to current release.

A delivery is found by the sensor on ``incoming/``, which runs `MAKE_COUNTERFACTUALS` for it. From
the accepted sets on, each asset is made again when the content of what it is made from has changed.
All of them, from dataset to current release, are asked for at one look and so by one run, in which
the checks between them are gates: what follows a blocking check that failed is not made.
"""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from cf_lab_assets import alerting, names
from cf_lab_assets.conditions import BATCHES, CONDITIONS
from cf_lab_assets.models import checks as model_checks
from cf_lab_assets.models import upstream
from cf_lab_assets.releases import checks as release_checks
from cf_lab_assets.releases import upkeep, withdrawal
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
REPORT_DEPENDENCIES = "report_dependencies"
REVIEW_CONFIGURATION = "review_configuration"
REVIEW_CAPACITY = "review_capacity"

_BACKUPS = [names.CATALOG_BACKUP, names.BUCKET_BACKUP]
JOBS = [
    dg.define_asset_job(
        MAKE_COUNTERFACTUALS,
        dg.AssetSelection.assets(names.MODEL_ARTIFACTS) | BATCHES,
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
        dg.AssetSelection.assets(*CONDITIONS),
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
        upstream.RESOLVE_MODELS,
        dg.AssetSelection.assets(names.MODEL_ARTIFACTS),
        description="Fetches the models in use that are not in the bucket yet.",
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
    dg.define_asset_job(
        REPORT_DEPENDENCIES,
        dg.AssetSelection.assets(names.DEPENDENCIES),
        description="Installed distributions beside the lock and the package index.",
    ),
    dg.define_asset_job(
        REVIEW_CONFIGURATION,
        dg.AssetSelection.assets(names.CONFIGURATION),
        description="Variables, gates, waivers and API keys, for a person to look over.",
    ),
    dg.define_asset_job(
        REVIEW_CAPACITY,
        dg.AssetSelection.assets(names.CAPACITY),
        description="What the stores hold, what room is left, and how long the jobs took.",
    ),
]


SCHEDULES = [
    dg.ScheduleDefinition(
        name="weekly_full_audit",
        job_name=AUDIT,
        cron_schedule="0 2 * * 0",
        description="Asks every audited endpoint anew each Sunday, as it may have changed; where "
        "its answers have, the report and what depends on it follow. Models whose files are here "
        "are asked about pictures that are new.",
    ),
    dg.ScheduleDefinition(
        name="daily_refresh",
        job_name=MAKE_DATASET,
        cron_schedule="0 3 * * *",
        description="Makes the dataset again each night; what failed since the last one, or "
        "depends on another content, follows.",
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
        job_name=upkeep.drop_old_releases.name,
        cron_schedule="0 6 1 * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Drops the records of releases that no rollback will want soon.",
    ),
    dg.ScheduleDefinition(
        name="weekly_dependency_report",
        job_name=REPORT_DEPENDENCIES,
        cron_schedule="0 1 * * 1",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Looks each Monday night which dependencies should be updated.",
    ),
    dg.ScheduleDefinition(
        name="monthly_configuration_review",
        job_name=REVIEW_CONFIGURATION,
        cron_schedule="30 6 1 * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Lists on the first of each month what the lab is set to.",
    ),
    dg.ScheduleDefinition(
        name="quarterly_capacity_review",
        job_name=REVIEW_CAPACITY,
        cron_schedule="0 7 1 1,4,7,10 *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Measures stores, disk and jobs on the first of each quarter.",
    ),
]

SENSORS = [
    incoming_sensor(MAKE_COUNTERFACTUALS),
    withdrawal.withdraw_failed_release,
    upkeep.mend_cache,
    upstream.models_changed_upstream,
    alerting.alert_of_failures,
    dg.AutomationConditionSensorDefinition(
        "follow_upstream",
        target=dg.AssetSelection.assets(*CONDITIONS),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=INTERVAL_SECONDS,
        description="From new accepted sets to a new current release, as upstream changes.",
    ),
]


# After how many hours without a new materialization people are warned, and alarmed: what a schedule
# makes, soon after it should have; the report and the release, which are made anew only where their
# content changes, when they are too old to speak for today's models. What batches make has no
# window, as no delivery is owed.
_FRESH_FOR = {
    **dict.fromkeys(_BACKUPS, (26, 48)),
    **dict.fromkeys(CONDITIONS, (35 * 24, 95 * 24)),
    **dict.fromkeys(
        [
            names.DATASET,
            names.PACKAGE,
            names.INSTRUMENT,
            *names.RESPONSES.values(),
            *names.BIAS_METRICS.values(),
        ],
        (8 * 24, 15 * 24),
    ),
    names.DEPENDENCIES: (8 * 24, 15 * 24),
    names.CONFIGURATION: (32 * 24, 62 * 24),
    names.CAPACITY: (93 * 24, 124 * 24),
}


def with_policies(spec: dg.AssetSpec) -> dg.AssetSpec:
    """An asset's spec with the lab's automation and freshness for its key."""
    if spec.key in _FRESH_FOR:
        warn, fail = (timedelta(hours=hours) for hours in _FRESH_FOR[spec.key])
        policy = dg.FreshnessPolicy.time_window(fail_window=fail, warn_window=warn)
        spec = spec.replace_attributes(freshness_policy=policy)
    if spec.key in CONDITIONS:
        return spec.replace_attributes(automation_condition=CONDITIONS[spec.key])
    return spec
