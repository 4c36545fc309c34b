"""Small charts for the UI, as PNG bytes that are the same for the same numbers.

They look like the report's (see `cf_lab_assets.audits.plots`), and are as wide as the UI's dialog
shows them without scrolling: `WIDTH` inches at `DPI` dots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cf_lab_assets.audits.plots import BAND, BLUE, GREY, INK, LINES, VERMILLION, png, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, DPI = 7.2, 90
ROW = 0.24  # inches
MOST_ROWS = 40
SMALL = 8  # points


def new_figure(rows: float) -> tuple[Figure, Axes]:
    """A figure with one plain axis, high enough for as many rows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 1.1 + ROW * rows), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    _plain(axis)
    return figure, axis


def _plain(axis: Axes) -> None:
    axis.tick_params(labelsize=SMALL, colors=INK, length=0)
    axis.grid(axis="x", color="#eef0f2")
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)


def parts(rows: Sequence[tuple[str, int, int]], what: str) -> bytes:
    """How much of each whole was reached: bars over bars, and both numbers in words.

    Args:
        rows: label, part and whole; of more than `MOST_ROWS` the first are shown.
        what: is counted, with its unit.
    """
    shown = rows[:MOST_ROWS]
    figure, axis = new_figure(max(len(shown), 1))
    places = range(len(shown))
    widest = max((whole for _, _, whole in shown), default=1)
    axis.barh(places, [whole for _, _, whole in shown], color=BAND, height=0.8)
    axis.barh(places, [part for _, part, _ in shown], color=BLUE, height=0.46)
    for place, (_, part, whole) in enumerate(shown):
        words = f"{part} of {whole}" if part != whole else str(whole)
        axis.text(whole + 0.01 * widest, place, words, va="center", fontsize=SMALL, color=INK)
    axis.set_yticks(places, [shortened(label) for label, _, _ in shown])
    axis.set_ylim(max(len(shown), 1) - 0.4, -0.6)
    axis.set_xlim(0, 1.18 * widest)
    axis.locator_params(axis="x", integer=True, nbins=8)
    left = len(rows) - len(shown)
    axis.set_xlabel(what + (f"; {left} more are not shown" if left else ""), fontsize=SMALL)
    return png(figure)


def histograms(
    counts: Mapping[str, Sequence[int]], edges: Sequence[float], what: str, limit: float
) -> bytes:
    """A histogram a row, on one axis, with the limit that what is counted is held against.

    Args:
        counts: by label, one number for each bin.
        edges: of the bins, one more than there are bins.
        what: is on the axis, with its unit.
        limit: is drawn as a line.
    """
    from matplotlib.figure import Figure

    shown = dict(list(counts.items())[:MOST_ROWS])
    figure = Figure(figsize=(WIDTH, 0.9 + 1.1 * len(shown)), dpi=DPI, layout="constrained")
    axes = figure.subplots(max(len(shown), 1), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (label, bins) in zip(axes, shown.items(), strict=False):
        _plain(axis)
        axis.stairs(bins, edges, fill=True, color=BLUE, alpha=0.85)
        axis.axvline(limit, color=VERMILLION, linewidth=1.4, linestyle="--")
        axis.set_ylabel(
            f"{shortened(label)}\nn = {sum(bins)}",
            fontsize=SMALL,
            rotation=0,
            ha="right",
            va="center",
        )
        axis.locator_params(axis="y", nbins=3, integer=True)
    axes[-1].set_xlim(edges[0], edges[-1])
    axes[-1].set_xlabel(f"{what}; dashed: {limit:g}, from which on it passes", fontsize=SMALL)
    return png(figure)


def spreads(rows: Sequence[tuple[str, Sequence[float]]], what: str) -> bytes:
    """Where numbers lie, a row each: from 5 to 95 %, the middle half thick, the median a dot.

    Args:
        rows: label and the five quantiles; of more than `MOST_ROWS` the first are shown.
        what: is on the axis, with its unit.
    """
    shown = rows[:MOST_ROWS]
    figure, axis = new_figure(len(shown))
    for place, (_, (low, first, middle, third, high)) in enumerate(shown):
        axis.plot([low, high], [place, place], color=GREY, linewidth=1.2)
        axis.plot([first, third], [place, place], color=BLUE, linewidth=5, solid_capstyle="butt")
        axis.plot(middle, place, "o", color=INK, markersize=4, zorder=3)
    axis.set_yticks(range(len(shown)), [shortened(label) for label, _ in shown])
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.set_xlabel(f"{what}: median, middle half, 5 to 95 %", fontsize=SMALL)
    return png(figure)


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str, ideal: bool = False
) -> bytes:
    """Lines from 0 on, one for each of at most as many series as there are looks of lines.

    Args:
        series: by label, points.
        across: what the horizontal axis holds, with its unit.
        up: likewise the vertical one.
        ideal: whether to draw where both are equal.
    """
    figure, axis = new_figure(9)
    axis.grid(axis="y", color="#eef0f2")
    most = max((x for points in series.values() for x, _ in points), default=0) or 1
    if ideal:
        axis.plot([0, most], [0, most], color=GREY, linewidth=1, linestyle=":", label="equal")
    for (label, points), (colour, marker) in zip(series.items(), LINES, strict=False):
        x, y = [one for one, _ in points], [one for _, one in points]
        axis.plot(x, y, color=colour, marker=marker, markersize=3.5, label=shortened(label))
    axis.set_ylim(bottom=0)
    axis.set_xlim(0, 1.03 * most)
    axis.set_xlabel(across, fontsize=SMALL, color=INK)
    axis.set_ylabel(up, fontsize=SMALL, color=INK)
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize=SMALL, frameon=False)
    return png(figure)
