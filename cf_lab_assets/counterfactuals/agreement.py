"""Changes of a caption's words, and what must agree with them: capitals, verbs, articles."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from typing import NamedTuple

from cf_lab_assets.counterfactuals import english
from cf_lab_assets.counterfactuals.sentence import Sentence
from cf_lab_assets.counterfactuals.taxonomy import Form

_ARTICLES = frozenset({"a", "an"})


class Change(NamedTuple):
    """One changed place of a caption.

    Attributes:
        attribute: for whose sake.
        rule: what asked for it, such as ``noun``, ``pronoun: object``, ``verb``, ``article``.
        start, end: the place in the caption as it was, in characters.
        old: what stood there, empty for an insertion.
        new: what stands there now.
    """

    attribute: str
    rule: str
    start: int
    end: int
    old: str
    new: str


def span(sentence: Sentence, start: int, end: int) -> str:
    """The text of `words[start:end]`."""
    return sentence.text[sentence.starts[start] : sentence.ends[end - 1]]


def change_of(
    sentence: Sentence, attribute: str, rule: str, start: int, end: int, new: str
) -> Change:
    """The change of `words[start:end]` to a text."""
    first, last = sentence.starts[start], sentence.ends[end - 1]
    return Change(attribute, rule, first, last, sentence.text[first:last], new)


def capitalised(text: str) -> str:
    """The text with its first letter large and the others as they are."""
    return text[0].upper() + text[1:]


def like(old: str, new: str) -> str:
    """A word with the capitals of the one in whose place it stands."""
    if len(old) > 1 and old.isupper():
        return new.upper()
    return capitalised(new) if old[0].isupper() else new


def cased(old: str, form: Form, new: str) -> str:
    """The new form with the capitals of the old one, beyond those that belong to the forms."""
    return new if old == form.text else like(old, new)


def verb_changes(sentence: Sentence, attribute: str, subject: int, number: str) -> Iterator[Change]:
    """The verbs that agree with a subject pronoun: the one after it or before it, and others."""
    words = sentence.lower
    agreeing = english.plural_verb if number == "plural" else english.singular_verb
    at = subject + 1
    while at < len(words) and english.is_adverb(words[at]):
        at += 1
    if at < len(words) and words[at] == "and" and at == subject + 1:
        return  # "she and her friend are": the subject was plural already
    if _is_inverted(sentence, subject):
        at = subject - 1
    if at >= len(words) or (sentence.broken[at] and at > subject):
        raise english.Unsure(f"the verb of {words[subject]!r} is not found")
    if words[at] in english.NO_VERBS:
        raise english.Unsure(f"the verb of {words[subject]!r} is not found")
    if words[at] in ("'s", "'re", "'ve"):
        yield _clitic_change(sentence, attribute, at, number)
    else:
        new = agreeing(words[at])
        if new != words[at]:
            yield change_of(sentence, attribute, "verb", at, at + 1, like(sentence.words[at], new))
    joins = not _JOINING.isdisjoint(words[at + 1 :]) or True in sentence.broken[at + 1 :]
    if at > subject and joins:
        yield from _coordinated(sentence, attribute, at, number)


def _is_inverted(sentence: Sentence, subject: int) -> bool:
    """Whether the verb stands before its subject: "is she", "what does she"."""
    before = subject - 1
    if before < 0 or sentence.broken[subject]:
        return False
    if sentence.lower[before] not in english.AUXILIARIES:
        return False
    first = sentence.opens[before] or sentence.broken[before]
    return first or sentence.lower[before - 1] in english.CONJUNCTIONS


def _clitic_change(sentence: Sentence, attribute: str, at: int, number: str) -> Change:
    """The clitic of "she's" is "is" or "has"; only "is" becomes "'re"."""
    follower = sentence.lower[at + 1] if at + 1 < len(sentence.words) else ""
    if sentence.lower[at] == "'ve":
        number, follower = "singular", ""
    if number == "plural" and (
        follower in ("been", "got", "had", "done", "gone") or follower in english.IRREGULAR_PAST
        or follower.endswith("ed")
    ):  # fmt: skip
        if follower != "been" and follower != "got":
            raise english.Unsure("whether \"'s\" is 'is' or 'has' can't be told")
        new = "ve"
    else:
        new = "re" if number == "plural" else "s"
    return change_of(sentence, attribute, "verb", at, at + 1, sentence.words[at][0] + new)


def _coordinated(sentence: Sentence, attribute: str, verb: int, number: str) -> Iterator[Change]:
    """Further verbs of the same subject: "she sits and reads a book", "she jumps, spins, lands"."""
    words, last = sentence.lower, verb
    for at in range(verb + 1, len(words)):
        if sentence.opens[at]:
            return
        if words[at] in english.SUBJECTS:
            return  # from here on the verbs are another subject's
        if not _is_joined(sentence, at):
            continue
        if number == "singular":
            if _may_be_plural_verb(words[at]) and words[verb] not in _BEFORE_BASE:
                raise english.Unsure(f"whether {words[at]!r} has the same subject can't be told")
            continue
        if not english.is_third_person(words[at]):
            continue
        base = english.plural_verb(words[at])
        if at - 2 <= last or _is_verb(sentence, at, base):
            yield change_of(sentence, attribute, "verb", at, at + 1, base)
            last = at
        elif base in english.BASE_VERBS:
            raise english.Unsure(f"whether {words[at]!r} is a verb can't be told")


def _may_be_plural_verb(word: str) -> bool:
    return word in english.BASE_VERBS or word in ("are", "were", "have", "do", "'re")


def _is_joined(sentence: Sentence, at: int) -> bool:
    """Whether a conjunction or a comma stands before a word, an adverb perhaps in between."""
    words = sentence.lower
    before = at - 1
    if english.is_adverb(words[before]) and words[before] != "then":
        before -= 1
    return words[before] in _JOINING or sentence.broken[before + 1]


_BEFORE_BASE = english.MODALS | english.DO  # what follows these is the same for all subjects
_JOINING = frozenset({"and", "or", "but", "then"})


def _is_verb(sentence: Sentence, at: int, base: str) -> bool:
    """Whether a word in -s after a conjunction is a verb: no noun stands before "the" or "it"."""
    follower = sentence.lower[at + 1] if at + 1 < len(sentence.words) else ""
    if sentence.ends_phrase(at):
        follower = ""
    if base in ("be", "are", "have", "do", "were"):
        return True
    if follower in english.BEFORE_NOUNS:
        return True
    return base in english.BASE_VERBS and follower in english.PREPOSITIONS


def articles(sentence: Sentence, changes: list[Change]) -> list[Change]:
    """What "a" and "an" become before words that were changed."""
    if _ARTICLES.isdisjoint(sentence.lower):
        return []
    first: dict[int, Change] = {}
    for change in changes:
        known = first.get(change.start)
        if known is None or change.end < known.end:
            first[change.start] = change
    mended = []
    for start, change in first.items():
        index = bisect.bisect_left(sentence.starts, start)
        if not 0 < index < len(sentence.starts) or sentence.starts[index] != start:
            continue
        if sentence.broken[index] or sentence.lower[index - 1] not in _ARTICLES:
            continue
        old = sentence.words[index - 1]
        new = english.article(change.new.split()[0])
        if new != old.lower():
            new = like(old, new)
            mended.append(change_of(sentence, change.attribute, "article", index - 1, index, new))
    return mended
