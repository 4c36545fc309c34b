"""Candidates and scores of a chunk of sources.

A chunk's edits are drawn together; those that fail are drawn again, with new noise, until their
budget is spent or their set can't be accepted any more. A chunk's rows are written once, whole,
under a key that names all that determines them and nothing else. So a run that was killed goes on
after the last whole chunk, ends in the same rows as a run that was not, and a plan that grows
redoes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals.acceptance import base_id, by_source, to_draw
from cf_lab_assets.counterfactuals.budget import Budget
from cf_lab_assets.counterfactuals.mending import damaged, mend
from cf_lab_assets.counterfactuals.plan import BASE
from cf_lab_assets.counterfactuals.replay import Candidate
from cf_lab_assets.counterfactuals.scenes import Scene, drawing, read_scene
from cf_lab_assets.counterfactuals.scores import Judge, Pair
from cf_lab_resources.engine.editors import noise_seed
from cf_lab_resources.engine.pictures import encode
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from PIL import Image

    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.engine.editors import Editor, EditorSettings

# Raise it when rows of the same inputs would come out differently.
GENERATION_VERSION = "3"

# What of an edit determines its candidates and scores; the source is in the edit's id.
_DETERMINING = ("edit_id", "to_values", "base_caption", "caption", "instruction")


class PlanOfAnotherEditor(LabError):
    """A plan whose sets the editor in use does not draw."""


@dataclass(frozen=True)
class GenerationSettings:
    """What the streaming step may spend.

    Attributes:
        max_draws: draws of one edit before its set is given up, where its direction is seldom
            accepted; see `budget.Budget`.
        chunk_sources: sources a chunk; a killed run repeats at most this much.
    """

    max_draws: int = 6
    chunk_sources: int = 16


def fingerprint(
    edits: Sequence[Mapping[str, Any]],
    models: Mapping[str, str],
    editor: EditorSettings,
    budgets: Sequence[int],
) -> str:
    """A hash of all that determines the candidates and scores of a chunk, SHA-256."""
    inputs = {
        "version": GENERATION_VERSION,
        "edits": [[edit[name] for name in _DETERMINING] for edit in edits],
        "models": dict(models),
        "editor": asdict(editor),
        "budgets": list(budgets),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Loaded:
    """Models at work.

    Attributes:
        editor: draws.
        judge: scores.
        engine: hash of the record of what draws, see `replay.record_engine`.
    """

    editor: Editor
    judge: Judge
    engine: str


class Generator:
    """Makes the chunks of a source batch, or reads back those that were made.

    Attributes:
        made: candidates that were drawn and not read back.
    """

    def __init__(
        self,
        bucket: Bucket,
        batch: str,
        load: Callable[[], Loaded],
        models: Mapping[str, str],
        editor: EditorSettings,
        max_draws: int,
        announce: Callable[[str], None] = print,
    ) -> None:
        """Settle what all chunks share.

        Args:
            bucket: where pictures and finished chunks are kept.
            batch: the source batch.
            load: loads the models; called once, and only if they are needed.
            models: hashes of the models and of the calibration, by role.
            editor: how to draw.
            max_draws: most draws of one edit.
            announce: called with a sentence where stored pictures were damaged.
        """
        self._bucket, self._batch, self._load = bucket, batch, load
        self._models, self._editor, self._budget = models, editor, Budget(max_draws)
        self._announce = announce
        self.made = 0
        self._loaded: Loaded | None = None

    def models(self) -> Loaded:
        """The models, loaded on the first call."""
        self._loaded = self._loaded or self._load()
        return self._loaded

    def rows(
        self, edits: Sequence[dict[str, Any]], sources: Mapping[str, Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """Candidate rows of a chunk, made or read back; none for no edits.

        The budget follows the chunks before, so that they are asked for in the same order in each
        run.

        Args:
            edits: rows of the edit plan.
            sources: rows of ``sources/pairs`` by source id, at least those of the edits.

        Returns:
            One row a candidate: edit, draw, picture, scores, and why it was not accepted.
        """
        if not edits:
            return []
        budgets = self._budget.allowed(edits)
        name = fingerprint(edits, self._models, self._editor, budgets)
        key = f"counterfactuals/{self._batch}/chunks/{name[:32]}.jsonl"
        rows = self._stored(key, edits, sources)
        if rows is None:
            rows = make_chunk(edits, sources, self._bucket, self.models(), budgets)
            self.made += len(rows)
            self._bucket.put_bytes(key, b"\n".join(json.dumps(row).encode() for row in rows))
        self._budget.record(edits, rows)
        return rows

    def _stored(
        self,
        key: str,
        edits: Sequence[dict[str, Any]],
        sources: Mapping[str, Mapping[str, Any]],
    ) -> list[dict[str, Any]] | None:
        """A chunk's rows as they were stored, their pictures whole; None where it must be made.

        Pictures that are missing or damaged are drawn again. Where one does not come out as it
        was, so would others, and the whole chunk is made anew.
        """
        if not self._bucket.exists(key):
            return None
        rows = [json.loads(line) for line in self._bucket.get_bytes(key).splitlines()]
        by_id = {edit["edit_id"]: edit for edit in edits}
        broken = [
            Candidate(
                sources[row["source_id"]],
                by_id[row["edit_id"]],
                row,
                by_id.get(base_id(row["source_id"])),
            )
            for row in damaged(self._bucket, rows)
        ]
        if not broken:
            return rows
        found = f"{len(broken)} stored pictures were missing or damaged, such as {broken[0].name}"
        otherwise = mend(self._bucket, broken, self.models().editor)
        if not otherwise:
            self._announce(f"{found}: drawn again, and the same")
            return rows
        self._announce(
            f"{found}: {len(otherwise)} of them do not come out as they were on this device or "
            f"with these versions, so that all of this chunk's {len(rows)} candidates are drawn "
            "and scored anew"
        )
        return None


def make_chunk(
    edits: Sequence[dict[str, Any]],
    sources: Mapping[str, Mapping[str, Any]],
    bucket: Bucket,
    models: Loaded,
    budgets: Sequence[int],
) -> list[dict[str, Any]]:
    """Draw and score a chunk's edits until each set is accepted or given up.

    Args:
        edits: rows of the edit plan, those of a source side by side.
        sources: rows of ``sources/pairs`` by source id.
        bucket: where pictures are kept.
        models: draw and score.
        budgets: draws allowed to each edit.

    Raises:
        PlanOfAnotherEditor: the plan was made for another strategy than the editor's.
    """
    editor, planned = models.editor, by_source(edits)
    if any(edit.get("strategy") != editor.strategy for edit in edits):  # none: an older plan
        raise PlanOfAnotherEditor(
            "the edit plan was made for an editor of another kind; materialise "
            "counterfactuals/edit_plan again"
        )
    scenes = {name: read_scene(bucket, sources[name], editor) for name in planned}
    allowed = {edit["edit_id"]: budget for edit, budget in zip(edits, budgets, strict=True)}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in planned}
    made: list[dict[str, Any]] = []
    asked, draw = list(edits), 0
    while asked:
        drawn = draw_edits(editor, asked, scenes, draw)
        scored = models.judge.score(list(_pairs(asked, drawn, scenes)))
        for edit, picture, scores in zip(asked, drawn, scored, strict=True):
            row = _row(edit, draw, picture, scores, bucket, models)
            rows[edit["source_id"]].append(row)
            made.append(row)
        draw += 1
        asked = [
            edit
            for name, own in planned.items()
            for edit in to_draw(own, rows[name], allowed, draw)
        ]
    return made


def draw_edits(
    editor: Editor,
    edits: Sequence[Mapping[str, Any]],
    scenes: Mapping[str, Scene],
    draw: int,
) -> list[Image.Image]:
    """One draw of each edit; those of a source share their noise, so that they show one scene."""
    planned = by_source(edits)
    drawings = [drawing(own, scenes[name], draw) for name, own in planned.items()]
    drawn = dict(zip(planned, map(iter, editor.draw(drawings)), strict=True))
    return [next(drawn[edit["source_id"]]) for edit in edits]


def _pairs(
    edits: Sequence[Mapping[str, Any]],
    drawn: Sequence[Image.Image],
    scenes: Mapping[str, Scene],
) -> Iterator[Pair]:
    """What scorers see: each candidate beside its source, or beside its base of the same draw."""
    before = {name: scene.picture for name, scene in scenes.items()}
    for edit, picture in zip(edits, drawn, strict=True):
        if edit["kind"] == BASE:
            before[edit["source_id"]] = picture
        source = before[edit["source_id"]]
        assert source is not None
        yield Pair(source, picture, edit["base_caption"], edit["caption"], edit["to_values"])


def _row(
    edit: Mapping[str, Any],
    draw: int,
    picture: Image.Image,
    scores: dict[str, Any],
    bucket: Bucket,
    models: Loaded,
) -> dict[str, Any]:
    png = encode(picture)
    key = bucket.put_content("images", png, ".png")
    reasons = list(scores.pop("missed"))
    threshold = models.judge.calibration.threshold
    if scores["cits"] < threshold:
        reasons.append(f"cits {scores['cits']:.3f} is under {threshold:.3f}")
    return {
        "edit_id": edit["edit_id"],
        "source_id": edit["source_id"],
        "draw": draw,
        "noise_seed": noise_seed(edit["source_id"], draw),
        "image_key": key,
        "image_sha256": hashlib.sha256(png).hexdigest(),
        "engine": models.engine,
        **scores,
        "accepted": not reasons,
        "reasons": reasons,
    }
