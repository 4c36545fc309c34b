"""Caption counterfactuals: the same sentence with another value of one attribute.

An edit replaces the one mention of a value by another value's form of the same kind and mends
the article before it. What needs more grammar than that (pronouns, several people) is refused
with a reason instead of guessed at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cf_lab_assets.starter.world import OCCUPATIONS
from cf_lab_resources.errors import LabError

# Forms of a value; the forms of one position belong together across values.
FORMS: dict[str, dict[str, tuple[str, ...]]] = {
    "gender": {
        "woman": ("woman", "women", "female", "girl", "girls", "lady", "ladies"),
        "man": ("man", "men", "male", "boy", "boys", "gentleman", "gentlemen"),
    },
    "age": {
        "young": ("young",),
        "middle-aged": ("middle-aged",),
        "old": ("old",),
    },
    "skin_tone": {
        "light": ("light skin", "light-skinned"),
        "medium": ("medium skin", "medium-skinned"),
        "dark": ("dark skin", "dark-skinned"),
    },
}
# Words that would have to change with gender, in ways that need the sentence's grammar.
GENDERED_GRAMMAR = frozenset(
    {"she", "he", "her", "his", "him", "hers", "herself", "himself"}
    | {"mother", "father", "wife", "husband", "daughter", "son", "sister", "brother"}
    | {"aunt", "uncle", "niece", "nephew", "grandmother", "grandfather"}
    | {"waitress", "waiter", "actress", "actor"}
    | {"mr", "mrs", "ms", "sir", "madam", "mister", "miss"}
)


# What else an adjective of age may be said of.
PERSON_NOUNS = frozenset({"person", "people", "adult", "adults", "child", "children", *OCCUPATIONS})


class CannotRewrite(LabError):
    """A caption that can't be rewritten surely.

    Attributes:
        reason: a code for tables: ``value_not_named``, ``several_mentions``,
            ``needs_grammar``, ``unknown_value``.
    """

    def __init__(self, reason: str, message: str) -> None:
        """Keep the reason code beside the sentence."""
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Mention:
    """Where a caption names a value.

    Attributes:
        value: the value named.
        form: position among the value's `FORMS`.
        start: first character.
        end: one past the last character.
    """

    value: str
    form: int
    start: int
    end: int


@dataclass(frozen=True)
class Rewritten:
    """A counterfactual caption and what was done to get it."""

    caption: str
    explanation: str


def mentions(caption: str, attribute: str) -> list[Mention]:
    """Every place where a caption names a value of an attribute, in order."""
    found = [
        Mention(value, form, match.start(), match.end())
        for value, forms in FORMS.get(attribute, {}).items()
        for form, words in enumerate(forms)
        for match in re.finditer(rf"(?<![\w-]){re.escape(words)}(?![\w-])", caption, re.IGNORECASE)
    ]
    return sorted(found, key=lambda mention: mention.start)


def named_value(caption: str, attribute: str) -> str | None:
    """The one value that a caption names, or None where it names none or several."""
    values = {mention.value for mention in mentions(caption, attribute)}
    return values.pop() if len(values) == 1 else None


def rewrite(caption: str, attribute: str, to_value: str) -> Rewritten:
    """Change the value of an attribute in a caption.

    Args:
        caption: names the attribute's value exactly once.
        attribute: a key of `FORMS`.
        to_value: one of the attribute's values.

    Raises:
        CannotRewrite: the caption can't be rewritten surely; its ``reason`` says why.
    """
    values = FORMS.get(attribute, {})
    if to_value not in values:
        raise CannotRewrite(
            "unknown_value",
            f"no forms are known for {attribute} {to_value!r}; known: {list(values)}",
        )
    found = mentions(caption, attribute)
    if not found:
        raise CannotRewrite(
            "value_not_named", f"the caption {caption!r} names no {attribute}; name it once"
        )
    if len(found) > 1:
        raise CannotRewrite(
            "several_mentions", f"the caption {caption!r} names {attribute} {len(found)} times"
        )
    mention = found[0]
    if attribute == "gender":
        _refuse_gendered_grammar(caption)
    if attribute == "age" and not _is_said_of_a_person(caption[mention.end :]):
        raise CannotRewrite(
            "needs_grammar",
            f"in the caption {caption!r} it is not sure that {mention.value!r} is said of a person",
        )
    old = caption[mention.start : mention.end]
    new = _in_case_of(old, values[to_value][mention.form])
    before = _mend_article(caption[: mention.start], new)
    return Rewritten(
        caption=before + new + caption[mention.end :],
        explanation=f'{attribute}: "{old}" became "{new}"',
    )


def _refuse_gendered_grammar(caption: str) -> None:
    for word in re.findall(r"[a-z]+", caption.lower()):
        if word in GENDERED_GRAMMAR:
            raise CannotRewrite(
                "needs_grammar", f"the caption {caption!r} also says {word!r}, which must agree"
            )


def _is_said_of_a_person(following: str) -> bool:
    """Whether an adjective stands right before a word for a person, or one word away."""
    nouns = {form for forms in FORMS["gender"].values() for form in forms} | PERSON_NOUNS
    words = re.findall(r"[a-z-]+", following.lower())[:3]
    spans = {" ".join(words[start:end]) for start in (0, 1) for end in (start + 1, start + 2)}
    return not spans.isdisjoint(nouns)


def _in_case_of(old: str, new: str) -> str:
    return new[0].upper() + new[1:] if old[0].isupper() else new


def _mend_article(before: str, word: str) -> str:
    match = re.search(r"\b(an?)(\s+)$", before, re.IGNORECASE)
    if not match:
        return before
    article = "an" if word[0].lower() in "aeiou" else "a"
    if match.group(1)[0].isupper():
        article = article.capitalize()
    return before[: match.start()] + article + match.group(2)
