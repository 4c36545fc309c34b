"""Conditions under which Dagster's daemon asks for assets, from a new batch to the current release.

What one look asks for is made by one run, as none of these assets has partitions.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from cf_lab_assets import names

AUTOMATION = dg.AutomationCondition
Condition = dg.AutomationCondition[Any]

BY_BATCH = [
    names.SOURCE_PAIRS,
    names.EDIT_PLAN,
    names.CANDIDATES,
    names.PAIR_SCORES,
    names.ACCEPTED_SETS,
]
BATCHES = dg.AssetSelection.assets(*BY_BATCH)
_FOLLOWS = [
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

# Of checks that are steps of their own. Dagster's daemon leaves checks without a condition out of a
# run as soon as another asset of it evaluates checks itself, and gates would stand open.
WITH_ITS_ASSET = AUTOMATION.any_deps_match(AUTOMATION.will_be_requested())


def _once_at_rest(due: Condition) -> Condition:
    """Where it is due, and neither it nor what it is made from is being made, or missing.

    A batch that was refused has no accepted sets and never will have: it must not keep the others
    waiting.
    """
    missing = AUTOMATION.any_deps_missing().ignore(BATCHES)
    return due & ~missing & ~AUTOMATION.any_deps_in_progress() & ~AUTOMATION.in_progress()


def _dataset() -> Condition:
    """Once a batch was made after it, one refresh after the other.

    A request does not settle that, for a batch may come between the run's reading and the next
    look; only that it was made later does. Where making it failed it waits for another batch.
    """
    batch_made = AUTOMATION.any_deps_match(AUTOMATION.newly_updated()).allow(BATCHES)
    older = batch_made.since(AUTOMATION.newly_updated()) & ~AUTOMATION.execution_failed()
    # The steps of a refresh read the newest dataset, which must stay the same.
    refreshing = AUTOMATION.asset_matches(names.RELEASE_CURRENT, AUTOMATION.in_progress())
    return _once_at_rest(older | batch_made.since_last_handled()) & ~refreshing


def _conditions() -> dict[dg.AssetKey, Condition]:
    """When the assets from dataset to current release are made again.

    But for the dataset only another content of what they are made from is a change, so that what is
    made again the same (the nightly dataset, the model artifacts of each batch) has no
    consequences.
    """
    elsewhere = ~AUTOMATION.executed_with_root_target()
    coming = AUTOMATION.will_be_requested()
    another = AUTOMATION.data_version_changed()
    changed = AUTOMATION.any_deps_match(another & elsewhere).ignore(BATCHES)

    # What a gate kept back, or a failure, is made once the gate lets it through, or once what it is
    # made from is made again, be it the same.
    judged = AUTOMATION.any_checks_match(AUTOMATION.newly_updated() & elsewhere, blocking_only=True)
    again = (AUTOMATION.newly_updated() & elsewhere) | judged
    kept_back = AUTOMATION.any_deps_match(another).since(AUTOMATION.newly_updated())
    overdue = (AUTOMATION.any_deps_match(again) & kept_back).ignore(BATCHES)

    lost = AUTOMATION.newly_missing()
    any_of_them: Condition = changed | overdue | lost
    news = any_of_them.since_last_handled()
    follows = _once_at_rest(AUTOMATION.any_deps_match(coming) | news)
    # Where a dependency is made by the same run, that run itself stops at its blocking checks.
    passed = AUTOMATION.all_checks_match(AUTOMATION.check_passed(), blocking_only=True)
    gates_passed = AUTOMATION.all_deps_match(coming | passed)
    return {
        names.DATASET: _dataset(),
        **dict.fromkeys(_FOLLOWS, follows),
        **dict.fromkeys(_GATED, follows & gates_passed),
    }


CONDITIONS = _conditions()
