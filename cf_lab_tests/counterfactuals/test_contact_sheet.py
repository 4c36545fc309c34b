import base64
import io

import numpy as np
import pytest
from PIL import Image

from cf_lab_assets.counterfactuals.contact_sheet import (
    EMBEDDED_BYTES,
    Cell,
    contact_sheet,
    embedded,
)
from cf_lab_assets.counterfactuals.drawing import SHOWN
from cf_lab_assets.starter import world

# Source, placebo, the other values of each attribute, and of all their intersections.
ALL_EDITS = 1 + 1 + (1 + 2 + 2) + (5 + 5 + 8) + 17


RANDOM = np.random.default_rng(0).integers(0, 256, (11, 512, 512, 3), np.uint8)
NOISE = [Image.fromarray(pixels) for pixels in RANDOM]


def shown(text):
    head, _, tail = text.partition(";base64,")
    return head, Image.open(io.BytesIO(base64.b64decode(tail.rstrip(")"))))


@pytest.mark.parametrize("columns", [7, ALL_EDITS])
def test_a_sheet_of_the_worst_pictures_stays_small_in_metadata(columns):
    rows = [
        [Cell(NOISE[(row + n) % 11], "middle-aged") for n in range(columns)] for row in range(8)
    ]
    for sheet in (contact_sheet(rows[:SHOWN], "candidates"), contact_sheet(rows, "dataset")):
        text = embedded(sheet, "candidates")
        assert len(text.encode()) < EMBEDDED_BYTES == 140_000
        head, picture = shown(text)
        assert head == "![candidates](data:image/jpeg"
        ratio = sheet.width / picture.width
        assert picture.height == pytest.approx(sheet.height / ratio, abs=1)
        assert ratio <= 4, "its pictures can still be told apart"


def test_a_sheet_of_drawings_keeps_its_size_and_sharp_words():
    portraits = [world.render(portrait) for portrait in world.sample(7, seed=3)]
    sheet = contact_sheet([[Cell(one, "young") for one in portraits]] * SHOWN, "candidates")
    head, picture = shown(embedded(sheet, "candidates"))
    assert head == "![candidates](data:image/png"
    assert picture.size == sheet.size
