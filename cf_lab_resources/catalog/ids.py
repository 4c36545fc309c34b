"""The form of every id that is looked up; the catalog, the cache and the API share it.

No id has a colon, a quote, a backslash or a control character in it, so that ids can stand in
Redis keys and in JSON as they are.
"""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["pair", "set"]

MAX_ID_LENGTH = 200

RELEASE_ID = re.compile(r"r[0-9a-f]{12}")
SHA256 = re.compile(r"[0-9a-f]{64}")
# A set is f"{source_id}-{attribute}", a pair f"{set_id}-{value}": one form covers both.
RECORD_ID = re.compile(r"s[0-9a-f]{15}-[A-Za-z0-9_.+ -]+")


def is_release_id(text: str) -> bool:
    """Whether the text has the form of a release's id."""
    return RELEASE_ID.fullmatch(text) is not None


def is_record_id(text: str) -> bool:
    """Whether the text has the form of a pair's or set's id."""
    return len(text) <= MAX_ID_LENGTH and RECORD_ID.fullmatch(text) is not None


def is_sha256(text: str) -> bool:
    """Whether the text is a SHA-256 in lower-case hexadecimal digits."""
    return SHA256.fullmatch(text) is not None
