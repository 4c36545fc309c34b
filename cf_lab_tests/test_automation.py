"""What runs by itself, as Dagster's daemon decides it."""

from __future__ import annotations

import dagster as dg
import pytest

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
