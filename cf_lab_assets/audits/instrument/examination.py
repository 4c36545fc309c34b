"""The pictures of a sample of sources, each decoded once: what edits add, and masked sets.

Numbers from tables are of all sources; those from pictures are of at most `EXAMINED`, whose choice
depends on nothing but their ids, so that time and memory have a bound. Pictures are looked at one
source after the other, at no more than `MEASURED` pixels an edge.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cf_lab_assets.audits.instrument import appearance, masking
from cf_lab_assets.audits.instrument.masking import MaskedSet
from cf_lab_assets.audits.instrument.reading import FirstDraw, Readings
from cf_lab_resources.engine.pictures import decode, square

if TYPE_CHECKING:
    from cf_lab_resources.bucket import Bucket

Floats = NDArray[np.float64]

# Sources whose pictures are looked at: a gap between two halves of them is known to within a
# quarter of a standard deviation with a margin for simultaneity.
EXAMINED = 500
MEASURED = 256
READERS = 4
# Sources whose pictures are in memory at a time.
AHEAD = 4

PAIR_COLUMNS = (
    "set_id",
    "source_id",
    "attribute",
    "value",
    "is_placebo",
    "image_key",
    "source_image_key",
)


@dataclass
class Examined:
    """What pictures told.

    Attributes:
        realism: strangeness that each first draw adds to that of its source, (edits,); NaN where
            the source was not examined.
        drift: shift of the skin's L*, likewise; NaN too where little skin is seen.
        sets: masked sets, None for one with too little left.
        offered: by attribute, how many sets were to be masked.
        sources: how many were examined.
    """

    realism: Floats
    drift: Floats
    sets: list[MaskedSet | None] = field(default_factory=list)
    offered: Counter[str] = field(default_factory=Counter)
    sources: int = 0


@dataclass
class _Work:
    """One source's first draws, and the members of its accepted sets."""

    edits: list[tuple[int, FirstDraw]] = field(default_factory=list)
    sets: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        """The pictures that it needs, each once."""
        named = [key for _, edit in self.edits for key in (edit.picture, edit.before)]
        for members in self.sets.values():
            named += [members[0]["source_image_key"], *(one["image_key"] for one in members)]
        return [key for key in dict.fromkeys(named) if key is not None]


def chosen(source_ids: Iterable[str], most: int = EXAMINED) -> set[str]:
    """The sources that are examined, by the hash of their ids."""
    return set(sorted(source_ids, key=lambda one: hashlib.sha256(one.encode()).digest())[:most])


def examine(
    bucket: Bucket, readings: Readings, pairs: Iterable[Mapping[str, Any]], most: int = EXAMINED
) -> Examined:
    """Look at the pictures of a sample of sources.

    Args:
        bucket: holds the pictures.
        readings: with the first draws.
        pairs: the dataset's, with `PAIR_COLUMNS`.
        most: sources that are looked at.

    Raises:
        BucketKeyError: a picture is missing.
    """
    work = _work(readings, pairs, chosen(readings.source_ids, most))
    count = len(readings.edits)
    found = Examined(np.full(count, np.nan), np.full(count, np.nan), sources=len(work))
    statistics = np.full((count, appearance.COUNT), np.nan)
    own = np.full((count, appearance.COUNT), np.nan)
    reference: dict[str, Floats] = {}
    for one, pictures in _pictures(bucket, list(work.values())):
        for before, edits in _by_before(one.edits):
            rows = [row for row, _ in edits]
            stack = _stack([before, *(edit.picture for _, edit in edits)], pictures)
            scaled = stack.astype(np.float32) / 255
            measured = appearance.local_statistics(scaled)
            reference[before] = measured[0]
            own[rows], statistics[rows] = measured[0], measured[1:]
            found.drift[rows] = appearance.lightness_shifts(scaled[0], scaled[1:])
        for members in one.sets.values():
            found.offered[members[0]["attribute"]] += 1
            found.sets.append(_masked(members, pictures))
    sources = np.array(list(reference.values())).reshape(-1, appearance.COUNT)
    found.realism = appearance.strangeness(statistics, sources)
    found.realism -= appearance.strangeness(own, sources)
    return found


def _work(
    readings: Readings, pairs: Iterable[Mapping[str, Any]], names: set[str]
) -> dict[str, _Work]:
    work: dict[str, _Work] = {}
    for row, edit in enumerate(readings.edits):
        name = readings.source_ids[edit.source]
        if name in names:
            work.setdefault(name, _Work()).edits.append((row, edit))
    for pair in pairs:
        if pair["source_id"] in names:
            sets = work.setdefault(pair["source_id"], _Work()).sets
            sets.setdefault(pair["set_id"], []).append(pair)
    return work


def _by_before(
    edits: Sequence[tuple[int, FirstDraw]],
) -> Iterator[tuple[str, list[tuple[int, FirstDraw]]]]:
    grouped: dict[str, list[tuple[int, FirstDraw]]] = {}
    for row, edit in edits:
        if edit.before is not None:
            grouped.setdefault(edit.before, []).append((row, edit))
    yield from grouped.items()


def _pictures(
    bucket: Bucket, work: Sequence[_Work]
) -> Iterator[tuple[_Work, dict[str, NDArray[np.uint8]]]]:
    """Each source's pictures, `AHEAD` sources at a time."""
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(work), AHEAD):
            part = work[start : start + AHEAD]
            keys = list(dict.fromkeys(key for one in part for key in one.keys))
            decoded = readers.map(lambda key: np.asarray(decode(bucket.get_content(key))), keys)
            read = dict(zip(keys, decoded, strict=True))
            for one in part:
                yield one, read


def _stack(keys: Sequence[str], pictures: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures at one size: that of the smallest, and at most `MEASURED`; (n, edge, edge, 3)."""
    from PIL import Image

    edge = min(MEASURED, *(min(pictures[key].shape[:2]) for key in keys))
    return np.stack(
        [
            pictures[key]
            if pictures[key].shape[:2] == (edge, edge)
            else np.asarray(square(Image.fromarray(pictures[key]), edge))
            for key in keys
        ]
    )


def _masked(
    members: Sequence[Mapping[str, Any]], pictures: Mapping[str, NDArray[np.uint8]]
) -> MaskedSet | None:
    keys = [members[0]["source_image_key"], *(one["image_key"] for one in members)]
    stack = _stack(keys, pictures)
    values = [one["value"] for one in members]
    placebo = next((row for row, one in enumerate(members) if one["is_placebo"]), None)
    return masking.mask_set(members[0]["attribute"], values, stack[0], stack[1:], placebo)
