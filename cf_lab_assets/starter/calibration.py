"""Calibration of the CITS: its weights are fitted where the truth is known.

Right pairs are what the editor made of an instruction, where that is close to the true
counterfactual. Wrong pairs are of four kinds, each with the caption of the right one: the
placebo (nothing was changed), an edit to another value, the right values in another picture,
and a right edit that was damaged all over. A logistic regression with weights that can't be
negative tells the two apart; half of the sources are held out to measure it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals.scores import Calibration, Judge, Pair
from cf_lab_assets.starter import text, world
from cf_lab_assets.starter.evaluation import errors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from cf_lab_resources.engine.editors import Editor

# An output counts as right when it removed at least half of the source's error.
RIGHT_UNDER = 0.5
RIDGE = 1e-3
FEATURES = ("alignment", "direction", "preservation")
SEED = 880_001


@dataclass(frozen=True)
class Fitted:
    """A calibration with how well it tells right from wrong on held-out sources."""

    calibration: Calibration
    metrics: dict[str, float]


def unfitted() -> Calibration:
    """Stands in while the features themselves are computed."""
    return Calibration(1.0, 1.0, 1.0, 0.0, 0.0, 0.5)


def example_pairs(
    editor: Editor, portraits: Sequence[world.Portrait]
) -> tuple[list[Pair], NDArray[np.bool_]]:
    """Pairs with whether each is right; five of each portrait, in this order: right edit,
    placebo, other value, other picture, damaged.
    """  # noqa: D205
    import numpy as np
    from PIL import ImageFilter

    from cf_lab_resources.engine.editors import Drawing, Member
    from cf_lab_resources.engine.pictures import as_array

    rng = np.random.default_rng(SEED)
    pairs: list[Pair] = []
    right: list[bool] = []
    names = list(world.ATTRIBUTES)
    for index, portrait in enumerate(portraits):
        name = names[index % len(names)]
        others = [value for value in world.ATTRIBUTES[name] if value != getattr(portrait, name)]
        target = portrait.with_values({name: str(rng.choice(others))})
        wrong_name = names[(index + 1) % len(names)]
        wrong_values = [
            v for v in world.ATTRIBUTES[wrong_name] if v != getattr(portrait, wrong_name)
        ]
        wrong = portrait.with_values({wrong_name: str(rng.choice(wrong_values))})
        source, truth = world.render(portrait), world.render(target)
        members = tuple(
            Member(who.caption, text.instruction(who.attributes))
            for who in (target, portrait, wrong)
        )
        (drawn,) = editor.draw([Drawing(f"calibration-{index}", 0, members, source)])
        stranger = next(world.sample(1, seed=SEED + index)).with_values(target.attributes)
        damaged = drawn[0].filter(ImageFilter.GaussianBlur(2.5))
        pictures: list[Image.Image] = [*drawn, world.render(stranger), damaged]
        pairs += [
            Pair(source, picture, portrait.caption, target.caption, target.attributes)
            for picture in pictures
        ]
        inside, _ = errors(*(as_array([picture]) for picture in (source, truth, drawn[0])))
        right += [inside < RIGHT_UNDER, False, False, False, False]
    return pairs, np.array(right)


def features(rows: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    """`FEATURES` of scored pairs, (pairs, 3)."""
    import numpy as np

    return np.array(
        [[row["sim_1"] - row["sim_0"], row["sim_dir"], row["preservation"]] for row in rows]
    )


def fit(values: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
    """Logistic regression with weights that are not negative.

    Args:
        values: (pairs, features).
        right: (pairs,).

    Returns:
        Weights, (features,), and the constant. Both classes weigh the same.
    """
    import numpy as np
    from scipy.optimize import minimize

    sign = np.where(right, 1.0, -1.0)
    weight = np.where(right, 0.5 / max(right.sum(), 1), 0.5 / max((~right).sum(), 1))

    def objective(parameters: NDArray[np.float64]) -> float:
        margin = sign * (values @ parameters[:-1] + parameters[-1])
        return float(
            (weight * np.logaddexp(0.0, -margin)).sum() + RIDGE * (parameters[:-1] ** 2).sum()
        )

    width = values.shape[1]
    bounds = [(0.0, None)] * width + [(None, None)]
    best = minimize(objective, np.zeros(width + 1), method="L-BFGS-B", bounds=bounds).x
    return best[:-1], float(best[-1])


def calibrate(editor: Editor, judge: Judge, count: int) -> Fitted:
    """Fit the CITS on ``count`` portraits; half of them are held out for the metrics."""
    import numpy as np

    pairs, right = example_pairs(editor, list(world.sample(count, SEED)))
    values = features(judge.score(pairs))
    per_portrait = len(pairs) // count
    held_out = np.repeat(np.arange(count) % 2 == 1, per_portrait)
    weights, bias = fit(values[~held_out], right[~held_out])
    calibration = Calibration(
        **dict(zip(FEATURES, weights.tolist(), strict=True)),
        bias=bias,
        placebo_direction=_share(values[right, FEATURES.index("direction")]),
        threshold=0.5,
    )
    cits = calibration.cits(*values[held_out].T.astype(np.float32))
    passes, truth = cits >= calibration.threshold, right[held_out]
    return Fitted(
        calibration,
        {
            "held-out right pairs accepted": _share(passes[truth]),
            "held-out wrong pairs accepted": _share(passes[~truth]),
            "pairs": float(len(pairs)),
        },
    )


def _share(values: NDArray[Any]) -> float:
    """The mean, or 0 where there is nothing: a model of a few steps gets nothing right."""
    return float(values.mean()) if len(values) else 0.0
