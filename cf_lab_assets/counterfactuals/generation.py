"""Candidates, scores and acceptance in one stream, a chunk of sources at a time.

A chunk's edits are drawn together; those that fail are drawn again, with new noise, until their
budget is spent. A chunk's rows are written once, whole, under a key that names all that
determines them. So a run that was killed goes on after the last whole chunk, and ends in the
same rows as a run that was not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals.scores import Judge, Pair
from cf_lab_resources.engine.editors import Drawing, noise_seed
from cf_lab_resources.engine.pictures import decode, encode, square

if TYPE_CHECKING:
    from PIL import Image

    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.engine.editors import EditorSettings, InstructionEditor

# Raise it when rows of the same inputs would come out differently.
GENERATION_VERSION = "1"


@dataclass(frozen=True)
class GenerationSettings:
    """What the streaming step may spend.

    Attributes:
        max_draws: draws of one edit before its set is given up.
        chunk_sources: sources a chunk; a killed run repeats at most this much.
    """

    max_draws: int = 3
    chunk_sources: int = 8


@dataclass(frozen=True)
class Work:
    """The chunks of one source batch.

    Attributes:
        sources: rows of ``sources/pairs`` by source id.
        chunks: edit-plan rows of each chunk.
        prefix: bucket prefix of the chunk files; holds the fingerprint of all inputs.
    """

    sources: Mapping[str, Mapping[str, Any]]
    chunks: list[list[dict[str, Any]]]
    prefix: str

    def key(self, index: int) -> str:
        """Bucket key of a chunk's rows."""
        return f"{self.prefix}/{index:06d}.jsonl"


def fingerprint(
    edits: Sequence[Mapping[str, Any]],
    models: Mapping[str, str],
    editor: EditorSettings,
    generation: GenerationSettings,
) -> str:
    """A hash of all that determines a batch's candidates and scores."""
    inputs = {
        "version": GENERATION_VERSION,
        "edits": [dict(edit) for edit in edits],
        "models": dict(models),
        "editor": asdict(editor),
        "generation": asdict(generation),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def lay_out(
    batch: str,
    sources: Sequence[Mapping[str, Any]],
    edits: Sequence[Mapping[str, Any]],
    chunk_sources: int,
    name: str,
) -> Work:
    """Cut a batch's edit plan into chunks of whole sources.

    Args:
        batch: the source batch.
        sources: rows of ``sources/pairs``.
        edits: rows of the edit plan, a source's edits next to each other.
        chunk_sources: sources a chunk.
        name: the fingerprint of the inputs.
    """
    by_source: dict[str, list[dict[str, Any]]] = {}
    for edit in edits:
        by_source.setdefault(edit["source_id"], []).append(dict(edit))
    grouped = list(by_source.values())
    chunks = [
        [edit for group in grouped[start : start + chunk_sources] for edit in group]
        for start in range(0, len(grouped), chunk_sources)
    ]
    return Work(
        sources={source["source_id"]: source for source in sources},
        chunks=chunks,
        prefix=f"counterfactuals/{batch}/chunks/{name[:16]}",
    )


def run_chunks(
    work: Work,
    bucket: Bucket,
    load: Callable[[], tuple[InstructionEditor, Judge]],
    max_draws: int,
) -> Iterator[list[dict[str, Any]]]:
    """Rows of each chunk in turn, made or read back.

    Args:
        work: the chunks.
        bucket: where pictures and finished chunks are kept.
        load: loads the models; called only if a chunk is still to be made.
        max_draws: draws of one edit before it is given up.

    Yields:
        One row a candidate: edit, draw, picture, scores, and why it was not accepted.
    """
    models = None
    for index, edits in enumerate(work.chunks):
        key = work.key(index)
        if bucket.exists(key):
            yield [json.loads(line) for line in bucket.get_bytes(key).splitlines()]
            continue
        models = models or load()
        rows = make_chunk(edits, work.sources, bucket, *models, max_draws)
        bucket.put_bytes(key, b"\n".join(json.dumps(row).encode() for row in rows))
        yield rows


def make_chunk(
    edits: Sequence[dict[str, Any]],
    sources: Mapping[str, Mapping[str, Any]],
    bucket: Bucket,
    editor: InstructionEditor,
    judge: Judge,
    max_draws: int,
) -> list[dict[str, Any]]:
    """Draw and score a chunk's edits until each is accepted or its draws are spent."""
    pictures = {
        source_id: square(decode(bucket.get_bytes(sources[source_id]["image_key"])), editor.size)
        for source_id in dict.fromkeys(edit["source_id"] for edit in edits)
    }
    pending, rows = list(edits), []
    for draw in range(max_draws):
        drawn = editor.draw(
            [
                Drawing(edit["edit_id"], draw, pictures[edit["source_id"]], edit["instruction"])
                for edit in pending
            ]
        )
        scored = judge.score(
            [
                Pair(
                    source=pictures[edit["source_id"]],
                    candidate=picture,
                    source_caption=sources[edit["source_id"]]["caption"],
                    caption=edit["caption"],
                    values=edit["to_values"],
                )
                for edit, picture in zip(pending, drawn, strict=True)
            ]
        )
        made = [
            _row(edit, draw, picture, scores, bucket, judge.calibration.threshold)
            for edit, picture, scores in zip(pending, drawn, scored, strict=True)
        ]
        rows += made
        pending = [edit for edit, row in zip(pending, made, strict=True) if not row["accepted"]]
        if not pending:
            break
    return rows


def _row(
    edit: Mapping[str, Any],
    draw: int,
    picture: Image.Image,
    scores: dict[str, Any],
    bucket: Bucket,
    threshold: float,
) -> dict[str, Any]:
    png = encode(picture)
    key = bucket.put_content("images", png, ".png")
    reasons = list(scores.pop("missed"))
    if scores["cits"] < threshold:
        reasons.append(f"cits {scores['cits']:.3f} is under {threshold:.3f}")
    return {
        "edit_id": edit["edit_id"],
        "source_id": edit["source_id"],
        "draw": draw,
        "noise_seed": noise_seed(edit["edit_id"], draw),
        "image_key": key,
        "image_sha256": hashlib.sha256(png).hexdigest(),
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
        Accepted sets (set_id, source_id, attribute, members: edit_id and draw) and rejected
        sets (set_id, source_id, attribute, stage, reasons).
    """
    chosen: dict[str, int] = {}
    why: dict[str, list[str]] = {}
    for row in rows:
        if row["accepted"]:
            chosen.setdefault(row["edit_id"], row["draw"])
        else:
            why[row["edit_id"]] = list(row["reasons"])
    sets: dict[tuple[str, str], list[str]] = {}
    placebos = {edit["source_id"]: edit["edit_id"] for edit in edits if edit["attribute"] is None}
    for edit in edits:
        if edit["attribute"] is not None:
            name = (edit["source_id"], edit["attribute"])
            sets.setdefault(name, [placebos[edit["source_id"]]]).append(edit["edit_id"])
    accepted, rejected = [], []
    for (source_id, attribute), edit_ids in sets.items():
        named = {
            "set_id": f"{source_id}-{attribute}",
            "source_id": source_id,
            "attribute": attribute,
        }
        failed = [edit_id for edit_id in edit_ids if edit_id not in chosen]
        if failed:
            reasons = [f"{edit_id}: {'; '.join(why[edit_id])}" for edit_id in failed]
            rejected.append({**named, "stage": "scores", "reasons": reasons})
        else:
            members = [{"edit_id": edit_id, "draw": chosen[edit_id]} for edit_id in edit_ids]
            accepted.append({**named, "members": members})
    return accepted, rejected
