from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from cf_lab_resources.errors import LabError
from cf_lab_resources.images import (
    CONTACT_SHEET_BYTES,
    ImageRefused,
    Limits,
    as_markdown,
    contact_sheet,
    normalise,
    perceptual_hashes,
    read_image_file,
)

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
ORIENTATION = 274


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def noise(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    samples = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(samples)


def pixels(data: bytes, **options: Limits) -> np.ndarray:
    result = normalise(data, **options)
    with Image.open(io.BytesIO(result.png)) as image:
        assert image.mode == "RGB"
        assert image.size == (result.width, result.height)
        return np.asarray(image)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, depth: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    """A PNG written by hand: some kinds are not written by Pillow."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [png_chunk(b"IHDR", header), *more, png_chunk(b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + png_chunk(b"IEND", b"")


def bomb_png(edge: int = 40_000) -> bytes:
    """A true PNG of edge x edge white pixels in a few hundred kB."""
    squeeze = zlib.compressobj(9)
    row = b"\x00" + b"\xff" * (edge // 8)
    data = b"".join(squeeze.compress(row * 100) for _ in range(edge // 100)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", edge, edge, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def refusal(data: bytes, **options: Limits) -> ImageRefused:
    with pytest.raises(ImageRefused) as caught:
        normalise(data, **options)
    assert isinstance(caught.value, LabError)
    assert caught.value.detail == str(caught.value)
    return caught.value


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_keep_every_pixel(form: str) -> None:
    assert (pixels(encoded(noise(), form)) == np.asarray(noise())).all()


@pytest.mark.parametrize("form", FORMATS)
def test_every_listed_format_is_read(form: str) -> None:
    result = normalise(encoded(noise(), form))
    assert (result.width, result.height) == (64, 48)
    assert result.sha256 == hashlib.sha256(result.png).hexdigest()


def test_the_same_picture_has_the_same_pixels_whatever_it_came_in() -> None:
    ways = [encoded(noise(), form) for form in ("PNG", "BMP", "TIFF")]
    ways.append(encoded(noise(), "PNG", compress_level=1))
    results = [normalise(way) for way in ways]
    assert len({(result.pixels_sha256, result.thumbnail) for result in results}) == 1
    assert results[1] == results[2]
    assert normalise(encoded(noise(seed=1))).pixels_sha256 != results[0].pixels_sha256
    wide, tall = (normalise(encoded(Image.new("RGB", size, "red"))) for size in ((16, 8), (8, 16)))
    assert wide.pixels_sha256 != tall.pixels_sha256


def test_a_picture_in_normal_form_keeps_its_bytes() -> None:
    for level in (1, 9):
        data = encoded(noise(), compress_level=level)
        assert normalise(data).png == data


def rows_of(image: Image.Image) -> bytes:
    return b"".join(b"\x00" + line.tobytes() for line in np.asarray(image))


PLAIN = rows_of(noise(16, 16))


@pytest.mark.parametrize(
    "data",
    [
        png_of(16, 16, 8, 2, PLAIN, png_chunk(b"tEXt", b"Author\0somebody")),
        png_of(16, 16, 8, 2, PLAIN, png_chunk(b"gAMA", struct.pack(">I", 45455))),
        png_of(16, 16, 8, 2, PLAIN + b"hidden behind the samples"),
        png_of(16, 16, 8, 2, PLAIN) + b"hidden behind the end",
        png_of(16, 16, 8, 2, PLAIN).replace(
            png_chunk(b"IEND", b""), png_chunk(b"IEND", b"hidden in the end")
        ),
        png_of(16, 16, 8, 2, PLAIN, png_chunk(b"IDAT", b"")).replace(
            png_chunk(b"IEND", b""), png_chunk(b"IDAT", b"hidden") + png_chunk(b"IEND", b"")
        ),
        encoded(noise(16, 16), compress_level=0) + bytes(20_000),
    ],
    ids=["text", "gamma", "samples", "trailer", "end", "stream", "padding"],
)
def test_a_png_with_more_than_its_samples_is_written_anew(data: bytes) -> None:
    result = normalise(data)
    assert result.png != data
    assert b"hidden" not in result.png
    assert b"somebody" not in result.png
    assert (pixels(data) == np.asarray(noise(16, 16))).all()


def test_the_perceptual_hash_is_that_of_the_library_on_pictures_of_its_size() -> None:
    import imagehash

    images = [noise(32, 32, seed) for seed in range(20)]
    hashes = perceptual_hashes([normalise(encoded(image)) for image in images])
    assert hashes == [int(str(imagehash.phash(image)), 16) for image in images]
    assert perceptual_hashes([]) == []


def test_pictures_that_look_alike_have_hashes_that_do() -> None:
    image = noise(6, 6).resize((96, 96), Image.Resampling.BICUBIC)
    ways = [encoded(image, "JPEG", quality=80), encoded(image.resize((72, 72)))]
    ways.append(encoded(image.rotate(90)))
    same, *others = perceptual_hashes([normalise(way) for way in (encoded(image), *ways)])
    jpeg, smaller, turned = ((other ^ same).bit_count() for other in others)
    assert max(jpeg, smaller) <= 2
    assert turned > 10


def test_decodes_side_by_side_leave_the_warnings_as_they_were() -> None:
    import warnings

    corrupt = encoded(noise(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(normalise, [corrupt] * 64))
    assert len(set(results)) == 1
    assert warnings.filters == before


def test_a_normalised_picture_is_its_own_normal_form() -> None:
    once = normalise(encoded(noise(), "JPEG"))
    assert normalise(once.png) == once


def test_metadata_does_not_survive() -> None:
    from PIL.PngImagePlugin import PngInfo

    notes = PngInfo()
    notes.add_text("Author", "somebody private")
    exif = Image.Exif()
    exif[0x013B] = "somebody private"
    result = normalise(encoded(noise(), "PNG", pnginfo=notes, exif=exif, dpi=(300, 300)))
    kinds = []
    at = 8
    while at < len(result.png):
        (length,) = struct.unpack_from(">I", result.png, at)
        kinds.append(result.png[at + 4 : at + 8])
        at += 12 + length
    assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(form: str) -> None:
    image = Image.new("RGB", (64, 32), "white")
    image.paste("black", (0, 0, 32, 32))  # left half
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned clockwise: left becomes top
    found = pixels(encoded(image, form, exif=exif))
    assert found.shape == (64, 32, 3)
    assert found[:28].mean() < 20
    assert found[36:].mean() > 235


def test_corrupt_exif_does_not_spoil_a_picture() -> None:
    assert pixels(encoded(noise(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")).any()


def test_a_16_bit_grey_png_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    found = pixels(encoded(Image.fromarray(ramp)))
    assert (found == (ramp >> 8).astype(np.uint8)[..., None]).all()
    assert len(np.unique(found)) == 256


def test_a_16_bit_big_endian_tiff_is_scaled() -> None:
    found = pixels(encoded(Image.new("I;16B", (16, 16), 32768), "TIFF"))
    assert (found == 128).all()


def test_a_16_bit_colour_png_is_scaled() -> None:
    row = b"\x00" + struct.pack(">HHH", 65535, 32768, 0) * 16
    found = pixels(png_of(16, 16, 16, 2, row * 16))
    assert (found == (255, 128, 0)).all()


def test_a_transparent_value_of_a_16_bit_grey_png_is_white() -> None:
    row = b"\x00" + struct.pack(">HH", 1000, 40000) * 8
    found = pixels(png_of(16, 16, 16, 0, row * 16, png_chunk(b"tRNS", struct.pack(">H", 1000))))
    assert (found[0, 0] == 255).all()
    assert (found[0, 1] == 40000 >> 8).all()


def test_pixels_of_32_bits_are_refused() -> None:
    samples = np.full((16, 16), 0.5, np.float32)
    assert refusal(encoded(Image.fromarray(samples), "TIFF")).reason == "unsupported_format"


def test_cmyk_becomes_rgb() -> None:
    found = pixels(encoded(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=95))
    red, green, blue = found.reshape(-1, 3).mean(axis=0)
    assert red > 200
    assert green < 60
    assert blue < 60


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("LA", (0, 0), (255, 255, 255)),
        ("LA", (40, 255), (40, 40, 40)),
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
    ],
)
def test_alpha_lies_over_white_and_grey_becomes_rgb(
    mode: str, colour: int | tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert (pixels(encoded(Image.new(mode, (16, 16), colour))) == expected).all()


def test_palettes_are_resolved_and_their_transparent_entry_is_white() -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    assert (pixels(encoded(image)) == (200, 100, 50)).all()
    assert (pixels(encoded(image, transparency=1)) == 255).all()
    assert (pixels(encoded(image, transparency=b"\xff\x00")) == 255).all()


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_taken(form: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert (pixels(data) == (255, 0, 0)).all()


def swapped_profile() -> bytes:
    """An RGB profile whose first and second colorants are exchanged: red means green."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = data.index(b"rXYZ", 128), data.index(b"gXYZ", 128)
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


def test_an_icc_profile_that_fits_is_followed() -> None:
    found = pixels(encoded(Image.new("RGB", (16, 16), (255, 0, 0)), icc_profile=swapped_profile()))
    red, green, _ = found[0, 0].tolist()
    assert green > 200
    assert red < 60


@pytest.mark.parametrize(
    "profile",
    [
        b"not a profile",
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    ],
    ids=["rubbish", "another space", "sRGB"],
)
def test_other_icc_profiles_change_nothing(profile: bytes) -> None:
    assert (pixels(encoded(noise(), icc_profile=profile)) == np.asarray(noise())).all()


def test_the_long_edge_is_capped_by_area_averaging() -> None:
    checker = np.indices((64, 2048)).sum(axis=0) % 2 * 255
    data = encoded(Image.fromarray(checker.astype(np.uint8)))
    found = pixels(data, limits=Limits(long_edge=1024))
    assert found.shape == (32, 1024, 3)
    assert set(np.unique(found)) <= {127, 128}  # every 2 x 2 block averages to grey


def test_smaller_pictures_are_not_enlarged() -> None:
    assert pixels(encoded(noise(20, 10))).shape == (10, 20, 3)


def test_no_bytes() -> None:
    assert refusal(b"").reason == "empty_file"


def test_text_is_no_picture() -> None:
    assert refusal(b"file_name,text\na.png,hello\n").reason == "not_an_image"


@pytest.mark.parametrize(
    ("head", "called"),
    [
        (b"\x00\x00\x00\x1cftypavif", "AVIF"),
        (b"\x00\x00\x00\x1cftypheic", "HEIC"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%PDF-1.7", "PDF"),
        (b"8BPS\x00\x01", "Photoshop"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript"),
    ],
)
def test_pictures_of_other_formats_are_told_which_to_use(head: bytes, called: str) -> None:
    refused = refusal(head + b"\x00" * 64)
    assert refused.reason == "unsupported_format"
    assert called in refused.detail
    assert "JPEG" in refused.detail


@pytest.mark.parametrize("form", FORMATS)
def test_truncated_pictures(form: str) -> None:
    data = encoded(noise(256, 256), form)
    for cut in (16, len(data) // 4, len(data) // 2):
        assert refusal(data[:cut]).reason == "truncated_image", cut


def test_damaged_pictures() -> None:
    good = encoded(noise(), "PNG")
    at = good.index(b"IDAT") + 10
    assert refusal(good[:at] + b"\x00" * 60 + good[at + 60 :]).reason == "damaged_image"


def test_more_bytes_than_the_limit() -> None:
    refused = refusal(encoded(noise()), limits=Limits(max_bytes=1000))
    assert refused.reason == "too_many_bytes"
    assert "1,000" in refused.detail


def test_a_bomb_is_refused_by_its_declared_size() -> None:
    bomb = bomb_png()
    assert len(bomb) < 1_000_000
    refused = refusal(bomb)
    assert refused.reason == "too_many_pixels"
    assert "40,000 x 40,000" in refused.detail


@pytest.mark.parametrize("form", FORMATS)
def test_the_declared_size_is_limited_in_every_format(form: str) -> None:
    data = encoded(noise(), form)
    assert refusal(data, limits=Limits(max_pixels=64 * 48 - 1)).reason == "too_many_pixels"
    assert normalise(data, limits=Limits(max_pixels=64 * 48)).width == 64


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"lossless": True, "exif": b"Exif"}])
def test_the_header_of_every_kind_of_webp_is_read(options: dict[str, object]) -> None:
    refused = refusal(encoded(noise(), "WEBP", **options), limits=Limits(max_pixels=1000))
    assert "64 x 48" in refused.detail


def test_a_size_between_warning_and_error_of_pillow_is_refused_without_a_warning() -> None:
    refused = refusal(png_of(10_000, 10_000, 8, 2, b""), limits=Limits(max_pixels=10**9))
    assert refused.reason == "too_many_pixels"


def test_a_tracking_pixel_is_refused() -> None:
    assert refusal(encoded(noise(1, 1))).reason == "too_few_pixels"


@settings(max_examples=150, deadline=None)
@given(
    form=st.sampled_from(FORMATS),
    edits=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=20),
)
def test_damage_anywhere_is_a_refusal_or_a_picture_and_never_another_error(
    form: str, edits: list[tuple[int, int]]
) -> None:
    data = bytearray(encoded(noise(24, 24), form))
    for at, value in edits:
        data[at % len(data)] = value
    with contextlib.suppress(ImageRefused):
        assert normalise(bytes(data)).width >= 8


def test_threads_may_share_the_decoder() -> None:
    data = [encoded(noise(seed=seed), "JPEG", exif=b"Exif\x00\x00II*\x00") for seed in range(16)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(normalise, data)) == [normalise(one) for one in data]


def test_files_are_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"12345")
    assert read_image_file(path) == b"12345"
    with pytest.raises(ImageRefused, match="5 bytes; the limit is 4") as caught:
        read_image_file(path, Limits(max_bytes=4))
    assert caught.value.reason == "too_many_bytes"


def test_what_is_not_a_plain_file_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "target.png").write_bytes(b"x")
    (tmp_path / "link.png").symlink_to(tmp_path / "target.png")
    os.mkfifo(tmp_path / "pipe.png")  # would block whoever opens it carelessly
    expected = {
        "folder": "not_a_file",
        "pipe.png": "not_a_file",
        "link.png": "symlink",
        "absent.png": "missing_file",
        "target.png/below.png": "missing_file",
        "n" * 300: "missing_file",
    }
    for name, reason in expected.items():
        with pytest.raises(ImageRefused) as caught:
            read_image_file(tmp_path / name)
        assert caught.value.reason == reason, name


def test_a_contact_sheet_is_small_and_shows_every_picture() -> None:
    pictures = [normalise(encoded(noise(300, 200, seed))).png for seed in range(14)]
    sheet = contact_sheet(pictures)
    assert len(sheet) <= CONTACT_SHEET_BYTES
    with Image.open(io.BytesIO(sheet)) as image:
        assert image.size == (6 * 100 + 4, 3 * 100 + 4)
        assert np.asarray(image.crop((104, 204, 200, 300))).std() > 20  # the last one
        assert np.asarray(image.crop((304, 204, 400, 300))).min() > 240  # an empty place
    text = as_markdown(sheet, "pictures")
    head, _, tail = text.partition("base64,")
    assert head == "![pictures](data:image/jpeg;"
    assert base64.b64decode(tail.rstrip(")")) == sheet


def test_a_contact_sheet_gives_up_quality_before_it_grows() -> None:
    pictures = [normalise(encoded(noise(96, 96, seed))).png for seed in range(12)]
    assert len(contact_sheet(pictures, max_bytes=5000)) <= 5000


def test_a_contact_sheet_of_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])
