"""A small picture of quotas and what was accepted, cell by cell."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

WANTED, GOT, SHORT = "#c9ced6", "#0072B2", "#D55E00"
ROW = 0.2  # inches a cell takes
DPI = 80


def quota_plot(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """PNG bytes: for each row of the quota report its quota, and over it the accepted sets.

    Cells whose quota is not met are of another colour, and say why.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.8 + ROW * len(rows)), layout="constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    places = range(len(rows))
    axis.barh(places, [row["quota"] for row in rows], color=WANTED, height=0.8, label="quota")
    colours = [SHORT if row["shortfall"] else GOT for row in rows]
    axis.barh(places, [row["accepted"] for row in rows], color=colours, height=0.4)
    for place, row in enumerate(rows):
        if row["shortfall"]:
            axis.text(
                row["quota"],
                place,
                f"  {row['outcome'].replace('_', ' ')}",
                va="center",
                fontsize=7,
            )
    labels = [f"{row['attribute']}: {row['cell']}" for row in rows]
    axis.set_yticks(places, labels, fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("sets: quota (grey), accepted (colour)", fontsize=8)
    axis.tick_params(axis="x", labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
