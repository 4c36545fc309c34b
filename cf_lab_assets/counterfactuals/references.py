"""Whom a caption's pronouns stand for, as far as that can be told.

What can't be told surely is refused: `CannotRewrite` with a reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cf_lab_assets.counterfactuals import english
from cf_lab_assets.counterfactuals.sentence import Sentence
from cf_lab_assets.counterfactuals.taxonomy import PronounForm, Taxonomy
from cf_lab_resources.errors import LabError

REASONS = {
    "unknown_value": "the taxonomy does not have the attribute or value",
    "no_person": "the caption speaks of nobody whom the value could be given to",
    "several_people": "it can't be told which of several people is meant",
    "different_people": "the attributes are named of different people",
    "several_values": "the caption names more than one value of one person",
    "ambiguous_reference": "a pronoun may stand for somebody else",
    "named_person": "a proper name would have to change too",
    "no_counterpart": "a word has no counterpart for the value",
    "value_implied": "another word implies a value",
    "needs_grammar": "the grammar of a place can't be told surely",
    "not_reversible": "the way back would lead to another caption",
}


class CannotRewrite(LabError):
    """A caption that can't be rewritten surely.

    Attributes:
        reason: one of `REASONS`.
    """

    def __init__(self, reason: str, message: str) -> None:
        """Keep the reason code beside the sentence."""
        super().__init__(message)
        self.reason = reason


def refused(reason: str, sentence: Sentence, what: str) -> CannotRewrite:
    """The refusal of a caption that does `what`."""
    return CannotRewrite(reason, f"the caption {sentence.text!r} {what}")


def role_of(sentence: Sentence, index: int, roles: tuple[str, ...]) -> str:
    """Which of the parts that a pronoun can play it plays at a place.

    Raises:
        english.Unsure: it can be more than one.
    """
    if len(roles) == 1:
        return roles[0]
    ends = sentence.ends_phrase(index)
    if ends and not _QUOTE.isdisjoint(sentence.gap_after(index)):
        raise english.Unsure("whether what is quoted is somebody's can't be told")
    if roles == ("object", "determiner"):
        return english.role_of_her(sentence.lower, index, ends)
    if roles == ("determiner", "possessive"):
        return english.role_of_his(sentence.lower, index, ends)
    raise english.Unsure(f"what {sentence.words[index]!r} is there can't be told")


_QUOTE = frozenset("\"'\u2018\u201c")
NAMING = re.compile(r"\b(?:named|called|name (?:is|was)|name['\u2019]s)\s+[^\W\d_a-z]")


def check_no_odd_word(sentence: Sentence, attribute: str) -> None:
    """Refuse where a word that is not understood says the value of an attribute with pronouns."""
    for index in sentence.odd:
        word, people = sentence.words[index], sentence.people
        if not any(p.start <= index < p.end and p.mentions.get(attribute) for p in people):
            raise refused("no_counterpart", sentence, f"says {word!r}, for which there is no other")


def check_no_animal(sentence: Sentence, pronoun: int, taxonomy: Taxonomy) -> None:
    """Refuse a pronoun before which there is an animal or a thing like a ship, and nobody else."""
    if any(person.head < pronoun for person in sentence.people):
        return
    for word in sentence.lower[:pronoun]:
        if word in taxonomy.animals:
            raise refused(
                "ambiguous_reference",
                sentence,
                f"leaves open whether {sentence.words[pronoun]!r} is the {word}'s",
            )


def check_singular_they(sentence: Sentence, places: list[int]) -> None:
    """Refuse where "they" may be things or people that were named before it."""
    singular = {p.head for p in sentence.people if not p.plural}
    heads = {p.end for p in sentence.people}
    for index in range(max(places)):
        word = sentence.lower[index]
        plural = english.is_third_person(word) and index not in heads and index not in singular
        if word in ("and", "people", "children", "men", "women") and index not in singular:
            plural = plural or not any(p.start <= index < p.end for p in sentence.people)
        if plural and word not in english.FUNCTION_WORDS:
            raise refused(
                "ambiguous_reference", sentence, f"leaves open whether 'they' are the {word}"
            )


_CLAUSES = frozenset({"to", "because", "that", "if", "when", "while", "and"})


def acts_on_another(sentence: Sentence, pronouns: Iterable[tuple[int, PronounForm]]) -> bool:
    """Whether one pronoun acts on another of the same kind: "she helped her" is of two people."""
    subject = None
    for index, form in pronouns:
        roles = form.roles
        if roles == ("subject",):
            subject = index
        elif subject is not None and "object" in roles:
            between = sentence.lower[subject + 1 : index]
            clause = not any(sentence.broken[subject + 1 : index + 1]) and (
                _CLAUSES.isdisjoint(between)
            )
            if clause and _certain_role(sentence, index, roles) == "object":
                return True
    return False


def _certain_role(sentence: Sentence, index: int, roles: tuple[str, ...]) -> str | None:
    try:
        return role_of(sentence, index, roles)
    except english.Unsure:
        return None


_AFTER_NAMES = english.AUXILIARIES | english.MODALS | {"and", "'s"}
_PLACES = frozenset("in at near on around across through outside inside over".split())


def may_be_named(sentence: Sentence, pronoun: int, taxonomy: Taxonomy) -> bool:
    """Whether a proper name that the pronoun may stand for is before it."""
    placed = -2  # the last word of a place's name
    for index, word in enumerate(sentence.words[:pronoun]):
        if not word[0].isupper() or sentence.shut[index]:
            continue
        if sentence.opens[index]:
            named = _opens_with_name(sentence, index, taxonomy)
        elif sentence.lower[index - 1] in _PLACES or placed == index - 1:
            named, placed = False, index
        else:
            named = sentence.is_name(index)
        if named and not any(p.start <= index < p.end and p.known for p in sentence.people):
            return True
    return False


def _opens_with_name(sentence: Sentence, index: int, taxonomy: Taxonomy) -> bool:
    """Whether a sentence begins "Mary smiles" or "Mary's"."""
    word = sentence.lower[index]
    if word in english.FUNCTION_WORDS or word in english.ADVERBS:
        return False
    if (
        word in taxonomy.forms
        or word in taxonomy.person_nouns
        or word.endswith(("ing", "ly", "ed"))
    ):
        return False
    if index + 1 >= len(sentence.words):
        return False
    following = sentence.lower[index + 1]
    return (
        following in _AFTER_NAMES
        or english.is_third_person(following)
        or following.endswith("ed")
        or following in english.IRREGULAR_PAST
    )
