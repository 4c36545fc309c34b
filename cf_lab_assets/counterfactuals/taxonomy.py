"""The taxonomy: which attributes and values there are, and the words that name them.

It is data. `taxonomy.yaml` beside this module is the lab's own; a user's file of the same form
is laid over it, and needs no code. What it says is checked when it is read, so that a mistake
in it is named with its place and never met in the middle of a batch.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from cf_lab_assets.counterfactuals.english import FUNCTION_WORDS
from cf_lab_resources.errors import LabError

BUILT_IN = Path(__file__).with_name("taxonomy.yaml")
NEUTRAL = "neutral"

PRONOUN_ROLES = ("subject", "object", "determiner", "possessive", "reflexive")
Part = Literal["adjective", "noun", "kinship", "title", "phrase"]
_SECTIONS: dict[str, Part] = {
    "phrases": "phrase",
    "titles": "title",
    "kinship": "kinship",
    "nouns": "noun",
    "adjectives": "adjective",
}
# "doesn't" is one word, "woman's" two: what follows an apostrophe may have to agree.
WORDS = re.compile(
    r"([^\W_]++(?:(?<=[^\W_]n)['\u2019]t\b|['\u2019](?!(?:re|ve|ll)\b)[^\W_]{2,}+|-[^\W_]++)*+"
    r"|['\u2019](?:s|re|ve|ll|d|m)\b)"
)


_PERSON_ENDING = re.compile(
    r"(?:..er|..or|ist|ian|eer|man|men|woman|women|person|people|...smith|..wright)s?$"
)
_SURE_ENDING = re.compile(r"(?:ologist|...graphist|...woman|...women|person|people|smith)s?$")
_GENDERED = re.compile(r".*(?:man|men|woman|women|maid|boy|girl)s?|mrs?|ms|mx|themself")
_NOT_GENDERED = frozenset("german germans human humans roman romans shaman norman ottoman".split())
_NUMBER = "0123456789-"  # before "year-old"
WORDS_KEPT = 65536


class TaxonomyError(LabError):
    """A taxonomy file is wrong, or asked for what it does not have; the message says where."""


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, a clitic such as ``'s`` as a word of its own."""
    return tuple(word.lower() for word in WORDS.findall(text))


def _listed(value: Any) -> Any:
    return {v: [f, None] if isinstance(f, str) else f for v, f in dict(value).items()}


def _with_words(text: str) -> str:
    if not WORDS.search(text):
        raise ValueError(f"{text!r} has no word")
    return text


Phrase = Annotated[str, AfterValidator(_with_words)]
# A row of nouns: value -> (singular, plural).
NounRow = Annotated[dict[str, tuple[Phrase, Phrase | None]], BeforeValidator(_listed)]
WordRow = dict[str, Phrase]


class Pronouns(BaseModel):
    """A value's pronouns by their part in the sentence; `verb` is the number that they govern."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject: Phrase
    object: Phrase
    determiner: Phrase
    possessive: Phrase
    reflexive: Phrase
    verb: Literal["singular", "plural"] = "singular"


class Agreement(BaseModel):
    """Adjectives that have another form beside a noun of another attribute's value.

    Attributes:
        other: the attribute, ``with`` in the file.
        forms: by this attribute's value: by the other's value, the form.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    other: str = Field(alias="with")
    forms: dict[str, WordRow]


class Attribute(BaseModel):
    """An attribute of the taxonomy.

    Attributes:
        basis: whether its values are prompted or perceived; never identity.
        place: of its adjectives among others before a noun; the least stands first.
        values: in the order in which sets show them.
        adjectives, nouns, kinship, titles, phrases: rows of forms that belong together.
        pronouns: by value.
        inserted: what stands for a value where the caption names none, if it is not the form of
            the first row of adjectives.
        agrees: adjectives that change together with another attribute's noun.
        implied_by: words that say a value themselves, so that no other can be given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    basis: Literal["prompted", "perceived"]
    place: int
    values: list[str] = Field(min_length=2)
    adjectives: list[WordRow] = Field(min_length=1)
    nouns: list[NounRow] = []
    kinship: list[NounRow] = []
    titles: list[WordRow] = []
    phrases: list[WordRow] = []
    pronouns: dict[str, Pronouns] = {}
    inserted: WordRow = {}
    agrees: Agreement | None = None
    implied_by: list[str] = []

    @model_validator(mode="after")
    def _known_values(self) -> Attribute:
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"a value is there twice in {self.values}")
        if NEUTRAL in self.values:
            raise ValueError(f"{NEUTRAL!r} is kept for forms that name no value")
        for section in (*_SECTIONS, "pronouns", "inserted"):
            content = getattr(self, section)
            for row in content if isinstance(content, list) else [content]:
                unknown = set(row) - {*self.values, NEUTRAL}
                if unknown:
                    raise ValueError(
                        f"{section}: {sorted(unknown)} are none of the values {self.values}"
                    )
        missing = set(self.values) - {*self.adjectives[0], *self.inserted}
        if missing:
            raise ValueError(
                f"nothing says what is inserted for {sorted(missing)} where a caption names no "
                "value; add it to `inserted`, or to the first row of adjectives"
            )
        return self


class People(BaseModel):
    """Words for people, for what is none, and for what stands before a noun."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nouns: list[Phrase] = []
    things: list[Phrase] = []
    animals: list[Phrase] = []
    descriptions: list[Phrase] = []


class TaxonomyFile(BaseModel):
    """What a taxonomy file holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attributes: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Attribute]
    people: People = People()
    protected: list[Phrase] = []

    @model_validator(mode="after")
    def _one_value_a_pronoun(self) -> TaxonomyFile:
        values: dict[str, str] = {}
        for attribute in self.attributes.values():
            for value, pronouns in attribute.pronouns.items():
                for role in PRONOUN_ROLES:
                    word = getattr(pronouns, role).lower()
                    if values.setdefault(word, value) != value:
                        raise ValueError(
                            f"the pronoun {word!r} is of both {values[word]} and {value}; a "
                            "pronoun names one value, since captions are read by it"
                        )
        return self

    @model_validator(mode="after")
    def _known_agreements(self) -> TaxonomyFile:
        for name, attribute in self.attributes.items():
            agrees = attribute.agrees
            if agrees is None:
                continue
            if agrees.other not in self.attributes:
                raise ValueError(f"{name}.agrees: there is no attribute {agrees.other!r}")
            others = set(self.attributes[agrees.other].values)
            wrong = set(agrees.forms) - set(attribute.values)
            wrong |= {value for forms in agrees.forms.values() for value in forms} - others
            if wrong:
                raise ValueError(f"{name}.agrees: {sorted(wrong)} are no values of the two")
        return self


@dataclass(frozen=True)
class Row:
    """Forms that belong together: value -> (singular, plural), the plural only of nouns."""

    attribute: str
    part: Part
    forms: Mapping[str, tuple[str, str | None]]


@dataclass(frozen=True)
class Form:
    """One form of a row.

    Attributes:
        row: whose it is.
        attribute, part: the row's.
        value: the value it names; `NEUTRAL` where it names none.
        plural: whether it is a noun's plural.
        text: as the taxonomy writes it.
    """

    row: Row = field(repr=False)
    attribute: str
    part: Part
    value: str
    plural: bool
    text: str


@dataclass(frozen=True)
class PronounForm:
    """A pronoun: whose value it names, and what it can be in a sentence."""

    attribute: str
    value: str
    roles: tuple[str, ...]


Phrases = dict[str, list[tuple[tuple[str, ...], Any]]]


class Parts(NamedTuple):
    """The forms that the same words can be, by part of speech."""

    adjective: Form | None = None
    noun: Form | None = None  # or of kinship
    title: Form | None = None
    phrase: Form | None = None


NO_PARTS = Parts()


class Word(NamedTuple):
    """What the taxonomy has of a word as it is written, capitals and all.

    Attributes:
        parts: the forms of one word that it is; None where it is none.
        person: whether it is or looks like a noun for a person that names no value.
        known: whether that noun is one of the taxonomy's.
        pronoun: where it is one.
        longer: forms and nouns for people of several words that begin with it, by the second of
            them, longest first; the nouns with None for their form.
        protected: phrases of several words that never name a value, likewise.
        shut: whether the word alone is such a phrase.
        implies: attributes of which it says a value itself, so that no other can be given.
        odd: whether it says a gender although the taxonomy does not have it, by its ending, or as
            a title or a pronoun.
        hints: whether it says a value without being a form that can be changed: `implies` or `odd`.
    """

    parts: Parts | None
    person: bool
    known: bool
    pronoun: PronounForm | None
    longer: Phrases
    protected: Phrases
    shut: bool
    implies: tuple[str, ...]
    odd: bool
    hints: bool


NO_WORD = Word(None, False, False, None, {}, {}, False, (), False, False)


@dataclass(frozen=True)
class Taxonomy:
    """A checked taxonomy with its look-up tables.

    Attributes:
        attributes: by name.
        people: words for people.
        forms: every form by its first word in lower case: (all its words, `Form`), longest first.
        protected: the same of phrases that never name a value; with None for the form.
        person_nouns: nouns for people without a value; with None likewise.
        pronouns: by the word in lower case.
        implied: attributes that a noun itself gives a value.
    """

    attributes: Mapping[str, Attribute]
    people: People
    forms: Phrases = field(repr=False)
    protected: Phrases = field(repr=False)
    person_nouns: Phrases = field(repr=False)
    pronouns: Mapping[str, PronounForm] = field(repr=False)
    implied: Mapping[str, tuple[str, ...]] = field(repr=False)
    things: frozenset[str] = field(repr=False)
    animals: frozenset[str] = field(repr=False)
    descriptions: frozenset[str] = field(repr=False)
    word: Callable[[str], Word] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "word", functools.lru_cache(WORDS_KEPT)(self._word))

    def _word(self, written: str) -> Word:
        """What there is of a word as it is written; `word` is the same, remembered."""
        low = written.lower().replace("\u2019", "'")
        forms, nouns = self.forms.get(low, []), self.person_nouns.get(low, [])
        longer = _by_second_word((*forms, *nouns))
        protected = self.protected.get(low, [])
        known = self._is_person_noun(low)
        parts = _parts([form for words, form in forms if len(words) == 1], written)
        implies = tuple(
            attribute
            for attribute in self.implied.get(low.lstrip(_NUMBER), ())
            if not any(form and form.attribute == attribute for form in parts or ())
        )
        odd = not parts and low not in _NOT_GENDERED and bool(_GENDERED.fullmatch(low))
        found = Word(
            parts,
            known or self._looks_like_person(low),
            known or self._is_person_noun(low.removesuffix("s")) or bool(_SURE_ENDING.search(low)),
            self.pronouns.get(low),
            longer,
            _by_second_word(protected),
            any(len(words) == 1 for words, _ in protected),
            implies,
            odd,
            odd or bool(implies),
        )
        return NO_WORD if found == NO_WORD._replace(known=found.known) else found

    def _is_person_noun(self, word: str) -> bool:
        return any(len(words) == 1 for words, _ in self.person_nouns.get(word, ()))

    def _looks_like_person(self, word: str) -> bool:
        if word.endswith("s") and self._is_person_noun(word[:-1]):
            return True
        if not self.things.isdisjoint((word, word.rstrip("s"))) or word in self.animals:
            return False
        return bool(_PERSON_ENDING.search(word)) and word not in FUNCTION_WORDS

    def values(self, attribute: str) -> tuple[str, ...]:
        """The values of an attribute, in their order.

        Raises:
            TaxonomyError: there is no such attribute.
        """
        if attribute not in self.attributes:
            raise TaxonomyError(
                f"attribute {attribute!r} is not in the taxonomy; use one of "
                f"{', '.join(self.attributes)}"
            )
        return tuple(self.attributes[attribute].values)

    def value(self, attribute: str, text: str) -> str:
        """The value that a text stands for: its name in any case, or a form that names it.

        Raises:
            TaxonomyError: the text names no value of the attribute.
        """
        values = self.values(attribute)
        if text in values:
            return text
        text = text.strip()
        for value in values:
            if value.lower() == text.lower():
                return value
        words = words_of(text)
        for known, form in self.forms.get(words[0] if words else "", []):
            if known == words and form.attribute == attribute and form.value != NEUTRAL:
                return str(form.value)
        raise TaxonomyError(f"{text!r} is no value of {attribute}; use one of {', '.join(values)}")


def is_spelt(text: str, form: Form) -> bool:
    """Whether capitals are as the form has them, or as a sentence's start or a heading asks."""
    return text in (form.text, form.text[0].upper() + form.text[1:], form.text.upper())


def _parts(forms: Iterable[Form], written: str) -> Parts | None:
    found: dict[str, Form] = {}
    for form in forms:
        if is_spelt(written, form):
            found.setdefault("noun" if form.part == "kinship" else form.part, form)
    return Parts(**found) if found else None


def parse_taxonomy(content: Any, name: str) -> TaxonomyFile:
    """Check what was read of a taxonomy file.

    Raises:
        TaxonomyError: it is not what a taxonomy file holds; names the file and each place.
    """
    try:
        return TaxonomyFile.model_validate(content)
    except ValidationError as error:
        places = [
            f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}"
            for one in error.errors()[:5]
        ]
        raise TaxonomyError(f"{name} is no taxonomy: " + "; ".join(places)) from error


def load_taxonomy(own: Path | None = None) -> Taxonomy:
    """The lab's taxonomy, with a user's own file laid over it.

    Args:
        own: a YAML file of the form of `taxonomy.yaml`, holding only what it adds or replaces.

    Raises:
        TaxonomyError: the file can't be read or is wrong.
    """
    content = _read_yaml(BUILT_IN)
    if own is not None:
        content = _laid_over(content, _read_yaml(own))
    return compile_taxonomy(parse_taxonomy(content, str(own or BUILT_IN.name)), str(own))


@functools.cache
def default_taxonomy() -> Taxonomy:
    """The taxonomy in use: the lab's, with the file that ``CF_LAB_TAXONOMY`` names over it."""
    from cf_lab_resources.settings import Settings

    return load_taxonomy(Settings.from_env().taxonomy)


def _read_yaml(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise TaxonomyError(f"the taxonomy {path} can't be read: {error}") from error
    except yaml.YAMLError as error:
        raise TaxonomyError(f"the taxonomy {path} is not valid YAML: {error}") from error


def _laid_over(base: Any, own: Any) -> Any:
    """Mappings key by key, lists appended, anything else replaced."""
    if isinstance(base, dict) and isinstance(own, dict):
        return {**base, **{k: _laid_over(base[k], v) if k in base else v for k, v in own.items()}}
    if isinstance(base, list) and isinstance(own, list):
        return base + [item for item in own if item not in base]
    return own


def compile_taxonomy(content: TaxonomyFile, name: str) -> Taxonomy:
    """Make the look-up tables of a checked file.

    Raises:
        TaxonomyError: one form names two values of an attribute.
    """
    named: dict[tuple[str, str, Part], str] = {}
    forms: Phrases = {}
    for form in _forms(content.attributes):
        if form.value != NEUTRAL:
            key = (form.attribute, form.text, form.part)
            if named.setdefault(key, form.value) != form.value:
                raise TaxonomyError(
                    f"{name}: {form.text!r} names both {named[key]} and {form.value} of "
                    f"{form.attribute}; a form names one value"
                )
        _enter(forms, form.text, form)
    return Taxonomy(
        attributes=content.attributes,
        people=content.people,
        forms=_longest_first(forms),
        protected=_phrases(content.protected),
        person_nouns=_phrases(content.people.nouns),
        pronouns=_pronouns(content.attributes),
        implied=_implied(content.attributes),
        things=frozenset(content.people.things),
        animals=frozenset(content.people.animals),
        descriptions=frozenset(content.people.descriptions),
    )


def _forms(attributes: Mapping[str, Attribute]) -> Iterator[Form]:
    for name, attribute in attributes.items():
        for section, part in _SECTIONS.items():
            for written in getattr(attribute, section):
                row = Row(name, part, _listed(written))
                if section == "adjectives" and attribute.agrees:
                    yield from _agreeing_forms(row, attribute.agrees)
                for value, (singular, plural) in row.forms.items():
                    yield Form(row, name, part, value, False, singular)
                    if plural:
                        yield Form(row, name, part, value, True, plural)


def _agreeing_forms(row: Row, agreement: Agreement) -> Iterator[Form]:
    for value, by_other in agreement.forms.items():
        plain = row.forms.get(value)
        if plain is None or plain[0] != value:
            continue  # synonyms have no such forms
        for text in by_other.values():
            yield Form(row, row.attribute, row.part, value, False, text)


def _enter(phrases: Phrases, text: str, content: Any) -> None:
    words = words_of(text)
    phrases.setdefault(words[0], []).append((words, content))


def _phrases(texts: Iterable[str]) -> Phrases:
    phrases: Phrases = {}
    for text in texts:
        _enter(phrases, text, None)
    return _longest_first(phrases)


def _longest_first(phrases: Phrases) -> Phrases:
    return {first: sorted(known, key=lambda k: -len(k[0])) for first, known in phrases.items()}


def _by_second_word(phrases: Iterable[tuple[tuple[str, ...], Any]]) -> Phrases:
    found: Phrases = {}
    for words, content in phrases:
        if len(words) > 1:
            found.setdefault(words[1], []).append((words, content))
    return _longest_first(found)


def _pronouns(attributes: Mapping[str, Attribute]) -> dict[str, PronounForm]:
    found: dict[str, PronounForm] = {}
    for name, attribute in attributes.items():
        for value, pronouns in attribute.pronouns.items():
            for role in PRONOUN_ROLES:
                word = getattr(pronouns, role).lower()
                known = found.get(word, PronounForm(name, value, ()))
                found[word] = PronounForm(name, value, (*known.roles, role))
    return found


def _implied(attributes: Mapping[str, Attribute]) -> dict[str, tuple[str, ...]]:
    implied: dict[str, tuple[str, ...]] = {}
    for name, attribute in attributes.items():
        for word in attribute.implied_by:
            implied[word.lower()] = (*implied.get(word.lower(), ()), name)
    return implied
