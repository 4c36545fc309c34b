"""The editor against the truth: on the starter world the right answer of every edit is known.

Success is judged by the convolutional classifier, which never saw the editor. Errors are mean
absolute differences on a 0-1 scale: inside, where source and truth really differ, and outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cf_lab_assets.counterfactuals.contact_sheet import Cell, contact_sheet, png_bytes
from cf_lab_assets.starter import text, world

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from cf_lab_resources.engine.editors import Editor
    from cf_lab_resources.engine.scorers import AttributeClassifier

# Pixels that differ by less than two grey levels count as the same.
CHANGED = 2.5 / 255
SHOWN = 8
PLACEBO = "placebo"


@dataclass(frozen=True)
class Score:
    """What came of one kind of edit.

    Attributes:
        edits: how many were drawn.
        success: share in which the classifier sees the value asked for.
        inside: error of the output where the truth differs from the source, over the source's
            own error there; None for placebos.
        outside: error of the output everywhere else (everywhere, for placebos).
    """

    edits: int
    success: float
    inside: float | None
    outside: float


@dataclass(frozen=True)
class Evaluation:
    """Scores by attribute, with the classifier's own accuracy on unseen renderings."""

    scores: dict[str, Score]
    accuracy: dict[str, float]

    def table(self) -> str:
        """The figures as text."""
        lines = [
            f"{'edit':<10} {'n':>5} {'success':>8} {'inside':>8} {'outside':>8} {'judge':>8}",
        ]
        for name, score in self.scores.items():
            inside = "" if score.inside is None else f"{score.inside:.1%}"
            judge = f"{self.accuracy[name]:.1%}" if name in self.accuracy else ""
            lines.append(
                f"{name:<10} {score.edits:>5} {score.success:>8.1%} {inside:>8} "
                f"{score.outside:>8.4f} {judge:>8}"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class Task:
    """An edit whose right answer is known; `kind` is the attribute that changes, or `PLACEBO`."""

    kind: str
    source: world.Portrait
    target: world.Portrait


def tasks_of(portraits: Sequence[world.Portrait]) -> list[Task]:
    """Every single edit of each portrait, and its placebo."""
    tasks = []
    for portrait in portraits:
        tasks.append(Task(PLACEBO, portrait, portrait))
        for name, values in world.ATTRIBUTES.items():
            for value in values:
                if value != getattr(portrait, name):
                    tasks.append(Task(name, portrait, portrait.with_values({name: value})))
    return tasks


def evaluate(
    count: int,
    picture: Path | None = None,
    seed: int = 990_001,
    models: Callable[[], tuple[Editor, AttributeClassifier]] | None = None,
) -> Evaluation:
    """Measure an editor on unseen portraits.

    Args:
        count: how many sources.
        picture: where to write source, output, truth and difference side by side.
        seed: of the sources; the default was never trained on.
        models: loads another editor and classifier than the lab's own.
    """
    from cf_lab_resources.engine.editors import Drawing, Member
    from cf_lab_resources.engine.pictures import as_array

    editor, classifier = (models or _own_models)()
    tasks = tasks_of(list(world.sample(count, seed)))
    sources = [world.render(task.source) for task in tasks]
    truths = [world.render(task.target) for task in tasks]
    members = [
        Member(task.target.caption, text.instruction(task.target.attributes)) for task in tasks
    ]
    outputs = [
        picture
        for (picture,) in editor.draw(
            [
                Drawing(f"evaluation-{index}", 0, (member,), source)
                for index, (member, source) in enumerate(zip(members, sources, strict=True))
            ]
        )
    ]
    seen = classifier.detect(outputs)
    known = classifier.detect(truths)
    arrays = [as_array(part) for part in (sources, truths, outputs)]
    scores = {}
    for kind in (*world.ATTRIBUTES, PLACEBO):
        rows = [index for index, task in enumerate(tasks) if task.kind == kind]
        right = [_shows(seen[index], tasks[index], kind) for index in rows]
        inside, outside = errors(*(array[rows] for array in arrays))
        scores[kind] = Score(
            len(rows), sum(right) / len(rows), None if kind == PLACEBO else inside, outside
        )
    accuracy = {
        name: sum(
            found[name] == getattr(task.target, name)
            for found, task in zip(known, tasks, strict=True)
        )
        / len(tasks)
        for name in world.ATTRIBUTES
    }
    if picture:
        picture.write_bytes(png_bytes(_comparison(tasks, sources, outputs, truths)))
    return Evaluation(scores, accuracy)


def errors(
    sources: NDArray[np.float32], truths: NDArray[np.float32], outputs: NDArray[np.float32]
) -> tuple[float, float]:
    """Errors inside and outside the truly changed pixels.

    Args:
        sources: (n, height, width, 3) in [0, 1].
        truths: the same shape and range.
        outputs: likewise.

    Returns:
        Mean absolute error of the outputs inside over the sources' own there (0 where nothing
        is to change), and mean absolute error outside.
    """
    import numpy as np

    changed = np.abs(truths - sources).max(axis=-1) > CHANGED
    off = np.abs(outputs - truths).mean(axis=-1)
    own = np.abs(sources - truths).mean(axis=-1)
    inside = float(off[changed].mean() / own[changed].mean()) if changed.any() else 0.0
    return inside, float(off[~changed].mean())


def _shows(seen: dict[str, str], task: Task, kind: str) -> bool:
    asked = list(world.ATTRIBUTES) if kind == PLACEBO else [kind]
    return all(seen[name] == getattr(task.target, name) for name in asked)


def _own_models() -> tuple[Editor, AttributeClassifier]:
    from cf_lab_assets.models import artifacts
    from cf_lab_resources.engine.editors import EditorSettings
    from cf_lab_resources.engine.scorers import AttributeClassifier

    classifier = AttributeClassifier(artifacts.model_folder(artifacts.CLASSIFIER))
    return artifacts.load_editor(EditorSettings()), classifier


def _comparison(
    tasks: Sequence[Task],
    sources: Sequence[Image.Image],
    outputs: Sequence[Image.Image],
    truths: Sequence[Image.Image],
) -> Image.Image:
    from PIL import ImageChops

    rows = []
    for start in range(0, len(tasks), max(1, len(tasks) // SHOWN)):
        row = []
        for index in (start, start + 1, start + 3)[: len(tasks) - start]:
            if index >= len(tasks):
                break
            task = tasks[index]
            wanted = PLACEBO if task.kind == PLACEBO else getattr(task.target, task.kind)
            difference = ImageChops.difference(outputs[index], truths[index])
            row += [
                Cell(sources[index], "source"),
                Cell(outputs[index], f"output: {wanted}"),
                Cell(truths[index], "truth"),
                Cell(difference, "difference"),
            ]
        rows.append(row)
    return contact_sheet(rows[:SHOWN], "source, output, truth, difference")
