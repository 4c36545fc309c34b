"""Caption counterfactuals: the same sentence with another value of one or more attributes.

An edit changes every word that names the value of one person, and what must agree with it:
pronouns, verbs after "they", articles. Where the caption names no value it inserts one. What
can't be done surely is refused with a reason, and so is what could not be undone: where a value
was named, it is tried whether the way back leads to the same caption.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cf_lab_assets.counterfactuals import english
from cf_lab_assets.counterfactuals.agreement import (
    Change,
    articles,
    capitalised,
    cased,
    change_of,
    like,
    span,
    verb_changes,
)
from cf_lab_assets.counterfactuals.references import (
    NAMING,
    CannotRewrite,
    acts_on_another,
    check_no_animal,
    check_no_odd_word,
    check_singular_they,
    may_be_named,
    refused,
    role_of,
)
from cf_lab_assets.counterfactuals.sentence import Mention, Person, Sentence, read
from cf_lab_assets.counterfactuals.taxonomy import NEUTRAL, Taxonomy, TaxonomyError

TEMPLATES = ("adjective", "relative")
_PLACE = operator.attrgetter("start", "end")
# Captions read lately: a set's members are rewritten from the same one. More are slower, as what
# is kept for long has left the processor's cache when it is freed.
SENTENCES_KEPT = 32


class Rewritten(NamedTuple):
    """A counterfactual caption and what was done to get it.

    Attributes:
        caption: the new one.
        from_values: what the caption named before, None where it named nothing.
        to_values: what was asked for.
        changes: place by place, in order.
    """

    caption: str
    from_values: dict[str, str | None]
    to_values: dict[str, str]
    changes: tuple[Change, ...]

    @property
    def explanation(self) -> str:
        """The changes as one line for people."""
        if not self.changes:
            return "nothing to change: the caption names these values"
        return "; ".join(
            f'{attribute}: "{old}" became "{new}" ({rule})'
            if old
            else f'{attribute}: "{new.strip()}" was inserted'
            for attribute, rule, _, _, old, new in self.changes
        )


@dataclass(slots=True)
class _Target:
    """Whose value is changed: the person, and where the caption names the value."""

    attribute: str
    person: Person | None
    value: str | None
    mentions: list[Mention] = field(default_factory=list)
    pronouns: list[int] = field(default_factory=list)


class Rewriter:
    """Rewrites captions by a taxonomy. Safe to share between threads."""

    def __init__(self, taxonomy: Taxonomy, template: str = "adjective") -> None:
        """Take the taxonomy and the template of insertions.

        Args:
            taxonomy: attributes, values and their words.
            template: where a caption names no value: ``adjective`` gives "an elderly Black female
                doctor", ``relative`` "an elderly Black woman who is a doctor".
        """
        self.taxonomy = taxonomy
        self.template = template
        self._read = functools.lru_cache(SENTENCES_KEPT)(lambda text: read(text, taxonomy))

    def named_value(self, caption: str, attribute: str) -> str | None:
        """The one value that a caption names, None where it names none or it can't be told."""
        try:
            return self._target(self._read(caption), attribute).value
        except CannotRewrite:
            return None

    def rewrite(self, caption: str, to_values: Mapping[str, str]) -> Rewritten:
        """Give the caption's person these values.

        Args:
            caption: one or more sentences, of one person whose values change.
            to_values: by attribute; several are changed together.

        Raises:
            CannotRewrite: it can't be done surely; its ``reason`` is one of `REASONS`.
        """
        try:
            asked = {name: self.taxonomy.value(name, text) for name, text in to_values.items()}
        except TaxonomyError as error:
            raise CannotRewrite("unknown_value", str(error)) from error
        made = self._rewrite(caption, asked)
        self._check_way_back(caption, made)
        return made

    def _rewrite(self, caption: str, asked: dict[str, str]) -> Rewritten:
        sentence = self._read(caption)
        targets = [self._target(sentence, attribute) for attribute in asked]
        person = self._one_person(sentence, targets)
        try:
            changes = self._changes(sentence, person, targets, asked)
        except english.Unsure as error:
            raise CannotRewrite("needs_grammar", f"in the caption {caption!r}: {error}") from error
        changes += articles(sentence, changes)
        if len(changes) > 1:
            changes = sorted(dict.fromkeys(changes), key=_PLACE)
            if any(one.end > other.start for one, other in itertools.pairwise(changes)):
                raise refused("needs_grammar", sentence, "would change one word in two ways")
        return Rewritten(
            _applied(caption, changes),
            {target.attribute: target.value for target in targets},
            asked,
            tuple(changes),
        )

    def _check_way_back(self, caption: str, made: Rewritten) -> None:
        """Refuse an edit after which the values that were named lead to another caption."""
        if made.caption == caption:
            return
        named = {name: value for name, value in made.from_values.items() if value is not None}
        if not named:
            return
        inserted = {name: value for name, value in made.to_values.items() if name not in named}
        before = self._rewrite(caption, inserted).caption if inserted else caption
        try:
            back = self._rewrite(made.caption, named)
        except CannotRewrite:
            return
        if back.caption != before:
            raise CannotRewrite(
                "not_reversible",
                f"the caption {caption!r} would become {made.caption!r}, and that in turn "
                f"{back.caption!r}; write the first as the last for a pair that can be undone",
            )

    def _target(self, sentence: Sentence, attribute: str) -> _Target:
        """Find whose value of an attribute the caption speaks of, and where.

        Raises:
            CannotRewrite: that can't be told.
        """
        if ("name" in sentence.text or "called" in sentence.text) and NAMING.search(sentence.text):
            raise refused("named_person", sentence, "gives somebody's name")
        if attribute in sentence.loose:
            raise refused("needs_grammar", sentence, f"names {attribute} in a way not read")
        if sentence.odd and self.taxonomy.attributes[attribute].pronouns:
            check_no_odd_word(sentence, attribute)
        people = [person for person in sentence.people if not person.related] or sentence.people
        naming = [person for person in people if person.mentions.get(attribute)]
        if len(naming) > 1:
            raise refused("several_people", sentence, f"names {attribute} of {len(naming)} people")
        if naming:
            return self._named_target(sentence, attribute, naming[0])
        if self.taxonomy.attributes[attribute].pronouns:
            target = self._pronoun_target(sentence, attribute, people)
            if target:
                return target
        return _Target(attribute, self._only(people), None)

    @staticmethod
    def _only(people: list[Person]) -> Person | None:
        known = [person for person in people if person.known]
        return known[0] if len(known) == 1 else None

    def _named_target(self, sentence: Sentence, attribute: str, person: Person) -> _Target:
        mentions = person.mentions[attribute]
        values = {mention.form.value for mention in mentions}
        if len(values) > 1:
            raise refused("several_values", sentence, f"names {sorted(values)} of one person")
        if person.named:
            raise refused("named_person", sentence, "calls the person by name")
        target = _Target(attribute, person, values.pop(), list(mentions))
        owner = person.determiner if person.related else None
        if owner is not None and may_be_named(sentence, owner, self.taxonomy):
            raise refused("named_person", sentence, "seems to speak of somebody by name")
        if self.taxonomy.attributes[attribute].pronouns and not person.plural:
            target.pronouns = self._pronouns_of(sentence, target, person)
        return target

    def _pronouns_of(self, sentence: Sentence, target: _Target, person: Person) -> list[int]:
        """Pronouns that stand for a person whose value is named by other words."""
        own = [
            index
            for index, form in sentence.pronouns
            if form.attribute == target.attribute and form.value == target.value
        ]
        own = [index for index in own if sentence.is_bracketed(index)] or own
        if own and self._governs_plural(target):
            check_singular_they(sentence, own)
        for index in own:
            self._check_no_rival(sentence, target, person, index)
        return own

    def _governs_plural(self, target: _Target) -> bool:
        pronouns = self.taxonomy.attributes[target.attribute].pronouns.get(target.value or "")
        return pronouns is not None and pronouns.verb == "plural"

    def _check_no_rival(
        self, sentence: Sentence, target: _Target, person: Person, index: int
    ) -> None:
        """Refuse a pronoun for which somebody else before it may be meant too."""
        for other in sentence.people:
            if other is person or other.plural or other.head >= index:
                continue
            possessed = other.related and other.determiner == index
            values = {m.form.value for m in other.mentions.get(target.attribute, [])}
            rival = not values or target.value in values
            if rival and not possessed and not sentence.is_said_of_pronoun(other):
                word, name = sentence.words[index], " ".join(sentence.words[other.head : other.end])
                raise refused(
                    "ambiguous_reference", sentence, f"leaves open whether {word!r} is the {name}"
                )

    def _pronoun_target(
        self, sentence: Sentence, attribute: str, people: list[Person]
    ) -> _Target | None:
        """The person whom only pronouns give a value; None where there are no such pronouns."""
        known = self.taxonomy.attributes[attribute].pronouns
        found = [(i, form) for i, form in sentence.pronouns if form.attribute == attribute]
        if not found:
            return None
        singular = [(i, form) for i, form in found if known[form.value].verb == "singular"]
        if not singular:
            return self._they_target(sentence, attribute, people, [i for i, _ in found])
        singular = [(i, form) for i, form in singular if sentence.is_bracketed(i)] or singular
        values = {form.value for _, form in singular}
        places = [index for index, _ in singular]
        if len(values) > 1 or (len(places) > 1 and acts_on_another(sentence, singular)):
            raise refused("several_people", sentence, "has pronouns for more than one person")
        check_no_animal(sentence, places[0], self.taxonomy)
        self._check_only_owner(sentence, attribute, places)
        if may_be_named(sentence, places[0], self.taxonomy):
            raise refused("named_person", sentence, "seems to speak of somebody by name")
        return _Target(attribute, self._only(people), values.pop(), [], places)

    def _they_target(
        self, sentence: Sentence, attribute: str, people: list[Person], places: list[int]
    ) -> _Target | None:
        """The one person of a caption whom "they" stands for, if it surely stands for one.

        What is called by a neutral noun ("a person") is given a value by the noun, others ("a
        doctor") by the pronoun, as the way from "she" to "they" and back must be the same.
        """
        person = self._only(people)
        if person and person.plural:
            return None
        if person is None or len(sentence.people) > 1:
            word = sentence.words[places[0]]
            raise refused("ambiguous_reference", sentence, f"leaves open who {word!r} is")
        check_singular_they(sentence, places)
        return _Target(attribute, person, None, [], places)

    @staticmethod
    def _check_only_owner(sentence: Sentence, attribute: str, places: list[int]) -> None:
        owned = [p for p in sentence.people if p.related and p.mentions.get(attribute)]
        if owned and places[-1] > min(p.head for p in owned):
            raise refused("ambiguous_reference", sentence, "has a pronoun after two people")

    @staticmethod
    def _one_person(sentence: Sentence, targets: list[_Target]) -> Person | None:
        person = None
        for target in targets:
            if person and target.person and target.person is not person:
                names = ", ".join(target.attribute for target in targets)
                raise refused("different_people", sentence, f"names {names} of different people")
            person = person or target.person
        return person

    def _changes(
        self,
        sentence: Sentence,
        person: Person | None,
        targets: list[_Target],
        asked: dict[str, str],
    ) -> list[Change]:
        changes: list[Change] = []
        insertions: dict[str, str] = {}
        nouns = self._nouns_after(person, asked) if person else {}
        for target in targets:
            value = asked[target.attribute]
            self._check_implied(sentence, target, value)
            if target.value is None:
                if not (self._neutral_form(target, value) or target.pronouns):
                    insertions[target.attribute] = value
                changes += self._neutral_changes(sentence, target, value)
            elif target.value != value:
                changes += [
                    self._mention_change(sentence, mention, value, nouns)
                    for mention in target.mentions
                ]
                changes += self._pronoun_changes(sentence, target, value)
        if person and nouns:
            changes += self._agreeing_changes(sentence, person, asked, nouns)
        if insertions:
            changes += self._insertions(sentence, person, insertions, nouns, changes)
        return changes

    @staticmethod
    def _nouns_after(person: Person, asked: dict[str, str]) -> dict[str, str]:
        """The values that nouns of the person will name, by attribute."""
        nouns = {}
        for attribute, mentions in person.mentions.items():
            for mention in mentions:
                if mention.form.part in ("noun", "kinship"):
                    nouns[attribute] = asked.get(attribute, mentions[0].form.value)
        neutral = person.neutral
        if neutral and neutral.attribute in asked and neutral.attribute not in person.mentions:
            nouns[neutral.attribute] = asked[neutral.attribute]
        return nouns

    def _agreeing(self, attribute: str, text: str, nouns: Mapping[str, str]) -> str:
        """The form of an adjective that agrees with the person's noun."""
        agreement = self.taxonomy.attributes[attribute].agrees
        if agreement is None or agreement.other not in nouns:
            return text
        return agreement.forms.get(text, {}).get(nouns[agreement.other], text)

    def _agreeing_changes(
        self,
        sentence: Sentence,
        person: Person,
        asked: Mapping[str, str],
        nouns: Mapping[str, str],
    ) -> Iterator[Change]:
        """Adjectives that nobody asked to change but whose noun changes."""
        for attribute, mentions in person.mentions.items():
            agreement = self.taxonomy.attributes[attribute].agrees
            if attribute in asked or agreement is None or agreement.other not in asked:
                continue
            for mention in mentions:
                plain = mention.form.row.forms[mention.form.value][0]
                new = self._agreeing(attribute, plain, nouns)
                if new != mention.form.text and agreement.other in nouns:
                    yield change_of(
                        sentence, attribute, "agreement", mention.start, mention.end, new
                    )

    @staticmethod
    def _check_implied(sentence: Sentence, target: _Target, value: str) -> None:
        attribute, person = target.attribute, target.person
        if person is None or target.value == value:
            return
        for index, attributes in sentence.implying:
            if attribute in attributes and person.start - 1 <= index < person.end + 3:
                word = sentence.words[index]
                raise refused(
                    "value_implied", sentence, f"says {word!r}, which implies the {attribute}"
                )

    def _mention_change(
        self, sentence: Sentence, mention: Mention, value: str, nouns: Mapping[str, str]
    ) -> Change:
        form = mention.form
        singular, plural = form.row.forms.get(value, (None, None))
        text = plural if form.plural else singular
        old = span(sentence, mention.start, mention.end)
        if text is None:
            raise refused("no_counterpart", sentence, f"says {old!r}, which has none for {value}")
        if " " in text and " " not in form.text and not self._can_be_phrase(sentence, mention):
            raise refused("needs_grammar", sentence, f"has {old!r} before another noun")
        if form.part == "adjective":
            text = self._agreeing(form.attribute, text, nouns)
        rule = f"{form.part}, attributive" if mention.attributive else form.part
        return change_of(
            sentence, form.attribute, rule, mention.start, mention.end, cased(old, form, text)
        )

    def _can_be_phrase(self, sentence: Sentence, mention: Mention) -> bool:
        """Whether a noun can become an adjective with a noun: not in "a police man"."""
        if mention.attributive:
            return False
        if mention.start == 0 or sentence.broken[mention.start]:
            return True
        before = sentence.lower[mention.start - 1]
        parts = self.taxonomy.word(sentence.words[mention.start - 1]).parts
        return (
            before in english.FUNCTION_WORDS
            or before in self.taxonomy.descriptions
            or english.is_adjective(before)
            or (parts is not None and parts.adjective is not None)
        )

    def _pronoun_changes(self, sentence: Sentence, target: _Target, value: str) -> Iterator[Change]:
        attribute = target.attribute
        pronouns = self.taxonomy.attributes[attribute].pronouns
        if target.pronouns and value not in pronouns:
            word = sentence.words[target.pronouns[0]]
            raise refused("no_counterpart", sentence, f"says {word!r}, which has none for {value}")
        for index in target.pronouns:
            form = self.taxonomy.pronouns[sentence.lower[index]]
            role = role_of(sentence, index, form.roles)
            old, new = sentence.words[index], getattr(pronouns[value], role)
            if form.value == value:
                continue
            new = like(old, new)
            yield change_of(sentence, attribute, f"pronoun: {role}", index, index + 1, new)
            numbers = pronouns[form.value].verb, pronouns[value].verb
            if role == "subject" and numbers[0] != numbers[1]:
                yield from verb_changes(sentence, attribute, index, numbers[1])

    def _neutral_form(self, target: _Target, value: str) -> str | None:
        """What a word such as "person" becomes, where the value's attribute has it."""
        person = target.person
        form = person.neutral if person else None
        if form is None or form.attribute != target.attribute:
            return None
        singular, plural = form.row.forms.get(value, (None, None))
        return plural if form.plural else singular

    def _neutral_changes(self, sentence: Sentence, target: _Target, value: str) -> Iterator[Change]:
        """A neutral noun that becomes the value's, and the pronouns "they" with it."""
        person, text = target.person, self._neutral_form(target, value)
        if person and person.neutral and text:
            old = span(sentence, person.head, person.end)
            new = cased(old, person.neutral, text)
            yield change_of(
                sentence, target.attribute, "neutral noun", person.head, person.end, new
            )
        yield from self._pronoun_changes(sentence, target, value)

    def _insertions(
        self,
        sentence: Sentence,
        person: Person | None,
        values: dict[str, str],
        nouns: Mapping[str, str],
        changes: list[Change],
    ) -> list[Change]:
        if person is None and any(one.named for one in sentence.people):
            raise refused("named_person", sentence, "calls a person by name")
        if person is None:
            known = [p for p in sentence.people if not p.related]
            reason = "several_people" if len(known) > 1 else "no_person"
            said = f"speaks of {len(known)} people" if len(known) > 1 else "names nobody"
            raise refused(reason, sentence, f"{said}, and no value of {', '.join(values)}")
        if person.named:
            raise refused("named_person", sentence, "calls the person by name")
        if person.unclear:
            word = sentence.words[person.start - 1]
            raise refused("needs_grammar", sentence, f"has {word!r} before the person")
        if self.template == "relative" and self._can_be_relative(sentence, person):
            return [self._relative(sentence, person, values)]
        return self._adjectives(sentence, person, values, nouns, changes)

    def _adjectives(
        self,
        sentence: Sentence,
        person: Person,
        values: dict[str, str],
        nouns: Mapping[str, str],
        others: list[Change],
    ) -> list[Change]:
        """Adjectives in English order before the noun, among those that are there."""
        made: list[Change] = []
        loud = sentence.text.isupper()
        for attribute, value in sorted(values.items(), key=lambda item: self._place(item[0])):
            at = self._insertion_point(sentence, person, attribute)
            text = self._agreeing(attribute, self._inserted(attribute, value), nouns)
            start = sentence.starts[at]
            if loud:
                text = text.upper()
            elif sentence.opens[at] and sentence.words[at][0].isupper() and not made:
                text = capitalised(text)
                made += self._lowered(sentence, attribute, at, others)
            made.append(Change(attribute, "insertion", start, start, "", f"{text} "))
        return made

    def _lowered(
        self, sentence: Sentence, attribute: str, at: int, others: list[Change]
    ) -> list[Change]:
        """The change of a word that no longer opens the sentence, if its capital was for that.

        Where another change gives the place a new word, that one loses its capital instead.
        """
        word, start = sentence.words[at], sentence.starts[at]
        if not word[1:].islower() or self._is_proper(sentence, at):
            return []
        for index, other in enumerate(others):
            if other.start == start and other.new:
                others[index] = other._replace(new=other.new[0].lower() + other.new[1:])
                return []
        return [Change(attribute, "capital", start, start + 1, word[0], word[0].lower())]

    def _is_proper(self, sentence: Sentence, at: int) -> bool:
        return any(
            words[0] == sentence.lower[at] and form.text[0].isupper()
            for words, form in self.taxonomy.forms.get(sentence.lower[at], ())
        )

    def _place(self, attribute: str) -> int:
        return self.taxonomy.attributes[attribute].place

    def _inserted(self, attribute: str, value: str) -> str:
        known = self.taxonomy.attributes[attribute]
        return known.inserted.get(value) or known.adjectives[0][value]

    def _insertion_point(self, sentence: Sentence, person: Person, attribute: str) -> int:
        """The word before which an adjective goes: after descriptions, in the order of places.

        What is not known is a description where one follows it ("cute little"), and else a part
        of the noun ("school teacher").
        """
        at, place = person.start, self._place(attribute)
        mentions = {m.start: m for ms in person.mentions.values() for m in ms}
        for index in range(person.start, person.head):
            mention, word = mentions.get(index), sentence.lower[index]
            if mention and self._place(mention.form.attribute) > place:
                break
            if mention:
                at = mention.end
            elif word in self.taxonomy.descriptions or english.is_adjective(word):
                at = index + 1
        return at

    @staticmethod
    def _can_be_relative(sentence: Sentence, person: Person) -> bool:
        """Whether "an Asian person who is ..." can be said: not of "a woman", "a doctor's hat"."""
        head = (m.start for ms in person.mentions.values() for m in ms if not m.attributive)
        owns = sentence.lower[person.end : person.end + 1] == ["'s"]
        plain = person.neutral is None and not person.plural
        return plain and not owns and person.head not in head

    def _relative(self, sentence: Sentence, person: Person, values: dict[str, str]) -> Change:
        """A relative clause: "a doctor" as "an elderly Black woman who is a doctor"."""
        noun, words = "person", []
        for attribute, value in sorted(values.items(), key=lambda item: self._place(item[0])):
            nouns = self.taxonomy.attributes[attribute].nouns
            if nouns and NEUTRAL in nouns[0] and value in nouns[0]:
                noun = nouns[0][value][0]
            else:
                words.append(self._inserted(attribute, value))
        phrase = " ".join([*words, noun])
        described = span(sentence, person.start, person.end)
        opens = sentence.opens[person.start]
        if opens and described[1:2].islower():
            phrase = capitalised(phrase)
            described = described[0].lower() + described[1:]
        described = f"{english.article(described.split()[0])} {described}"
        new = f"{phrase} who is {described}"
        rule = ", ".join(values)
        return change_of(sentence, rule, "relative clause", person.start, person.end, new)


def _applied(caption: str, changes: list[Change]) -> str:
    parts, at = [], 0
    for change in changes:
        parts += [caption[at : change.start], change.new]
        at = change.end
    return "".join([*parts, caption[at:]])
