"""WebDataset shards: tar archives whose members with one basename in a row are one sample.

The picture is the member with a picture's suffix, the caption that in `.txt`, or `text` or
`caption` of `.json`, whose other keys become columns. Archives are read once from front to back and
nothing is extracted, so that neither a member's name nor a link can lead anywhere. Sizes are looked
at before a member is read. An archive that is cut off or damaged refuses the delivery, since
nobody can know what it held.
"""

from __future__ import annotations

import gzip
import itertools
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast

from cf_lab_assets.sources.captions import printable
from cf_lab_assets.sources.deliveries import PICTURE_SUFFIXES, safe_name
from cf_lab_assets.sources.refusals import DeliveryRefused, Rejected, RowRefused
from cf_lab_assets.sources.rows import (
    CAPTION,
    TEXT,
    Kind,
    Row,
    Rows,
    malformed,
    parse_object,
    rejected,
    take_caption,
    texts,
)

if TYPE_CHECKING:
    from cf_lab_assets.sources.deliveries import Delivery
    from cf_lab_resources.images import Limits

SUFFIXES = (".tar", ".tar.gz", ".tgz")
TEXT_SUFFIXES = ("txt", "json")
MAX_TEXT_BYTES = 1024 * 1024  # of a caption or its columns
MAX_HEADER_BYTES = 1024 * 1024  # long names and PAX records, which tarfile reads whole
MAX_MEMBERS = 100  # of one sample; more are a mistake in the names
SKIP_BYTES = 1024 * 1024
NOT_READ = "members_not_read"  # the column that names what else a sample had

_ADLER_PRIME = 65521
# ValueError and OverflowError come of numbers in headers, RecursionError of headers on headers.
_DAMAGE = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    ValueError,
    OverflowError,
    RecursionError,
)


@dataclass
class _Sample:
    """What was found of a sample."""

    key: str
    picture: tuple[str, bytes] | None = None
    texts: dict[str, bytes] = field(default_factory=dict)
    not_read: list[str] = field(default_factory=list)
    refused: tuple[str, str] | None = None


def _row_files(names: Sequence[str]) -> list[str]:
    return sorted(name for name in names if name.lower().endswith(SUFFIXES))


def _rows(delivery: Delivery, files: Sequence[str], limits: Limits) -> Rows:
    numbers = itertools.count(1)
    for name in files:
        with delivery.open(name) as file, _damage_refused(name):
            for sample in _samples(file, limits):
                yield _row(next(numbers), name, sample)


KIND = Kind(
    name="WebDataset",
    form=f"shards ({', '.join(SUFFIXES)}), in which a picture and a .txt or .json of the same "
    "basename are a sample",
    pictures="rows",
    row_files=_row_files,
    rows=_rows,
)


class _Forward:
    """An archive's bytes, read once from front to back, as `tarfile` wants to see them.

    Before each header `tarfile` looks at the byte in front of it again, which tells whether the
    archive reaches that far; it is the only step back. It reads nothing but headers here, so that
    a large size is one that a header merely declares.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0
        self._done = 0
        self._last = b""
        self.header = b""

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> None:
        while self._done < to and self.data(min(to - self._done, SKIP_BYTES)):
            pass
        self._at = max(to, self._done - 1)

    def read(self, size: int) -> bytes:
        if size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"it declares a header of {size:,} bytes")
        self.header = self.data(size)
        return self.header

    def data(self, size: int) -> bytes:
        """The next bytes; fewer at the end."""
        if size < 0:
            raise tarfile.ReadError(f"it declares a size of {size:,} bytes")
        behind = self._last if self._at < self._done else b""
        data = behind + self._file.read(size - len(behind))
        self._done += len(data) - len(behind)
        self._at = self._done
        self._last = data[-1:]
        return data


class _Member(tarfile.TarInfo):
    """A header that is read in a third of the time where it is that of a plain file.

    Of three members of a sample with a small picture, `tarfile` takes longer to read the headers
    than the picture takes to decode. What is not as plain as that is left to it, and so are errors.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """The member that a header block stands for; see `tarfile.TarInfo.frombuf`."""
        plain = (
            buf[156:158] == b"0\0"  # a file, and no target of a link
            and buf[257:262] == b"ustar"
            and buf[345:346] == b"\0"  # the name has no first part elsewhere
            and buf[124:135].isdigit()
            and buf[148:154].isdigit()
        )
        if plain:
            # Adler-32's low half is one more than the sum of the bytes, modulo a prime; the
            # checksum is that sum with blanks in its own place.
            declared = 1 + int(buf[148:154], 8) + sum(buf[148:156]) - 8 * ord(" ")
            plain = zlib.adler32(buf) & 0xFFFF == declared % _ADLER_PRIME
        if not plain:
            return super().frombuf(buf, encoding, errors)
        member = cls(buf[:100].partition(b"\0")[0].decode(encoding, errors))
        member.size = int(buf[124:135], 8)
        return member


@contextmanager
def _damage_refused(name: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise DeliveryRefused(
            "damaged_archive",
            f"{name} is cut off or damaged: {str(error) or 'unexpected end'}; send it again",
        ) from error


def _samples(file: BinaryIO, limits: Limits) -> Iterator[_Sample]:
    """The samples of an archive; raises what is in `_DAMAGE`."""
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    forward = _Forward(cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file)
    sample = None
    with tarfile.open(fileobj=cast(BinaryIO, forward), mode="r:", tarinfo=_Member) as opened:
        tar: Any = opened  # the stubs lack `members`
        while (member := tar.next()) is not None:
            tar.members.clear()  # it would remember all
            tar.pax_headers.clear()
            folder, _, base = member.name.rpartition("/")
            if member.isdir() or base.startswith("."):
                continue
            stem, _, suffix = base.partition(".")
            key = f"{folder}/{stem}" if folder else stem
            if sample is None or sample.key != key:
                if sample:
                    yield sample
                sample = _Sample(key, refused=_name_refused(key))
            _add(sample, member, suffix.lower(), forward, limits)
    _check_end(forward)
    if sample:
        yield sample


def _check_end(forward: _Forward) -> None:
    """`tarfile` ends at the first header that it can't read, as if that were the end mark."""
    if forward.header != tarfile.NUL * tarfile.BLOCKSIZE:
        what = "it has a damaged header" if forward.header else "its end mark is missing"
        raise tarfile.ReadError(what)
    while data := forward.data(SKIP_BYTES):
        if data.strip(tarfile.NUL):
            raise tarfile.ReadError("it goes on after its end mark; are these archives joined?")


def _add(
    sample: _Sample, member: tarfile.TarInfo, suffix: str, forward: _Forward, limits: Limits
) -> None:
    if sample.refused:
        return
    picture = f".{suffix}" in PICTURE_SUFFIXES
    if not picture and suffix not in TEXT_SUFFIXES:
        sample.not_read = [*sample.not_read, printable(repr(suffix), 80) or ""][:MAX_MEMBERS]
        return
    if picture and sample.picture:
        sample.refused = "two_pictures", "the sample has more than one picture"
        return
    sample.refused = _refusal(member, limits.max_bytes if picture else MAX_TEXT_BYTES)
    if sample.refused:
        return
    data = forward.data(member.size)
    if len(data) < member.size:
        raise tarfile.ReadError(f"it ends within {printable(member.name, 200)}")
    if picture:
        sample.picture = (member.name, data)
    else:
        sample.texts[suffix] = data


def _name_refused(key: str) -> tuple[str, str] | None:
    try:
        safe_name(key)
    except RowRefused as refused:
        return refused.reason, str(refused)
    return None


def _refusal(member: tarfile.TarInfo, max_bytes: int) -> tuple[str, str] | None:
    """Why a member is not read: a reason code and a sentence."""
    name = printable(member.name, 200)
    if member.issym() or member.islnk():
        return "symlink", f"{name} is a link; put the file itself into the archive"
    if not member.isreg() or member.issparse():
        return "not_a_file", f"{name} is no plain file"
    if member.size > max_bytes:
        return "too_many_bytes", f"{name} has {member.size:,} bytes; the limit is {max_bytes:,}"
    return None


def _row(number: int, shard: str, sample: _Sample) -> Row | Rejected:
    name = sample.picture[0] if sample.picture else sample.key
    place = f"{shard}/{name.removeprefix('./')}"
    if sample.refused:
        return rejected(number, *sample.refused, place)
    values = parse_object(sample.texts.get("json", b"{}").decode("utf-8", "surrogateescape"))
    if isinstance(values, str):
        return malformed(number, f"the .json of {printable(sample.key, 200)}: {values}", place)
    text: object
    if "txt" in sample.texts:
        text = sample.texts["txt"].decode("utf-8", "surrogateescape")
        values = {k: v for k, v in values.items() if k not in (TEXT, CAPTION) or v != text}
    else:
        text = take_caption(values)
    if text is not None and not isinstance(text, str):
        return malformed(number, f"`{TEXT}` or `{CAPTION}` must be a string", place)
    if sample.picture is None:
        return rejected(number, "missing_picture", "the sample has no picture", place, text)
    if text is None:
        detail = f"the sample has no .txt, and no .json with `{TEXT}` or `{CAPTION}`"
        return rejected(number, "missing_caption", detail, place)
    if sample.not_read:
        values.setdefault(NOT_READ, ", ".join(sample.not_read))
    return Row(number, place, text, texts(values), sample.picture[1])
