"""What the reviews found, in the bucket: one JSON document for each review and day.

A review that is made twice on a day replaces that day's document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from cf_lab_resources.bucket import Bucket

PREFIX = "operations"
_KEY = re.compile(rf"{PREFIX}/(?P<review>[a-z]+)/(?P<day>\d{{4}}-\d\d-\d\d)\.json")


class DocumentDamaged(LabError):
    """A kept document can't be read; the message names it."""


def document_key(review: str, day: date) -> str:
    """The key of a day's document: `operations/<review>/<ISO date>.json`."""
    return f"{PREFIX}/{review}/{day.isoformat()}.json"


def parse_document_key(key: str) -> tuple[str, date]:
    """The review and the day of a key that `document_key` made.

    Raises:
        ValueError: It is no such key.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"not the key of a review's document: {key!r}")
    return match["review"], date.fromisoformat(match["day"])


def keep(bucket: Bucket, review: str, day: date, document: Mapping[str, Any]) -> str:
    """Write a day's document; gives its URL.

    Raises:
        BucketError: The bucket failed or refused.
    """
    key = document_key(review, day)
    text = json.dumps({"date": day.isoformat(), **document}, indent=1, ensure_ascii=False)
    bucket.put_bytes(key, text.encode())
    return bucket.url(key)


def kept(bucket: Bucket, review: str, most: int) -> dict[date, dict[str, Any]]:
    """The newest documents of a review by their day, oldest first.

    Args:
        bucket: that has them.
        review: its name.
        most: how many are read; earlier ones are left out.

    Raises:
        DocumentDamaged: One of them is no JSON object.
        BucketError: The bucket failed or refused.
    """
    days = sorted(
        parse_document_key(one.key)[1]
        for one in bucket.list(f"{PREFIX}/{review}")
        if _KEY.fullmatch(one.key)
    )
    return {day: _read(bucket, document_key(review, day)) for day in days[-most:]}


def _read(bucket: Bucket, key: str) -> dict[str, Any]:
    try:
        document = json.loads(bucket.get_bytes(key))
    except ValueError as error:
        raise DocumentDamaged(
            f"{bucket.url(key)} is no JSON; restore it from a backup, or remove it"
        ) from error
    if not isinstance(document, dict):
        raise DocumentDamaged(
            f"{bucket.url(key)} holds no JSON object; restore it from a backup, or remove it"
        )
    return document
