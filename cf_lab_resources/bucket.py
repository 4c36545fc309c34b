"""Object storage: one small class over a local folder, S3 or memory.

Only bytes and keys live here; what a key means is known to whoever writes it, except for content
keys, which are made and read back here. Every write is atomic: a reader, or the next run after a
kill, sees the old object or the new one and never a part. No compare-and-swap is built on,
since S3 look-alikes disagree about it: objects that must not change are created once under a
content key. A kill may leave a staged `<name>#<n>` file in a local folder, which no listing
shows.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import quote, unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError

from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from obstore import ReadableFile
    from obstore.store import ObjectStore, S3Config

MAX_KEY_BYTES = 1024  # S3's limit
MAX_SEGMENT_BYTES = 200  # a file name holds 255, and the local store adds a staging suffix
READ_AHEAD_BYTES = 4 * 1024 * 1024  # of a stream; a request to S3 takes some ten milliseconds
DELETE_BATCH = 1000  # keys in one S3 DeleteObjects request

# Control characters, and those that object_store percent-encodes, which would make the name of
# an object differ from its key.
_UNSAFE = re.compile(r"""[\x00-\x1f\x7f\\{}^%`\[\]"<>~#|*?]""")
_KIND = re.compile(r"[a-z][a-z0-9_-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUFFIX = re.compile(r"(\.[a-z0-9]+)*")
_CONTENT_KEY = re.compile(
    rf"objects/(?P<kind>{_KIND.pattern})/(?P<fan>[0-9a-f]{{2}})/"
    rf"(?P<sha256>{_SHA256.pattern})(?P<suffix>{_SUFFIX.pattern})"
)

# What to do about an error, by words in what the system or the store says of it.
_CURES = {
    "No space left|File too large|quota exceeded": "make room there and run again",
    "error sending request": "see that it runs and can be reached, and run again",
}
# How obstore ends what it says of a request after its own retries; a refusal is not retried.
_UNAVAILABLE = re.compile(r"error sending request|after [1-9]\d* retries")


class BucketError(LabError):
    """The object store failed or refused; the message names the store and the key."""


class BucketUnavailable(BucketError):
    """The object store was asked again and again, and could not be reached or was too busy."""

    passing = True


class BucketKeyError(BucketError, LookupError):
    """There is no object under the key."""


class ContentDamaged(BucketError):
    """The bytes under a content key are not those that it names."""


@dataclass(frozen=True)
class ObjectInfo:
    """A listed object: its key, its size in bytes, and what changes whenever it is written."""

    key: str
    size: int
    etag: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class ContentKey:
    """The parts of a content key: what it holds, the hash of the bytes, the file suffix."""

    kind: str
    sha256: str
    suffix: str

    def __str__(self) -> str:
        return content_key(self.kind, self.sha256, self.suffix)


def content_key(kind: str, sha256: str, suffix: str) -> str:
    """The key of bytes by their hash: `objects/<kind>/<ab>/<sha256><suffix>`.

    Args:
        kind: What it is, such as `images`; lower case.
        sha256: 64 lower-case hexadecimal digits.
        suffix: Empty, or like `.png`.

    Raises:
        ValueError: A part is malformed.
    """
    for name, value, pattern in (
        ("kind", kind, _KIND),
        ("sha256", sha256, _SHA256),
        ("suffix", suffix, _SUFFIX),
    ):
        if not pattern.fullmatch(value):
            raise ValueError(f"{name} of a content key must match {pattern.pattern}: {value!r}")
    return f"objects/{kind}/{sha256[:2]}/{sha256}{suffix}"


def parse_content_key(key: str) -> ContentKey:
    """The inverse of `content_key`.

    Raises:
        ValueError: The key is not a content key.
    """
    match = _CONTENT_KEY.fullmatch(key)
    if not match or match["fan"] != match["sha256"][:2]:
        raise ValueError(f"not a content key: {key!r}")
    return ContentKey(match["kind"], match["sha256"], match["suffix"])


def check_key(key: str) -> str:
    """Returns the key if every store takes it as it stands.

    Raises:
        ValueError: It is empty, too long, absolute, has an empty, `.` or `..` segment, a control
            character, or a character that object_store would encode.
    """
    if not key or len(key.encode()) > MAX_KEY_BYTES:
        raise ValueError(f"a key has 1 to {MAX_KEY_BYTES} bytes: {key[:80]!r}")
    if _UNSAFE.search(key):
        raise ValueError(
            f"a key must not hold control characters or any of {_UNSAFE.pattern}: {key!r}"
        )
    for segment in key.split("/"):
        if segment in ("", ".", "..") or len(segment.encode()) > MAX_SEGMENT_BYTES:
            raise ValueError(
                "a key is relative, and its segments are not empty, '.', '..' or longer than "
                f"{MAX_SEGMENT_BYTES} bytes: {key!r}"
            )
    return key


class Bucket:
    """Objects under keys such as `objects/images/ab/<sha256>.png`; safe to share among threads.

    Made by `open_bucket`. Every method raises `ValueError` for a malformed key and `BucketError`
    where the store fails.
    """

    def __init__(self, store: ObjectStore, url: str, folder: Path | None = None) -> None:
        self._store = store
        self._url = url.rstrip("/") if not url.endswith("://") else url
        self._bulk_delete = url.startswith("s3://")
        self._folder = folder

    def __repr__(self) -> str:
        return f"Bucket({self._url!r})"

    @property
    def root(self) -> str | None:
        """What `open_bucket` opens the same bucket by; None of one in memory."""
        return None if self._url.startswith("memory://") else self._url

    def url(self, key: str) -> str:
        """The address of an object, for people and metadata."""
        separator = "" if self._url.endswith("/") else "/"
        path = quote(check_key(key)) if self._url.startswith("file://") else check_key(key)
        return f"{self._url}{separator}{path}"

    def put_bytes(self, key: str, data: bytes) -> None:
        """Writes the object, over the one that may be there."""
        with self._errors(key):
            obstore.put(self._store, check_key(key), data)

    def create(self, key: str, data: bytes) -> bool:
        """Writes the object if the key is free; False, and nothing changed, where it is not."""
        try:
            if self._folder:
                _create_file(f"{self._folder}/{check_key(key)}", data)
            else:
                with self._errors(key):
                    # One request: a multipart upload cannot be conditional everywhere.
                    obstore.put(
                        self._store, check_key(key), data, mode="create", use_multipart=False
                    )
        except FileExistsError:
            return False
        except OSError as error:
            raise self._failed(key, str(error)) from error
        return True

    def put_content(self, kind: str, data: bytes, suffix: str) -> str:
        """Stores bytes under their content key, which it returns; idempotent.

        Where there is an object it is read, and written over if it was damaged.
        """
        key = content_key(kind, hashlib.sha256(data).hexdigest(), suffix)
        if not self.create(key, data) and not self.is_intact(key):
            self.put_bytes(key, data)
        return key

    def get_content(self, key: str) -> bytes:
        """The bytes under a content key, whose hash is compared with the key's.

        Raises:
            BucketKeyError: There are none.
            ContentDamaged: They are others.
        """
        data = self.get_bytes(key)
        if hashlib.sha256(data).hexdigest() != parse_content_key(key).sha256:
            raise ContentDamaged(
                f"{self._url}: {key!r} is damaged: its bytes have another hash than its key; "
                "run again what made it, or take its delivery in again"
            )
        return data

    def is_intact(self, key: str) -> bool:
        """Whether there are bytes under a content key, and those that it names."""
        try:
            self.get_content(key)
        except (BucketKeyError, ContentDamaged):
            return False
        return True

    def put_file(self, key: str, path: Path) -> None:
        """Writes a file's bytes in chunks, over the object that may be there."""
        with path.open("rb") as file, self._errors(key):
            obstore.put(self._store, check_key(key), file)

    def get_bytes(self, key: str) -> bytes:
        """The object's bytes.

        Raises:
            BucketKeyError: There is none.
        """
        with self._errors(key):
            return bytes(obstore.get(self._store, check_key(key)).bytes())

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """The object as a file to read, fetched in pieces; it can seek.

        Raises:
            BucketKeyError: There is no such object.
        """
        with self._errors(key):
            reader = obstore.open_reader(self._store, check_key(key), buffer_size=READ_AHEAD_BYTES)
            with io.BufferedReader(_ObjectReader(reader), READ_AHEAD_BYTES) as file:
                yield cast(BinaryIO, file)

    def get_file(self, key: str, path: Path) -> None:
        """Streams the object to a file, which appears whole or not at all.

        Raises:
            BucketKeyError: There is no such object.
        """
        with self._errors(key):
            stream = obstore.get(self._store, check_key(key)).stream()
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    for chunk in stream:
                        file.write(chunk)
                os.chmod(part, 0o644)  # mkstemp's 0600 would hide models from other users
                os.replace(part, path)
            except BaseException:
                Path(part).unlink(missing_ok=True)
                raise

    def exists(self, key: str) -> bool:
        """Whether there is an object under the key."""
        try:
            self.size(key)
        except BucketKeyError:
            return False
        return True

    def size(self, key: str) -> int:
        """The object's size in bytes.

        Raises:
            BucketKeyError: There is no such object.
        """
        with self._errors(key):
            return int(obstore.head(self._store, check_key(key))["size"])

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects below a prefix of whole segments, in no promised order.

        `a/b` finds `a/b/c` but neither `a/bc` nor an object `a/b` itself.
        """
        prefix = prefix.rstrip("/")
        if prefix:
            check_key(prefix)
        with self._errors(prefix):
            for chunk in obstore.list(self._store, prefix or None, chunk_size=1000):
                for entry in chunk:
                    yield ObjectInfo(entry["path"], int(entry["size"]), entry["e_tag"])

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects; keys without an object are passed over."""
        checked = [check_key(key) for key in keys]
        step = DELETE_BATCH if self._bulk_delete else 1
        for start in range(0, len(checked), step):
            try:
                with self._errors(checked[start]):
                    obstore.delete(self._store, checked[start : start + step])
            except BucketKeyError:
                continue

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except AlreadyExistsError as error:
            raise FileExistsError(key) from error
        except (NotFoundError, FileNotFoundError) as error:
            if "NoSuchBucket" in str(error):
                raise BucketError(
                    f"{self._url}: there is no such bucket; create it first"
                ) from error
            raise BucketKeyError(f"{self._url}: there is no object {key!r}") from error
        except BaseError as error:
            # What follows the first line is the store's own state, for its developers.
            raise self._failed(key, str(error).split("\n", 1)[0]) from error

    def _failed(self, key: str, said: str) -> BucketError:
        cures = (cure for words, cure in _CURES.items() if re.search(words, said))
        kind = BucketUnavailable if _UNAVAILABLE.search(said) else BucketError
        return kind("; ".join([f"{self._url}: {key!r}: {said}", *cures]))


def _create_file(path: str, data: bytes) -> None:
    """Writes a file that must not exist, as obstore does, in half the time for small ones.

    A staged file that a kill leaves behind has a name that obstore never lists.
    """
    staged = f"{path}#{secrets.randbits(62)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(staged, flags, 0o644)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(staged, flags, 0o644)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
        os.link(staged, path)
    finally:
        os.unlink(staged)


class _ObjectReader(io.RawIOBase):
    """Python's interface of files over obstore's."""

    def __init__(self, reader: ReadableFile) -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._reader.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._reader.seek(offset, whence)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._reader.read(len(buffer))
        buffer[: len(data)] = memoryview(data)
        return len(data)


def open_bucket(url: str) -> Bucket:
    """Opens `file:///folder` (made if missing), `s3://bucket/prefix` or `memory://`.

    S3 takes its credentials, region and `AWS_ENDPOINT_URL` from the standard environment
    variables; plain http is used only where that endpoint says http. A memory bucket is new and
    empty each time.

    Raises:
        ValueError: The URL is of none of these forms.
        BucketError: The folder cannot be made.
    """
    from obstore.store import LocalStore, MemoryStore

    parts = urlsplit(url)
    if parts.scheme == "memory":
        return Bucket(MemoryStore(), "memory://")
    if parts.scheme == "s3" and parts.netloc:
        return Bucket(_s3_store(parts.netloc, parts.path.strip("/")), url)
    if parts.scheme == "file" and not parts.netloc and len(parts.path) > 1:
        folder = Path(unquote(parts.path))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BucketError(f"{url}: the folder cannot be made: {error.strerror}") from error
        return Bucket(LocalStore(folder), folder.as_uri(), folder)
    raise ValueError(f"a bucket is file:///folder, s3://bucket/prefix or memory://, not {url!r}")


def _s3_store(name: str, prefix: str) -> ObjectStore:
    from obstore.store import S3Store

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    config: S3Config = {"region": region}
    if endpoint:
        config["endpoint"] = endpoint
    return S3Store(
        name,
        prefix=prefix or None,
        config=config,
        client_options={
            "allow_http": bool(endpoint and endpoint.startswith("http://")),
            "connect_timeout": "5s",
            "timeout": "10m",  # covers a whole body, and a model file has gigabytes
        },
    )
