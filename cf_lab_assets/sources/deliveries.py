"""A delivery: files in a folder on disk or in the bucket, or a single file; nothing is trusted."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from cf_lab_assets.sources.captions import printable
from cf_lab_assets.sources.refusals import DeliveryRefused, RowRefused
from cf_lab_resources.images import ImageRefused, Limits, read_image_file

if TYPE_CHECKING:
    from cf_lab_resources.bucket import Bucket

INCOMING = "incoming"
BUFFER_BYTES = 1024 * 1024  # read ahead of a stream
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Delivery(Protocol):
    """Where the files of a batch come from.

    Attributes:
        links: Symbolic links that `files` has passed over when it was last called.
    """

    links: int

    @property
    def where(self) -> str:
        """What messages call it."""
        ...

    def files(self) -> Iterator[tuple[str, int]]:
        """Path with forward slashes, and size, of every visible regular file."""
        ...

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A file that holds rows, to be read as a stream; it can seek.

        Raises:
            DeliveryRefused: It can't be read.
        """
        ...

    def read(self, name: str, limits: Limits) -> bytes:
        """The bytes of a picture.

        Raises:
            ImageRefused, RowRefused: It can't be had.
        """
        ...


def passed_over(links: int) -> str:
    """What to say of symbolic links in a delivery."""
    some = "symbolic link, which is" if links == 1 else "symbolic links, which are"
    return f"{links} {some} not followed (`cp -rL` copies what links point to)"


def safe_name(file_name: str) -> str:
    """The path below the delivery that a row names, in one spelling.

    Backslashes count as slashes, as metadata written on Windows has them.

    Raises:
        RowRefused: It is empty, has control characters or a blank at an end, or leads out of the
            delivery.
    """
    name = file_name.strip().replace("\\", "/")
    if not name:
        raise RowRefused("missing_file_name", "the row names no file")
    if _CONTROL.search(name):
        raise RowRefused("bad_file_name", "the file name holds control characters")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    safe = "/".join(parts)
    if name.startswith("/") or re.match("[A-Za-z]:", safe) or ".." in parts:
        raise RowRefused(
            "path_escapes",
            f"{printable(file_name, 200)} leads out of the delivery; name files relative to the "
            "metadata file, without `..`",
        )
    if not safe:
        raise RowRefused("missing_file_name", "the row names no file")
    if safe != safe.strip():
        raise RowRefused("bad_file_name", "the file name begins or ends with a blank")
    return safe


class FolderDelivery:
    """A folder on disk; symbolic links in it are not followed."""

    _no_links = os.O_NOFOLLOW

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.links = 0

    @property
    def where(self) -> str:
        """The folder."""
        return str(self._folder)

    def files(self) -> Iterator[tuple[str, int]]:
        """Every visible regular file below the folder.

        Raises:
            DeliveryRefused: The folder is missing or can't be read.
        """
        if not self._folder.is_dir():
            raise DeliveryRefused("missing_folder", f"{self._folder} is not a folder")
        self.links = 0
        folders = [""]  # no recursion: whoever delivers decides how deep folders go
        while folders:
            below = folders.pop()
            for entry in self._entries(below):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{below}{entry.name}/")
                elif entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                        yield below + entry.name, entry.stat(follow_symlinks=False).st_size
                elif entry.is_symlink():
                    self.links += 1

    def _entries(self, below: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self._folder / below) as entries:
                return [entry for entry in entries if not entry.name.startswith(".")]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DeliveryRefused(
                "unreadable_folder",
                f"{self._folder / below} can't be read: {error.strerror}; check its permissions",
            ) from error

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """The file itself, where no link has taken its place."""
        try:
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC | self._no_links)
        except OSError as error:
            raise DeliveryRefused(
                "unreadable_metadata", f"{name} can't be read: {error.strerror}"
            ) from error
        with os.fdopen(descriptor, "rb", BUFFER_BYTES) as file:
            yield file

    def read(self, name: str, limits: Limits) -> bytes:
        """The bytes of a file that no link leads to."""
        path = self._folder
        parts = name.split("/")
        for part in parts[:-1]:
            path = path / part
            if path.is_symlink():
                raise RowRefused(
                    "symlink",
                    f"{printable(name, 200)} lies behind a symbolic link; send the files "
                    "themselves (`cp -rL` copies what links point to)",
                )
        return read_image_file(path / parts[-1], limits)


class FileDelivery(FolderDelivery):
    """A single file on disk; a link that somebody has named as the delivery is followed."""

    _no_links = 0

    def __init__(self, path: Path) -> None:
        super().__init__(path.parent)
        self._path = path

    @property
    def where(self) -> str:
        """The file."""
        return str(self._path)

    def files(self) -> Iterator[tuple[str, int]]:
        """The file."""
        yield self._path.name, self._path.stat().st_size


class BucketDelivery:
    """Objects below a prefix of the bucket; each is fetched when its row comes."""

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self.links = 0
        self._sizes: dict[str, int] | None = None

    @property
    def where(self) -> str:
        """The prefix in the bucket."""
        return self._bucket.url(self._prefix)

    def _listed(self) -> dict[str, int]:
        if self._sizes is None:
            start = len(self._prefix) + 1
            self._sizes = {o.key[start:]: o.size for o in self._bucket.list(self._prefix)}
        return self._sizes

    def files(self) -> Iterator[tuple[str, int]]:
        """Every visible object below the prefix."""
        for name, size in sorted(self._listed().items()):
            if not any(part.startswith(".") for part in name.split("/")):
                yield name, size

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """The object, fetched in pieces as it is read."""
        with self._bucket.open(f"{self._prefix}/{name}") as file:
            yield file

    def read(self, name: str, limits: Limits) -> bytes:
        """The bytes of an object that the listing has and that is not too large."""
        from cf_lab_resources.bucket import BucketKeyError

        size = self._listed().get(name)
        if size is None:
            raise ImageRefused("missing_file", f"there is no file {printable(name, 200)}")
        if size > limits.max_bytes:
            raise ImageRefused(
                "too_many_bytes", f"{name} has {size:,} bytes; the limit is {limits.max_bytes:,}"
            )
        try:
            return self._bucket.get_bytes(f"{self._prefix}/{name}")
        except BucketKeyError as error:
            raise ImageRefused("missing_file", f"{name} was removed meanwhile") from error
        except ValueError as error:
            raise RowRefused(
                "bad_file_name", f"{name} is no key for every store; rename it"
            ) from error


def on_disk(path: Path) -> Delivery:
    """The delivery at a path: a folder, or a file such as a tar shard.

    Raises:
        DeliveryRefused: There is nothing, or neither of the two.
    """
    if path.is_dir():
        return FolderDelivery(path)
    if path.is_file():
        return FileDelivery(path)
    found = "neither a folder nor a file" if path.exists() else "not there"
    raise DeliveryRefused("missing_folder", f"{path} is {found}; name a folder or a file")


def in_bucket(bucket: Bucket, prefix: str) -> Delivery:
    """The delivery below a prefix of the bucket.

    A bucket that is a local folder is read as one: its store follows symbolic links, and whoever
    may drop files into `incoming/` should not be able to have any file of this machine read.
    """
    folder = _local_folder(bucket, prefix)
    if folder is None:
        return BucketDelivery(bucket, prefix)
    if folder.is_symlink():
        raise DeliveryRefused("missing_folder", f"{folder} is a symbolic link, not a folder")
    return FolderDelivery(folder)


def delivered(bucket: Bucket) -> Iterator[tuple[str, Delivery]]:
    """Name and delivery of every folder below `incoming/`, by name."""
    folder = _local_folder(bucket, INCOMING)
    if folder is None:
        names = {o.key.split("/")[1] for o in bucket.list(INCOMING) if o.key.count("/") > 1}
    elif folder.is_dir():
        entries = os.scandir(folder)
        names = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
    else:
        names = set()
    for name in sorted(names):
        if not name.startswith("."):
            yield name, in_bucket(bucket, f"{INCOMING}/{name}")


def _local_folder(bucket: Bucket, prefix: str) -> Path | None:
    url = bucket.url(prefix.strip("/"))
    return Path(unquote(urlsplit(url).path)) if url.startswith("file://") else None


def fingerprint(files: Iterable[tuple[str, int]]) -> str:
    """A hash of names and sizes: the same as long as a delivery looks the same."""
    digest = hashlib.sha256()
    for name, size in sorted(files):
        digest.update(f"{size} {name}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
