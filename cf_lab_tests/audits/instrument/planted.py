"""Readings and pictures with planted faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cf_lab_assets.audits.instrument.reading import FirstDraw, OfferedSet, Readings

GENDERS = ("woman", "man")
TONES = ("light", "medium", "dark")


def readings(
    sources: int,
    success: Callable[[dict[str, str]], float] = lambda values: 0.9,
    seed: int = 0,
) -> Readings:
    """One gender edit and one placebo of each source; tones and genders are crossed.

    Args:
        sources: how many.
        success: share of edits that succeed, by the source's values.
        seed: of chance.
    """
    rng = np.random.default_rng(seed)
    made = Readings()
    for number in range(sources):
        values = {"gender": GENDERS[number % 2], "skin_tone": TONES[number // 2 % 3]}
        name = f"s{number:05}"
        made.source_ids.append(name)
        other = GENDERS[1 - number % 2]
        made.edits += [
            draw(name, number, "gender", values, bool(rng.random() < success(values)), other),
            draw(name, number, "placebo", values, None, None),
        ]
    return made


def draw(
    name: str,
    number: int,
    attribute: str,
    values: dict[str, str],
    success: bool | None,
    other: str | None,
) -> FirstDraw:
    return FirstDraw(
        edit_id=f"{name}-{attribute}",
        source=number,
        attribute=attribute,
        start=values["gender"] if other else None,
        end=other,
        values=values,
        success=success,
        over_edit=False,
        preservation=0.95,
        picture=f"{name}-{attribute}.png",
        before=f"{name}.png",
    )


def offered(
    count: int, accepted: Callable[[int, dict[str, str], str], bool], occupations: Sequence[str]
) -> list[OfferedSet]:
    """Gender sets; genders and occupations are crossed."""
    made = []
    for number in range(count):
        values = {"gender": GENDERS[number % 2]}
        occupation = occupations[number // 2 % len(occupations)]
        passed = accepted(number, values, occupation)
        made.append(OfferedSet(number, "gender", values, occupation, True, passed))
    return made


def scene(rng: np.random.Generator, edge: int = 32) -> np.ndarray:
    """A picture of coloured blocks with fine grain, (edge, edge, 3) uint8."""
    blocks = rng.integers(40, 216, (4, 4, 3)).repeat(edge // 4, 0).repeat(edge // 4, 1)
    return np.clip(blocks + rng.normal(0, 4, blocks.shape), 0, 255).astype(np.uint8)


def members_of(
    before: np.ndarray, rng: np.random.Generator, border: Sequence[int] = (0, 0)
) -> np.ndarray:
    """Two members whose middles differ, with an editor's noise, and borders shifted by levels."""
    made = []
    for level, middle in zip(border, (30, 220), strict=True):
        picture = before.astype(int) + rng.normal(0, 2, before.shape).round().astype(int)
        picture[:3] += level
        picture[12:20, 12:20] = middle
        made.append(np.clip(picture, 0, 255).astype(np.uint8))
    return np.stack(made)
