"""Pictures of the report, as PNG bytes that are the same for the same numbers.

Colours are Okabe and Ito's (2008), and what a colour says is said by shape or word as well.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Result = Mapping[str, Any]

BLUE, VERMILLION, GREY, BAND, INK = "#0072B2", "#D55E00", "#8a8f98", "#e3e6ea", "#1f2733"
GREEN, PURPLE, ORANGE, SKY = "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, SKY)
DPI = 120
ROW = 0.24  # inches a row of a forest plot takes
# A panel alone is narrow and fine, so that its words can still be read on a phone.
WIDE, NARROW, NARROW_DPI = 9.2, 4.6, 150
LONGEST_LABEL = 38
VERDICT_LOOK = {"found": (VERMILLION, VERMILLION), "not_found": (BLUE, "white")}
DESCRIBED = (INK, INK)
LINES = ((BLUE, "o"), (VERMILLION, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "v"), (SKY, "P"))


def effect_forest(
    labels: Sequence[str],
    panels: Mapping[str, Sequence[Result]],
    dpi: int = DPI,
    unit: str = "cosine",
    reach: float | None = None,
) -> bytes:
    """Effects with intervals over their placebo floors, a panel for each audited model.

    Args:
        labels: one for each row; a row without results is a heading.
        panels: by model, one result for each label; an empty one is a heading.
        dpi: dots per inch.
        unit: of the effects.
        reach: of the axis to either side, so that several figures can share it.
    """
    figure, axes = _panels(len(labels), panels, f"difference, {unit}", dpi)
    for axis, (model, results) in zip(axes, panels.items(), strict=True):
        axis.axvline(0, color=INK, linewidth=0.9, zorder=1)
        for row, result in enumerate(results):
            _effect_row(axis, row, result)
        axis.set_title(shortened(model), fontsize=10, fontweight="bold", color=INK)
    _name_rows(axes[0], labels, next(iter(panels.values())))
    reach = reach or effect_reach(one for results in panels.values() for one in results)
    for axis in axes:
        axis.set_xlim(-1.12 * reach, 1.12 * reach)
    _legend(figure, "±placebo floor", "found", "not found")
    return png(figure)


def _effect_row(axis: Axes, row: int, result: Result) -> None:
    floor = _number(result.get("placebo_floor"))
    if floor is not None:
        axis.barh(row, 2 * floor, left=-floor, height=0.78, color=BAND, zorder=0)
    if result.get("estimate") is None:
        if result:
            axis.text(0, row, f"  {result['verdict']}", va="center", fontsize=7, color=GREY)
        return
    colour, fill = VERDICT_LOOK.get(result["verdict"], DESCRIBED)
    low, high = _number(result.get("ci_low")), _number(result.get("ci_high"))
    if low is not None and high is not None:
        axis.plot([low, high], [row, row], color=colour, linewidth=1.7)
    axis.plot(
        result["estimate"], row, "o", color=colour, markerfacecolor=fill, markersize=5, zorder=3
    )


def skew_bars(
    labels: Sequence[str], panels: Mapping[str, Sequence[Result]], widest: float | None = None
) -> bytes:
    """MaxSkew with intervals, against its median when values are exchanged at random."""
    figure, axes = _panels(len(labels), panels, "MaxSkew@K, ln ratio", DPI)
    for axis, (model, results) in zip(axes, panels.items(), strict=True):
        for row, result in enumerate(results):
            _skew_row(axis, row, result)
        axis.set_xlim(left=0)
        axis.set_title(shortened(model), fontsize=10, fontweight="bold", color=INK)
    _name_rows(axes[0], labels, next(iter(panels.values())))
    widest = widest or max(axis.get_xlim()[1] for axis in axes)
    for axis in axes:
        axis.set_xlim(0, widest)
    _legend(figure, "median if values were exchanged at random", "found", "not found", bars=True)
    return png(figure)


def power_curves(curves: Sequence[Mapping[str, Any]], dpi: int = DPI) -> bytes:
    """How often a planted effect is found, by its size in minimum detectable effects."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.2), dpi=dpi, layout="constrained")
    axis = figure.subplots()
    attributes = list(dict.fromkeys(one["attribute"] for one in curves))
    for attribute, colour, marker in zip(attributes, cycle(PALETTE), cycle("osD^v"), strict=False):
        points = [one for one in curves if one["attribute"] == attribute]
        label = f"{attribute.replace('_', ' ')}, {points[0]['sets']} sets"
        sizes, found = ([one[key] for one in points] for key in ("multiple_of_mde", "found"))
        axis.plot(sizes, found, color=colour, marker=marker, label=label, markersize=4)
    axis.axhline(0.8, color=GREY, linewidth=0.8, linestyle=":")
    axis.set_xlabel("planted effect / minimum detectable effect", fontsize=8, color=INK)
    axis.set_ylabel("share of audits that find it", fontsize=8, color=INK)
    axis.set_ylim(0, 1.03)
    axis.tick_params(labelsize=8, colors=INK, length=0)
    if attributes:
        axis.legend(fontsize=8, frameon=False, loc="lower right")
    return png(figure)


def _skew_row(axis: Axes, row: int, result: Result) -> None:
    estimate = _number(result.get("estimate"))
    if estimate is None:
        axis.text(0, row, f"  {result['verdict']}", va="center", fontsize=7, color=GREY)
        return
    colour, fill = VERDICT_LOOK.get(result["verdict"], DESCRIBED)
    axis.barh(row, estimate, height=0.62, facecolor=fill, edgecolor=colour, linewidth=1.2)
    low, high = _number(result["ci_low"]), _number(result["ci_high"])
    if low is not None and high is not None:
        axis.plot([low, high], [row, row], color=INK, linewidth=1.3, zorder=3)
    nothing = _number(result["no_effect"])
    if nothing is not None:
        axis.plot([nothing, nothing], [row - 0.42, row + 0.42], color=GREY, linewidth=2.4)


def _panels(rows: int, panels: Mapping[str, Any], unit: str, dpi: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    height = 1.25 + ROW * rows
    width, size = (NARROW, 9.5) if len(panels) == 1 else (WIDE, 8)
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0].tolist()
    for axis in axes:
        axis.set_xlabel(unit, fontsize=size, color=INK)
        axis.tick_params(labelsize=size, colors=INK, length=0)
        axis.locator_params(axis="x", nbins=5)  # more labels than that run into each other
        axis.grid(axis="x", color="#eef0f2", zorder=-1)
        axis.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
    axes[0].set_ylim(rows - 0.4, -0.6)
    return figure, axes


def _name_rows(axis: Axes, labels: Sequence[str], results: Sequence[Result]) -> None:
    axis.set_yticks(range(len(labels)), [shortened(label) for label in labels])
    for text, result in zip(axis.get_yticklabels(), results, strict=True):
        if not result:
            text.set_fontweight("bold")


def effect_reach(results: Iterable[Result]) -> float:
    """How far intervals and placebo floors go from 0."""
    names = ("ci_low", "ci_high", "placebo_floor")
    reach = [_number(result.get(name)) for result in results for name in names]
    return max((abs(value) for value in reach if value is not None), default=0) or 0.01


def rates(labels: Sequence[str], results: Sequence[Result], title: str) -> bytes:
    """Rates between 0 and 1 with their intervals, a row each."""
    figure, (axis,) = _panels(len(labels), {title: results}, "share", NARROW_DPI)
    for row, result in enumerate(results):
        _effect_row(axis, row, {**result, "placebo_floor": None})
    axis.set_xlim(-0.02, 1.02)
    axis.set_title(shortened(title), fontsize=10, fontweight="bold", color=INK)
    _name_rows(axis, labels, results)
    return png(figure)


def drift(title: str, unit: str, series: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Estimates with intervals over reports, a line for each endpoint.

    Args:
        title: over the plot.
        unit: of the estimates.
        series: by endpoint, points with `report_id`, `date`, `estimate`, `ci_low` and `ci_high`;
            at most as many as there are `LINES`.
    """
    from matplotlib.figure import Figure

    reports = dict(
        sorted(
            {one["report_id"]: one["date"] for ones in series.values() for one in ones}.items(),
            key=lambda item: item[1],
        )
    )
    places = {report: place for place, report in enumerate(reports)}
    figure = Figure(figsize=(NARROW, 3.2), dpi=NARROW_DPI, layout="constrained")
    axis = figure.subplots()
    axis.axhline(0, color=INK, linewidth=0.9)
    for number, ((name, points), look) in enumerate(zip(series.items(), LINES, strict=False)):
        _drift_line(axis, name, points, look, places, 0.06 * (number - (len(series) - 1) / 2))
    axis.set_xticks(range(len(reports)), reports.values(), fontsize=7, rotation=25, ha="right")
    axis.set_ylabel(f"effect, {unit}", fontsize=8, color=INK)
    axis.tick_params(labelsize=8, colors=INK, length=0)
    axis.grid(axis="y", color="#eef0f2")
    axis.set_title(shortened(title), fontsize=10, fontweight="bold", color=INK)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    if axis.get_legend_handles_labels()[1]:  # where all is insufficient there is no line
        figure.legend(loc="outside lower center", ncols=2, fontsize=7, frameon=False)
    return png(figure)


def _drift_line(
    axis: Axes,
    name: str,
    points: Sequence[Mapping[str, Any]],
    look: tuple[str, str],
    places: Mapping[str, int],
    aside: float,
) -> None:
    known = [one for one in points if _number(one.get("estimate")) is not None]
    if not known:
        return
    x = [places[one["report_id"]] + aside for one in known]
    colour, marker = look
    axis.plot(
        x,
        [one["estimate"] for one in known],
        color=colour,
        marker=marker,
        markersize=5,
        label=shortened(name),
    )
    axis.vlines(
        x, [one["ci_low"] for one in known], [one["ci_high"] for one in known], color=colour
    )


def shortened(label: str) -> str:
    """A label that leaves room for the plot."""
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "\u2026"


def _legend(figure: Figure, band: str, found: str, not_found: str, bars: bool = False) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if bars:
        handles = [
            Patch(facecolor=VERMILLION, edgecolor=VERMILLION, label=found),
            Patch(facecolor="white", edgecolor=BLUE, label=not_found),
            Line2D([], [], color=GREY, linewidth=2.4, label=band),
        ]
    else:
        handles = [
            Line2D([], [], color=VERMILLION, marker="o", markersize=5, label=found),
            Line2D([], [], color=BLUE, marker="o", markerfacecolor="white", label=not_found),
            Patch(facecolor=BAND, label=band),
        ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)


def _number(value: Any) -> float | None:
    """A finite number, or None for what is missing or infinite."""
    if value is None or not math.isfinite(float(value)):
        return None
    return float(value)


def png(figure: Figure) -> bytes:
    """PNG bytes of a figure that are the same for the same drawing."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    # The Software entry would change the bytes with matplotlib's version.
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
