"""Pictures of the report, as PNG bytes that are the same for the same numbers.

Colours are Okabe and Ito's (2008), and what a colour says is said by shape or word as well.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Result = Mapping[str, Any]

BLUE, VERMILLION, GREY, BAND, INK = "#0072B2", "#D55E00", "#8a8f98", "#e3e6ea", "#1f2733"
PALETTE = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#56B4E9")
DPI = 120
ROW = 0.24  # inches a row of a forest plot takes
VERDICT_LOOK = {"found": (VERMILLION, VERMILLION), "not_found": (BLUE, "white")}


def effect_forest(
    labels: Sequence[str], panels: Mapping[str, Sequence[Result]], dpi: int = DPI
) -> bytes:
    """Effects with intervals over their placebo floors, a panel for each audited model.

    Args:
        labels: one for each row; a row without results is a heading.
        panels: by model, one result for each label; an empty one is a heading.
        dpi: dots per inch.
    """
    figure, axes = _panels(len(labels), panels, "difference in cosine similarity", dpi)
    for axis, (model, results) in zip(axes, panels.items(), strict=True):
        axis.axvline(0, color=INK, linewidth=0.9, zorder=1)
        for row, result in enumerate(results):
            _effect_row(axis, row, result)
        axis.set_title(model, fontsize=10, fontweight="bold", color=INK)
    _name_rows(axes[0], labels, next(iter(panels.values())))
    _symmetric(axes, [result for results in panels.values() for result in results])
    _legend(figure, "±placebo floor", "found", "not found")
    return _png(figure)


def _effect_row(axis: Axes, row: int, result: Result) -> None:
    floor = _number(result.get("placebo_floor"))
    if floor is not None:
        axis.barh(row, 2 * floor, left=-floor, height=0.78, color=BAND, zorder=0)
    if result.get("estimate") is None:
        if result:
            axis.text(0, row, "  insufficient", va="center", fontsize=7, color=GREY)
        return
    colour, fill = VERDICT_LOOK[result["verdict"]]
    axis.plot([result["ci_low"], result["ci_high"]], [row, row], color=colour, linewidth=1.7)
    axis.plot(
        result["estimate"], row, "o", color=colour, markerfacecolor=fill, markersize=5, zorder=3
    )


def skew_bars(labels: Sequence[str], panels: Mapping[str, Sequence[Result]]) -> bytes:
    """MaxSkew with intervals, against its median when values are exchanged at random."""
    figure, axes = _panels(len(labels), panels, "MaxSkew@K, ln ratio", DPI)
    for axis, (model, results) in zip(axes, panels.items(), strict=True):
        for row, result in enumerate(results):
            _skew_row(axis, row, result)
        axis.set_xlim(left=0)
        axis.set_title(model, fontsize=10, fontweight="bold", color=INK)
    _name_rows(axes[0], labels, next(iter(panels.values())))
    widest = max(axis.get_xlim()[1] for axis in axes)
    for axis in axes:
        axis.set_xlim(0, widest)
    _legend(figure, "median if values were exchanged at random", "found", "not found", bars=True)
    return _png(figure)


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
    return _png(figure)


def _skew_row(axis: Axes, row: int, result: Result) -> None:
    estimate = _number(result.get("estimate"))
    if estimate is None:
        axis.text(0, row, "  insufficient", va="center", fontsize=7, color=GREY)
        return
    colour, fill = VERDICT_LOOK[result["verdict"]]
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
    figure = Figure(figsize=(9.2, height), dpi=dpi, layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0].tolist()
    for axis in axes:
        axis.set_xlabel(unit, fontsize=8, color=INK)
        axis.tick_params(labelsize=8, colors=INK, length=0)
        axis.locator_params(axis="x", nbins=5)  # more labels than that run into each other
        axis.grid(axis="x", color="#eef0f2", zorder=-1)
        axis.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
    axes[0].set_ylim(rows - 0.4, -0.6)
    return figure, axes


def _name_rows(axis: Axes, labels: Sequence[str], results: Sequence[Result]) -> None:
    axis.set_yticks(range(len(labels)), labels)
    for text, result in zip(axis.get_yticklabels(), results, strict=True):
        if not result:
            text.set_fontweight("bold")


def _symmetric(axes: Sequence[Axes], results: Sequence[Result]) -> None:
    names = ("ci_low", "ci_high", "placebo_floor")
    reach = [_number(result.get(name)) for result in results for name in names]
    widest = max((abs(value) for value in reach if value is not None), default=0) or 0.01
    for axis in axes:
        axis.set_xlim(-1.12 * widest, 1.12 * widest)


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


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    # The Software entry would change the bytes with matplotlib's version.
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
