"""Contact sheets: what was made, at a glance.

One row a source: the source picture, its placebo, then its counterfactuals.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cf_lab_resources.images import as_markdown, small_jpeg

if TYPE_CHECKING:
    from PIL import Image

CELL = 96
GAP = 6
LABEL = 16
MARGIN = 14
COLOURS = 64
# Of Markdown, which Dagster keeps in its event log for ever: an event stays under 200 kB.
EMBEDDED_BYTES = 140_000
INK, PAPER, FAINT = (34, 36, 42), (255, 255, 255), (128, 132, 140)


@dataclass(frozen=True)
class Cell:
    """One picture and the words under it."""

    picture: Image.Image
    label: str


def contact_sheet(rows: Iterable[Sequence[Cell]], title: str) -> Image.Image:
    """Draw a contact sheet.

    Args:
        rows: pictures of any size; each is shown at 96 x 96 pixels.
        title: one line over the sheet.

    Returns:
        An RGB picture, as wide as the longest row.
    """
    from PIL import Image, ImageDraw, ImageFont

    laid = [list(row) for row in rows]
    columns = max((len(row) for row in laid), default=1)
    width = 2 * MARGIN + columns * CELL + (columns - 1) * GAP
    top = MARGIN + 26
    height = top + len(laid) * (CELL + LABEL + GAP) + MARGIN
    sheet = Image.new("RGB", (max(width, 420), height), PAPER)
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(15), ImageFont.load_default(11)
    draw.text((MARGIN, MARGIN - 2), title, fill=INK, font=font)
    for number, row in enumerate(laid):
        y = top + number * (CELL + LABEL + GAP)
        for column, cell in enumerate(row):
            x = MARGIN + column * (CELL + GAP)
            shown = cell.picture.convert("RGB")
            method = Image.Resampling.BICUBIC if shown.width < CELL else Image.Resampling.LANCZOS
            sheet.paste(shown.resize((CELL, CELL), method), (x, y))
            ink = INK if column else FAINT
            draw.text((x + 1, y + CELL + 1), cell.label, fill=ink, font=small)
    return sheet


def png_bytes(picture: Image.Image) -> bytes:
    """PNG bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def embedded(picture: Image.Image, text: str) -> str:
    """A picture inside Markdown, under `EMBEDDED_BYTES` whatever it shows.

    A palette keeps drawings small and words sharp; where it is too large, a JPEG takes its place.
    """
    drawn = markdown(png_bytes(picture.quantize(COLOURS)), text)
    if len(drawn) < EMBEDDED_BYTES:
        return drawn
    return as_markdown(small_jpeg(picture, EMBEDDED_BYTES * 3 // 4 - 100), text)


def markdown(png: bytes, text: str) -> str:
    """A picture inside Markdown, as the Dagster UI shows it without any server."""
    return f"![{text}](data:image/png;base64,{base64.b64encode(png).decode()})"
