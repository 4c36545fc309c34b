"""Training pictures of the starter world: a scene in several attribute values at once.

Every scene is rendered for its own attribute values, for each single change of one attribute
and for two random intersections, so that any two of its pictures are a true counterfactual
pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cf_lab_assets.starter import world

if TYPE_CHECKING:
    from numpy.typing import NDArray

RANDOM_INTERSECTIONS = 2


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes.

    Attributes:
        images: uint8, shape (scenes, members, 3, size, size).
        values: int64 indices into ``world.ATTRIBUTES`` values, shape (scenes, members, 3).
        portraits: what each scene's first member shows.
    """

    images: NDArray[np.uint8]
    values: NDArray[np.int64]
    portraits: list[world.Portrait]


def member_values(portrait: world.Portrait, rng: np.random.Generator) -> list[dict[str, str]]:
    """Attribute values of a scene's members; the portrait's own come first."""
    own = portrait.attributes
    members = [own]
    for name, options in world.ATTRIBUTES.items():
        members += [{**own, name: value} for value in options if value != own[name]]
    everything = world.all_values()
    chosen = rng.choice(len(everything), size=RANDOM_INTERSECTIONS, replace=False)
    return members + [everything[index] for index in chosen]


def indices(values: dict[str, str]) -> list[int]:
    """Attribute values as indices, in the order of ``world.ATTRIBUTES``."""
    return [options.index(values[name]) for name, options in world.ATTRIBUTES.items()]


def pixels(portrait: world.Portrait) -> NDArray[np.uint8]:
    """One rendered portrait, uint8, shape (3, size, size)."""
    return np.asarray(world.render(portrait)).transpose(2, 0, 1)


def render_scenes(
    portraits: Iterable[world.Portrait], seed: int, progress: Callable[[Any], Any] = iter
) -> Scenes:
    """Render each portrait's scene in its members' values.

    Args:
        portraits: one per scene.
        seed: for the random intersections.
        progress: wraps the list of portraits, to show how far it is.
    """
    rng = np.random.default_rng(seed)
    listed = list(portraits)
    images, values = [], []
    for portrait in progress(listed):
        members = member_values(portrait, rng)
        images.append(np.stack([pixels(portrait.with_values(member)) for member in members]))
        values.append([indices(member) for member in members])
    return Scenes(np.stack(images), np.array(values, dtype=np.int64), listed)
