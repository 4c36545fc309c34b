"""How the stores grew, as PNG bytes that are the same for the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

from cf_lab_assets.audits.plots import BLUE, INK, png

WIDTH, HEIGHT, DPI = 7.2, 4.4, 80  # inches; so wide that the UI need not scroll
SMALL = 8  # points
GB = 1e9


def growth(curves: Mapping[str, Sequence[tuple[date, int]]]) -> bytes:
    """A small plot for each of four stores, in gigabytes over days; each axis begins at 0."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    axes = figure.subplots(2, 2, sharex=True).flat
    for axis, (label, points) in zip(axes, curves.items(), strict=True):
        axis.plot(
            [day for day, _ in points],
            [size / GB for _, size in points],
            "o-",
            color=BLUE,
            markersize=4,
        )
        axis.set_ylim(bottom=0)
        axis.set_title(f"{label}, GB", fontsize=SMALL, color=INK)
        axis.tick_params(labelsize=SMALL, colors=INK, length=0)
        axis.grid(axis="y", color="#eef0f2")
        axis.spines[["top", "right"]].set_visible(False)
        days = AutoDateLocator(minticks=1, maxticks=5)
        axis.xaxis.set_major_locator(days)
        axis.xaxis.set_major_formatter(ConciseDateFormatter(days))
    return png(figure)
