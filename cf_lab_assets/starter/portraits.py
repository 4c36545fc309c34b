"""Starter portraits as an ImageFolder: what `cf-lab sample` writes and `cf-lab ingest` takes."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from cf_lab_assets.starter import world
from cf_lab_resources.errors import LabError

COLUMNS = ["file_name", "text", *world.ATTRIBUTES, "occupation", "scene"]


class FolderExists(LabError):
    """The folder to write is there already."""


def write_image_folder(folder: Path, count: int, seed: int) -> None:
    """Write ``count`` portraits with captions and attributes; whole, or not at all.

    Args:
        folder: must not exist.
        count: how many.
        seed: another seed, other portraits.

    Raises:
        FolderExists: there is something under that name.
    """
    if folder.exists():
        raise FolderExists(f"{folder} exists already; name a folder that does not")
    staged = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(staged, ignore_errors=True)
    (staged / "images").mkdir(parents=True)
    with (staged / "metadata.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, COLUMNS)
        rows.writeheader()
        for index, portrait in enumerate(world.sample(count, seed)):
            name = f"images/{index:05d}.png"
            world.render(portrait).save(staged / name)
            rows.writerow(
                {
                    "file_name": name,
                    "text": portrait.caption,
                    **portrait.attributes,
                    "occupation": portrait.occupation,
                    "scene": portrait.scene,
                }
            )
    staged.rename(folder)
