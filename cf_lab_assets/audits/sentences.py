"""Results in words, and numbers the way people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cf_lab_assets.audits.results import (
    CHANCE,
    DEMOGRAPHIC_PARITY,
    DESCRIPTIVE,
    EFFECT,
    EQUAL_OPPORTUNITY,
    EQUALIZED_ODDS,
    EXCEEDED,
    FLOOR,
    FOUND,
    INSUFFICIENT,
    INTERVAL,
    MAX_SKEW,
    MIN_SKEW,
    NDKL,
    NO_FLOOR,
    NOT_FOUND,
    PRIMARY,
    STRATUM_EFFECT,
    UNDECIDED,
    UNDEFINED,
    WEAT,
    WITHIN,
)
from cf_lab_assets.audits.table import EVERY_QUERY, SHARE_RIGHT, SHARE_SELECTED
from cf_lab_resources.engine.questions import FORCED_CHOICE

Result = Mapping[str, Any]

# Numbers from here on are written by their power of ten.
SPELT_OUT = 1e9
DASH, MINUS, INFINITY = "\u2013", "\u2212", "\u221e"
REASONS = {
    INTERVAL: "the interval includes no effect",
    FLOOR: "the change is within the placebo floor",
    CHANCE: "q is too large",
    NO_FLOOR: "there are too few placebos for a floor",
}
VERDICT_ORDER = {FOUND: 0, NOT_FOUND: 1, DESCRIPTIVE: 2, UNDEFINED: 3, INSUFFICIENT: 4}
VERDICTS = {
    FOUND: "found",
    NOT_FOUND: "not found",
    DESCRIPTIVE: "described",
    UNDEFINED: "undefined",
    INSUFFICIENT: "insufficient",
}
AGAINST_LIMIT = {
    WITHIN: "within the limit",
    EXCEEDED: "limit exceeded",
    UNDECIDED: "undecided against the limit",
}
# Largest differences over all groups, one each for an attribute or an intersection.
LARGEST_DIFFERENCES = (DEMOGRAPHIC_PARITY, EQUAL_OPPORTUNITY, EQUALIZED_ODDS)
SUMMARISED = (
    ((EFFECT,), "secondary effects"),
    ((STRATUM_EFFECT,), "effects within strata of other attributes"),
    (LARGEST_DIFFERENCES, "largest differences of decisions between groups"),
)


def headlines(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A sentence on each primary endpoint, and one on each kind of secondary results."""
    model = metrics["model"]["name"]
    lines: list[dict[str, Any]] = [
        {
            "model": model,
            "endpoint": result["endpoint"],
            "verdict": result["verdict"],
            "against_limit": result.get("against_limit"),
            "sentence": sentence(model, result, metrics["declaration"]),
        }
        for result in metrics["results"]
        if result["family"] == PRIMARY
    ]
    for names, words in SUMMARISED:
        results = [
            one for one in metrics["results"] if one["metric"] in names and one["family"] != PRIMARY
        ]
        if results:
            lines.append(_summary(model, results, words))
    return lines


def sentence(model: str, result: Result, declaration: Mapping[str, Any]) -> str:
    """What one primary result says, in words."""
    attribute = words_of(result["attribute"])
    low, high = result["from_value"], result["to_value"]
    if result["verdict"] == INSUFFICIENT:
        return (
            f"{model}: too little data on {attribute} {high} and {low}: {result['n_sets']:,} "
            f"counterfactual sets, {declaration['minimum_sets']} are needed.{_limit(result)}"
        )
    sign = 1.0
    if result["verdict"] == FOUND and result["estimate"] < 0:
        sign, low, high = -1.0, high, low
    ends = sorted(sign * result[name] for name in ("ci_low", "ci_high"))
    floor = result["placebo_floor"]
    numbers = (
        f"{signed(sign * result['estimate'])} [{signed(ends[0])}, {signed(ends[1])}], "
        f"{'no placebo floor' if floor is None else f'placebo floor {plain(floor)}'}, "
        f"q {p_value(result['q'], relation=True)}"
    )
    if result["verdict"] == FOUND:
        return (
            f"{model} {_rates(result)} when shown with {attribute} {high} than with {attribute} "
            f"{low}: {numbers}.{_limit(result)}"
        )
    why = ", ".join(REASONS[reason] for reason in result["reasons"])
    beside = "" if floor is None else ", and more than the floor"
    return (
        f"{model}: no difference established between {attribute} {high} and {low}{_asked(result)}: "
        f"{numbers} ({why}). {_detectable(result, beside)}{_limit(result)}"
    )


def _detectable(result: Result, beside: str) -> str:
    if result["mde"] is None:
        return "All sets differ by the same, so what could be detected is unknown."
    return f"Detectable with {result['n_sets']:,} sets: {plain(result['mde'])}{beside}."


def _rates(result: Result) -> str:
    """What a model does more with one value, as a verb with its object."""
    plus, against = _prompts(result)
    if result["unit"] == SHARE_SELECTED:
        return f"selects the same scene more often{_asked(result)}"
    if result["unit"] == SHARE_RIGHT:
        return f"is right about the same scene more often{_asked(result)}"
    if result.get("format") == FORCED_CHOICE:
        return f"gives the same person more probability of being {plus}{against}"
    if not plus:
        return "scores the same scene higher"
    return f"rates the same person higher as {plus}{against}"


def _asked(result: Result) -> str:
    plus, against = _prompts(result)
    return f" for {plus}{against}" if plus else ""


def _prompts(result: Result) -> tuple[str, str]:
    """The prompts that count for and against; nothing where all queries were pooled."""
    if list(result["prompts_plus"]) == [EVERY_QUERY]:
        return "", ""
    minus = ", ".join(result["prompts_minus"])
    return ", ".join(result["prompts_plus"]), f" (against {minus})" if minus else ""


def _limit(result: Result) -> str:
    if result.get("limit") is None:
        return ""
    said = AGAINST_LIMIT[result["against_limit"]]
    return f" Tolerated is {plain(result['limit'])} either way: {said}."


def in_order(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Primary endpoints before the summaries, and what was found before what was not."""
    return sorted(
        lines, key=lambda line: (line["endpoint"] == "secondary", VERDICT_ORDER[line["verdict"]])
    )


def _summary(model: str, results: Sequence[Result], words: str) -> dict[str, Any]:
    tested = [one for one in results if one["verdict"] in (FOUND, NOT_FOUND)]
    found = sorted(
        (one for one in tested if one["verdict"] == FOUND),
        key=lambda one: (-abs(one["estimate"]), one["id"]),
    )
    text = f"{model}: {len(found)} of {len(tested)} {words} found"
    if len(tested) < len(results):
        text += f", {len(results) - len(tested)} insufficient or undefined"
    if found:
        most = found[0]
        text += (
            f"; the largest is {about(most)}: "
            f"{signed(most['estimate'])} [{signed(most['ci_low'])}, {signed(most['ci_high'])}]"
        )
    verdict = FOUND if found else NOT_FOUND if tested else INSUFFICIENT
    return {
        "model": model,
        "endpoint": "secondary",
        "verdict": verdict,
        "against_limit": None,
        "sentence": text + ".",
    }


def about(result: Result) -> str:
    """What a secondary result is about: metric or prompt, attribute, values and stratum."""
    plus, _ = _prompts(result)
    if result["metric"] not in (EFFECT, STRATUM_EFFECT):
        metric = metric_words(result["metric"])
        metric = metric if metric[1:2].isupper() else metric[:1].lower() + metric[1:]
        plus = f"{metric}, {plus}" if plus else metric
    return ", ".join(filter(None, (plus, subject(result, " to "))))


def subject(result: Result, arrow: str = " \u2192 ") -> str:
    """Attribute, value or contrast, and stratum of a result."""
    text = words_of(result["attribute"])
    if result.get("from_value") is not None:
        text += f" {result['from_value']}{arrow}{result['to_value']}"
    elif result.get("value") is not None:
        text += f" {result['value']}"
    for name, value in result.get("within", {}).items():
        text += f" within {words_of(name)} {value}"
    return text


def metric_words(metric: str) -> str:
    """A metric's name for people."""
    spelt = {WEAT: "WEAT effect size", NDKL: "NDKL", MAX_SKEW: "MaxSkew@K", MIN_SKEW: "MinSkew@K"}
    text = metric.replace("_", " ").replace(" at k", "@K")
    return spelt.get(metric, text.capitalize())


def words_of(name: str) -> str:
    """An attribute's name for people."""
    return name.replace("_", " ").replace("+", " and ")


def why_not(result: Result) -> str:
    """Why a result has no numbers, in words."""
    if result["verdict"] == INSUFFICIENT and not result.get("why"):
        return f"{result['n_sets']} sets are fewer than the declared minimum"
    return str(result.get("why", ""))


def plain(value: Any, digits: int = 3) -> str:
    """A number for people; a dash for what is missing, a sign for infinity."""
    if value is None:
        return DASH
    number = float(value)
    if number in (float("inf"), float("-inf")):
        return INFINITY if number > 0 else MINUS + INFINITY
    if 1e-8 < abs(number) < 10 ** (1 - digits):
        # Two digits of what would be cut to one or none.
        digits = 1 - math.floor(math.log10(abs(number)))
    text = f"{number:.{digits}f}" if abs(number) < SPELT_OUT else f"{number:.3g}"
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
