"""Pictures on their way into models: one decoding, one resize, one array layout."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


def decode(png: bytes) -> Image.Image:
    """An RGB picture from the lab's own normalised PNG bytes."""
    from PIL import Image

    return Image.open(io.BytesIO(png)).convert("RGB")


def encode(picture: Image.Image) -> bytes:
    """PNG bytes of a picture, the same for the same pixels."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def square(picture: Image.Image, size: int) -> Image.Image:
    """The middle square of a picture at ``size`` x ``size`` pixels; area resampling downwards.

    An editor works at one size. Pictures that have it already come back as they are.
    """
    from PIL import Image, ImageOps

    if picture.size == (size, size):
        return picture
    shrinks = min(picture.size) >= size
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    return ImageOps.fit(picture, (size, size), method=method)


def as_array(pictures: list[Image.Image]) -> NDArray[np.float32]:
    """Pictures of one size as float32 in [0, 1], shape (n, height, width, 3)."""
    import numpy as np

    return np.stack([np.asarray(picture, dtype=np.float32) / 255.0 for picture in pictures])
