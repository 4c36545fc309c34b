"""Deliveries made on the spot, good ones that each test spoils in its own way."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cf_lab_resources.bucket import Bucket, open_bucket

ATTRIBUTES = {"gender": ("woman", "man"), "age": ("young", "old")}


def png(seed: int = 0, edge: int = 24) -> bytes:
    samples = np.random.default_rng(seed).integers(0, 256, (edge, edge, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(samples).save(out, "PNG")
    return out.getvalue()


def write_csv(folder: Path, rows: Sequence[Mapping[str, str]], *columns: str) -> None:
    """Writes metadata.csv; columns are those of the rows unless they are named."""
    names = list(columns) or list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)


def good_rows(count: int = 3) -> list[dict[str, str]]:
    return [
        {
            "file_name": f"images/{i}.png",
            "text": f"a person, number {i}",
            "gender": ("woman", "man")[i % 2],
            "age": "",
            "occupation": "judge",
        }
        for i in range(count)
    ]


def make_delivery(folder: Path, count: int = 3) -> Path:
    (folder / "images").mkdir(parents=True)
    for i in range(count):
        (folder / "images" / f"{i}.png").write_bytes(png(i))
    write_csv(folder, good_rows(count))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A delivery of three good rows."""
    return make_delivery(tmp_path / "spring")


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    """An empty bucket in a folder."""
    return open_bucket((tmp_path / "bucket").as_uri())
