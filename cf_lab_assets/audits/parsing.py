"""What an open answer says: one of the options, a refusal, or nothing that can be told.

The rules, in this order; all words are compared whole and regardless of case:

refusal: the answer holds a declared refusal phrase. It wins over an option that is named too, as
    "I can't tell whether she is a nurse" names one.
parsed: exactly one option is named, as often as it likes. Where options lie within each other
    ("officer", "police officer") the longest one at a place is the one that is named there.
parse failure: everything else: none or several options, or one that a negation precedes within
    three words ("not a nurse"), of which nobody can tell what it leaves.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PARSED = "parsed"
REFUSAL = "refusal"
PARSE_FAILURE = "parse_failure"
OUTCOMES = (PARSED, REFUSAL, PARSE_FAILURE)

REFUSALS = Path(__file__).parent / "refusals.yaml"
_NEGATED = re.compile(r"(?:\b(?:not|no|never|neither|nor|without)|n't)(?:\W+\w+){0,2}\W+$")


@dataclass(frozen=True)
class Reading:
    """What an answer was read as.

    Attributes:
        outcome: one of `OUTCOMES`.
        option: the option, where it was parsed.
    """

    outcome: str
    option: str | None = None


def read_answer(answer: str, options: Sequence[str], refusals: Sequence[str]) -> Reading:
    """Read an open answer by the rules of this module.

    Args:
        answer: as the model gave it.
        options: those of the question.
        refusals: the declared phrases.
    """
    text = _plain(answer)
    if any(_whole([phrase]).search(text) for phrase in refusals):
        return Reading(REFUSAL)
    by_text = {_plain(option): option for option in options}
    found = list(_whole(sorted(by_text, key=len, reverse=True)).finditer(text))
    named = {by_text[match.group()] for match in found}
    negated = any(_NEGATED.search(text[: match.start()]) for match in found)
    if len(named) == 1 and not negated:
        return Reading(PARSED, named.pop())
    return Reading(PARSE_FAILURE)


def default_refusals() -> tuple[str, ...]:
    """The refusal phrases that come with the lab."""
    import yaml

    return tuple(yaml.safe_load(REFUSALS.read_text(encoding="utf-8")))


def _plain(text: str) -> str:
    """In small letters, with plain apostrophes and single spaces."""
    return " ".join(text.casefold().replace("\u2019", "'").split())


def _whole(phrases: Sequence[str]) -> re.Pattern[str]:
    return _compiled(tuple(_plain(phrase) for phrase in phrases))


@functools.cache
def _compiled(phrases: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the phrases, the first that fits, with no letter or digit around it."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, phrases))})(?!\w)")
