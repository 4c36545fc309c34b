"""Stored candidates whose picture is missing or damaged: found by their hash, and drawn again.

On the same kind of device with the same versions the picture comes out the same to the last bit,
and is stored under the key that it had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals.replay import Candidate, draw_again
from cf_lab_resources.engine.pictures import encode

if TYPE_CHECKING:
    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.engine.editors import Editor

READERS = 8  # threads; each waits for the store, which may be far


def damaged(bucket: Bucket, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The candidate rows whose picture is missing or is not what its hash says."""
    keys = list(dict.fromkeys(row["image_key"] for row in rows))
    with ThreadPoolExecutor(READERS) as pool:
        intact = dict(zip(keys, pool.map(bucket.is_intact, keys), strict=True))
    return [row for row in rows if not intact[row["image_key"]]]


def mend(bucket: Bucket, candidates: Sequence[Candidate], editor: Editor) -> list[Candidate]:
    """Draw candidates again and store the pictures that come out as they were.

    Args:
        bucket: holds the sources; the pictures go there.
        candidates: whose pictures are damaged.
        editor: draws them.

    Returns:
        Those that come out otherwise, of which nothing is stored.
    """
    otherwise = []
    for one, picture in draw_again(bucket, candidates, editor):
        png = encode(picture)
        if hashlib.sha256(png).hexdigest() == one.row["image_sha256"]:
            bucket.put_content("images", png, ".png")
        else:
            otherwise.append(one)
    return otherwise
