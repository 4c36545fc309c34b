"""Caption counterfactuals: the same sentence with another value of one or more attributes.

An edit changes every word that names the value of one person, and what must agree with it:
pronouns, verbs after "they", articles. Where the caption names no value it inserts one. What
can't be done surely is refused with a reason, and so is what could not be undone: for each edit
it is tried whether the way back leads to the same caption.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cf_lab_assets.counterfactuals import english
from cf_lab_assets.counterfactuals.sentence import Mention, Person, Sentence, read
from cf_lab_assets.counterfactuals.taxonomy import NEUTRAL, Form, Taxonomy, TaxonomyError
from cf_lab_resources.errors import LabError

TEMPLATES = ("adjective", "relative")
SENTENCES_KEPT = 256  # captions read lately; a set's members are rewritten from the same one

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


@dataclass(frozen=True)
class Rewritten:
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
            f'{change.attribute}: "{change.old.strip()}" became "{change.new.strip()}" ({change.rule})'
            if change.old
            else f'{change.attribute}: "{change.new.strip()}" was inserted'
            for change in self.changes
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
        self._check_one_person(sentence, targets)
        try:
            changes = self._changes(sentence, targets, asked)
        except english.Unsure as error:
            raise CannotRewrite("needs_grammar", f"in the caption {caption!r}: {error}") from error
        changes += _articles(sentence, changes)
        changes.sort(key=lambda change: (change.start, change.end))
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
        people = sentence.people
        if any(person.related for person in people):
            people = [person for person in people if not person.related] or people
        naming = [person for person in people if person.mentions.get(attribute)]
        if len(naming) > 1:
            raise _refused("several_people", sentence, f"names {attribute} of {len(naming)} people")
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
            raise _refused("several_values", sentence, f"names {sorted(values)} of one person")
        if person.named:
            raise _refused("named_person", sentence, "calls the person by name")
        target = _Target(attribute, person, values.pop(), list(mentions))
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
            _check_singular_they(sentence, own)
        for index in own:
            self._check_no_rival(sentence, target, person, index)
        if _calls_by_name(sentence, person):
            raise _refused("named_person", sentence, "gives the person's name")
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
            if not possessed and (not values or target.value in values):
                word, name = sentence.words[index], " ".join(sentence.words[other.head : other.end])
                raise _refused(
                    "ambiguous_reference", sentence, f"leaves open whether {word!r} is the {name}"
                )

    def _pronoun_target(
        self, sentence: Sentence, attribute: str, people: list[Person]
    ) -> _Target | None:
        """The person whom only pronouns give a value; None where there are no such pronouns."""
        known = self.taxonomy.attributes[attribute].pronouns
        found = [(i, form) for i, form in sentence.pronouns if form.attribute == attribute]
        singular = [(i, form) for i, form in found if known[form.value].verb == "singular"]
        if not singular:
            if found and self._only(people) is None:
                raise _refused(
                    "ambiguous_reference", sentence, f"leaves open who {sentence.words[found[0][0]]!r} is"
                )
            return None
        marked = [(i, form) for i, form in singular if sentence.is_bracketed(i)]
        singular = marked or singular
        values = {form.value for _, form in singular}
        places = [index for index, _ in singular]
        if len(values) > 1 or _acts_on_another(sentence, singular):
            raise _refused("several_people", sentence, "has pronouns for more than one person")
        if any(p.related and p.mentions.get(attribute) for p in sentence.people):
            self._check_only_owner(sentence, attribute, places)
        if _may_be_named(sentence, places[0], self.taxonomy):
            raise _refused("named_person", sentence, "seems to speak of somebody by name")
        return _Target(attribute, self._only(people), values.pop(), [], places)

    @staticmethod
    def _check_only_owner(sentence: Sentence, attribute: str, places: list[int]) -> None:
        owned = [p for p in sentence.people if p.related and p.mentions.get(attribute)]
        if any(place > min(p.head for p in owned) for place in places):
            raise _refused("ambiguous_reference", sentence, "has a pronoun after two people")

    def _check_one_person(self, sentence: Sentence, targets: list[_Target]) -> None:
        people = [target.person for target in targets if target.person is not None]
        if any(person is not people[0] for person in people):
            names = ", ".join(target.attribute for target in targets)
            raise _refused("different_people", sentence, f"names {names} of different people")

    def _changes(
        self, sentence: Sentence, targets: list[_Target], asked: dict[str, str]
    ) -> list[Change]:
        changes: list[Change] = []
        insertions: dict[str, str] = {}
        for target in targets:
            value = asked[target.attribute]
            self._check_implied(sentence, target, value)
            if target.value is None:
                if not self._neutral_form(target, value):
                    insertions[target.attribute] = value
                changes += self._neutral_changes(sentence, target, value)
            elif target.value != value:
                changes += [
                    self._mention_change(sentence, mention, value) for mention in target.mentions
                ]
                changes += self._pronoun_changes(sentence, target, value)
        if insertions:
            changes += self._insertions(sentence, targets, insertions)
        return changes

    def _check_implied(self, sentence: Sentence, target: _Target, value: str) -> None:
        if target.person is None or target.value == value:
            return
        for word in sentence.lower[target.person.head : target.person.end]:
            if target.attribute in self.taxonomy.implied.get(word, ()):
                raise _refused(
                    "value_implied", sentence, f"says {word!r}, which implies the {target.attribute}"
                )

    def _mention_change(self, sentence: Sentence, mention: Mention, value: str) -> Change:
        form = mention.form
        singular, plural = form.row.forms.get(value, (None, None))
        text = plural if form.plural else singular
        old = _span(sentence, mention.start, mention.end)
        if text is None:
            raise _refused("no_counterpart", sentence, f"says {old!r}, which has none for {value}")
        if mention.attributive and " " in text:
            raise _refused("needs_grammar", sentence, f"has {old!r} before another noun")
        rule = f"{form.part}, attributive" if mention.attributive else form.part
        return _change(sentence, form.attribute, rule, mention.start, mention.end, _cased(old, form, text))

    def _pronoun_changes(
        self, sentence: Sentence, target: _Target, value: str, *, from_value: str | None = None
    ) -> Iterator[Change]:
        attribute = target.attribute
        pronouns = self.taxonomy.attributes[attribute].pronouns
        if target.pronouns and value not in pronouns:
            word = sentence.words[target.pronouns[0]]
            raise _refused("no_counterpart", sentence, f"says {word!r}, which has none for {value}")
        for index in target.pronouns:
            form = self.taxonomy.pronouns[sentence.lower[index]]
            role = _role(sentence, index, form.roles)
            old, new = sentence.words[index], getattr(pronouns[value], role)
            new = new[0].upper() + new[1:] if old[0].isupper() else new
            if len(old) > 1 and old.isupper():
                new = new.upper()
            yield _change(sentence, attribute, f"pronoun: {role}", index, index + 1, new)
            numbers = pronouns[form.value].verb, pronouns[value].verb
            if role == "subject" and numbers[0] != numbers[1]:
                yield from _verb_changes(sentence, attribute, index, numbers[1])

    def _neutral_form(self, target: _Target, value: str) -> str | None:
        """What a word such as "person" becomes, where the value's attribute has it."""
        person = target.person
        form = person.neutral if person else None
        if form is None or form.attribute != target.attribute:
            return None
        singular, plural = form.row.forms.get(value, (None, None))
        return plural if form.plural else singular

    def _neutral_changes(
        self, sentence: Sentence, target: _Target, value: str
    ) -> Iterator[Change]:
        """A neutral noun, and the pronouns "they" of the one person there is."""
        person, attribute = target.person, target.attribute
        text = self._neutral_form(target, value)
        if person and person.neutral and text:
            old = _span(sentence, person.head, person.end)
            new = _cased(old, person.neutral, text)
            yield _change(sentence, attribute, "neutral noun", person.head, person.end, new)
        own = [index for index, form in sentence.pronouns if form.attribute == attribute]
        if person and own and not person.plural:
            if len(sentence.people) > 1:
                raise _refused("ambiguous_reference", sentence, "does not say who 'they' are")
            _check_singular_they(sentence, own)
            target.pronouns = own
            yield from self._pronoun_changes(sentence, target, value)

    def _insertions(
        self, sentence: Sentence, targets: list[_Target], values: dict[str, str]
    ) -> list[Change]:
        for attribute in values:
            if attribute in sentence.loose:
                raise _refused("needs_grammar", sentence, f"names {attribute} in a way not read")
        person = next((t.person for t in targets if t.person is not None), None)
        if person is None:
            known = [p for p in sentence.people if not p.related]
            reason = "several_people" if len(known) > 1 else "no_person"
            said = f"speaks of {len(known)} people" if len(known) > 1 else "names nobody"
            raise _refused(reason, sentence, f"{said}, and no value of {', '.join(values)}")
        if person.named:
            raise _refused("named_person", sentence, "calls the person by name")
        if self.template == "relative" and not person.plural and person.neutral is None:
            return [self._relative(sentence, person, targets, values)]
        return self._adjectives(sentence, person, values)

    def _adjectives(
        self, sentence: Sentence, person: Person, values: dict[str, str]
    ) -> list[Change]:
        """Adjectives in English order before the noun, among those that are there."""
        changes = []
        for attribute, value in sorted(values.items(), key=lambda item: self._place(item[0])):
            at = self._insertion_point(sentence, person, attribute)
            text = self._inserted(attribute, value)
            start, following = sentence.starts[at], sentence.words[at]
            if sentence.opens[at] and following[0].isupper() and at == person.start:
                if not changes:
                    text = text[0].upper() + text[1:]
                if following[1:].islower() and not self._is_proper(sentence, at):
                    lowered = following[0].lower()
                    old = Change(attribute, "capital", start, start + 1, following[0], lowered)
                    changes.append(old) if not any(c.rule == "capital" for c in changes) else None
            changes.append(Change(attribute, "insertion", start, start, "", f"{text} "))
        return sorted(changes, key=lambda change: change.end)

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
        """The word before which an adjective goes: after descriptions, in the order of places."""
        at, place = person.start, self._place(attribute)
        mentions = {m.start: m for ms in person.mentions.values() for m in ms}
        while at < person.head:
            mention = mentions.get(at)
            if mention and self._place(mention.form.attribute) < place:
                at = mention.end
            elif mention is None and sentence.lower[at] in self.taxonomy.descriptions:
                at += 1
            else:
                break
        return at

    def _relative(
        self,
        sentence: Sentence,
        person: Person,
        targets: list[_Target],
        values: dict[str, str],
    ) -> Change:
        """"a doctor" as "an elderly Black woman who is a doctor"."""
        noun, words = "person", []
        for attribute, value in sorted(values.items(), key=lambda item: self._place(item[0])):
            nouns = self.taxonomy.attributes[attribute].nouns
            if nouns and NEUTRAL in nouns[0] and value in nouns[0]:
                noun = nouns[0][value][0]
            else:
                words.append(self._inserted(attribute, value))
        phrase = " ".join([*words, noun])
        described = _span(sentence, person.start, person.end)
        opens = sentence.opens[person.start]
        if opens and described[1:2].islower():
            phrase = phrase[0].upper() + phrase[1:]
            described = described[0].lower() + described[1:]
        described = f"{english.article(described.split()[0])} {described}"
        new = f"{phrase} who is {described}"
        rule = ", ".join(values)
        return _change(sentence, rule, "relative clause", person.start, person.end, new)


def _refused(reason: str, sentence: Sentence, what: str) -> CannotRewrite:
    return CannotRewrite(reason, f"the caption {sentence.text!r} {what}")


def _span(sentence: Sentence, start: int, end: int) -> str:
    return sentence.text[sentence.starts[start] : sentence.ends[end - 1]]


def _change(
    sentence: Sentence, attribute: str, rule: str, start: int, end: int, new: str
) -> Change:
    first, last = sentence.starts[start], sentence.ends[end - 1]
    return Change(attribute, rule, first, last, sentence.text[first:last], new)


def _cased(old: str, form: Form, new: str) -> str:
    """The new form with the capitals of the old one, beyond those that belong to the forms."""
    if old == form.text:
        return new
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new[0].upper() + new[1:]


def _role(sentence: Sentence, index: int, roles: tuple[str, ...]) -> str:
    if len(roles) == 1:
        return roles[0]
    ends = sentence.ends_phrase(index)
    if set(roles) == {"object", "determiner"}:
        return english.role_of_her(sentence.lower, index, ends)
    return english.role_of_his(sentence.lower, index, ends)


def _verb_changes(
    sentence: Sentence, attribute: str, subject: int, number: str
) -> Iterator[Change]:
    """The verbs that agree with a subject pronoun: the one after it or before it, and others."""
    words = sentence.lower
    agreeing = english.plural_verb if number == "plural" else english.singular_verb
    at = subject + 1
    while at < len(words) and (words[at] in english.ADVERBS or words[at].endswith("ly") or words[at] == "never"):
        at += 1
    if at < len(words) and words[at] == "and" and at == subject + 1:
        return  # "she and her friend are": the subject was plural already
    if _is_inverted(sentence, subject):
        at = subject - 1
    if at >= len(words) or (sentence.broken[at] and at > subject):
        raise english.Unsure(f"the verb of {words[subject]!r} is not found")
    if words[at] in english.CONJUNCTIONS | english.PREPOSITIONS | english.DETERMINERS:
        raise english.Unsure(f"the verb of {words[subject]!r} is not found")
    if words[at] in ("'s", "'re"):
        yield _clitic_change(sentence, attribute, at, number)
        return
    new = agreeing(words[at])
    if new != words[at]:
        old = sentence.words[at]
        cased = new[0].upper() + new[1:] if old[0].isupper() else new
        yield _change(sentence, attribute, "verb", at, at + 1, cased)
        if at > subject and words[at] not in english.BE | english.HAVE | english.DO:
            yield from _coordinated(sentence, attribute, at, agreeing)


def _is_inverted(sentence: Sentence, subject: int) -> bool:
    """Whether the verb stands before its subject: "is she", "what does she"."""
    before = subject - 1
    if before < 0 or sentence.broken[subject]:
        return False
    if sentence.lower[before] not in english.BE | english.HAVE | english.DO:
        return False
    first = sentence.opens[before] or sentence.broken[before]
    return first or sentence.lower[before - 1] in english.CONJUNCTIONS


def _clitic_change(sentence: Sentence, attribute: str, at: int, number: str) -> Change:
    """ "'s" of "she's" is "is" or "has"; only "is" becomes "'re"."""
    follower = sentence.lower[at + 1] if at + 1 < len(sentence.words) else ""
    if number == "plural" and (
        follower in ("been", "got", "had", "done", "gone") or follower in english.IRREGULAR_PAST
        or follower.endswith("ed")
    ):  # fmt: skip
        if follower != "been" and follower != "got":
            raise english.Unsure("whether \"'s\" is 'is' or 'has' can't be told")
        new = "ve"
    else:
        new = "re" if number == "plural" else "s"
    return _change(sentence, attribute, "verb", at, at + 1, sentence.words[at][0] + new)


def _coordinated(
    sentence: Sentence, attribute: str, verb: int, agreeing: functools.partial[str] | object
) -> Iterator[Change]:
    """Further verbs of the same subject: "she sits and reads a book"."""
    words = sentence.lower
    singular = agreeing is english.plural_verb
    for at in range(verb + 2, len(words)):
        if sentence.opens[at]:
            return
        joined = words[at - 1] in ("and", "or", "but", "then") or (
            words[at - 1] in english.ADVERBS and words[at - 2] in ("and", "or", "but", "then")
        )
        if not joined or not (english.is_third_person(words[at]) or not singular):
            continue
        if not singular:
            raise english.Unsure(f"whether {words[at]!r} has the same subject can't be told")
        base = english.plural_verb(words[at])
        follower = words[at + 1] if at + 1 < len(words) and not sentence.broken[at + 1] else ""
        verbal = follower in (
            english.DETERMINERS | english.POSSESSIVES | english.PREPOSITIONS | english.PERSONAL
        )
        if base in ("be", "are", "have", "do", "were") or at - 2 == verb or (
            base in english.BASE_VERBS and verbal
        ):  # fmt: skip
            yield _change(sentence, attribute, "verb", at, at + 1, base)
        elif base in english.BASE_VERBS:
            raise english.Unsure(f"whether {words[at]!r} is a verb can't be told")


def _check_singular_they(sentence: Sentence, places: list[int]) -> None:
    """Refuse where "they" may be things or people that were named before it."""
    singular = {p.head for p in sentence.people if not p.plural}
    heads = {p.end for p in sentence.people}
    for index in range(min(max(places), len(sentence.words))):
        word = sentence.lower[index]
        plural = english.is_third_person(word) and index not in heads and index not in singular
        if word in ("and", "people", "children", "men", "women") and index not in singular:
            plural = plural or not any(p.start <= index < p.end for p in sentence.people)
        if plural and word not in english.FUNCTION_WORDS:
            raise _refused(
                "ambiguous_reference", sentence, f"leaves open whether 'they' are the {word}"
            )


def _acts_on_another(sentence: Sentence, pronouns: Iterable[tuple[int, object]]) -> bool:
    """Whether one pronoun acts on another of the same kind: "she helped her" is of two people."""
    subject = None
    for index, form in pronouns:
        roles = getattr(form, "roles", ())
        if roles == ("subject",):
            subject = index
        elif subject is not None and "object" in roles:
            between = sentence.lower[subject + 1 : index]
            clause = not any(sentence.broken[subject + 1 : index + 1]) and not (
                {"to", "because", "that", "if", "when", "while", "and"} & set(between)
            )
            if clause and _certain_role(sentence, index, roles) == "object":
                return True
    return False


def _certain_role(sentence: Sentence, index: int, roles: tuple[str, ...]) -> str | None:
    try:
        return _role(sentence, index, roles)
    except english.Unsure:
        return None


def _calls_by_name(sentence: Sentence, person: Person) -> bool:
    after = sentence.lower[person.end : person.end + 1]
    return after in (["named"], ["called"]) or (
        after == [] and False
    )


_PLACES = frozenset("in at near on around across through outside inside over".split())


def _may_be_named(sentence: Sentence, pronoun: int, taxonomy: Taxonomy) -> bool:
    """Whether a proper name that the pronoun may stand for is before it."""
    for index in range(pronoun):
        if not sentence.words[index][0].isupper() or sentence.shut[index]:
            continue
        if sentence.opens[index]:
            named = _opens_with_name(sentence, index, taxonomy)
        else:
            before = sentence.lower[index - 1]
            named = sentence.is_name(index) and before not in _PLACES
        if named and not any(p.start <= index < p.end and p.known for p in sentence.people):
            return True
    return False


def _opens_with_name(sentence: Sentence, index: int, taxonomy: Taxonomy) -> bool:
    """Whether a sentence begins "Mary smiles" or "Mary's"."""
    word = sentence.lower[index]
    if not sentence.words[index][0].isupper() or word in english.FUNCTION_WORDS | english.ADVERBS:
        return False
    if word in taxonomy.forms or word in taxonomy.person_nouns or word.endswith(("ing", "ly", "ed")):
        return False
    if index + 1 >= len(sentence.words):
        return False
    following = sentence.lower[index + 1]
    return (
        following in english.BE | english.HAVE | english.DO | english.MODALS | {"and", "'s"}
        or english.is_third_person(following)
        or following.endswith("ed")
        or following in english.IRREGULAR_PAST
    )


def _articles(sentence: Sentence, changes: list[Change]) -> list[Change]:
    """What "a" and "an" become before words that were changed."""
    first: dict[int, Change] = {}
    for change in changes:
        known = first.get(change.start)
        if known is None or change.end < known.end:
            first.setdefault(change.start, change)
    mended = []
    for start, change in first.items():
        before = sentence.text[max(0, start - 4) : start].lower()
        if "a" not in before:
            continue
        index = bisect.bisect_left(sentence.starts, start)
        if not 0 < index < len(sentence.starts) or sentence.starts[index] != start:
            continue
        if sentence.broken[index] or sentence.lower[index - 1] not in ("a", "an"):
            continue
        old = sentence.words[index - 1]
        new = english.article(change.new.split()[0])
        if new != old.lower():
            new = new.upper() if old.isupper() and len(old) > 1 else new
            new = new[0].upper() + new[1:] if old[0].isupper() else new
            mended.append(_change(sentence, change.attribute, "article", index - 1, index, new))
    return mended


def _applied(caption: str, changes: list[Change]) -> str:
    parts, at = [], 0
    for change in changes:
        parts += [caption[at : change.start], change.new]
        at = change.end
    return "".join([*parts, caption[at:]])
