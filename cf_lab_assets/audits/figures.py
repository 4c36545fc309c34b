"""Which results each plot of a report shows, and what is said instead to whoever can't see it.

Each audited model has a plot of its own, on the axis of all: beside each other on a desk, below
each other on a phone. A plot has a bounded number of rows; what was found comes first.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cf_lab_assets.audits import plots
from cf_lab_assets.audits.results import (
    EFFECT,
    FOUND,
    INSUFFICIENT,
    MAX_SKEW,
    PRIMARY,
    SELECTION_RATE,
    UNDEFINED,
)
from cf_lab_assets.audits.sentences import VERDICT_ORDER, plain, signed, subject, words_of

Result = Mapping[str, Any]
Results = Mapping[str, Sequence[Result]]
# A plot of more rows is longer than a screen is tall, several times over.
MAX_ROWS = 48
NUMBERLESS = (INSUFFICIENT, UNDEFINED)


@dataclass(frozen=True)
class Figure:
    """A plot as the page holds it: a data: address, and a text in its place."""

    src: str
    alt: str


@dataclass(frozen=True)
class Figures:
    """Plots of one kind, and of how many rows they show how many."""

    title: str
    plots: tuple[Figure, ...]
    shown: int
    total: int


def data_uri(picture: bytes, kind: str = "png") -> str:
    """A picture as a data: address."""
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode()


def primary_plot(results: Results, dpi: int = plots.DPI) -> bytes:
    """Forest plot of the primary endpoints, a panel for each model; for metadata."""
    own = {model: _primary(ones) for model, ones in results.items()}
    # Models that were asked in different formats do not have the same results.
    asked = {_question(one): one for ones in own.values() for one in ones}
    panels = {
        model: [{_question(one): one for one in ones}.get(key, {}) for key in asked]
        for model, ones in own.items()
    }
    units = " or ".join(dict.fromkeys(one["unit"] for one in asked.values()))
    return plots.effect_forest([subject(one) for one in asked.values()], panels, dpi, units)


def _primary(results: Sequence[Result]) -> list[Result]:
    return [one for one in results if one["family"] == PRIMARY]


def _question(one: Result) -> tuple[str, str]:
    return one["endpoint"], one.get("format", "")


def primary(results: Results) -> Figures | None:
    """The primary endpoints."""
    return _effects("", {model: _primary(ones) for model, ones in results.items()})


def secondary(results: Results, attribute: str) -> Figures | None:
    """Every contrast and prompt of an attribute."""
    return _effects(
        words_of(attribute).capitalize(),
        {model: _of(ones, EFFECT, attribute) for model, ones in results.items()},
    )


def skew(results: Results, attribute: str) -> Figures | None:
    """MaxSkew of every prompt of an attribute."""
    chosen, total = _chosen({m: _of(ones, MAX_SKEW, attribute) for m, ones in results.items()})
    if not total:
        return None
    ends = [
        float(one.get(key) or 0) for ones in chosen.values() for one in ones for key in SKEW_ENDS
    ]
    widest = 1.05 * max((end for end in ends if end < float("inf")), default=0) or 1.0
    made = []
    for model, ones in chosen.items():
        labels = [one["prompts_plus"][0] for one in ones]
        picture = plots.skew_bars(labels, {model: ones}, widest)
        made.append(Figure(data_uri(picture), _spoken(f"MaxSkew of {model}", ones, plain)))
    return Figures(words_of(attribute).capitalize(), tuple(made), _rows(chosen), total)


SKEW_ENDS = ("estimate", "ci_high", "no_effect")


def selection(results: Results, attribute: str) -> Figures | None:
    """Selection rates of the values of an attribute or an intersection."""
    chosen, total = _chosen(
        {m: _of(ones, SELECTION_RATE, attribute) for m, ones in results.items()}
    )
    if not total:
        return None
    made = []
    for model, ones in chosen.items():
        prompts = {tuple(one["prompts_plus"]) for one in ones}
        labels = [
            " · ".join([str(one["value"]), *(one["prompts_plus"] if len(prompts) > 1 else [])])
            for one in ones
        ]
        picture = plots.rates(labels, ones, model)
        made.append(Figure(data_uri(picture), _spoken(f"Selection rates of {model}", ones, plain)))
    return Figures(words_of(attribute).capitalize(), tuple(made), _rows(chosen), total)


def drift(series: Sequence[Mapping[str, Any]]) -> tuple[Figure, ...]:
    """A plot for each audited model over reports, its first endpoints each."""
    made = []
    for model in dict.fromkeys(one["model"] for one in series):
        own = [one for one in series if one["model"] == model][: len(plots.LINES)]
        lines = {one["endpoint"]: one["points"] for one in own}
        picture = plots.drift(model, own[0]["unit"], lines)
        moves = "; ".join(
            f"{one['endpoint']} from {signed(one['points'][0]['estimate'])} to "
            f"{signed(one['points'][-1]['estimate'])}"
            for one in own
        )
        alt = f"Estimates of {model} over reports: {moves}. The table below holds the numbers."
        made.append(Figure(data_uri(picture), alt))
    return tuple(made)


def power(calibration: Mapping[str, Any]) -> Figure | None:
    """How often the auditor finds planted effects, by their size."""
    curves = calibration.get("power")
    if not curves:
        return None
    alt = "Power: share of simulated audits that find a planted effect, by its size in MDEs."
    return Figure(data_uri(plots.power_curves(curves, plots.NARROW_DPI)), alt)


def _effects(title: str, panels: Results) -> Figures | None:
    chosen, total = _chosen(panels)
    if not total:
        return None
    reach: dict[str, float] = {}
    for one in itertools.chain(*chosen.values()):
        reach[one["unit"]] = max(reach.get(one["unit"], 0.0), plots.effect_reach([one]))
    made = []
    for model, ones in chosen.items():
        labels, rows = _with_headings(ones)
        unit = ones[0]["unit"] if ones else ""
        limit = reach.get(unit)
        picture = plots.effect_forest(labels, {model: rows}, plots.NARROW_DPI, unit, limit)
        made.append(Figure(data_uri(picture), _spoken(f"Effects of {model}", ones, signed)))
    return Figures(title, tuple(made), _rows(chosen), total)


def _with_headings(ones: Sequence[Result]) -> tuple[list[str], list[Result]]:
    """A row for each result under its contrast, or by its contrast where there is one prompt."""
    prompts = {tuple(one["prompts_plus"]) for one in ones}
    if ones and (ones[0]["family"] == PRIMARY or len(prompts) == 1):
        return [_contrast(one, one["family"] == PRIMARY) for one in ones], list(ones)
    labels: list[str] = []
    rows: list[Result] = []
    heading = ""
    for one in ones:
        if _contrast(one) != heading:
            heading = _contrast(one)
            labels.append(heading)
            rows.append({})
        labels.append(one["prompts_plus"][0])
        rows.append(one)
    return labels, rows


def _contrast(one: Result, with_attribute: bool = False) -> str:
    words = f"{one['from_value']} \u2192 {one['to_value']}"
    return f"{words_of(one['attribute'])}: {words}" if with_attribute else words


def _of(results: Sequence[Result], metric: str, attribute: str) -> list[Result]:
    return [
        one
        for one in results
        if one["metric"] == metric and one["attribute"] == attribute and one["family"] != PRIMARY
    ]


def _chosen(panels: Results) -> tuple[Results, int]:
    """The same rows of each model, the surest and largest results, in their own order."""
    best: dict[str, tuple[int, float]] = {}
    for ones in panels.values():
        for one in ones:
            best[one["id"]] = min(best.get(one["id"], (9, 0.0)), rank(one))
    kept = set(sorted(best, key=lambda name: (*best[name], name))[:MAX_ROWS])
    return {m: [one for one in ones if one["id"] in kept] for m, ones in panels.items()}, len(best)


def rank(one: Result) -> tuple[int, float]:
    """What is found first, and the largest first among equals."""
    away = abs(float(one.get("estimate") or 0) - float(one.get("no_effect") or 0))
    return VERDICT_ORDER[one["verdict"]], -away


def _rows(panels: Results) -> int:
    return max(len(ones) for ones in panels.values())


def _spoken(what: str, ones: Sequence[Result], number: Any) -> str:
    """What a plot shows, in words."""
    known = [one for one in ones if one.get("estimate") is not None]
    text = f"{what}: {len(ones)} rows, {sum(one['verdict'] == FOUND for one in ones)} found"
    if known:
        most = min(known, key=rank)
        text += f"; first in rank is {subject(most)} with {number(most['estimate'])}"
    return f"{text}. The table below holds the numbers."
