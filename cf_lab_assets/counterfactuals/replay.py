"""Replay: a share of a batch's candidates is drawn again, and compared with what was stored.

What drew a candidate is on record: its row names noise seed, draw and edit, and the record of the
engine that drew it, under `engines/` by content hash, holds models, settings, solver, precision,
device, and the versions of libraries and code. On the same kind of device with the same versions
the picture must come out the same to the last bit; elsewhere within a tolerance.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals.scenes import drawing, read_scene
from cf_lab_resources import __version__
from cf_lab_resources.bucket import BucketKeyError, ContentDamaged
from cf_lab_resources.engine.pictures import decode

if TYPE_CHECKING:
    from PIL import Image

    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.engine.editors import Editor, EditorSettings

SHARE = 0.02
MOST = 256  # of a batch, so that memory and time stay bounded
AT_ONCE = 32  # pictures in memory
# Mean absolute difference of 8-bit levels between the same draw on other devices or versions. Half
# precision keeps 8 to 11 bits, of which the decoder loses one or two.
TOLERANCE = 2.0


@dataclass(frozen=True)
class Candidate:
    """A candidate that may be replayed.

    Attributes:
        source: its source pair.
        edit: its row of the edit plan.
        row: its own.
        base: the row of the edit plan that gives its scene; None where the source picture does.
    """

    source: Mapping[str, Any]
    edit: Mapping[str, Any]
    row: Mapping[str, Any]
    base: Mapping[str, Any] | None = None

    @property
    def edits(self) -> list[Mapping[str, Any]]:
        """What has to be drawn for it, itself last."""
        if self.base is None or self.base["edit_id"] == self.edit["edit_id"]:
            return [self.edit]
        return [self.base, self.edit]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.row['edit_id']}, draw {self.row['draw']}"


@dataclass
class Replay:
    """What came of it.

    Attributes:
        compared, identical: candidates.
        worst: the largest mean absolute difference of 8-bit levels.
        differing: candidates that differ more than they may.
        damaged: candidates whose stored picture is missing or is not what its hash says.
    """

    compared: int = 0
    identical: int = 0
    worst: float = 0.0
    differing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing differs that must not."""
        return not (self.differing or self.damaged)


def is_chosen(edit_id: str, draw: int) -> bool:
    """Whether a candidate is of the share that is replayed, the same in each run."""
    digest = hashlib.sha256(f"replay/{edit_id}/{draw}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < SHARE * 2**32


def code_commit() -> str:
    """The commit of the code where it runs from a checkout, else the package's version."""
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return __version__
    return found.stdout.strip()


def record_engine(
    bucket: Bucket, editor: Editor, models: Mapping[str, str], settings: EditorSettings
) -> str:
    """Store the record of what draws from now on; its hash, which rows name.

    Args:
        bucket: where it goes.
        editor: draws.
        models: hashes of the models by role.
        settings: of the editor.
    """
    record = {
        **editor.describe(),
        "models": dict(models),
        "settings": asdict(settings),
        "commit": code_commit(),
    }
    content = json.dumps(record, sort_keys=True, indent=1).encode()
    name = hashlib.sha256(content).hexdigest()
    bucket.put_bytes(engine_key(name), content)
    return name


def engine_key(name: str) -> str:
    """Bucket key of an engine's record."""
    return f"engines/{name}.json"


def replay(bucket: Bucket, candidates: Sequence[Candidate], editor: Editor, engine: str) -> Replay:
    """Draw candidates again and compare.

    Args:
        bucket: holds sources and candidates.
        candidates: which.
        editor: draws them now.
        engine: hash of the record of what draws now; with candidates of the same, every bit
            counts if its pictures are reproducible at all.
    """
    import numpy as np

    result = Replay()
    exact = editor.describe()["reproducibility"] == "exact"
    for one, picture in draw_again(bucket, candidates, editor):
        try:
            png = bucket.get_content(one.row["image_key"])
        except (BucketKeyError, ContentDamaged):
            result.damaged.append(one.name)
            continue
        before, now = (np.asarray(each, dtype=np.int16) for each in (decode(png), picture))
        off = float(np.abs(before - now).mean())
        result.compared += 1
        result.identical += off == 0.0
        result.worst = max(result.worst, off)
        if off > (0.0 if exact and one.row["engine"] == engine else TOLERANCE):
            result.differing.append(one.name)
    return result


def draw_again(
    bucket: Bucket, candidates: Sequence[Candidate], editor: Editor
) -> Iterator[tuple[Candidate, Image.Image]]:
    """Candidates and their pictures, drawn anew from what is on record of them."""
    for start in range(0, len(candidates), AT_ONCE):
        some = candidates[start : start + AT_ONCE]
        drawn = editor.draw(
            [
                drawing(one.edits, read_scene(bucket, one.source, editor), one.row["draw"])
                for one in some
            ]
        )
        yield from ((one, pictures[-1]) for one, pictures in zip(some, drawn, strict=True))
