"""Where model files are fetched from: the Hugging Face hub, S3, a folder.

A source lists its files and reads one from any byte on, and so every kind of download goes on
where it stopped. Only files that a safe load needs are listed: safetensors, configurations,
tokenizers, card and licence. A hub's repository holds much else for other frameworks, which is
left out; a pickle or code in a folder or bucket of your own is refused instead, since whoever put
it there may count on its being used.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cf_lab_resources.bucket import Bucket, BucketError, check_key, open_bucket
from cf_lab_resources.engine.folders import CODE, PICKLES, ModelRefused, file_hash
from cf_lab_resources.engine.model_uris import FOLDER, HUB, S3, ModelUri
from cf_lab_resources.errors import LabError

WEIGHTS = ".safetensors"
WANTED = {WEIGHTS, ".json", ".txt", ".model", ".jinja"}  # the last one: chat templates
CARD = "README.md"
# Qwen-Image-Edit, one of the largest open editors, has about 60 GB.
MAX_MODEL_BYTES = 120_000_000_000
# Of a file that is no weights: Gemma's tokenizer.json, the longest that we know, has 33 MB.
MAX_SIDE_BYTES = 64_000_000
MAX_FILES = 1000
CHUNK_BYTES = 4 * 1024 * 1024
HUB_TIMEOUT = 30.0  # seconds without any answer


class ModelUnavailable(LabError):
    """A model's files can't be had: not there, withdrawn, forbidden, or out of reach."""


class DiskError(LabError):
    """A model's files can't be written, mostly for want of room."""


@dataclass(frozen=True)
class SourceFile:
    """A file that a source has.

    Attributes:
        path: relative to the model's folder.
        bytes: its size.
        version: changes when the file does; made by the source, no hash of anything we know.
        sha256: of its content, where the source knows it.
        git_sha1: git's hash of its content, likewise.
    """

    path: str
    bytes: int
    version: str
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True)
class Listing:
    """The files of a model that are wanted.

    Attributes:
        revision: commit of the hub's repository, None of other sources.
        files: in no promised order.
        left_out: paths of the others.
    """

    revision: str | None
    files: tuple[SourceFile, ...]
    left_out: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def version(self) -> str:
        """A hash that changes when any file does, SHA-256."""
        lines = sorted(f"{file.path} {file.bytes} {file.version}" for file in self.files)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class ModelSource(ABC):
    """Lists the files of one model and reads them."""

    @abstractmethod
    def listing(self) -> Listing:
        """The files.

        Raises:
            ModelUnavailable: there are none, or the source can't be reached.
            ModelRefused: they can't be taken: too large, no safetensors, pickles, code.
        """

    @abstractmethod
    def read(self, file: SourceFile, offset: int) -> Iterator[bytes]:
        """The bytes of a file from an offset on, in pieces.

        Raises:
            ModelUnavailable: the file is gone, or the source can't be reached any more.
        """


def open_source(uri: ModelUri) -> ModelSource:
    """The source of a model that lies outside the lab.

    Raises:
        ValueError: the URI names one inside.
    """
    if uri.scheme == HUB:
        return HubSource(uri)
    if uri.scheme == S3:
        return BucketSource(uri)
    if uri.scheme == FOLDER:
        return FolderSource(Path(uri.path), str(uri))
    raise ValueError(f"{uri} is no model of an outside source")


def fetch(source: ModelSource, file: SourceFile, target: Path) -> str:
    """Fetch a file, going on where an earlier attempt stopped.

    Args:
        source: has it.
        file: of the source's listing.
        target: appears whole and with the announced hash, or not at all; a file that is there was
            fetched of the same version.

    Returns:
        SHA-256 of the file.

    Raises:
        ModelUnavailable: the source ended too early, or sent something else than it announced.
        DiskError: it can't be written.
    """
    if target.is_file():
        return _checked_hash(file, target)
    part = target.with_name(f"{target.name}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as out:
            have = out.tell()
            if have > file.bytes:
                have = out.truncate(0)
            if have < file.bytes:
                for chunk in source.read(file, have):
                    out.write(chunk)
    except OSError as error:
        raise DiskError(
            f"{file.path} can't be written to {part} ({error.strerror}); make room for "
            f"{file.bytes:,} bytes there and run again, which goes on where it stopped"
        ) from error
    size = part.stat().st_size
    if size < file.bytes:
        raise ModelUnavailable(
            f"{file.path} ended after {size:,} of {file.bytes:,} bytes; run again, which goes on "
            "from there"
        )
    digest = _checked_hash(file, part)
    os.replace(part, target)
    return digest


def _checked_hash(file: SourceFile, path: Path) -> str:
    """SHA-256 of a fetched file; one that is not what was announced is removed."""
    digest = file_hash(path)
    wrong = path.stat().st_size != file.bytes or file.sha256 not in (None, digest)
    if file.git_sha1 and not wrong:
        wrong = file.git_sha1 != _git_sha1(path)
    if wrong:
        path.unlink()
        raise ModelUnavailable(
            f"{file.path} came with other bytes than its source announced; run again, and if that "
            "repeats, ask whoever runs the source"
        )
    return digest


def _git_sha1(path: Path) -> str:
    """Git's name of a file's content, which the hub gives of small files."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def select(model: str, files: Iterable[SourceFile], revision: str | None, own: bool) -> Listing:
    """The files that are wanted, of all that a source has.

    Args:
        model: named in errors.
        files: all of them.
        revision: of the listing.
        own: whether pickles and code are refused, rather than left out.

    Raises:
        ModelRefused: see `ModelSource.listing`.
    """
    known = {file.path: file for file in files}
    wanted = {path for path in known if _is_wanted(path)}
    in_parts = "model_index.json" in wanted
    for path in sorted(wanted):
        plain = PurePosixPath(path)
        if plain.suffix != WEIGHTS:
            continue
        # A pipeline's weights lie in its parts' folders; what lies beside its index is the same
        # once more as one file. `x.fp16.safetensors` is a variant of `x.safetensors`.
        once_more = in_parts and len(plain.parts) == 1
        variant = str(plain.with_suffix("").with_suffix(WEIGHTS))
        if once_more or (variant != path and variant in known):
            wanted.discard(path)
    dangerous = sorted(p for p in known if PurePosixPath(p).suffix in PICKLES | CODE)
    if dangerous and (own or not any(path.endswith(WEIGHTS) for path in wanted)):
        raise ModelRefused(
            f"model {model} holds {dangerous[0]}, which may run code when it is read; save the "
            "model as safetensors and remove that file"
        )
    chosen = tuple(known[path] for path in sorted(wanted))
    _check_listing(model, chosen)
    return Listing(revision, chosen, tuple(sorted(known.keys() - wanted)))


def _is_wanted(path: str) -> bool:
    parts = PurePosixPath(path).parts
    name = parts[-1]
    if any(part.startswith(".") for part in parts):
        return False
    return name == CARD or name.startswith("LICENSE") or PurePosixPath(name).suffix in WANTED


def _check_listing(model: str, files: tuple[SourceFile, ...]) -> None:
    if not any(file.path.endswith(WEIGHTS) for file in files):
        raise ModelRefused(f"model {model} has no .safetensors file; save its weights as such")
    if len(files) > MAX_FILES:
        raise ModelRefused(
            f"model {model} has {len(files):,} files and {MAX_FILES:,} are allowed; name the "
            "folder of one model"
        )
    for file in files:
        try:
            check_key(file.path)
        except ValueError as error:
            raise ModelRefused(f"model {model}: a file can't be kept: {error}") from error
        if not file.path.endswith(WEIGHTS) and file.bytes > MAX_SIDE_BYTES:
            raise ModelRefused(
                f"model {model}: {file.path} has {file.bytes:,} bytes and {MAX_SIDE_BYTES:,} are "
                "allowed to a file that is no weights; remove it if it is none of the model's"
            )
    total = sum(file.bytes for file in files)
    if total > MAX_MODEL_BYTES:
        raise ModelRefused(
            f"model {model} has {total:,} bytes and {MAX_MODEL_BYTES:,} are allowed; choose a "
            "smaller one"
        )


class FolderSource(ModelSource):
    """A folder on this machine."""

    def __init__(self, folder: Path, name: str = "") -> None:
        """Name the folder; errors call it ``name``."""
        self._folder, self._name = folder, name or str(folder)

    def listing(self) -> Listing:
        """See `ModelSource.listing`."""
        if not self._folder.is_dir():
            raise ModelUnavailable(
                f"model {self._name}: there is no folder {self._folder}; give that of a saved model"
            )
        files = []
        for path in self._folder.rglob("*"):
            if path.is_file():
                found = path.stat()
                name = path.relative_to(self._folder).as_posix()
                files.append(SourceFile(name, found.st_size, str(found.st_mtime_ns)))
        return select(self._name, files, None, own=True)

    def read(self, file: SourceFile, offset: int) -> Iterator[bytes]:
        """See `ModelSource.read`."""
        try:
            with (self._folder / file.path).open("rb") as opened:
                opened.seek(offset)
                while chunk := opened.read(CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            raise ModelUnavailable(
                f"model {self._name}: {file.path} can't be read: {error.strerror}"
            ) from error


class BucketSource(ModelSource):
    """Objects below a prefix of an S3 bucket."""

    def __init__(self, uri: ModelUri) -> None:
        """Name the place; nothing is opened yet."""
        self._uri = uri

    def _open(self) -> Bucket:
        return open_bucket(f"s3://{self._uri.path}")

    def listing(self) -> Listing:
        """See `ModelSource.listing`."""
        with self._errors():
            files = [
                SourceFile(found.key, found.size, found.etag or "") for found in self._open().list()
            ]
        if not files:
            raise ModelUnavailable(
                f"model {self._uri}: nothing lies there; give the folder of a saved model"
            )
        return select(str(self._uri), files, None, own=True)

    def read(self, file: SourceFile, offset: int) -> Iterator[bytes]:
        """See `ModelSource.read`."""
        with self._errors(), self._open().open(file.path) as opened:
            opened.seek(offset)
            while chunk := opened.read(CHUNK_BYTES):
                yield chunk

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except BucketError as error:
            raise ModelUnavailable(f"model {self._uri} can't be fetched: {error}") from error


class HubSource(ModelSource):
    """A repository of a Hugging Face hub, at one commit from the listing on.

    `HF_TOKEN` and `HF_ENDPOINT` are the hub's own variables.
    """

    def __init__(self, uri: ModelUri) -> None:
        """Name the repository and revision; nothing is asked yet."""
        self._uri = uri
        self._endpoint = os.environ.get("HF_ENDPOINT") or None
        self._commit = str(uri.revision)

    def listing(self) -> Listing:
        """See `ModelSource.listing`."""
        from huggingface_hub import HfApi

        with self._errors():
            found = HfApi(endpoint=self._endpoint).model_info(
                self._uri.path,
                revision=self._uri.revision,
                files_metadata=True,
                timeout=HUB_TIMEOUT,
            )
        self._commit = str(found.sha)
        files = [_hub_file(sibling) for sibling in found.siblings or []]
        return select(str(self._uri), files, self._commit, own=False)

    def read(self, file: SourceFile, offset: int) -> Iterator[bytes]:
        """See `ModelSource.read`."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        url = hf_hub_url(self._uri.path, file.path, revision=self._commit, endpoint=self._endpoint)
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with (
            self._errors(file.path),
            get_session().stream(
                "GET", url, headers=headers, follow_redirects=True, timeout=HUB_TIMEOUT
            ) as answer,
        ):
            hf_raise_for_status(answer)
            # Some proxies know no ranges and send the whole file again.
            known = offset if answer.status_code == 200 else 0
            for chunk in answer.iter_bytes():
                yield chunk[known:]
                known = max(0, known - len(chunk))

    @contextmanager
    def _errors(self, path: str = "") -> Iterator[None]:
        from huggingface_hub import errors

        # The hub's client raises errors of its HTTP library, whose name has changed; its own
        # are children of that library's.
        transport: tuple[Any, ...] = errors.HfHubHTTPError.__bases__
        file = f" {path}" if path else ""
        try:
            yield
        except errors.GatedRepoError as error:
            why = "its owners ask that you accept their terms; do so on its page, and set HF_TOKEN"
            raise self._unavailable(file, why) from error
        except errors.RevisionNotFoundError as error:
            why = f"revision {self._commit} is gone from the hub; name one that it has"
            raise self._unavailable(file, why) from error
        except errors.RepositoryNotFoundError as error:
            why = (
                "the hub has no such repository, or none for you: check the name, and set HF_TOKEN "
                "if it is private; it may also have been withdrawn"
            )
            raise self._unavailable(file, why) from error
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            why = f"the hub answers {status}; " + (
                "it was withdrawn or is not for you: choose another revision, or set HF_TOKEN"
                if 400 <= status < 500
                else "try again later"
            )
            raise self._unavailable(file, why) from error
        except (OSError, ValueError, *transport) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise self._unavailable(
                file, f"the hub can't be reached ({said}); run again, which goes on from here"
            ) from error

    def _unavailable(self, file: str, why: str) -> ModelUnavailable:
        return ModelUnavailable(f"model {self._uri}{file} can't be fetched: {why}")


def _hub_file(sibling: Any) -> SourceFile:
    """The hub tells SHA-256 of large files, git's hash of small ones."""
    large = sibling.lfs
    return SourceFile(
        sibling.rfilename,
        int(sibling.size or 0),
        str(sibling.blob_id),
        large.sha256 if large else None,
        None if large else sibling.blob_id,
    )
