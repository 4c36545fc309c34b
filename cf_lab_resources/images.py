"""Pictures from outside, made safe and alike: one bounded decode, one normal form.

Everything that the lab stores as a picture passes `normalise`: the format is told from the first
bytes and never from the name, the declared size is checked before a pixel is decoded, and what
comes out is an upright 8-bit RGB PNG without any metadata. A picture that is one already keeps its
own bytes, once they are known to decode. The same input gives the same bytes on one installation;
another encoder, or another build of Pillow, may compress the same pixels differently, so that two
pictures are the same where their pixels have the same hash.
"""

from __future__ import annotations

import base64
import errno
import functools
import hashlib
import io
import os
import re
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

# The first bytes of what is read, and of what people often send instead.
_READ = (
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("BMP", re.compile(rb"BM.{8}", re.DOTALL)),
    ("TIFF", re.compile(rb"II\*\x00|MM\x00\*")),
)
_NOT_READ = (
    ("AVIF or HEIC", re.compile(rb"....ftyp(avi|hei|hev|mif|msf)", re.DOTALL)),
    ("JPEG 2000", re.compile(rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51")),
    ("JPEG XL", re.compile(rb"\x00\x00\x00\x0cJXL |\xff\x0a")),
    ("Photoshop", re.compile(rb"8BPS")),
    ("icon", re.compile(rb"\x00\x00[\x01\x02]\x00")),
    ("PDF", re.compile(rb"%PDF-")),
    ("PostScript", re.compile(rb"%!PS")),
    ("BigTIFF", re.compile(rb"II\+\x00|MM\x00\+")),
    ("SVG", re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg", re.DOTALL)),
)
FORMATS = ", ".join(name for name, _ in _READ)

MAX_PROFILE_BYTES = 4 * 1024 * 1024  # CMYK press profiles have 2 to 3 MB
CONTACT_SHEET_BYTES = 70_000  # base64 adds a third, and an event-log entry should stay under 100 kB

# Of zlib. On a photograph of 1024 x 1024 pixels 6, Pillow's own, takes 393 ms and 1.21 MB, 3 takes
# 126 ms and 1.31 MB, 1 takes 85 ms and 1.37 MB.
COMPRESSION = 3
HASH_EDGE = 32  # the size at which ImageHash's phash takes its transform

_PNG_HEADER = struct.Struct(">II5B")
_PLAIN_RGB = (8, 2, 0, 0, 0)  # bit depth, colour type, compression, filter, interlace


class ImageRefused(LabError):
    """A picture that is not taken.

    Attributes:
        reason: A code that does not change: `missing_file`, `not_a_file`, `symlink`,
            `unreadable_file`, `empty_file`, `too_many_bytes`, `not_an_image`,
            `unsupported_format`, `too_many_pixels`, `too_few_pixels`, `truncated_image` or
            `damaged_image`.
        detail: One sentence for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[ImageRefused], tuple[str, str]]:
        return type(self), (self.reason, self.detail)


@dataclass(frozen=True)
class Limits:
    """What a picture may be.

    Attributes:
        max_bytes: Size of the file as it comes.
        max_pixels: Declared width times height; 16 megapixels (4096 x 4096) decode to 48 MiB.
        min_edge: Shorter edge; less is a tracking pixel or a spacer, not a picture of a person.
        long_edge: Longer edge after normalisation; larger pictures are reduced to it.
    """

    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 16 * 1024 * 1024
    min_edge: int = 8
    long_edge: int = 1024


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class NormalisedImage:
    """An upright 8-bit RGB PNG without metadata.

    Attributes:
        png: The file's bytes.
        sha256: Of these bytes.
        width: In pixels.
        height: In pixels.
        pixels_sha256: Of size and samples, the same whatever encoder wrote the file.
        thumbnail: Luminance of 32 x 32 pixels, by area averaging: a byte each, row by row.
    """

    png: bytes
    sha256: str
    width: int
    height: int
    pixels_sha256: str
    thumbnail: bytes


def read_image_file(path: Path, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The bytes of a regular file, never more than the limit, never through a link at its end.

    Raises:
        ImageRefused: It is missing, a link, a folder or device, not readable or too large.
        OSError: The disk or network failed, which says nothing about the picture.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        refused = _refusal_of(error, path.name)
        if refused is None:
            raise
        raise refused from error
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise ImageRefused("not_a_file", f"{path.name} is a folder or a device, not a file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(limits.max_bytes + 1)
    finally:
        os.close(descriptor)
    if len(data) > limits.max_bytes:
        raise _too_many_bytes(path.name, state.st_size, limits)
    return data


def normalise(
    data: bytes, *, name: str = "the picture", limits: Limits = DEFAULT_LIMITS
) -> NormalisedImage:
    """Decodes a picture under limits and brings it to the normal form.

    EXIF orientation is applied and all metadata dropped; the first frame of an animation is
    taken; alpha is laid over white; 16-bit samples are scaled; an embedded ICC profile that fits
    the pixels is followed, any other is ignored; the longer edge is reduced by area averaging. What
    is in normal form keeps its bytes.

    Args:
        data: The file's bytes.
        name: What messages call it.
        limits: What is accepted.

    Raises:
        ImageRefused: It is not a picture that is taken; says why.
    """
    form = _format(data, name, limits)
    declared = _declared_size(data, form)
    if declared:
        _check_pixels(declared, name, limits)
        if form == "PNG" and max(declared) <= limits.long_edge and _is_plain(data, declared):
            return _normalised(data, _decode(data, form, name, limits))
    with _QUIET:
        image = _upright(_decode(data, form, name, limits))
    profile = image.info.get("icc_profile")
    try:
        picture = _reduced(_srgb(_opaque(image), profile), limits.long_edge)
    except ImageRefused:
        raise
    except (OSError, ValueError) as error:
        raise ImageRefused(
            "unsupported_format", f"{name} has pixels of a kind that is not read ({image.mode})"
        ) from error
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=COMPRESSION)
    return _normalised(out.getvalue(), picture)


def _normalised(png: bytes, image: Image.Image) -> NormalisedImage:
    pixels = hashlib.sha256(b"%d %d\n" % image.size)
    pixels.update(image.tobytes())
    return NormalisedImage(
        png,
        hashlib.sha256(png).hexdigest(),
        image.width,
        image.height,
        pixels.hexdigest(),
        _thumbnail(image),
    )


def _thumbnail(image: Image.Image) -> bytes:
    from PIL import Image

    return image.convert("L").resize((HASH_EDGE, HASH_EDGE), Image.Resampling.BOX).tobytes()


def perceptual_hashes(images: Sequence[NormalisedImage]) -> list[int]:
    """64-bit hashes of pictures, which differ in few bits where the pictures look alike.

    They say which of the 8 x 8 lowest frequencies of the luminance lie over their median: the bits
    of ImageHash's `phash`, for many pictures at once in less than a third of the time.
    """
    import numpy as np

    if not images:
        return []
    samples = np.frombuffer(b"".join(image.thumbnail for image in images), np.uint8)
    luminance = samples.reshape(-1, HASH_EDGE, HASH_EDGE).astype(np.float64)
    transform = _low_cosines()
    low = (transform @ luminance @ transform.T).reshape(-1, 64)
    middle = np.sort(low, axis=1)[:, 31:33].mean(axis=1, keepdims=True)
    hashes: list[int] = np.packbits(low > middle, axis=1).view(">u8").ravel().tolist()
    return hashes


@functools.cache
def _low_cosines() -> NDArray[np.float64]:
    """The first 8 rows of the discrete cosine transform, type II, of 32 samples; shape (8, 32)."""
    import numpy as np

    frequencies, places = np.arange(8)[:, None], np.arange(HASH_EDGE)[None, :]
    return np.asarray(2 * np.cos(np.pi * frequencies * (2 * places + 1) / (2 * HASH_EDGE)))


def contact_sheet(
    pngs: Sequence[bytes],
    *,
    columns: int = 6,
    edge: int = 96,
    max_bytes: int = CONTACT_SHEET_BYTES,
) -> bytes:
    """A JPEG that shows normalised pictures in a grid, small enough for an event log.

    Raises:
        ValueError: There is no picture.
    """
    from PIL import Image

    if not pngs:
        raise ValueError("a contact sheet needs at least one picture")
    columns = min(columns, len(pngs))
    rows = -(-len(pngs) // columns)
    sheet = Image.new("RGB", (columns * (edge + 4) + 4, rows * (edge + 4) + 4), "white")
    for index, png in enumerate(pngs):
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            picture.thumbnail((edge, edge), Image.Resampling.BOX)
            row, column = divmod(index, columns)
            x = 4 + column * (edge + 4) + (edge - picture.width) // 2
            y = 4 + row * (edge + 4) + (edge - picture.height) // 2
            sheet.paste(picture, (x, y))
    return small_jpeg(sheet, max_bytes)


def small_jpeg(picture: Image.Image, max_bytes: int) -> bytes:
    """A JPEG of at most so many bytes: quality is given up first, then size."""
    while True:
        for quality in (85, 70, 50, 30):
            out = io.BytesIO()
            picture.save(out, "JPEG", quality=quality)
            if len(out.getvalue()) <= max_bytes:
                return out.getvalue()
        picture = picture.reduce(2)


def as_markdown(jpeg: bytes, alt: str) -> str:
    """A Markdown image with the bytes in it, which Dagster's UI shows without a request."""
    return f"![{alt}](data:image/jpeg;base64,{base64.b64encode(jpeg).decode()})"


def _refusal_of(error: OSError, name: str) -> ImageRefused | None:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.ENAMETOOLONG | errno.EINVAL:
            return ImageRefused("missing_file", f"there is no file {name}")
        case errno.ELOOP:
            return ImageRefused("symlink", f"{name} is a symbolic link; send the file itself")
        case errno.EACCES | errno.EPERM:
            return ImageRefused("unreadable_file", f"{name} may not be read; check its permissions")
        case errno.EISDIR | errno.ENXIO:
            return ImageRefused("not_a_file", f"{name} is a folder or a device, not a file")
    return None


def _too_many_bytes(name: str, size: int, limits: Limits) -> ImageRefused:
    return ImageRefused(
        "too_many_bytes",
        f"{name} has {size:,} bytes; the limit is {limits.max_bytes:,}",
    )


def _format(data: bytes, name: str, limits: Limits) -> str:
    """Pillow's name of the format, told from the first bytes."""
    if not data:
        raise ImageRefused("empty_file", f"{name} has no bytes")
    if len(data) > limits.max_bytes:
        raise _too_many_bytes(name, len(data), limits)
    head = data[:1024]
    for form, pattern in _READ:
        if pattern.match(head):
            return form
    for form, pattern in _NOT_READ:
        if pattern.match(head):
            raise ImageRefused(
                "unsupported_format", f"{name} is {form}; send it as one of {FORMATS}"
            )
    raise ImageRefused("not_an_image", f"{name} is not a picture, whatever its name says")


def _check_pixels(size: tuple[int, int], name: str, limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageRefused(
            "too_many_pixels",
            f"{name} declares {width:,} x {height:,} pixels; the limit is {limits.max_pixels:,}",
        )
    reduced = min(1.0, limits.long_edge / max(width, height, 1))
    if round(min(width, height) * reduced) < limits.min_edge:
        also = f" once reduced to {limits.long_edge}" if reduced < 1 else ""
        raise ImageRefused(
            "too_few_pixels",
            f"{name} has {width} x {height} pixels; each edge needs {limits.min_edge} or more"
            f"{also}",
        )


def _declared_size(data: bytes, form: str) -> tuple[int, int] | None:
    """Width and height by our own reading of the header, where Pillow's comes late.

    Pillow's WebP reader sets up buffers for the whole canvas on opening, and its error for huge
    PNG and GIF files does not say how large they are.
    """
    try:
        if form == "PNG":
            return struct.unpack_from(">II", data, 16)
        if form == "GIF":
            return struct.unpack_from("<HH", data, 6)
        if form == "WEBP":
            return _webp_size(data)
    except struct.error:
        pass  # cut off within the header; the decoder says so
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    match data[12:16]:
        case b"VP8X":
            low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, 24)
            return (low_w | high_w << 16) + 1, (low_h | high_h << 16) + 1
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
    return None


def _is_plain(data: bytes, size: tuple[int, int]) -> bool:
    """Whether a PNG that decodes has 8-bit RGB samples and nothing else, well compressed.

    Data after the end, in a chunk of its own or behind the samples in their stream, is metadata.
    """
    samples = size[1] * (1 + 3 * size[0])
    if len(data) > samples + samples // 100 + 1024:
        return False
    (first, header), *middle, (last, nothing) = _png_chunks(data) or [(b"", b"")] * 2
    if (first, last, nothing) != (b"IHDR", b"IEND", b"") or len(header) != _PNG_HEADER.size:
        return False
    width, height, *form = _PNG_HEADER.unpack(header)
    if (width, height) != size or tuple(form) != _PLAIN_RGB:
        return False
    if any(kind != b"IDAT" for kind, _ in middle):
        return False
    inflate = zlib.decompressobj()
    inflated = inflate.decompress(b"".join(body for _, body in middle), samples + 1)
    return len(inflated) == samples and inflate.eof and not inflate.unused_data


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]] | None:
    """Type and body of each chunk; None where a checksum is wrong or bytes are left."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        at += 12 + length
        check = int.from_bytes(data[at - 4 : at])
        if at > len(data) or zlib.crc32(body, zlib.crc32(kind)) != check:
            return None
        chunks.append((kind, body))
        if kind == b"IEND":
            break
    return chunks if len(chunks) > 1 and at == len(data) else None


class _Quiet:
    """Pillow's warnings switched off while any thread decodes.

    Before Python 3.14 `catch_warnings` swaps a list that all threads share. Decodes at one time
    share one swap, so that the first to end does not switch the warnings on for the others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        from PIL import Image

        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")  # of corrupt EXIF and the like, which is dropped
                warnings.simplefilter("error", Image.DecompressionBombWarning)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._caught.__exit__(None, None, None)


_QUIET = _Quiet()


def _decode(data: bytes, form: str, name: str, limits: Limits) -> Image.Image:
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=[form])
        _check_pixels(image.size, name, limits)
        image.load()
        _check_pixels(image.size, name, limits)  # a GIF's first frame may exceed its canvas
        return image
    except (ImageRefused, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageRefused(
            "too_many_pixels",
            f"{name} declares more than the limit of {limits.max_pixels:,} pixels",
        ) from error
    except Exception as error:  # decoders of damaged files raise whatever they stumble over
        raise _damaged(name, form, data, error) from error


def _damaged(name: str, form: str, data: bytes, error: Exception) -> ImageRefused:
    message = str(error).lower()
    cut = "truncat" in message or isinstance(error, EOFError) or len(data) < 32
    # libwebp does not tell a cut file from a damaged one, but the container states its length.
    if form == "WEBP" and len(data) >= 8:
        cut = cut or struct.unpack_from("<I", data, 4)[0] + 8 > len(data)
    if cut:
        return ImageRefused("truncated_image", f"{name} ends before its {form} data does")
    return ImageRefused("damaged_image", f"{name} cannot be decoded as {form}")


def _upright(image: Image.Image) -> Image.Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF that can't be parsed says nothing about orientation
        return image


def _opaque(image: Image.Image) -> Image.Image:
    """The picture in mode L, RGB or CMYK, transparency laid over white."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = _eight_bit(image)
    if image.mode in ("I", "F", "LAB"):
        raise ValueError(image.mode)
    if image.mode in ("LA", "La"):
        image = image.convert("LA")
        grey = Image.new("L", image.size, 255)
        grey.paste(image.getchannel("L"), mask=image.getchannel("A"))
        return grey
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """A 16-bit grey picture scaled to 8 bits; Pillow's own conversion would clip it."""
    import numpy as np
    from PIL import Image

    # TIFF's BitsPerSample: 12-bit scans come in the same mode, but reach 4095 only.
    bits = getattr(image, "tag_v2", {}).get(258, (16,))[0]
    samples = np.asarray(image).astype(np.uint16)
    grey = Image.fromarray((samples >> (bits - 8)).astype(np.uint8))
    hidden = image.info.get("transparency")
    if isinstance(hidden, int):
        grey.paste(255, mask=Image.fromarray((samples == hidden).astype(np.uint8) * 255))
    return grey


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    from PIL import ImageCms

    if profile and len(profile) <= MAX_PROFILE_BYTES:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            space = source.profile.xcolor_space.strip()
            fits = space == {"L": "GRAY"}.get(image.mode, image.mode)
            # From sRGB to sRGB would only move values by rounding.
            if fits and "srgb" not in ImageCms.getProfileDescription(source).lower():
                target = ImageCms.createProfile("sRGB")
                converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass  # a profile that can't be read is as good as none
    return image.convert("RGB")


def _reduced(image: Image.Image, long_edge: int) -> Image.Image:
    """A fresh RGB image of at most that edge; fresh, so that no metadata comes along."""
    from PIL import Image

    scale = long_edge / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BOX)
    clean = Image.new("RGB", image.size)
    clean.paste(image)
    return clean
