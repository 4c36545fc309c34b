"""What a caption says of people: who is in it, and where it names an attribute's value.

`read` finds the words of the taxonomy and puts them together to people: a noun with the
adjectives before it, titles, phrases behind it, and other nouns for the same person ("a woman
who is a doctor", "the woman"). Pronouns are found here and given to people in `rewrite`.

It reads noun phrases, not sentences: what stands between a determiner and a word for a person.
That needs no model, is fast, and shows its reasons; where it is not sure it says less.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cf_lab_assets.counterfactuals import english
from cf_lab_assets.counterfactuals.taxonomy import (
    NEUTRAL,
    NO_PARTS,
    NO_WORD,
    WORDS,
    Form,
    Parts,
    Phrases,
    PronounForm,
    Taxonomy,
    Word,
    is_spelt,
)

_BREAK = re.compile(r"[^\s\[\]'\u2019]")
_FULL_STOP = re.compile(r"[.!?\n]")
_QUOTED = re.compile(
    r"\"[^\"]*\"|\u201c[^\u201d]*\u201d|(?<!\w)['\u2018](?!s\b)[^'\u2019]*['\u2019](?!\w)"
)
# Before a capitalised name these are part of it: "Lady Day", "Prince Charming".
_BEFORE_NAMES = frozenset(
    "lady king queen prince princess duke duchess sir aunt uncle mother father sister brother "
    "miss grandma grandpa widow nun monk".split()
)
_START = operator.attrgetter("start")
MOST_MODIFIERS = 8
MOST_BETWEEN = 20  # people between two nouns for the same one


class Mention(NamedTuple):
    """Words that name a value: `words[start:end]`.

    Attributes:
        form: the taxonomy's.
        start: its first word.
        end: one past its last word.
        attributive: whether it is a noun that stands before another ("a woman doctor").
    """

    form: Form
    start: int
    end: int
    attributive: bool = False


@dataclass(slots=True, eq=False)
class Person:
    """A person of the caption: `words[start:end]`, the head from `head` on.

    Attributes:
        related: named by relation to somebody else of the caption ("her son").
        named: goes by a proper name.
        unclear: whether what stands before it belongs to it can't be told.
        neutral: the head's form, where it is one that names no value.
        known: whether the head is a word of the taxonomy, not one that only looks like it.
        mentions: by attribute.
    """

    start: int
    head: int
    end: int
    determiner: int | None
    plural: bool = False
    related: bool = False
    named: bool = False
    unclear: bool = False
    known: bool = True
    neutral: Form | None = None
    mentions: dict[str, list[Mention]] = field(default_factory=dict)

    def add(self, mention: Mention) -> None:
        """Note a mention of this person."""
        self.mentions.setdefault(mention.form.attribute, []).append(mention)


@dataclass(slots=True)
class Sentence:
    """A caption, read.

    Attributes:
        text: the caption.
        words: as they stand.
        lower: in lower case.
        starts, ends: their places in the text.
        broken: whether a stop or another sign stands before the word.
        opens: whether a sentence begins with it.
        shut: whether it is not to be touched: quoted, or of a protected phrase.
        people: in their order.
        pronouns: word and form.
        loose: attributes of which a form stands where it can't be told whose it is.
        implying: words that say a value themselves, and the attributes of which they do.
        odd: words that say a gender in a way that can't be changed.
    """

    text: str
    words: list[str]
    lower: list[str]
    starts: list[int]
    ends: list[int]
    broken: list[bool]
    opens: list[bool]
    shut: list[bool]
    people: list[Person] = field(default_factory=list)
    pronouns: list[tuple[int, PronounForm]] = field(default_factory=list)
    loose: set[str] = field(default_factory=set)
    implying: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    odd: list[int] = field(default_factory=list)

    def ends_phrase(self, at: int) -> bool:
        """Whether nothing follows a word, or a sign does."""
        return at + 1 >= len(self.words) or self.broken[at + 1]

    def gap_after(self, at: int) -> str:
        """What stands between a word and the next one, or the end."""
        end = self.starts[at + 1] if at + 1 < len(self.words) else None
        return self.text[self.ends[at] : end]

    def is_bracketed(self, at: int) -> bool:
        """Whether a word stands in square brackets, which mark the person that is meant."""
        start, end = self.starts[at], self.ends[at]
        return self.text[end : end + 1] == "]" and self.text[start - 1 : start] == "["

    def is_said_of_pronoun(self, person: Person) -> bool:
        """Whether a person is what a pronoun before it is said to be: "she is a doctor"."""
        verb = person.determiner - 1 if person.determiner else 0
        return self.lower[verb] in english.BE and any(at == verb - 1 for at, _ in self.pronouns)

    def is_name(self, at: int) -> bool:
        """Whether a word looks like a proper name where it stands."""
        word = self.words[at]
        return word[0].isupper() and not word.isupper() and not self.opens[at]


class _Item(NamedTuple):
    """Words of the taxonomy before it is known what they do."""

    start: int
    end: int
    parts: Parts
    known: bool


def read(caption: str, taxonomy: Taxonomy) -> Sentence:
    """Read a caption; any text can be read."""
    sentence = _split(caption)
    items = _items(sentence, taxonomy)
    if items:
        _Reader(sentence, taxonomy, items).run()
    return sentence


def _split(caption: str) -> Sentence:
    parts = WORDS.split(caption)  # what is between words at even places, words at odd ones
    places = list(itertools.accumulate(map(len, parts)))
    words, gaps = parts[1::2], parts[:-1:2]
    lower = "\n".join(words).lower().replace("\u2019", "'").split("\n") if words else []
    count = len(words)
    broken, opens, shut = [False] * count, [False] * count, [False] * count
    if set(gaps[1:]) - {" "}:
        for index, gap in enumerate(gaps):
            if gap == " " or not index:
                continue
            if not (gap == ". " and lower[index - 1] in _TITLES):
                broken[index] = bool(_BREAK.search(gap))
                opens[index] = broken[index] and bool(_FULL_STOP.search(gap))
    if "US" in caption and "US" in words:  # the country, not "us"
        lower = ["usa" if word == "US" else low for word, low in zip(words, lower, strict=True)]
    if words:
        opens[0] = True
    sentence = Sentence(caption, words, lower, places[:-1:2], places[1::2], broken, opens, shut)
    if "'" in caption or '"' in caption or "\u201c" in caption or "\u2018" in caption:
        _shut_quoted(sentence)
    return sentence


def _shut_quoted(sentence: Sentence) -> None:
    for quoted in _QUOTED.finditer(sentence.text):
        for index, start in enumerate(sentence.starts):
            if quoted.start() <= start < quoted.end() - 1:
                sentence.shut[index] = True


_TITLES = frozenset({"mr", "ms", "mrs", "mx", "dr", "st", "prof"})


def _matching(sentence: Sentence, at: int, phrases: Phrases) -> list[tuple[int, Any]]:
    """The phrases that stand at a place, whose first word is known to: their end, and content."""
    if at + 1 == len(sentence.lower) or sentence.lower[at + 1] not in phrases:
        return []
    return [
        (end, content)
        for words, content in phrases[sentence.lower[at + 1]]
        if tuple(sentence.lower[at : (end := at + len(words))]) == words
        and not any(sentence.broken[at + 1 : end])
        and not any(sentence.shut[at:end])
    ]


def _items(sentence: Sentence, taxonomy: Taxonomy) -> list[_Item]:
    known = [
        (index, word)
        for index, word in enumerate(map(taxonomy.word, sentence.words))
        if word is not NO_WORD
    ]
    hinting = False
    for index, word in known:
        hinting = hinting or word.hints
        if word.shut:
            sentence.shut[index] = True
        for end, _ in _matching(sentence, index, word.protected)[:1] if word.protected else ():
            sentence.shut[index:end] = [True] * (end - index)
    items: list[_Item] = []
    free = 0  # the first word that no item has taken
    for index, word in known:
        if index < free or sentence.shut[index]:
            continue
        item = _item(sentence, index, word)
        if item is not None:
            items.append(item)
            free = item.end
        elif word.pronoun:
            sentence.pronouns.append((index, word.pronoun))
    if hinting or True in sentence.shut:
        _note_hints(sentence, known, items)
    return items


def _note_hints(
    sentence: Sentence, known: Sequence[tuple[int, Word]], items: Sequence[_Item]
) -> None:
    """Note what says a value without being one of the forms that can be changed."""
    sentence.implying = _implying(known, items)
    for at, word in known:
        # A gendered word in a phrase that stays, such as "girl scout", whose pronouns are hers.
        stays = sentence.pronouns and sentence.shut[at] and word.parts and word.parts.noun
        if (word.odd and not sentence.shut[at]) or stays:
            sentence.odd.append(at)


def _implying(
    known: Sequence[tuple[int, Word]], items: Sequence[_Item]
) -> list[tuple[int, tuple[str, ...]]]:
    """Words that say a value themselves, and of what: not those of forms that name one of it."""
    named = {
        (at, form.attribute)
        for item in items
        for form in item.parts
        if form
        for at in range(item.start, item.end)
    }
    return [
        (at, tuple(attribute for attribute in word.implies if (at, attribute) not in named))
        for at, word in known
        if word.implies
    ]


def _item(sentence: Sentence, at: int, word: Word) -> _Item | None:
    for end, form in _matching(sentence, at, word.longer) if word.longer else ():
        if form is None:
            return _Item(at, end, NO_PARTS, True)
        if is_spelt(sentence.text[sentence.starts[at] : sentence.ends[end - 1]], form):
            part = "noun" if form.part == "kinship" else form.part
            return _Item(at, end, Parts(**{part: form}), True)
    if word.parts:
        return _Item(at, at + 1, word.parts, True)
    return _Item(at, at + 1, NO_PARTS, word.known) if word.person else None


class _Reader:
    """Puts a sentence's items together to people."""

    def __init__(self, sentence: Sentence, taxonomy: Taxonomy, items: list[_Item]) -> None:
        self.sentence = sentence
        self.taxonomy = taxonomy
        self.items = items
        self.heads: set[int] = set()

    def run(self) -> None:
        """Fill the sentence's people."""
        waiting: list[_Item] = []
        last = len(self.items) - 1
        for index, item in enumerate(self.items):
            adjective, noun, title, phrase = item.parts
            before = self.items[index - 1] if index else None
            if before and before.end == item.start and self._is_verb(before, item):
                continue
            if phrase:
                self._add_phrase(item, phrase)
            elif title:
                self._add_title(item, title)
            elif (
                (adjective and not noun)
                or (index < last and self._stands_before(item, self.items[index + 1]))
                or not self._is_head(item)
            ):
                waiting.append(item)
            else:
                waiting = self._add_person(item, waiting)
        for item in waiting:
            if item.parts.adjective:
                self._add_lone_adjective(item, item.parts.adjective)
        if len(self.sentence.people) > 1:
            self.sentence.people.sort(key=_START)
            self._join()

    def _is_verb(self, subject: _Item, item: _Item) -> bool:
        """Whether a word that looks like people is what one does: "a woman enters her car"."""
        sentence, noun = self.sentence, subject.parts.noun
        if item.end - item.start > 1 or sentence.broken[item.start]:
            return False
        if sentence.lower[item.start][-1] != "s" or item.parts.adjective:
            return False
        if noun:  # "girls" would be needed before people of the same kind
            return not noun.plural and subject.parts.adjective is None
        start = self._left_edge(subject.start)
        return (
            start > 0
            and sentence.lower[start - 1] in _SINGULAR
            and not _is_plural(sentence.lower[subject.end - 1], self.taxonomy)
        )

    def _stands_before(self, item: _Item, following: _Item) -> bool:
        """Whether a word for a person is only part of another one's name: "woman doctor"."""
        return (
            following.start == item.end
            and not self.sentence.broken[following.start]
            and not (following.parts.phrase or following.parts.title)
            and not self._is_verb(item, following)
        )

    def _is_head(self, item: _Item) -> bool:
        """Whether a word stands for the person itself: "a Muslim", but not "a Muslim town"."""
        if item.parts.adjective:
            return self._is_followed_by_no_noun(item.end)
        words, at = self.sentence.lower, item.end
        return at >= len(words) or words[at] in english.FUNCTION_WORDS or not self._is_thing(item)

    def _is_thing(self, item: _Item) -> bool:
        """Whether a noun for people says of what kind the thing behind it is: "a queen bed"."""
        sentence, at = self.sentence, item.end
        if sentence.broken[at]:
            return False
        word = sentence.lower[at]
        if word in self.taxonomy.animals or word in self.taxonomy.things:
            return word not in _ALSO_PEOPLE
        if _is_plural(sentence.lower[at - 1], self.taxonomy):
            return False  # "women walk": a verb without ending
        return not (
            not word.isalpha()
            or sentence.words[at][0].isupper()
            or english.is_adverb(word)
            or english.follows_noun(word)
            or (english.is_third_person(word) and self._acts(item, word))
        )

    def _acts(self, item: _Item, word: str) -> bool:
        """Whether a word in -s behind a noun is what one does, "a baby sleeps", no "baby shoes"."""
        determined = self._determiner(self._left_edge(item.start)) is not None
        return determined or english.plural_verb(word) in english.BASE_VERBS

    def _is_followed_by_no_noun(self, at: int) -> bool:
        sentence = self.sentence
        if at >= len(sentence.words) or sentence.broken[at]:
            return True
        word = sentence.lower[at]
        if word in english.FUNCTION_WORDS or word.endswith("ing") or word == "'s":
            return True
        # "a Muslim prays": after "a", what ends in -s is the verb.
        return english.is_third_person(word) and sentence.lower[max(0, at - 2)] in ("a", "an")

    def _left_edge(self, at: int) -> int:
        """The first word of the noun phrase that goes on at a word, determiner left out."""
        sentence, first = self.sentence, max(0, at - MOST_MODIFIERS)
        while at > first and not sentence.broken[at]:
            before = at - 1
            word = sentence.lower[before]
            after_head = before - 1 in self.heads
            if (
                before in self.heads
                or word in english.FUNCTION_WORDS
                or sentence.shut[before]
                or (after_head and (word.endswith("ing") or english.is_third_person(word)))
            ):
                break
            at = before
        return at

    def _determiner(self, start: int) -> int | None:
        sentence = self.sentence
        if start == 0 or sentence.broken[start]:
            return None
        return start - 1 if sentence.lower[start - 1] in english.OWNING else None

    def _add_person(self, item: _Item, waiting: list[_Item]) -> list[_Item]:
        sentence = self.sentence
        start = self._left_edge(item.start)
        determiner = self._determiner(start)
        form = item.parts.noun
        word = sentence.lower[item.end - 1]
        owner = determiner is not None and sentence.lower[determiner] in _OWNERS
        person = Person(
            start,
            item.start,
            item.end,
            determiner,
            plural=form.plural if form else _is_plural(word, self.taxonomy),
            related=owner and form is not None and form.part == "kinship",
            known=item.known,
            neutral=form if form and form.value == NEUTRAL else None,
        )
        if form and form.value != NEUTRAL:
            if self._is_part_of_name(item):
                person.named = True
            else:
                person.named = self._is_followed_by_name(item) or self._is_said_of_name(determiner)
                person.add(Mention(form, item.start, item.end))
            if form.plural and determiner is not None and sentence.lower[determiner] in ("a", "an"):
                sentence.loose.add(form.attribute)  # "a women": which of both is wrong?
        if start and sentence.shut[start - 1] and not sentence.broken[start]:
            person.unclear = True
        sentence.people.append(person)
        self.heads.update(range(item.start, item.end))
        if not waiting:
            return waiting
        self._add_modifiers(person, [one for one in waiting if one.start >= start])
        return [one for one in waiting if one.start < start]

    def _add_modifiers(self, person: Person, items: list[_Item]) -> None:
        """Adjectives before the noun; an adjective outweighs the noun: "a male policeman"."""
        for item in items:
            form, noun = item.parts.adjective, item.parts.noun
            if form:
                known = person.mentions.get(form.attribute)
                if known and known[0].form.part != "adjective":
                    known.clear()
                person.add(Mention(form, item.start, item.end))
            elif noun and noun.value != NEUTRAL and noun.attribute not in person.mentions:
                person.add(Mention(noun, item.start, item.end, attributive=True))

    def _is_part_of_name(self, item: _Item) -> bool:
        """A form with a capital that is not its own: "Queen Ann", "a Brother sewing machine"."""
        sentence, at = self.sentence, item.start
        if item.end >= len(sentence.words) or sentence.broken[item.end]:
            return False
        if not sentence.words[at][0].isupper():
            return False
        if sentence.words[item.end][0].isupper():
            return sentence.lower[at] in _BEFORE_NAMES
        form = item.parts.noun
        return (
            sentence.is_name(at)
            and form is not None
            and form.text.islower()
            and sentence.words[at - 1].islower()
        )

    def _is_followed_by_name(self, item: _Item) -> bool:
        """Whether a name stands right behind a small noun: "my sister Mary", "a woman, Mary,"."""
        sentence, after = self.sentence, item.end
        return (
            sentence.words[item.start][0].islower()
            and after < len(sentence.words)
            and (not sentence.broken[after] or sentence.ends_phrase(after))
            and sentence.is_name(after)
            and self.taxonomy.word(sentence.words[after]) is NO_WORD
        )

    def _is_said_of_name(self, determiner: int | None) -> bool:
        """Whether a person is what somebody by name is said to be: "Anna is a girl"."""
        sentence, verb = self.sentence, (determiner or 0) - 1
        return (
            verb > 0
            and sentence.lower[verb] in english.BE
            and sentence.words[verb - 1][0].isupper()
            and sentence.lower[verb - 1] not in english.FUNCTION_WORDS
            and verb - 1 not in self.heads
        )

    def _add_title(self, item: _Item, form: Form) -> None:
        """A name such as "Mr. Smith"; a given name in it would have to change too."""
        sentence, end = self.sentence, item.end
        loud = len(sentence.words[item.start]) > 1 and sentence.words[item.start].isupper()
        while (
            end < len(sentence.words)
            and not sentence.broken[end]
            and (sentence.is_name(end) or (loud and end == item.end))
        ):
            end += 1
        if end == item.end:
            sentence.loose.add(form.attribute)
            return
        person = Person(item.start, item.start, end, None, named=end - item.end > 1)
        person.add(Mention(form, item.start, item.end))
        self.heads.update(range(item.start, end))
        sentence.people.append(person)

    def _add_phrase(self, item: _Item, form: Form) -> None:
        before = [person for person in self.sentence.people if not person.related]
        if before:
            before[-1].add(Mention(form, item.start, item.end))
        else:
            self.sentence.loose.add(form.attribute)

    def _add_lone_adjective(self, item: _Item, form: Form) -> None:
        """An adjective without a word for a person behind it."""
        person = self._described_before(item) or self._headed_after(item, form)
        before = self.sentence.lower[item.start - 1] if item.start else ""
        if person:
            person.add(Mention(form, item.start, item.end))
        elif self._is_followed_by_no_noun(item.end) and before not in english.PREPOSITIONS:
            self.sentence.loose.add(form.attribute)

    def _described_before(self, item: _Item) -> Person | None:
        """The person of whom an adjective is said: "the woman is young"."""
        sentence, verb = self.sentence, item.start - 1
        if verb < 1 or sentence.lower[verb] not in english.BE or sentence.broken[item.start]:
            return None
        if not self._is_followed_by_no_noun(item.end):
            return None
        subject = verb - 1 - (sentence.lower[verb - 1] == "who")
        return next((p for p in sentence.people if p.end - 1 == subject), None)

    def _headed_after(self, item: _Item, form: Form) -> Person | None:
        """The person of a noun that only the adjective shows to be one: "a male model maker"."""
        sentence, end = self.sentence, item.end
        for person in sentence.people:
            if person.start <= item.start < person.end:
                return person
        if not self.taxonomy.attributes[form.attribute].pronouns:
            return None
        while (
            end < len(sentence.words)
            and end - item.end < MOST_MODIFIERS
            and not sentence.broken[end]
            and not sentence.shut[end]
            and sentence.lower[end] not in english.FUNCTION_WORDS
            and sentence.lower[end] != "'s"
            and not (end > item.end and sentence.lower[end].endswith("ing"))
        ):
            end += 1
        nouns = sentence.lower[item.end : end]
        if not nouns or not self.taxonomy.animals.isdisjoint(nouns):
            return None
        if self.taxonomy.things.intersection(nouns[-1:]) and nouns[-1] not in _ALSO_PEOPLE:
            return None
        start = self._left_edge(item.start)
        person = Person(start, end - 1, end, self._determiner(start), known=False)
        for other in self.items:
            if start <= other.start < item.start and (described := other.parts.adjective):
                person.add(Mention(described, other.start, other.end))
        sentence.people.append(person)
        return person

    def _join(self) -> None:
        """Make one person of two nouns for the same."""
        joined: list[Person] = []
        for person in self.sentence.people:
            for earlier in joined[: -MOST_BETWEEN - 1 : -1]:
                if self._is_same(earlier, person):
                    for mentions in person.mentions.values():
                        for mention in mentions:
                            earlier.add(mention)
                    break
            else:
                joined.append(person)
        self.sentence.people = joined

    def _is_same(self, earlier: Person, later: Person) -> bool:
        sentence = self.sentence
        determiner = later.determiner
        if determiner is None or later.related or earlier.plural != later.plural:
            return False
        before = sentence.lower[determiner - 1] if determiner else ""
        between = sentence.lower[earlier.end : determiner]
        if before == "as" and sentence.lower[determiner] in ("a", "an"):
            return True
        if between and between[-1] in english.BE and set(between[:-1]) <= {"who", "that"}:
            return True
        if sentence.lower[determiner] not in ("the", "this", "that"):
            return False
        if sentence.lower[earlier.end - 1] != sentence.lower[later.end - 1]:
            return False
        head = sentence.lower[later.head : later.end]
        return head == sentence.lower[earlier.head : earlier.end]


_SINGULAR = frozenset("a an one another each every".split())
_OWNERS = frozenset({"his", "her", "their", "'s", "whose"})
# Things that are people too where an adjective of people says so.
_ALSO_PEOPLE = frozenset({"drawer", "printer", "cooker", "computer", "monitor"})


def _is_plural(word: str, taxonomy: Taxonomy) -> bool:
    if word.endswith("s"):
        return not word.endswith("ss") and word not in taxonomy.person_nouns
    return word in ("people", "men", "women", "children", "police")
