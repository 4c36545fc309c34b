"""What runs by itself, as Dagster's daemon decides it.

The lab's own conditions are evaluated on the lab's own graph, and what they ask for is run as the
daemon would: one run for what is asked for together. The assets' contents are left out: each says
only which version of its content it has made. `faults/test_dropped_folders.py` does it in earnest.
"""

from __future__ import annotations

import datetime
import itertools
import warnings

import dagster as dg
import pytest
from dagster._utils.schedules import schedule_execution_time_iterator

from cf_lab_assets import conditions, names
from cf_lab_assets.counterfactuals.packaging.checks import PACKAGE_LOADS, package_checks
from cf_lab_assets.definitions import build_defs
from cf_lab_assets.releases.checks import release_gates
from cf_lab_assets.releases.gates import GATES

DEFS = build_defs()
GRAPH = DEFS.resolve_asset_graph()
REFRESHED = set(conditions.CONDITIONS)
SENSOR = "follow_upstream"
PACKAGE_GATE = dg.AssetCheckKey(names.PACKAGE, PACKAGE_LOADS)
RELEASE_GATE = dg.AssetCheckKey(names.RELEASE_CANDIDATE, GATES[0].name)


class Lab:
    """The lab's graph and conditions over assets without content, and a daemon's looks at it."""

    def __init__(self, instance):
        self.instance = instance
        self.versions, self.refused, self.broken = {}, set(), set()
        specs = [
            spec
            for spec in DEFS.resolve_all_asset_specs()
            if spec.key.path[0] in (names.SOURCES, names.MODELS, *names_of(REFRESHED))
        ]
        self.defs = dg.Definitions(
            assets=[self._asset(spec) for spec in specs],
            asset_checks=[self._checks(step) for step in (package_checks, release_gates)],
            sensors=[self._sensor()],
            executor=dg.in_process_executor,
        )
        self.job = self.defs.resolve_implicit_global_asset_job_def()
        self.cursor = None
        self.look()

    @staticmethod
    def _sensor():
        """The lab's own, evaluated here instead of by the daemon."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)
            return dg.AutomationConditionSensorDefinition(
                SENSOR,
                target=DEFS.get_repository_def().get_sensor_def(SENSOR).asset_selection,
                use_user_code_server=True,
            )

    def _asset(self, spec):
        step = DEFS.resolve_asset_graph().get(spec.key).assets_def
        own = [check for check in step.check_specs if check.asset_key == spec.key]

        @dg.multi_asset(
            name="__".join(spec.key.path).replace("-", "_"), specs=[spec], check_specs=own
        )
        def make():
            if spec.key in self.broken:
                raise dg.Failure("refused", allow_retries=False)
            version = self.versions.get(spec.key)
            yield dg.MaterializeResult(
                asset_key=spec.key,
                data_version=dg.DataVersion(version) if version else None,
                check_results=[self._judged(check.key) for check in own],
            )

        return make

    def _checks(self, step):
        @dg.multi_asset_check(name=step.op.name, specs=list(step.check_specs), can_subset=True)
        def judge(context):
            for key in context.selected_asset_check_keys:
                yield self._judged(key)

        return judge

    def _judged(self, key):
        return dg.AssetCheckResult(
            asset_key=key.asset_key, check_name=key.name, passed=key not in self.refused
        )

    def look(self):
        """The run that one look asks for; None where it asks for none."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, definitions=self.defs
        )
        found = self.defs.get_repository_def().get_sensor_def(SENSOR).evaluate_tick(context)
        self.cursor = found.cursor
        assert len(found.run_requests) <= 1
        return found.run_requests[0] if found.run_requests else None

    def asks_for(self):
        """Keys of the assets that one look asks for."""
        request = self.look()
        return set(request.asset_selection) if request else set()

    def follow(self):
        """Run what one look asks for."""
        request = self.look()
        job = self.job.get_subset(
            asset_selection=set(request.asset_selection),
            asset_check_selection=set(request.asset_check_keys),
        )
        return job.execute_in_process(instance=self.instance, raise_on_error=False)

    def run(self, keys, partition=None):
        return self.job.execute_in_process(
            asset_selection=list(keys),
            instance=self.instance,
            partition_key=partition,
            raise_on_error=False,
        )

    def queue(self, keys, partition=None):
        """A run that is waiting to be executed."""
        return self.instance.create_run_for_job(
            self.job.get_subset(asset_selection=set(keys)),
            asset_selection=frozenset(keys),
            status=dg.DagsterRunStatus.STARTED,
            tags={"dagster/partition": partition} if partition else None,
        )

    def in_order(self):
        """The assets from dataset to release, each after what it is made from."""
        return [
            key for key in self.defs.resolve_asset_graph().toposorted_asset_keys if key in REFRESHED
        ]

    def judge(self, check):
        """Evaluate a check by itself."""
        subset = self.job.get_subset(asset_selection=set(), asset_check_selection={check})
        return subset.execute_in_process(instance=self.instance, raise_on_error=False)

    def take_in(self, batch, keys=(names.MODEL_ARTIFACTS, *conditions.BY_BATCH)):
        self.instance.add_dynamic_partitions(names.SOURCE_BATCHES.name, [batch])
        return self.run(keys, batch)

    def change(self, *keys):
        """From now on these have another content."""
        for key in keys:
            self.versions[key] = f"{self.versions.get(key, '')}+"


def names_of(keys):
    return {key.path[0] for key in keys}


@pytest.fixture
def lab():
    with dg.DagsterInstance.ephemeral() as instance:
        lab = Lab(instance)
        lab.change(names.MODEL_ARTIFACTS, *REFRESHED)
        yield lab


@pytest.fixture
def published(lab):
    """A lab that has a release, and in which nothing is to be done."""
    lab.take_in("first")
    assert lab.follow().success
    assert lab.asks_for() == set()
    return lab


def test_one_look_asks_for_everything_from_the_new_batch_to_the_release_in_one_run(lab):
    assert lab.take_in("first").success
    request = lab.look()
    assert set(request.asset_selection) == REFRESHED
    blocking = {
        key for key in GRAPH.get_check_keys_for_assets(REFRESHED) if GRAPH.get(key).blocking
    }
    assert blocking <= set(request.asset_check_keys)


def test_nothing_is_made_twice(published):
    assert published.take_in("second").success
    assert published.follow().success
    assert [published.asks_for() for _ in range(3)] == [set()] * 3


def test_ten_folders_at_once_become_one_refresh(published):
    batches = [f"b{number}" for number in range(10)]
    *others, last = batches
    published.instance.add_dynamic_partitions(names.SOURCE_BATCHES.name, batches)
    under_way = published.queue(conditions.BY_BATCH, last)
    for batch in others:
        published.take_in(batch)
        assert published.asks_for() == set(), "another batch is under way"
    published.instance.report_run_canceled(under_way)
    published.take_in(last)
    done = published.follow()
    assert {event.asset_key for event in done.get_asset_materialization_events()} == REFRESHED
    assert published.asks_for() == set()


def test_a_batch_that_comes_during_a_refresh_is_in_the_next(published):
    published.take_in("second")
    assert published.asks_for() == REFRESHED
    under_way = published.queue(REFRESHED)
    published.take_in("third")
    assert [published.asks_for() for _ in range(2)] == [set()] * 2
    published.instance.report_run_canceled(under_way)
    assert published.asks_for() == REFRESHED


def test_a_batch_that_comes_before_the_look_after_a_refresh_is_in_the_next(published):
    published.take_in("second")
    assert published.follow().success
    published.take_in("third")
    assert published.asks_for() == REFRESHED


def test_a_dataset_that_is_refused_is_not_tried_again_but_with_the_next_batch(published):
    published.broken.add(names.DATASET)
    assert refreshed_in_vain(published) == set()
    published.broken.clear()
    published.take_in("third")
    assert published.asks_for() == REFRESHED


def test_a_refused_batch_neither_makes_a_release_nor_keeps_others_from_it(lab):
    lab.broken.add(names.SOURCE_PAIRS)
    assert not lab.take_in("bad").success
    assert [lab.asks_for() for _ in range(2)] == [set()] * 2
    lab.broken.clear()
    lab.take_in("good")
    assert lab.asks_for() == REFRESHED


def refreshed_in_vain(published):
    """Materialized keys of a refresh that fails, and is not tried again."""
    published.take_in("second")
    published.change(*REFRESHED)
    done = published.follow()
    assert not done.success
    assert [published.asks_for() for _ in range(3)] == [set()] * 3
    return {event.asset_key for event in done.get_asset_materialization_events()}


@pytest.mark.parametrize(
    ("gate", "kept_back"),
    [
        (PACKAGE_GATE, {names.RELEASE_CANDIDATE, names.RELEASE_CURRENT}),
        (RELEASE_GATE, {names.RELEASE_CURRENT}),
    ],
)
def test_what_a_gate_refuses_is_not_tried_again_until_the_gate_lets_it_through(
    published, gate, kept_back
):
    published.refused.add(gate)
    assert refreshed_in_vain(published) == REFRESHED - kept_back
    published.judge(gate)
    assert published.asks_for() == set(), "it failed again"
    published.refused.clear()
    published.judge(gate)
    assert published.asks_for() == kept_back


def test_a_refusal_within_a_refresh_is_not_tried_again_but_with_the_next_batch(published):
    published.broken.add(names.RESPONSES[names.AUDITED_MODELS[0]])
    refreshed_in_vain(published)
    published.broken.clear()
    published.take_in("third")
    assert published.asks_for() == REFRESHED


def test_what_failed_is_made_with_the_dataset_that_the_night_makes_again(published):
    published.broken.add(names.BIAS_REPORT)
    refreshed_in_vain(published)
    published.broken.clear()
    published.run([names.DATASET, names.PACKAGE, names.INSTRUMENT])
    after = {names.BIAS_REPORT, names.RELEASE_CANDIDATE, names.RELEASE_CURRENT}
    assert published.asks_for() == after


def test_only_another_content_has_consequences(published):
    for key in [names.MODEL_ARTIFACTS, *published.in_order()]:
        published.run([key])
        assert published.asks_for() == set(), key
    published.change(names.DATASET)
    published.run([names.DATASET])
    assert published.asks_for() == REFRESHED - {names.DATASET}


def test_new_responses_of_one_model_are_followed_to_the_release(published):
    model = names.AUDITED_MODELS[0]
    published.change(names.RESPONSES[model])
    published.run([names.RESPONSES[model]])
    assert published.asks_for() == {
        names.BIAS_METRICS[model],
        names.MULTIVERSE,
        names.BIAS_REPORT,
        names.RELEASE_CANDIDATE,
        names.RELEASE_CURRENT,
    }


def test_another_model_is_asked_anew(published):
    published.change(names.MODEL_ARTIFACTS)
    published.run([names.MODEL_ARTIFACTS])
    audited = {*names.RESPONSES.values(), *names.BIAS_METRICS.values()}
    after = {names.MULTIVERSE, names.BIAS_REPORT, names.RELEASE_CANDIDATE, names.RELEASE_CURRENT}
    assert published.asks_for() == audited | after


SUNDAY = datetime.datetime(2026, 11, 29, 2, tzinfo=datetime.UTC)


def ticked(instance, schedule, at=SUNDAY):
    """What a schedule asks for at a time, as the daemon evaluates it."""
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=at, repository_def=DEFS.get_repository_def()
    )
    return schedule.evaluate_tick(context).run_requests


def test_every_schedule_ticks_into_a_run_of_its_job():
    with dg.DagsterInstance.ephemeral() as instance:
        for schedule in DEFS.get_repository_def().schedule_defs:
            (asked,) = ticked(instance, schedule)
            assert asked.partition_key is None
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


def test_the_weekly_audit_asks_every_model():
    job = DEFS.get_repository_def().get_schedule_def("weekly_full_audit").job_name
    asked = DEFS.resolve_job_def(job).asset_layer.selected_asset_keys
    assert asked == {*names.RESPONSES.values(), *names.BIAS_METRICS.values()}
