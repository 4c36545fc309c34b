"""What runs by itself, as Dagster's daemon decides it."""

from __future__ import annotations

import datetime
import itertools

import dagster as dg
import pytest
from dagster._utils.schedules import schedule_execution_time_iterator

from cf_lab_assets import names
from cf_lab_assets.counterfactuals.packaging.checks import DESCRIPTIONS
from cf_lab_assets.definitions import build_defs

DEFS = build_defs()
GRAPH = DEFS.resolve_asset_graph()
UNPARTITIONED = [
    names.MODEL_ARTIFACTS,
    names.DATASET,
    names.PACKAGE,
    names.BIAS_REPORT,
    names.RELEASE_CANDIDATE,
    names.RELEASE_CURRENT,
]


def materialise(instance, *keys):
    for key in keys:
        instance.report_runless_asset_event(dg.AssetMaterialization(key))


def evaluate_checks(instance, key, passed=True):
    for check in GRAPH.get_check_keys_for_assets({key}):
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=key, check_name=check.name, passed=passed, metadata={}
            )
        )


def tick_after(instance, cursor=None):
    # Named, as its default selection uses a parameter that warns of being in beta.
    return dg.evaluate_automation_conditions(
        defs=DEFS,
        instance=instance,
        cursor=cursor,
        asset_selection=dg.AssetSelection.assets(*UNPARTITIONED),
    )


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        materialise(instance, *UNPARTITIONED)
        for key in UNPARTITIONED:
            evaluate_checks(instance, key)
        yield instance


def test_a_candidate_waits_until_the_packages_checks_have_passed(instance):
    assert {key.name for key in GRAPH.get_check_keys_for_assets({names.PACKAGE})} == set(
        DESCRIPTIONS
    )
    baseline = tick_after(instance)

    materialise(instance, names.PACKAGE)
    evaluate_checks(instance, names.PACKAGE, passed=False)
    tick = tick_after(instance, baseline.cursor)
    assert tick.get_num_requested(names.RELEASE_CANDIDATE) == 0

    evaluate_checks(instance, names.PACKAGE)
    tick = tick_after(instance, tick.cursor)
    assert tick.get_num_requested(names.RELEASE_CANDIDATE) == 1


def test_a_new_dataset_is_packaged_by_itself(instance):
    baseline = tick_after(instance)
    materialise(instance, names.DATASET)
    tick = tick_after(instance, baseline.cursor)
    assert tick.get_num_requested(names.PACKAGE) == 1


SUNDAY = datetime.datetime(2026, 11, 29, 2, tzinfo=datetime.UTC)


def ticked(instance, schedule, at=SUNDAY):
    """What a schedule asks for at a time, as the daemon evaluates it."""
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=at, repository_def=DEFS.get_repository_def()
    )
    return schedule.evaluate_tick(context).run_requests


def test_every_schedule_ticks_into_a_run_of_its_job(instance):
    for schedule in DEFS.get_repository_def().schedule_defs:
        asked = ticked(instance, schedule)
        assert asked, schedule.name
        assert DEFS.resolve_job_def(schedule.job_name)


@pytest.mark.parametrize(
    ("name", "days"),
    [
        ("weekly_dependency_report", ["2026-11-30", "2026-12-07", "2026-12-14"]),
        ("monthly_configuration_review", ["2026-12-01", "2027-01-01", "2027-02-01"]),
        ("quarterly_capacity_review", ["2027-01-01", "2027-04-01", "2027-07-01"]),
    ],
)
def test_a_review_ticks_each_week_month_or_quarter_by_itself(name, days):
    schedule = DEFS.get_repository_def().get_schedule_def(name)
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    ticks = schedule_execution_time_iterator(
        SUNDAY.timestamp(), schedule.cron_schedule, execution_timezone="UTC"
    )
    assert [f"{tick:%Y-%m-%d}" for tick in itertools.islice(ticks, 3)] == days


def test_the_weekly_audit_asks_every_model_once_a_week(instance):
    schedule = DEFS.get_repository_def().get_schedule_def("weekly_full_audit")
    asked = ticked(instance, schedule)
    models = names.AUDITED_MODELS.get_partition_keys()
    assert [one.partition_key for one in asked] == models
    again = ticked(instance, schedule)
    assert [one.run_key for one in again] == [one.run_key for one in asked]
    later = ticked(instance, schedule, SUNDAY + datetime.timedelta(days=7))
    assert not {one.run_key for one in later} & {one.run_key for one in asked}
