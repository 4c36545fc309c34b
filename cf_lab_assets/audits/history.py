"""What changed since the last report, and how each model's primary estimates moved over reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cf_lab_assets.audits.results import PRIMARY

Report = Mapping[str, Any]
# What makes two results answers to one question.
QUESTION = (
    "format",
    "attribute",
    "from_value",
    "to_value",
    "prompts_plus",
    "prompts_minus",
    "unit",
)


def changes(earlier: Report | None, body: Mapping[str, Any]) -> dict[str, Any] | None:
    """What differs from the last report; None where there is none.

    An endpoint is listed where its verdict, or where it stands against its limit, is another, or
    where its estimate now lies outside the earlier interval.
    """
    if earlier is None:
        return None
    before = earlier["body"]
    models, models_before = _systems(body), _systems(before)
    now, then = _primary(body), _primary(before)
    return {
        "since": {"report_id": earlier["report_id"], "date": earlier["date"]},
        "dataset": _pair(before["data"]["dataset_hash"], body["data"]["dataset_hash"]),
        "declaration": _pair(before["declaration_hash"], body["declaration_hash"]),
        "models_added": sorted(set(models) - set(models_before)),
        "models_removed": sorted(set(models_before) - set(models)),
        "models_changed": sorted(
            name for name in set(models) & set(models_before) if models[name] != models_before[name]
        ),
        "endpoints_added": [_named(key) for key in now if key not in then],
        "endpoints_removed": [_named(key) for key in then if key not in now],
        "endpoints": [
            change
            for key in now
            if key in then and (change := _endpoint_change(key, then[key], now[key]))
        ],
    }


def _pair(before: str, after: str) -> dict[str, str] | None:
    return None if before == after else {"from": before, "to": after}


def _systems(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        one["name"]: (one.get("sha256"), one.get("revision")) for one in body["systems_under_test"]
    }


def _primary(body: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {
        (model, one["endpoint"]): one
        for model, results in body["results"].items()
        for one in results
        if one["family"] == PRIMARY
    }


def _named(key: tuple[str, str]) -> dict[str, str]:
    return {"model": key[0], "endpoint": key[1]}


def _same_question(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(name) == other.get(name) for name in QUESTION)


def _endpoint_change(
    key: tuple[str, str], then: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, Any] | None:
    comparable = _same_question(then, now)
    beyond = comparable and _beyond(then, now)
    verdicts = ("verdict", "against_limit")
    if comparable and not beyond and all(then.get(name) == now.get(name) for name in verdicts):
        return None
    shown = ("estimate", "ci_low", "ci_high", *verdicts)
    return {
        **_named(key),
        "same_question": comparable,
        "beyond_interval": beyond,
        "before": {name: then.get(name) for name in shown},
        "now": {name: now.get(name) for name in shown},
    }


def _beyond(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the new estimate is outside of the earlier interval; not where one is missing."""
    low, estimate, high = then.get("ci_low"), now.get("estimate"), then.get("ci_high")
    if low is None or estimate is None or high is None:
        return False
    return not float(low) <= float(estimate) <= float(high)


def drift(
    earlier: Sequence[Report], body: Mapping[str, Any], identity: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Each primary endpoint's estimates over reports, where an earlier one asked the same.

    Args:
        earlier: reports, oldest first.
        body: of the report that is made.
        identity: its report_id and date.

    Returns:
        [{model, endpoint, unit, points: [{report_id, date, dataset_hash, model_sha256, estimate,
        ci_low, ci_high, verdict}]}], points oldest first, the last one being this report's.
    """
    series = []
    for (model, endpoint), result in _primary(body).items():
        points = [
            _point(one["body"], then, model, one)
            for one in earlier
            if (then := _primary(one["body"]).get((model, endpoint)))
            and _same_question(then, result)
        ]
        if points:
            points.append(_point(body, result, model, identity))
            unit = result["unit"]
            series.append({"model": model, "endpoint": endpoint, "unit": unit, "points": points})
    return series


def _point(
    body: Mapping[str, Any], result: Mapping[str, Any], model: str, identity: Mapping[str, Any]
) -> dict[str, Any]:
    numbers = ("estimate", "ci_low", "ci_high", "verdict")
    return {
        "report_id": identity["report_id"],
        "date": identity["date"],
        "dataset_hash": body["data"]["dataset_hash"],
        "model_sha256": _systems(body)[model][0],
        **{name: result.get(name) for name in numbers},
    }
