"""What runs by itself, as Dagster's daemon decides it.

The lab's own conditions are evaluated on the lab's own graph, and what they ask for is run as the
daemon would: one run for what is asked for together. The assets' contents are left out: each says
only which version of its content it has made. `faults/test_dropped_folders.py` does it in earnest.
"""

from __future__ import annotations

import datetime

import dagster as dg
import pytest

from cf_lab_assets import automation, names
from cf_lab_assets.counterfactuals.packaging.checks import PACKAGE_LOADS
from cf_lab_assets.definitions import build_defs
from cf_lab_assets.releases.gates import GATES

DEFS = build_defs()
GRAPH = DEFS.resolve_asset_graph()
REFRESHED = set(automation.CONDITIONS)
GATED = [(names.PACKAGE, PACKAGE_LOADS), (names.RELEASE_CANDIDATE, GATES[0].name)]


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
            asset_checks=[self._gate(*gate) for gate in GATED],
            executor=dg.in_process_executor,
        )
        self.job = self.defs.resolve_implicit_global_asset_job_def()
        self.cursor = None
        self.look()

    def _asset(self, spec):
        @dg.multi_asset(name="__".join(spec.key.path).replace("-", "_"), specs=[spec])
        def make():
            if spec.key in self.broken:
                raise dg.Failure("refused", allow_retries=False)
            version = self.versions.get(spec.key)
            yield dg.MaterializeResult(
                asset_key=spec.key, data_version=dg.DataVersion(version) if version else None
            )

        return make

    def _gate(self, key, name):
        @dg.asset_check(asset=key, name=name, blocking=True)
        def gate() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=name not in self.refused)

        return gate

    def look(self):
        """Keys that one look asks for."""
        found = dg.evaluate_automation_conditions(
            defs=self.defs,
            instance=self.instance,
            cursor=self.cursor,
            asset_selection=dg.AssetSelection.assets(*REFRESHED),
        )
        self.cursor = found.cursor
        return {key for key in REFRESHED if found.get_num_requested(key)}

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

    def judge(self, key, name):
        """Evaluate a check by itself."""
        check = dg.AssetCheckKey(key, name)
        subset = self.job.get_subset(asset_selection=set(), asset_check_selection={check})
        return subset.execute_in_process(instance=self.instance, raise_on_error=False)

    def take_in(self, batch, keys=(names.MODEL_ARTIFACTS, *automation.BY_BATCH)):
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
    assert lab.run(lab.look()).success
    assert lab.look() == set()
    return lab


def test_one_look_asks_for_everything_from_the_new_batch_to_the_release_in_one_run(lab):
    assert lab.take_in("first").success
    asked = lab.look()
    assert asked == REFRESHED
    assert {GRAPH.get(key).partitions_def for key in asked} == {None}, "or it were several runs"
    assert lab.run(asked).success
    assert [lab.look() for _ in range(3)] == [set()] * 3, "nothing is done twice"


def test_ten_folders_at_once_become_one_refresh(published):
    batches = [f"b{number}" for number in range(10)]
    *others, last = batches
    published.instance.add_dynamic_partitions(names.SOURCE_BATCHES.name, batches)
    queued = published.queue(automation.BY_BATCH, last)
    for batch in others:
        published.take_in(batch)
        assert published.look() == set(), "another batch is under way"
    published.instance.report_run_canceled(queued)
    published.take_in(last)
    asked = published.look()
    assert asked == REFRESHED
    published.run(asked)
    assert published.look() == set()


def test_a_batch_that_comes_during_a_refresh_waits_for_its_end(published):
    under_way = published.queue(REFRESHED)
    published.take_in("second")
    assert [published.look() for _ in range(2)] == [set()] * 2
    published.instance.report_run_canceled(under_way)
    assert published.look() == REFRESHED


def test_a_refused_batch_neither_makes_a_release_nor_keeps_others_from_it(lab):
    lab.broken.add(names.SOURCE_PAIRS)
    assert not lab.take_in("bad").success
    assert [lab.look() for _ in range(2)] == [set()] * 2
    lab.broken.clear()
    lab.take_in("good")
    assert lab.look() == REFRESHED


@pytest.mark.parametrize(
    ("asset", "gate", "kept_back"),
    [
        (*GATED[0], {names.RELEASE_CANDIDATE, names.RELEASE_CURRENT}),
        (*GATED[1], {names.RELEASE_CURRENT}),
    ],
)
def test_what_a_gate_refuses_is_not_tried_again_until_the_gate_lets_it_through(
    published, asset, gate, kept_back
):
    published.take_in("second")
    published.change(*REFRESHED)
    published.refused.add(gate)
    done = published.run(published.look())
    assert not done.success
    made = {event.asset_key for event in done.get_asset_materialization_events()}
    assert made == REFRESHED - kept_back
    assert [published.look() for _ in range(3)] == [set()] * 3
    published.judge(asset, gate)
    assert published.look() == set(), "it failed again"
    published.refused.clear()
    published.judge(asset, gate)
    assert published.look() == kept_back


def test_a_refusal_within_a_refresh_is_not_tried_again_but_with_the_next_batch(published):
    published.take_in("second")
    published.change(*REFRESHED)
    published.broken.add(names.RESPONSES[names.AUDITED_MODELS[0]])
    assert not published.run(published.look()).success
    assert [published.look() for _ in range(3)] == [set()] * 3
    published.broken.clear()
    published.take_in("third")
    assert published.look() == REFRESHED


def test_only_another_content_has_consequences(published):
    for key in [names.MODEL_ARTIFACTS, *published.in_order()]:
        published.run([key])
        assert published.look() == set(), key
    published.change(names.DATASET)
    published.run([names.DATASET])
    assert published.look() == REFRESHED - {names.DATASET}


def test_new_responses_of_one_model_are_followed_to_the_release(published):
    model = names.AUDITED_MODELS[0]
    published.change(names.RESPONSES[model])
    published.run([names.RESPONSES[model]])
    assert published.look() == {
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
    assert published.look() == audited | after


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


def test_the_weekly_audit_asks_every_model():
    job = DEFS.get_repository_def().get_schedule_def("weekly_full_audit").job_name
    asked = DEFS.resolve_job_def(job).asset_layer.selected_asset_keys
    assert asked == {*names.RESPONSES.values(), *names.BIAS_METRICS.values()}
