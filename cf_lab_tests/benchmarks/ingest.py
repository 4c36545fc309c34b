"""Taking WebDataset shards in, against `datasets` that reads and decodes the same shards.

    python -m cf_lab_tests.benchmarks.ingest [--images 100000] [--form png] [--folder FOLDER]

Draws its own pictures of 64 x 64 pixels from a seed, into shards of 5000 samples (picture, `.txt`,
`.json`). Then both read them by turns, each in a process of its own: `load_dataset("webdataset",
streaming=True)` decodes every picture; the lab decodes, checks and stores it in a bucket in the
same folder, with all else that `cf-lab ingest` does. Imports are not timed. Memory is the peak of
the lab's process and of the largest process that it starts, of a tenth of the images and of all.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

IMAGES_PER_SHARD = 5000
EDGE = 64
SHAPES = 4


def draw_shards(folder: Path, images: int, form: str) -> None:
    """Writes `images` samples to shards in the folder."""
    for start in range(0, images, IMAGES_PER_SHARD):
        path = folder / f"shard-{start // IMAGES_PER_SHARD:05d}.tar"
        with tarfile.open(path, "w") as tar:
            for number in range(start, min(images, start + IMAGES_PER_SHARD)):
                for suffix, data in _sample(number, form).items():
                    member = tarfile.TarInfo(f"{number:07d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def _sample(number: int, form: str) -> dict[str, bytes]:
    import numpy as np
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(number)
    colours = [tuple(colour) for colour in rng.integers(0, 256, (SHAPES + 1, 3)).tolist()]
    boxes = np.sort(rng.integers(0, EDGE, (SHAPES, 2, 2)), axis=1).reshape(SHAPES, 4).tolist()
    picture = Image.new("RGB", (EDGE, EDGE), colours[0])
    draw = ImageDraw.Draw(picture)
    for box, colour in zip(boxes, colours[1:], strict=True):
        draw.ellipse(box, fill=colour)
    out = io.BytesIO()
    picture.save(out, {"png": "PNG", "jpg": "JPEG"}[form])
    columns = {"gender": ("woman", "man")[number % 2], "number": number}
    return {
        form: out.getvalue(),
        "txt": f"a portrait of person number {number}".encode(),
        "json": json.dumps(columns).encode(),
    }


def read_by_datasets(shards: list[str], form: str, folder: Path) -> tuple[int, float]:
    """Images and seconds of the peer."""
    from datasets import load_dataset

    began = time.perf_counter()
    rows = load_dataset(
        "webdataset",
        data_files={"train": shards},
        split="train",
        streaming=True,
        cache_dir=str(folder / "cache"),
    )
    images = sum(row[form].size == (EDGE, EDGE) for row in rows)
    return images, time.perf_counter() - began


def take_in(shards: list[str], form: str, folder: Path) -> tuple[int, float]:
    """Images and seconds of the lab."""
    import pyarrow as pa

    from cf_lab_assets.sources.captions import starter_rules
    from cf_lab_assets.sources.deliveries import FolderDelivery
    from cf_lab_assets.sources.ingest import take
    from cf_lab_resources.bucket import open_bucket
    from cf_lab_resources.images import normalise

    rules = starter_rules()
    normalise(_sample(0, form)[form])  # imports what decoding needs
    pa.array([0])  # imports pandas, as `datasets` does
    delivery = folder / "delivery"
    delivery.mkdir()
    for shard in shards:
        os.link(shard, delivery / Path(shard).name)
    bucket = open_bucket((folder / "bucket").as_uri())
    began = time.perf_counter()
    result = take(FolderDelivery(delivery), "benchmark", bucket, rules)
    seconds = time.perf_counter() - began
    assert result.quarantined == 0, result.summary()
    return result.rows, seconds


def measure(what: str, shards: list[Path], form: str, folder: Path) -> dict[str, float]:
    """Runs one of the two in a process of its own; its images, seconds and peak memory in MB."""
    scratch = Path(tempfile.mkdtemp(prefix=f"{what}_", dir=folder))
    command = [sys.executable, "-m", "cf_lab_tests.benchmarks.ingest", "--only", what]
    command += ["--form", form, "--folder", str(scratch), *map(str, shards)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(scratch / "hf")}
    try:
        ran = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
        return found
    finally:
        shutil.rmtree(scratch)


def _peak_megabytes() -> float:
    peak = sum(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return peak / (1024 if sys.platform == "linux" else 1024 * 1024)


def _measured_here(what: str, shards: list[str], form: str, folder: Path) -> None:
    images, seconds = {"datasets": read_by_datasets, "lab": take_in}[what](shards, form, folder)
    print(json.dumps({"images": images, "seconds": seconds, "peak": _peak_megabytes()}))


def compare(images: int, form: str, rounds: int, folder: Path) -> None:
    """Draws, measures by turns and prints the table."""
    drawn = folder / "shards"
    drawn.mkdir()
    print(f"drawing {images:,} {form} pictures of {EDGE} px in {folder}", flush=True)
    draw_shards(drawn, images, form)
    shards = sorted(drawn.glob("*.tar"))
    results: dict[str, list[dict[str, float]]] = {"datasets": [], "lab": []}
    for number in range(rounds):
        for what in sorted(results, reverse=bool(number % 2)):
            found = measure(what, shards, form, folder)
            assert found["images"] == images
            results[what].append(found)
            rate = images / found["seconds"]
            print(f"round {number + 1} {what:<9} {rate:8,.0f} images/s", flush=True)
    few = measure("lab", shards[: max(1, len(shards) // 10)], form, folder)
    print(_table(images, results, few))


def _table(images: int, results: dict[str, list[dict[str, float]]], few: dict[str, float]) -> str:
    rates = {
        what: statistics.median(images / run["seconds"] for run in runs)
        for what, runs in results.items()
    }
    peak = max(run["peak"] for run in results["lab"])
    grown = peak - few["peak"]
    lines = [
        f"{'':<34}{'images/s':>10}{'ratio':>8}",
        f"{'datasets, reading and decoding':<34}{rates['datasets']:>10,.0f}{1:>8.2f}",
        f"{'lab, ingesting':<34}{rates['lab']:>10,.0f}{rates['lab'] / rates['datasets']:>8.2f}",
        "",
        f"{'peak memory of the lab':<34}{'images':>10}{'MB':>8}",
        f"{'':<34}{few['images']:>10,.0f}{few['peak']:>8.1f}",
        f"{'':<34}{images:>10,.0f}{peak:>8.1f}",
        f"grows by {grown:.1f} MB, "
        f"{grown * 2**20 / max(1, images - few['images']):.0f} bytes an image",
    ]
    return "\n".join(lines)


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--form", choices=["png", "jpg"], default="png")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--folder", type=Path, help="for shards and bucket; one for temporary files"
    )
    parser.add_argument("--only", choices=["datasets", "lab"], help=argparse.SUPPRESS)
    parser.add_argument("shards", nargs="*", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.only:
        _measured_here(chosen.only, chosen.shards, chosen.form, chosen.folder)
        return
    with tempfile.TemporaryDirectory(prefix="cf_lab_benchmark_", dir=chosen.folder) as folder:
        compare(chosen.images, chosen.form, chosen.rounds, Path(folder))


if __name__ == "__main__":
    main()
