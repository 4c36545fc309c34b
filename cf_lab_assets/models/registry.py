"""The bucket's models: each under the hash of its files, with a manifest that vouches for them.

    objects/models/<ab>/<sha256>     the files, by content, so that variants share what they can and
                                     a backup copies each once
    models/<sha256>/manifest.json    written after them: without it there is no such model
    models/uris/<sha256>.json        what a URI stands for, by the hash of the URI

A model is fetched into the cache folder, looked through and hashed there, and only then stored, so
that a download that fails leaves the bucket as it was. The cache keeps what it has of it, and the
next attempt goes on from there. What a revision of a hub stood for when it was first resolved, it
stands for from then on: a branch that moves changes no dataset.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cf_lab_resources import __version__
from cf_lab_resources.bucket import Bucket, BucketKeyError, content_key
from cf_lab_resources.engine.editors import pipeline_class
from cf_lab_resources.engine.folders import (
    ModelRefused,
    check_folder,
    file_hash,
    folder_files,
    listing_hash,
)
from cf_lab_resources.engine.licences import licence_of
from cf_lab_resources.engine.model_sources import (
    CARD,
    DiskError,
    Listing,
    ModelSource,
    ModelUnavailable,
    fetch,
    open_source,
)
from cf_lab_resources.engine.model_uris import ARTIFACT, HUB, STARTER, ModelUri
from cf_lab_resources.errors import LabError

# The starter models are the package's own work, under its licence.
STARTER_LICENCE = "MIT"

# Prefix of all that this module keeps in the bucket.
MODELS = "models"

Announce = Callable[[str], None]


class ModelDamaged(LabError):
    """Model files that are not the ones their manifest vouches for."""


@dataclass(frozen=True)
class FileRecord:
    """A file's SHA-256 and size."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What is on record of a model in the bucket.

    Attributes:
        uri: where it came from.
        revision: the hub's commit, the package's version, or None.
        sha256: of the files' paths and hashes; names the model.
        family: of its architecture, such as siglip or stable-diffusion.
        licence: as the model's card names it, None where it names none.
        card: whether there is a model card.
        files: by path.
        left_out: paths that the source has and that were not taken.
        parent: hash of the model that this one was made from.
        variant: how.
    """

    uri: str
    revision: str | None
    sha256: str
    family: str
    licence: str | None
    card: bool
    files: dict[str, FileRecord] = field(repr=False)
    left_out: tuple[str, ...] = field(default=(), repr=False)
    parent: str | None = None
    variant: str | None = None

    @property
    def total_bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files.values())

    def to_json(self) -> bytes:
        """As it lies in the bucket."""
        return json.dumps({**asdict(self), "total_bytes": self.total_bytes}, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """The inverse of `to_json`.

        Raises:
            ValueError: it is no manifest.
        """
        try:
            stored = json.loads(data)
            stored.pop("total_bytes")
            stored["files"] = {path: FileRecord(**one) for path, one in stored["files"].items()}
            return cls(**{**stored, "left_out": tuple(stored["left_out"])})
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"no manifest of a model: {error}") from error


def file_key(file: FileRecord) -> str:
    """Where a file of a model lies in the bucket."""
    return content_key("models", file.sha256, "")


def manifest_key(sha256: str) -> str:
    """Where a model's manifest lies in the bucket."""
    return f"{MODELS}/{sha256}/manifest.json"


def uri_key(uri: ModelUri) -> str:
    """Where the bucket says what a URI stands for."""
    return f"{MODELS}/uris/{hashlib.sha256(str(uri).encode()).hexdigest()}.json"


def recorded(bucket: Bucket, uri: ModelUri) -> Manifest | None:
    """The model that a URI stands for, None where it was never resolved.

    Raises:
        ModelDamaged: its record can't be read.
    """
    return _recorded(bucket, uri)[0]


def _recorded(bucket: Bucket, uri: ModelUri) -> tuple[Manifest | None, str | None]:
    """The model, and the version of the listing that it was fetched by."""
    key = uri_key(uri)
    try:
        if uri.scheme == ARTIFACT:
            key = manifest_key(uri.path)
            return Manifest.from_json(bucket.get_bytes(key)), None
        pointer = json.loads(bucket.get_bytes(key))
        found = {"uri": pointer["uri"], "revision": pointer["revision"]}
        version = pointer["version"]
        key = manifest_key(pointer["sha256"])
        return replace(Manifest.from_json(bucket.get_bytes(key)), **found), version
    except BucketKeyError:
        return None, None
    except (ValueError, LookupError, TypeError) as error:
        raise ModelDamaged(
            f"{bucket.url(key)} can't be read ({error}); restore it from a backup, or remove it "
            "and materialise models/artifacts again"
        ) from error


def resolve(
    bucket: Bucket, uri: ModelUri, cache: Path, starter: Path, announce: Announce = print
) -> Manifest:
    """The model that a URI stands for, fetched into the bucket where it is not there yet.

    Args:
        bucket: keeps it.
        uri: names it.
        cache: folder of this machine's copies.
        starter: folder of the starter models.
        announce: called with a line for each file that is fetched.

    Raises:
        ModelUnavailable: its source does not have it, or can't be reached.
        ModelRefused: it can't be loaded safely, or has another hash than the URI asks for.
        DiskError: there is no room in the cache.
        BucketError: the bucket failed.
    """
    if uri.scheme == STARTER:
        folder = starter / uri.path
        check_folder(folder)
        return store(bucket, folder, uri, __version__, licence=STARTER_LICENCE)
    found, version = _recorded(bucket, uri)
    whole = found is not None and is_whole(bucket, found)
    if found and whole and (uri.revision or uri.scheme == ARTIFACT):
        return found
    if uri.scheme == ARTIFACT:
        raise ModelUnavailable(f"model {uri} is not in {bucket!r}, or lacks files there")
    # A branch that has moved since is asked for the commit that it stood for.
    pinned = found.revision if found and uri.scheme == HUB else uri.revision
    source = open_source(replace(uri, revision=pinned))
    listing = source.listing()
    if found and whole and version == listing.version:
        return found
    return _fetch(bucket, uri, source, listing, cache, announce)


def _fetch(
    bucket: Bucket,
    uri: ModelUri,
    source: ModelSource,
    listing: Listing,
    cache: Path,
    announce: Announce,
) -> Manifest:
    with _staging(cache, uri, listing) as staging:
        for number, file in enumerate(listing.files, start=1):
            announce(f"{uri} {number}/{len(listing.files)}: {file.path}, {file.bytes:,} bytes")
            fetch(source, file, staging / file.path)
        try:
            check_folder(staging)
            sha256 = listing_hash(folder_files(staging))
            if uri.scheme != HUB and uri.revision not in (None, sha256):
                raise ModelRefused(f"its content has the hash {sha256}, which is not the one asked")
            manifest = store(
                bucket,
                staging,
                uri,
                listing.revision,
                left_out=listing.left_out,
                version=listing.version,
            )
        except ModelRefused as error:
            shutil.rmtree(staging)
            said = str(error).replace(f"{staging}/", "")
            raise ModelRefused(f"model {uri}: {said}") from error
        _move_in(staging, cache / manifest.sha256)
    return manifest


@contextmanager
def _staging(cache: Path, uri: ModelUri, listing: Listing) -> Iterator[Path]:
    """The folder that a model is fetched into, of one process at a time.

    Named by what the source has now: what was fetched of another version is thrown away.
    """
    import filelock

    name = uri_key(uri).rpartition("/")[2][:16]
    parent = cache / "fetching"
    staging = parent / f"{name}-{listing.version[:16]}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(
            f"{parent} can't be written to ({error.strerror}); set CF_LAB_HOME to another folder"
        ) from error
    with filelock.FileLock(parent / f"{name}.lock"):
        for other in parent.glob(f"{name}-*"):
            if other != staging:
                shutil.rmtree(other)
        have = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
        need, free = listing.bytes - have, shutil.disk_usage(parent).free
        if need > free:
            raise DiskError(
                f"model {uri} needs {need:,} bytes more and {parent} has {free:,} free; make "
                "room, or set CF_LAB_HOME to a folder on a larger disk"
            )
        yield staging


def store(
    bucket: Bucket,
    folder: Path,
    uri: ModelUri | None,
    revision: str | None,
    *,
    licence: str | None = None,
    left_out: tuple[str, ...] = (),
    version: str | None = None,
    parent: str | None = None,
    variant: str | None = None,
) -> Manifest:
    """Put a folder that was looked through into the bucket; idempotent.

    Args:
        bucket: keeps it.
        folder: the model's files and nothing else.
        uri: where it came from; None of what the lab made itself.
        revision: of the source.
        licence: where the model has no card that names it.
        left_out: paths that were not taken.
        version: of the source's listing.
        parent: hash of the model that it was made from.
        variant: how.

    Raises:
        BucketError: the bucket failed.
    """
    hashes = folder_files(folder)
    files = {path: FileRecord(sha, (folder / path).stat().st_size) for path, sha in hashes.items()}
    sha256 = listing_hash(hashes)
    pipeline = pipeline_class(folder) if (folder / "model_index.json").exists() else ""
    manifest = Manifest(
        uri=str(uri or ModelUri(ARTIFACT, sha256)),
        revision=revision,
        sha256=sha256,
        family=_family(folder, pipeline),
        licence=licence_of(folder, pipeline) or licence,
        card=CARD in files,
        files=files,
        left_out=left_out,
        parent=parent,
        variant=variant,
    )
    for path in _missing(bucket, manifest):
        bucket.put_file(file_key(files[path]), folder / path)
    bucket.create(manifest_key(sha256), manifest.to_json())
    if uri:
        pointer = {"uri": str(uri), "revision": revision, "sha256": sha256, "version": version}
        bucket.put_bytes(uri_key(uri), json.dumps(pointer).encode())
    return manifest


def _family(folder: Path, pipeline: str) -> str:
    if pipeline:
        return "stable-diffusion" if pipeline.startswith("StableDiffusion") else pipeline
    try:
        return str(json.loads((folder / "config.json").read_text())["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelRefused(
            "it has neither a model_index.json nor a config.json with a model_type; "
            "give the folder of a model saved by diffusers or transformers"
        ) from error


def is_whole(bucket: Bucket, manifest: Manifest) -> bool:
    """Whether all files are there in their sizes; their bytes are what `damages` looks at."""
    return not _missing(bucket, manifest)


def _missing(bucket: Bucket, manifest: Manifest) -> list[str]:
    return [p for p, file in manifest.files.items() if _size(bucket, file) != file.bytes]


def _size(bucket: Bucket, file: FileRecord) -> int | None:
    try:
        return bucket.size(file_key(file))
    except BucketKeyError:
        return None


def damages(bucket: Bucket, manifest: Manifest, cache: Path) -> list[str]:
    """Every file of the bucket and of this machine's copy that is missing, added or changed.

    All of them are read. A copy that was never made is no damage.

    Raises:
        BucketError: the bucket failed.
    """
    found = []
    for path, file in manifest.files.items():
        key = file_key(file)
        try:
            with bucket.open(key) as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()  # type: ignore[arg-type]
        except BucketKeyError:
            digest = None
        if digest != file.sha256:
            what = "changed" if digest else "missing"
            found.append(
                f"{path} of {manifest.uri} is {what}: restore {bucket.url(key)} from a backup, or "
                "remove it and materialise models/artifacts again"
            )
    folder = cache / manifest.sha256
    if folder.is_dir():
        found += [
            f"{folder / path} is changed, missing or added: remove {folder}, which is copied anew "
            "from the bucket"
            for path in _unlike(folder, manifest)
        ]
    return found


def _unlike(folder: Path, manifest: Manifest) -> list[str]:
    """Paths of a folder that are not as the manifest says."""
    there = folder_files(folder)
    expected = {path: file.sha256 for path, file in manifest.files.items()}
    return sorted(p for p in {*there, *expected} if there.get(p) != expected.get(p))


def local_folder(bucket: Bucket, manifest: Manifest, cache: Path) -> Path:
    """A folder of this machine with a model's files, each compared with its hash.

    Made from the bucket where it is not there; what is damaged in it is fetched again.

    Raises:
        ModelDamaged: the bucket's own files are damaged.
        BucketError: the bucket failed, or has not all files.
        DiskError: there is no room for them.
    """
    folder = cache / manifest.sha256
    if folder.is_dir() and not _unlike(folder, manifest):
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".copying-", dir=cache) as temporary:
            copy = Path(temporary) / "files"
            for path, file in manifest.files.items():
                _copy_in(bucket, file, folder / path, copy / path)
            _move_in(copy, folder)
    except OSError as error:
        raise DiskError(
            f"model {manifest.uri} can't be copied to {folder} ({error.strerror}); make room for "
            f"{manifest.total_bytes:,} bytes"
        ) from error
    return folder


def _copy_in(bucket: Bucket, file: FileRecord, have: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if have.is_file() and file_hash(have) == file.sha256:
        try:
            os.link(have, target)
        except OSError:  # some network mounts know no hard links
            shutil.copyfile(have, target)
        return
    key = file_key(file)
    bucket.get_file(key, target)
    if file_hash(target) != file.sha256:
        raise ModelDamaged(
            f"{bucket.url(key)} is not the file that its manifest names; restore it from a backup, "
            "or remove it and materialise models/artifacts again"
        )


def _move_in(folder: Path, target: Path) -> None:
    """Put a whole folder in the place of another."""
    with tempfile.TemporaryDirectory(prefix=".replaced-", dir=target.parent) as old:
        if target.is_dir():
            os.replace(target, Path(old) / "files")
        os.replace(folder, target)


def file_metadata(manifest: Manifest) -> dict[str, Any]:
    """Of a model, what tables show."""
    return {
        "uri": manifest.uri,
        "revision": manifest.revision or "",
        "licence": manifest.licence or "not stated",
        "bytes": manifest.total_bytes,
        "sha256": manifest.sha256,
    }
