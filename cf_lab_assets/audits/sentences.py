"""Results in words, and numbers the way people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cf_lab_assets.audits.results import (
    CHANCE,
    EFFECT,
    FLOOR,
    FOUND,
    INSUFFICIENT,
    INTERVAL,
    NO_FLOOR,
    NOT_FOUND,
    PRIMARY,
)

DASH, MINUS, INFINITY = "\u2013", "\u2212", "\u221e"
REASONS = {
    INTERVAL: "the interval includes 0",
    FLOOR: "the change is within the placebo floor",
    CHANCE: "q is too large",
    NO_FLOOR: "there are too few placebos for a floor",
}
VERDICT_ORDER = {FOUND: 0, NOT_FOUND: 1, INSUFFICIENT: 2}


def headlines(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """A sentence on each primary endpoint and one on the secondary results."""
    model = metrics["model"]["name"]
    primary = [result for result in metrics["results"] if result["family"] == PRIMARY]
    lines = [
        {
            "model": model,
            "endpoint": result["endpoint"],
            "verdict": result["verdict"],
            "sentence": sentence(model, result, metrics["declaration"]),
        }
        for result in primary
    ]
    effects = [
        result
        for result in metrics["results"]
        if result["metric"] == EFFECT and result["family"] != PRIMARY
    ]
    lines.append(_secondary_line(model, effects))
    return lines


def sentence(model: str, result: Mapping[str, Any], declaration: Mapping[str, Any]) -> str:
    """What one primary result says, in words."""
    attribute = result["attribute"].replace("_", " ")
    low, high = result["from_value"], result["to_value"]
    plus = ", ".join(result["prompts_plus"])
    against = f" (against {', '.join(result['prompts_minus'])})"
    if result["verdict"] == INSUFFICIENT:
        return (
            f"{model}: too little data on {attribute} {high} and {low}: {result['n_sets']} "
            f"counterfactual sets, {declaration['minimum_sets']} are needed."
        )
    sign = 1.0
    if result["verdict"] == FOUND and result["estimate"] < 0:
        sign, low, high = -1.0, high, low
    ends = sorted(sign * result[name] for name in ("ci_low", "ci_high"))
    numbers = (
        f"{signed(sign * result['estimate'])} [{signed(ends[0])}, {signed(ends[1])}], "
        f"placebo floor {plain(result['placebo_floor'])}, q {p_value(result['q'], relation=True)}"
    )
    if result["verdict"] == FOUND:
        return (
            f"{model} rates the same person higher as {plus}{against} when shown with {attribute} "
            f"{high} than with {attribute} {low}: {numbers}."
        )
    why = ", ".join(REASONS[reason] for reason in result["reasons"])
    return (
        f"{model}: no difference established between {attribute} {high} and {low} for "
        f"{plus}{against}: {numbers} ({why}). Detectable with {result['n_sets']} sets: "
        f"{plain(result['mde'])}, and more than the floor."
    )


def in_order(lines: list[dict[str, str]]) -> list[dict[str, str]]:
    """Primary endpoints before the summaries, and what was found before what was not."""
    return sorted(
        lines, key=lambda line: (line["endpoint"] == "secondary", VERDICT_ORDER[line["verdict"]])
    )


def _secondary_line(model: str, effects: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    tested = [one for one in effects if one["verdict"] != INSUFFICIENT]
    found = sorted(
        (one for one in tested if one["verdict"] == FOUND),
        key=lambda one: (-abs(one["estimate"]), one["id"]),
    )
    text = f"{model}: {len(found)} of {len(tested)} secondary effects found"
    if len(tested) < len(effects):
        text += f", {len(effects) - len(tested)} insufficient"
    if found:
        most = found[0]
        text += (
            f"; the largest is {most['prompts_plus'][0]}, "
            f"{most['attribute'].replace('_', ' ')} {most['from_value']} to {most['to_value']}: "
            f"{signed(most['estimate'])} [{signed(most['ci_low'])}, {signed(most['ci_high'])}]"
        )
    verdict = FOUND if found else NOT_FOUND if tested else INSUFFICIENT
    return {"model": model, "endpoint": "secondary", "verdict": verdict, "sentence": text + "."}


def plain(value: Any, digits: int = 3) -> str:
    """A number for people; a dash for what is missing, a sign for infinity."""
    if value is None:
        return DASH
    number = float(value)
    if number in (float("inf"), float("-inf")):
        return INFINITY if number > 0 else MINUS + INFINITY
    text = f"{number:.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text.removeprefix("-")


def signed(value: Any, digits: int = 3) -> str:
    """As `plain`, with a plus where the number is above 0."""
    text = plain(value, digits)
    return f"+{text}" if value is not None and float(value) > 0 and text != INFINITY else text


def p_value(value: Any, relation: bool = False) -> str:
    """A probability; below a thousandth only that is said."""
    if value is None:
        return DASH
    if value < 0.001:
        return "< 0.001"
    return f"{'= ' if relation else ''}{value:.3f}"
