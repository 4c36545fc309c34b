"""Candidates and scores of a chunk of sources, and the acceptance of their sets.

A chunk's edits are drawn together; those that fail are drawn again, with new noise, until their
budget is spent or their set can't be accepted any more. A chunk's rows are written once, whole,
under a key that names all that determines them and nothing else. So a run that was killed goes on
after the last whole chunk, ends in the same rows as a run that was not, and a plan that grows
redoes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals.attribute_sets import value_of
from cf_lab_assets.counterfactuals.budget import Budget
from cf_lab_assets.counterfactuals.mending import damaged, mend
from cf_lab_assets.counterfactuals.replay import Candidate
from cf_lab_assets.counterfactuals.scores import Judge, Pair
from cf_lab_resources.engine.editors import Drawing, Member, noise_seed
from cf_lab_resources.engine.pictures import decode, encode, square

if TYPE_CHECKING:
    from PIL import Image

    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.engine.editors import Editor, EditorSettings

# Raise it when rows of the same inputs would come out differently.
GENERATION_VERSION = "3"

# What of an edit determines its candidates and scores; the source is in the edit's id.
_DETERMINING = ("edit_id", "to_values", "base_caption", "caption", "instruction")


@dataclass(frozen=True)
class GenerationSettings:
    """What the streaming step may spend.

    Attributes:
        max_draws: draws of one edit before its set is given up, where its direction is seldom
            accepted; see `budget.Budget`.
        chunk_sources: sources a chunk; a killed run repeats at most this much.
    """

    max_draws: int = 6
    chunk_sources: int = 8


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
        budgets = [self._budget.of(edit) for edit in edits]
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
            Candidate(sources[row["source_id"]], by_id[row["edit_id"]], row)
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
    """Draw and score a chunk's edits until each is accepted or its set is given up.

    Args:
        edits: rows of the edit plan, those of a source side by side.
        sources: rows of ``sources/pairs`` by source id.
        bucket: where pictures are kept.
        models: draw and score.
        budgets: draws allowed to each edit.
    """
    editor, judge = models.editor, models.judge
    pictures = {
        source_id: square(decode(bucket.get_content(sources[source_id]["image_key"])), editor.size)
        for source_id in dict.fromkeys(edit["source_id"] for edit in edits)
    }
    pending, rows, draw = list(zip(edits, budgets, strict=True)), list[dict[str, Any]](), 0
    spent: list[dict[str, Any]] = []
    while pending:
        asked = [edit for edit, _ in pending]
        drawn = draw_edits(editor, asked, pictures, draw)
        scored = judge.score(
            [
                Pair(
                    source=pictures[edit["source_id"]],
                    candidate=picture,
                    source_caption=edit["base_caption"],
                    caption=edit["caption"],
                    values=edit["to_values"],
                )
                for edit, picture in zip(asked, drawn, strict=True)
            ]
        )
        made = [
            _row(edit, draw, picture, scores, bucket, models)
            for edit, picture, scores in zip(asked, drawn, scored, strict=True)
        ]
        rows += made
        draw += 1
        failed = [one for one, row in zip(pending, made, strict=True) if not row["accepted"]]
        spent += [edit for edit, budget in failed if budget <= draw]
        pending = [one for one in failed if one[1] > draw and _is_wanted(one[0], edits, spent)]
    return rows


def draw_edits(
    editor: Editor,
    edits: Sequence[Mapping[str, Any]],
    pictures: Mapping[str, Image.Image],
    draw: int,
) -> list[Image.Image]:
    """One draw of each edit; those of a source share their noise, so that they show one scene."""
    by_source: dict[str, list[Mapping[str, Any]]] = {}
    for edit in edits:
        by_source.setdefault(edit["source_id"], []).append(edit)
    drawings = [
        Drawing(
            source_id,
            draw,
            tuple(Member(edit["caption"], edit["instruction"]) for edit in members),
            pictures[source_id],
        )
        for source_id, members in by_source.items()
    ]
    drawn = dict(zip(by_source, map(iter, editor.draw(drawings)), strict=True))
    return [next(drawn[edit["source_id"]]) for edit in edits]


def _is_wanted(
    edit: Mapping[str, Any], edits: Sequence[Mapping[str, Any]], spent: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether another draw of an edit can still help: no set is accepted without all its members.

    A placebo is of all sets of its source.
    """
    lost = [one["attribute"] for one in spent if one["source_id"] == edit["source_id"]]
    if None in lost:
        return False
    if edit["attribute"] is not None:
        return edit["attribute"] not in lost
    sets = {one["attribute"] for one in edits if one["source_id"] == edit["source_id"]}
    return bool(sets - {None, *lost}) or sets == {None}


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


def accept_sets(
    edits: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All-or-none acceptance of each source's counterfactual sets.

    A set is accepted when every one of its edits, its placebo among them, has an accepted
    draw; the first one counts.

    Args:
        edits: rows of the edit plan.
        rows: candidate rows of those edits.

    Returns:
        Accepted sets (set_id, source_id, attribute, from_value, members: edit_id and draw) and
        rejected sets (the same with stage and reasons instead of members).
    """
    chosen: dict[str, int] = {}
    why: dict[str, list[str]] = {}
    for row in rows:
        if row["accepted"]:
            chosen.setdefault(row["edit_id"], row["draw"])
        else:
            why[row["edit_id"]] = list(row["reasons"])
    sets: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    placebos = {edit["source_id"]: edit for edit in edits if edit["attribute"] is None}
    for edit in edits:
        if edit["attribute"] is not None:
            name = (edit["source_id"], edit["attribute"])
            sets.setdefault(name, [placebos[edit["source_id"]]]).append(edit)
    accepted, rejected = [], []
    for (source_id, attribute), members in sets.items():
        named = {
            "set_id": f"{source_id}-{attribute}",
            "source_id": source_id,
            "attribute": attribute,
            "from_value": value_of(members[0]["from_values"], attribute),
        }
        edit_ids = [member["edit_id"] for member in members]
        failed = [edit_id for edit_id in edit_ids if edit_id not in chosen]
        if failed:
            # Edits of a source whose placebo failed in an earlier round were not drawn at all.
            reasons = [f"{one}: {'; '.join(why.get(one, ['not drawn']))}" for one in failed]
            rejected.append({**named, "stage": "scores", "reasons": reasons})
        else:
            drawn = [{"edit_id": edit_id, "draw": chosen[edit_id]} for edit_id in edit_ids]
            accepted.append({**named, "members": drawn})
    return accepted, rejected
