"""Rows as they are delivered, whatever kind of delivery they come in.

Every kind gives its rows as a stream of `Row` and `Rejected`: a row that can't be read is
rejected and the next one is read; only what spoils a whole file raises `DeliveryRefused`. Rows are
counted from 1 through all files of a delivery.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from cf_lab_assets.sources.refusals import DeliveryRefused, Rejected

if TYPE_CHECKING:
    from cf_lab_assets.sources.deliveries import Delivery
    from cf_lab_resources.images import Limits

TEXT, CAPTION = "text", "caption"
# The column that names a row's mask, and where the mask then is in the bucket.
MASK, MASK_KEY = "mask_file_name", "mask_image_key"
MAX_LINE_BYTES = 16 * 1024 * 1024  # a line without end would be read into memory whole


@dataclass(frozen=True)
class Row:
    """A row as delivered; bytes that were not UTF-8 are in it as lone surrogates.

    Attributes:
        number: From 1, through all files of the delivery.
        file_name: Of the picture, or of the file that the row is in where it has none.
        text: The caption.
        columns: Everything else, as strings.
        picture: The encoded picture, where it came with the row.
    """

    number: int
    file_name: str
    text: str
    columns: dict[str, str]
    picture: bytes | None = None


Rows = Iterator[Row | Rejected]
Pictures = Literal["files", "rows", "none"]


@dataclass(frozen=True)
class Kind:
    """One kind of delivery.

    Attributes:
        name: Stands in the manifest.
        form: What such a delivery looks like, for messages.
        pictures: Whether they are files that rows name, come with their row, or there are none.
        row_files: Those of the delivery's files that hold rows, in order; none where the delivery
            is not of this kind.
        rows: Reads the rows of these files. Raises DeliveryRefused where a file can't be read.
    """

    name: str
    form: str
    pictures: Pictures
    row_files: Callable[[Sequence[str]], list[str]]
    rows: Callable[[Delivery, Sequence[str], Limits], Rows]


def malformed(number: int, detail: str, file_name: object = None, text: object = None) -> Rejected:
    """A row that can't be read, with what is known of it."""
    return rejected(number, "malformed_row", detail, file_name, text)


def rejected(
    number: int, reason: str, detail: str, file_name: object = None, text: object = None
) -> Rejected:
    """A row that is not taken; what is no string of it is left out."""
    return Rejected(
        number,
        file_name if isinstance(file_name, str) else None,
        reason,
        detail,
        text if isinstance(text, str) else None,
    )


def unreadable(name: str, why: str) -> DeliveryRefused:
    """The error of a file with rows that can't be read at all."""
    return DeliveryRefused("unreadable_metadata", f"{name} {why}")


def lines(file: BinaryIO, name: str) -> Iterator[bytes]:
    """The lines of a text file in UTF-8, a byte order mark left out.

    Raises:
        DeliveryRefused: It is not UTF-8 at its start, or has a line without end.
    """
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if number == 1:
            if line.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in line[:4]:
                raise unreadable(name, "is not UTF-8 (it looks like UTF-16); save it as UTF-8")
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) > MAX_LINE_BYTES:
            raise unreadable(
                name, f"has more than {MAX_LINE_BYTES:,} bytes in line {number}; is it text?"
            )
        yield line


def parse_object(data: str | bytes) -> dict[str, Any] | str:
    """A JSON object, or what is wrong with it."""
    try:
        values = json.loads(data)
    except RecursionError:
        return "the JSON is nested too deeply"
    except ValueError as error:
        return f"not valid JSON: {error}"
    return values if isinstance(values, dict) else "it must be one JSON object, in braces"


def take_caption(values: dict[str, Any]) -> object:
    """Takes the caption out of a row's values: `text`, or `caption` where there is no text."""
    return values.pop(TEXT if values.get(TEXT) is not None else CAPTION, None)


def texts(values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Values as strings; those that are absent are left out."""
    items = values.items() if isinstance(values, Mapping) else values
    return {name: text for name, value in items if (text := _text(value)) is not None}


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):
        return None  # how pandas writes an empty cell
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, bool | int | float | list | dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return str(value)  # dates and decimals
