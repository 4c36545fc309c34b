"""What a row may say: its caption, its attribute values, its strings."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cf_lab_assets.sources.refusals import RowRefused
from cf_lab_resources.images import DEFAULT_LIMITS, Limits

MAX_CAPTION_CHARACTERS = 10_000  # far over any tokenizer's limit; keeps a whole book from it

# Control characters, and overrides and isolates of text direction, which make a caption read
# otherwise than its characters say (Boucher and Anderson 2021, "Trojan Source"). Joiners stay:
# scripts and emoji need them.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Rules:
    """What rows and pictures are held to.

    Attributes:
        known_attributes: The values that each attribute may have.
        max_tokens: Most tokens of a caption; None for no limit.
        count_tokens: Tokens of a text, special ones included; needed with `max_tokens`.
        limits: Of the pictures.
    """

    known_attributes: Mapping[str, Sequence[str]]
    max_tokens: int | None = None
    count_tokens: Callable[[str], int] | None = None
    limits: Limits = field(default=DEFAULT_LIMITS)

    def __post_init__(self) -> None:
        if (self.max_tokens is None) != (self.count_tokens is None):
            raise ValueError("max_tokens and count_tokens go together: give both or neither")


@functools.cache
def starter_rules() -> Rules:
    """The starter world's attributes, and its tokenizer's limit."""
    from cf_lab_assets.starter import text, world

    tokenizer = text.build_tokenizer().backend_tokenizer

    def count_tokens(caption: str) -> int:
        # It works on bytes and adds two marks, so that short captions need not be read: at most.
        if caption.isascii() and len(caption) + 2 <= text.CAPTION_TOKENS:
            return len(caption) + 2
        return len(tokenizer.encode(caption).ids)

    return Rules(world.ATTRIBUTES, text.CAPTION_TOKENS, count_tokens)


def is_utf8(text: str) -> bool:
    """Whether the text is free of bytes that were not UTF-8, and of lone surrogates."""
    return not _SURROGATE.search(text)


def printable(text: str | None, limit: int = 1000) -> str | None:
    """The text as quarantine can hold it: valid, and not without end."""
    if text is None:
        return None
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limit else text[: limit - 3] + "..."


def clean_caption(text: str, rules: Rules) -> str:
    """The caption in Unicode's composed form, runs of white space made one space.

    Raises:
        RowRefused: It is empty, too long, or holds control characters.
    """
    caption = unicodedata.normalize("NFC", " ".join(text.lstrip("\ufeff").split()))
    if not caption:
        raise RowRefused("empty_caption", "the caption is empty")
    if found := _CONTROL.search(caption):
        raise RowRefused(
            "control_characters",
            f"the caption holds the control character U+{ord(found[0]):04X}; remove it",
        )
    if len(caption) > MAX_CAPTION_CHARACTERS:
        raise RowRefused(
            "caption_too_long",
            f"the caption has {len(caption):,} characters; the limit is {MAX_CAPTION_CHARACTERS:,}",
        )
    if rules.max_tokens is not None and rules.count_tokens is not None:
        tokens = rules.count_tokens(caption)
        if tokens > rules.max_tokens:
            raise RowRefused(
                "caption_too_long",
                f"the caption has {tokens} tokens; the editor reads {rules.max_tokens} and would "
                "silently drop the rest",
            )
    return caption


def split_columns(
    columns: Mapping[str, str], rules: Rules
) -> tuple[dict[str, str], dict[str, str]]:
    """Known attributes and everything else; empty cells count as absent in both.

    Raises:
        RowRefused: An attribute has a value that is not known.
    """
    attributes, extra = {}, {}
    for name, value in sorted(columns.items()):
        if name not in rules.known_attributes:
            if value:
                extra[name] = value
            continue
        value = value.strip()
        allowed = rules.known_attributes[name]
        if value and value not in allowed:
            raise RowRefused(
                "unknown_attribute_value",
                f"{name} is {printable(value, 80)!r}; it must be one of {', '.join(allowed)}, "
                "or empty",
            )
        if value:
            attributes[name] = value
    return attributes, extra
