"""Answers that an audited model gave before, so that a refresh asks about new pictures only.

An answer is remembered by what it depends on: the picture's hash, the files of the model, the
declaration, and the versions of the libraries that run it. Only models whose files the lab has are
remembered: an endpoint may answer otherwise tomorrow, and is asked anew each time. A picture on
which the model failed is asked about again.

A remembered answer is one of the model's, to the last bit as it was given then. Asked anew among
other pictures a model may round otherwise: float32 differs in the seventh digit by the size of a
batch. The table of a model lies at `audits/answers/<name>/<identity>.parquet`, with the rows of a
picture side by side, and holds the pictures of the newest dataset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from cf_lab_assets.audits.declaration import AuditConfig, canonical_json
from cf_lab_resources import __version__

if TYPE_CHECKING:
    import pyarrow as pa

    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.engine.contract import Audited

PICTURE = "image_sha256"
LIBRARIES = ("torch", "transformers", "pillow")
# Raise it when the same model would be asked, or its answer be read, otherwise than before.
ASKING = 1


def answers_key(name: str, model: Audited, config: AuditConfig) -> str | None:
    """Where a model's answers are remembered; None of one whose files the lab has not."""
    about = model.describe()
    if not about.get("files"):
        return None
    identity = {
        "model": about,
        "declaration": config.hash,
        "formats": list(model.formats),
        "libraries": {one: version(one) for one in LIBRARIES},
        "lab": [__version__, ASKING],
    }
    digest = hashlib.sha256(canonical_json(identity)).hexdigest()
    return f"audits/answers/{name}/{digest[:16]}.parquet"


class Remembered:
    """A model's answers by picture."""

    def __init__(self, bucket: Bucket, key: str | None) -> None:
        """Reads what is there.

        Args:
            bucket: keeps the table.
            key: of `answers_key`; None where nothing is remembered.
        """
        from cf_lab_resources.bucket import BucketKeyError

        self._bucket, self._key = bucket, key
        self.pictures: list[str] = []
        self.answers: pa.Table | None = None
        if key is None:
            return
        try:
            self._read(bucket.get_bytes(key))
        except (BucketKeyError, ValueError, OSError):
            return  # never asked, or damaged: asking anew mends it

    def _read(self, data: bytes) -> None:
        import io

        import pyarrow.parquet as pq

        from cf_lab_assets.audits.asking import answer_schema

        table = pq.read_table(io.BytesIO(data))
        pictures = list(dict.fromkeys(table[PICTURE].to_pylist()))
        answers = table.drop_columns([PICTURE])
        if answers.schema.equals(answer_schema()) and len(table) % max(len(pictures), 1) == 0:
            self.pictures, self.answers = pictures, answers

    def keep(self, pictures: Sequence[str], answers: pa.Table) -> None:
        """Remembers these answers and no others.

        Args:
            pictures: hashes, in the order of the answers.
            answers: as `asking.ask` gives them, as many rows for each picture.
        """
        import numpy as np
        import pyarrow as pa

        from cf_lab_assets.counterfactuals.tables import to_bytes

        if self._key is None or not pictures:
            return
        named = np.repeat(np.asarray(pictures, object), len(answers) // len(pictures))
        table = answers.append_column(PICTURE, pa.array(named, pa.string()))
        self._bucket.put_bytes(self._key, to_bytes(table))
