"""A package in the bucket: where it lies, what its manifest says, and which is a dataset's newest.

`packages/<dataset hash>/<identity>/manifest.json` is written last and names every other file;
`packages/<dataset hash>/latest.json` names the newest package of a dataset, `packages/latest.json`
the newest of all.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.publication import Publication

# Raise it when readers of a package, or what is claimed of a picture, would have to change.
FORMAT = 1
MANIFEST = "manifest.json"
CERTIFICATES = "certificates.pem"
# Whose signed pictures the next package may take over.
NEWEST = "packages/latest.json"


class PackageError(LabError):
    """A package can't be made or found; the message says what to do."""


@dataclass(frozen=True)
class File:
    """A file of a package: path, SHA-256 and size in bytes."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Package:
    """A package in the bucket.

    Attributes:
        prefix: where its files lie.
        manifest: what it holds.
        sha256: of the manifest's bytes, so of all of it.
        new: whether this call has made it.
    """

    prefix: str
    manifest: dict[str, Any]
    sha256: str
    new: bool


def package_prefix(dataset_hash: str, publication: Publication) -> str:
    """Bucket prefix of a dataset's package by a publication."""
    identity = {"format": FORMAT, "dataset": dataset_hash, **publication.identity}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return f"packages/{dataset_hash}/{digest[:16]}"


def latest_key(dataset_hash: str) -> str:
    """Bucket key that names the newest package of a dataset."""
    return f"packages/{dataset_hash}/latest.json"


def find_package(bucket: Bucket, dataset_hash: str) -> Package | None:
    """The newest package of a dataset; None where there is none.

    Raises:
        PackageError: It is named, and its manifest is gone or damaged.
    """
    key = latest_key(dataset_hash)
    if not bucket.exists(key):
        return None
    prefix = json.loads(bucket.get_bytes(key))["prefix"]
    found = read_package(bucket, prefix)
    if found is None:
        raise PackageError(
            f"{prefix}/{MANIFEST} is missing or damaged; materialise counterfactuals/package again"
        )
    return found


def newest_package(bucket: Bucket) -> Package | None:
    """The package that was made last, of whatever dataset; None where it is gone."""
    if not bucket.exists(NEWEST):
        return None
    return read_package(bucket, json.loads(bucket.get_bytes(NEWEST))["prefix"])


def read_package(bucket: Bucket, prefix: str) -> Package | None:
    """The package under a prefix, if its manifest is there and names its own dataset."""
    from cf_lab_resources.bucket import BucketKeyError

    try:
        data = bucket.get_bytes(f"{prefix}/{MANIFEST}")
        manifest = parse_manifest(data)
    except (BucketKeyError, ValueError):
        return None
    if manifest["dataset"] != prefix.split("/")[1]:
        return None
    return Package(prefix, manifest, hashlib.sha256(data).hexdigest(), new=False)


def parse_manifest(data: bytes) -> dict[str, Any]:
    """A package's manifest from its bytes.

    Raises:
        ValueError: It is no such manifest, or names a file that is not inside the package.
    """
    try:
        manifest: dict[str, Any] = json.loads(data)
        if manifest["format"] != FORMAT:
            raise ValueError(f"its format is {manifest['format']!r}, and {FORMAT} is known")
        for file in manifest["files"]:
            if PurePosixPath(file["path"]).is_absolute() or ".." in file["path"].split("/"):
                raise ValueError(f"it names {file['path']!r}, which is not inside the package")
            File(**file)
        needed = {"dataset", "signer", "test_key", "pairs", "sets", "shards"} - manifest.keys()
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"not a package's manifest: {type(error).__name__}: {error}") from error
    if needed:
        raise ValueError(f"not a package's manifest: {', '.join(sorted(needed))} is missing")
    return manifest


def described(folder: Path, path: str) -> File:
    """A file with its hash and size."""
    with (folder / path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return File(path, digest, (folder / path).stat().st_size)
