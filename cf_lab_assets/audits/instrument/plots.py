"""Pictures of the instrument's document, as PNG bytes that are the same for the same numbers.

They look like the report's: see `cf_lab_assets.audits.plots`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cf_lab_assets.audits.instrument.findings import FAILS, HOLDS, Finding
from cf_lab_assets.audits.instrument.multiverse import RULES, Point
from cf_lab_assets.audits.plots import BAND, BLUE, GREY, INK, VERMILLION, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 110  # a plot in the event log is kept small, and legible in a dialog
WIDTH, ROW = 7.2, 0.34  # inches
LOOK = {FAILS: (VERMILLION, "s"), HOLDS: (BLUE, "o")}
MARKS = dict(zip(RULES, ((BLUE, "o", "-"), (VERMILLION, "s", "--")), strict=True))


def gap_forest(gaps: Sequence[Finding]) -> bytes:
    """Gaps with their intervals, each as a multiple of its limit.

    Args:
        gaps: one a row; those without an estimate are named and have no mark.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 1.1 + ROW * len(gaps)), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    axis.axvspan(-1, 1, color=BAND, zorder=0)
    axis.axvline(0, color=INK, linewidth=0.9, zorder=1)
    for row, gap in enumerate(gaps):
        if gap.estimate is None:
            continue
        colour, mark = LOOK.get(gap.verdict, (GREY, "D"))
        if gap.low is not None and gap.high is not None:
            ends = [end / gap.limit.value for end in (gap.low, gap.high)]
            axis.plot(ends, [row, row], color=colour, linewidth=1.7)
        axis.plot(gap.estimate / gap.limit.value, row, mark, color=colour, markersize=5)
    labels = [f"{gap.measure.replace('_', ' ')}\n{gap.subject} ({gap.verdict})" for gap in gaps]
    axis.set_yticks(range(len(gaps)), labels, fontsize=8)
    axis.set_ylim(len(gaps) - 0.4, -0.6)
    _plain(axis, "gap as a multiple of its limit (band: within)")
    return png(figure)


def multiverse_curves(points: Sequence[Point]) -> bytes:
    """Effects by threshold: a row for each endpoint, a column for each audited model."""
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(point.model for point in points))
    endpoints = list(dict.fromkeys(point.endpoint for point in points))
    figure = Figure(
        figsize=(max(3.6 * len(models), WIDTH), 0.4 + 2.3 * len(endpoints)),
        dpi=DPI,
        layout="constrained",
    )
    axes = figure.subplots(len(endpoints), len(models), sharex=True, sharey="row", squeeze=False)
    for row, endpoint in enumerate(endpoints):
        for column, model in enumerate(models):
            own = [one for one in points if (one.model, one.endpoint) == (model, endpoint)]
            _curve(axes[row][column], own)
            axes[row][column].set_title(f"{model}: {endpoint}", fontsize=8, color=INK)
            _plain(axes[row][column], "least CITS of all members" if row else "")
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=7, frameon=False)
    return png(figure)


def _curve(axis: Axes, points: Sequence[Point]) -> None:
    import numpy as np

    headline = points[0]
    floor = headline.placebo_floor
    if floor is not None and headline.estimate is not None:
        ends = (headline.estimate - floor, headline.estimate + floor)
        axis.axhspan(*ends, color=BAND, zorder=0, label="headline ±placebo floor")
    axis.axhline(0, color=INK, linewidth=0.9, zorder=1)
    axis.margins(y=0.15)  # room for the numbers of sets
    for rule, (colour, mark, line) in MARKS.items():
        known = [one for one in points if one.rule == rule and one.estimate is not None]
        where = [one.threshold for one in known]
        middle, low, high = (
            np.array([getattr(one, name) for one in known], dtype=np.float64)
            for name in ("estimate", "ci_low", "ci_high")
        )
        axis.plot(where, middle, mark + line, color=colour, markersize=3, label=rule)
        axis.fill_between(where, low, high, color=colour, alpha=0.15, linewidth=0)
        if rule == RULES[0]:
            for one, top in zip(known, high, strict=True):
                axis.annotate(str(one.n_sets), (one.threshold, top), fontsize=6, ha="center")


def _plain(axis: Axes, label: str) -> None:
    axis.set_xlabel(label, fontsize=8, color=INK)
    axis.tick_params(labelsize=7, colors=INK, length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
