"""Caption sets: JSON lines with a `caption` each, and no pictures.

The files of SocialCounterfactuals (Howard et al. 2024) are of this form: beside the `caption` a
line has the counterfactual captions of its set as `output_1`, `output_2` and so on, and a
`filename`. All that is not the caption is passed on as strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from cf_lab_assets.sources.deliveries import PICTURE_SUFFIXES
from cf_lab_assets.sources.refusals import DeliveryRefused, Rejected
from cf_lab_assets.sources.rows import (
    CAPTION,
    TEXT,
    Kind,
    Row,
    Rows,
    lines,
    malformed,
    parse_object,
    rejected,
    texts,
)

if TYPE_CHECKING:
    from cf_lab_assets.sources.deliveries import Delivery
    from cf_lab_resources.images import Limits


def _row_files(names: Sequence[str]) -> list[str]:
    if any(name.lower().endswith(PICTURE_SUFFIXES) for name in names):
        return []  # pictures beside it say that the line of each belongs into a metadata.jsonl
    return sorted(
        name
        for name in names
        if name.endswith(".jsonl") and PurePosixPath(name).name != "metadata.jsonl"
    )


def _rows(delivery: Delivery, files: Sequence[str], limits: Limits) -> Rows:
    number = 0
    for name in files:
        with delivery.open(name) as file:
            for line in lines(file, name):
                if line.strip():
                    number += 1
                    yield _row(number, name, line.decode("utf-8", "surrogateescape"))


KIND = Kind(
    name="caption set",
    form="*.jsonl files with a `caption` in every line, and no pictures",
    pictures="none",
    row_files=_row_files,
    rows=_rows,
)


def _row(number: int, name: str, line: str) -> Row | Rejected:
    values = parse_object(line)
    if isinstance(values, str):
        return malformed(number, values, name)
    if "file_name" in values:
        raise DeliveryRefused(
            "missing_metadata",
            f"{name} names pictures by `file_name`; call it metadata.jsonl and deliver it with "
            "them",
        )
    text = values.pop(CAPTION if values.get(CAPTION) is not None else TEXT, None)
    if text is None:
        detail = f"the line has neither `{CAPTION}` nor `{TEXT}`"
        return rejected(number, "missing_caption", detail, name)
    if not isinstance(text, str):
        return malformed(number, f"`{CAPTION}` must be a string", name)
    return Row(number, name, text, texts(values))
