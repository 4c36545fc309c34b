"""What packaging costs: `python -m cf_lab_tests.benchmarks.packaging [--pairs 1000,8000]`.

Signing and verifying a picture, by size and number of threads; then whole packages beside what
`datasets` takes to write the same pictures to Parquet without credentials, with the peak memory
of each process: it must not grow with the number of pairs.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from cf_lab_assets.counterfactuals.packaging.build import build_package
from cf_lab_assets.counterfactuals.packaging.verification import verify_package
from cf_lab_assets.counterfactuals.tables import from_bytes
from cf_lab_resources.bucket import Bucket, open_bucket
from cf_lab_resources.credentials.pictures import PictureSigner, Verifier
from cf_lab_tests.releases.sample import Rows, publication, write_dataset

REPEATS = 40
PAIRS_A_SOURCE = 5  # of the sample's
PICTURE = 128  # pixels; noise, so 49 kB of PNG
SHARD_BYTES = 32 * 2**20


def noise(seed: int, size: int) -> bytes:
    """A PNG that does not compress."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def milliseconds(action: Callable[[], object], threads: int) -> float:
    """Wall time of one action, with so many threads at it."""
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: action(), range(REPEATS)))
    return (time.perf_counter() - start) / REPEATS * 1000


def pictures() -> None:
    """Prints what one picture costs."""
    key = publication().key
    definition = {"title": "picture"}
    print(f"{'picture':>8} {'PNG':>9} {'added':>7} {'threads':>8} {'sign ms':>9} {'verify ms':>9}")
    for size in (64, 256, 512):
        png, source = noise(1, size), noise(2, size)
        signed = PictureSigner(key).sign(png, source, "source", definition)
        for threads in (1, 2, 4):
            signer, verifier = PictureSigner(key), Verifier([key.anchor])
            signing = milliseconds(lambda: signer.sign(png, source, "s", definition), threads)  # noqa: B023
            reading = milliseconds(lambda: verifier.verify(signed), threads)  # noqa: B023
            print(
                f"{size:>6}px {len(png):>9,} {len(signed) - len(png):>7,} {threads:>8} "
                f"{signing:>9.2f} {reading:>9.2f}"
            )


def make(bucket: Bucket, pairs: int) -> str:
    """A dataset of so many pairs, each with a picture of its own."""

    def spoil(rows: Rows, sets: Rows) -> None:
        for number, row in enumerate(rows):
            png = noise(number, PICTURE)
            row["image_key"] = bucket.put_content("images", png, ".png")
            row["image_sha256"] = hashlib.sha256(png).hexdigest()

    dataset_hash = write_dataset(
        bucket, sources=pairs // PAIRS_A_SOURCE, spoil=spoil, report=False, package=False
    )
    key = f"datasets/{dataset_hash}/manifest.json"
    manifest = json.loads(bucket.get_bytes(key))
    size = len(noise(0, PICTURE))
    manifest["images"] = dict.fromkeys(manifest["images"], size)
    bucket.put_bytes(key, json.dumps(manifest).encode())
    return dataset_hash


def ours(url: str, dataset_hash: str) -> dict[str, float]:
    """Seconds to package and to verify a dataset."""
    import datasets  # noqa: F401  # imports are no part of the work
    import mlcroissant  # noqa: F401

    bucket = open_bucket(url)
    start = time.perf_counter()
    made = build_package(bucket, dataset_hash, publication(), shard_bytes=SHARD_BYTES)
    packaged = time.perf_counter()
    found = verify_package(lambda path: bucket.get_bytes(f"{made.prefix}/{path}"), made.manifest)
    assert not found.faults, found.faults[:3]
    return {"package": packaged - start, "verify": time.perf_counter() - packaged}


def peer(url: str, dataset_hash: str, folder: str) -> dict[str, float]:
    """Seconds that `datasets` takes to write the same rows and pictures to Parquet."""
    import datasets

    bucket = open_bucket(url)
    rows = from_bytes(bucket.get_bytes(f"datasets/{dataset_hash}/pairs.parquet")).to_pylist()

    def samples():  # type: ignore[no-untyped-def]
        for row in rows:
            yield {
                "pair_id": row["pair_id"],
                "caption": row["caption"],
                "image": {"bytes": bucket.get_bytes(row["image_key"]), "path": None},
                "source_image": {"bytes": bucket.get_bytes(row["source_image_key"]), "path": None},
            }

    features = datasets.Features(
        {
            "pair_id": datasets.Value("string"),
            "caption": datasets.Value("string"),
            "image": datasets.Image(),
            "source_image": datasets.Image(),
        }
    )
    start = time.perf_counter()
    made = datasets.Dataset.from_generator(samples, features=features, cache_dir=folder)
    made.to_parquet(f"{folder}/out.parquet")
    return {"datasets": time.perf_counter() - start}


def in_process(*arguments: str) -> dict[str, float]:
    """A side of the comparison in a process of its own, with its peak memory in MB."""
    run = subprocess.run(
        [sys.executable, "-m", "cf_lab_tests.benchmarks.packaging", "--side", *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found


def packages(counts: list[int]) -> None:
    """Prints what whole packages cost."""
    print(
        f"\n{'pairs':>7} {'package s':>9} {'verify s':>9} {'peak MB':>8} "
        f"{'datasets s':>10} {'peak MB':>8} {'ratio':>6}"
    )
    for count in counts:
        with TemporaryDirectory() as name:
            url = (Path(name) / "bucket").as_uri()
            dataset_hash = make(open_bucket(url), count)
            mine = in_process("ours", url, dataset_hash)
            theirs = in_process("peer", url, dataset_hash, f"{name}/cache")
        print(
            f"{count:>7,} {mine['package']:>9.2f} {mine['verify']:>9.2f} {mine['peak']:>8.0f} "
            f"{theirs['datasets']:>10.2f} {theirs['peak']:>8.0f} "
            f"{mine['package'] / theirs['datasets']:>6.2f}"
        )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", default="1000,8000")
    parser.add_argument("--side", nargs="+", help="one side of the comparison; used by itself")
    arguments = parser.parse_args()
    if arguments.side:
        side, *rest = arguments.side
        found = ours(*rest) if side == "ours" else peer(*rest)
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss in bytes
        found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
        print(json.dumps(found))
        return
    pictures()
    packages([int(count) for count in arguments.pairs.split(",")])


if __name__ == "__main__":
    main()
