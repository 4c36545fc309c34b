"""English grammar that rewriting needs: articles, the parts of pronouns, and verbs that agree.

A function says what it is sure of, and raises `Unsure` otherwise. Its word lists are of closed
classes, of irregular forms and of what reads in two ways; words for people are in the taxonomy.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

DETERMINERS = frozenset(
    "a an the this that these those each every some any no another one two three four five six "
    "seven eight nine ten several many few both all most more such what which whose".split()
)
POSSESSIVES = frozenset("my your his her its our their whose".split())
PREPOSITIONS = frozenset(
    "about above across after against along alongside amid among around as at before behind below "
    "beneath beside besides between beyond by despite down during for from in inside into like "
    "near of off on onto opposite out outside over past per since through throughout till to "
    "toward towards under until up upon via with within without than".split()
)
CONJUNCTIONS = frozenset(
    "and or but nor so yet because although though while when whenever where wherever whereas if "
    "unless until once that whether how why who whom which what then".split()
)
BE = frozenset("am is are was were be been being isn't aren't wasn't weren't 's 're".split())
HAVE = frozenset("has have had having hasn't haven't hadn't".split())
DO = frozenset("do does did don't doesn't didn't".split())
MODALS = frozenset(
    "can could will would shall should may might must can't cannot couldn't won't wouldn't "
    "shouldn't mustn't 'd 'll".split()
)
PERSONAL = frozenset("i you he she it we they me him us them myself yourself itself".split())
NEGATION = frozenset("not never n't".split())
FUNCTION_WORDS = (
    DETERMINERS
    | POSSESSIVES
    | PREPOSITIONS
    | CONJUNCTIONS
    | BE
    | HAVE
    | DO
    | MODALS
    | PERSONAL
    | NEGATION
)
OWNING = DETERMINERS | POSSESSIVES | {"'s"}  # what a noun phrase begins with
AUXILIARIES = BE | HAVE | DO
NO_VERBS = CONJUNCTIONS | PREPOSITIONS | DETERMINERS
# What stands before a noun or for one, but never right behind a noun.
BEFORE_NOUNS = (DETERMINERS - {"that", "which", "what", "whose", "all", "both"}) | POSSESSIVES | {
    "him", "it", "me", "them", "us",
}  # fmt: skip
SUBJECTS = frozenset("i he she we they who which that what".split())
AFTER_VERBS = DETERMINERS | POSSESSIVES | PREPOSITIONS | PERSONAL
# Words in -ly that are nouns or verbs, or adjectives.
_LY_NOUNS = frozenset(
    "ally anomaly apply assembly belly bully butterfly dolly family firefly fly folly gully holly "
    "italy jelly july lily monopoly multiply panoply ply rally rely reply supply tally".split()
)
_LY_ADJECTIVES = frozenset(
    "bodily bubbly burly chilly costly cowardly cuddly curly daily deadly disorderly early elderly "
    "fatherly friendly frilly ghastly ghostly heavenly hilly hourly holy homely jolly kindly "
    "likely lively lonely lovely manly measly monthly motherly nightly oily orderly prickly "
    "quarterly scaly scholarly shapely sickly silly sisterly smelly sparkly sprightly steely "
    "timely ugly unlikely weekly wily wobbly womanly wooly woolly worldly wrinkly yearly".split()
)
ADVERBS = frozenset(
    "also always never often just really still usually sometimes only once now then soon even "
    "almost quite very too again already seldom rarely better well instead anywhere everywhere "
    "somewhere here there tomorrow today tonight yesterday later together alone away back home "
    "anymore afterwards forever far ever".split()
)
# Adjectives that complete an object: "keep her safe".
COMPLEMENTS = frozenset(
    "safe happy angry sad warm cold busy awake alone right wrong bad good well comfortable calm "
    "quiet nervous proud sick tired alive dead guilty innocent ready responsible free afraid less "
    "more famous rich poor pregnant mad crazy upset jealous late lucky laugh cry smile unconscious "
    "attractive beautiful interesting boring unhappy uncomfortable dangerous".split()
)
# What stands behind a noun for a person and is neither a verb nor a noun.
BEHIND_NOUNS = frozenset(
    "able absent abroad aboard ashore aside asleep available aware barefoot bent born clad clean "
    "close cut deep drunk due eager expert fast fit free full high hit hurt inside interested "
    "known lit lost low naked nearby next online only open outdoors overhead overseas ready seen "
    "shirtless shot short shown silent similar still sure such tall topless torn unable unlike "
    "upright upside wide worn worth".split()
)
# Verbs after which an object is completed by an adjective ("kept her safe") ...
COMPLETING = frozenset(
    "make makes made making keep keeps kept keeping find finds found finding prove proves proved "
    "proving leave leaves left leaving consider considers considered treat treats treated treating "
    "drive drove call called calls feel felt".split()
)
# ... or by a bare infinitive ("helped her do it").
INFINITIVE_AFTER = frozenset(
    "make makes made making let lets letting help helps helped helping see sees saw seen seeing "
    "hear hears heard hearing watch watches watched watching ask asks asked".split()
)
# Verbs that want a recipient: before a noun without article, "her" is that recipient unless
# another one follows.
DITRANSITIVES = frozenset(
    "give gives gave given giving hand hands handed handing offer offers offered offering wish "
    "wishes wished wishing provide provides provided providing tell tells told telling charge "
    "charges charged pay pays paid owe owes owed lend lends lent grant grants granted award awards "
    "awarded deny denies denied".split()
)
# Verbs of motion, after which "home" and "back" are adverbs.
MOTION = frozenset(
    "drive drives drove take takes took send sends sent bring brings brought follow follows "
    "followed walk walks walked call calls called pay pays paid see saw invite invites invited "
    "want wants wanted push pushed pull pulled hold held carry carried lead led".split()
)
# Base forms that follow an object or "they"; few of them are nouns as well, and where one is,
# what follows decides.
BASE_VERBS = frozenset(
    "accept add admit agree allow appear apply argue arrive ask attend avoid bake become begin "
    "believe belong bring build buy carry catch choose clean climb close come cook cry cut dance "
    "decide deliver describe die do draw dress drink drive eat enjoy enter explain fall feel fight "
    "fill find finish fix fly follow forget get give go grow happen hate have hear help hide hit "
    "hold hope hug identify jump keep kick kneel know laugh lead lean learn leave let lie lift "
    "like listen live look lose love make mean meet move need offer open order owe own pack paint "
    "pass pay perform pick play point pose pour prefer prepare present press promise pull push put "
    "raise reach read receive refuse remember repair report rest ride rise run save say see seem "
    "sell send serve set settle sew shake share shout show sign sing sit sleep smell smile smoke "
    "speak spend stand stare start stay steal stop study surf swim take talk taste teach tell "
    "thank think throw touch travel treat trust try turn type understand use visit wait walk want "
    "wash watch wave wear weld win wish wonder work worry write yell balance bat bathe bend bite "
    "blow board boil bounce bow bowl brush bump carve cast celebrate change chase chat check cheer "
    "chew chop collect comb compete count cover crawl cross cuddle cycle dive dribble drop dry "
    "dust examine exercise explore face feed fetch float fold gather gaze gesture glance glide "
    "grab grill grin grip groom guard guide harvest hike hop hunt inspect iron jog juggle kiss "
    "knit land lay lick light load march measure mix mow nap nod note operate park paddle peel pet "
    "pitch plant polish pray preach protest race rake reach recite relax ring roast roll row sail "
    "salute scatter scoop score scrub sculpt search sharpen ski skate sketch slice slide sniff "
    "snuggle sort spin splash spray squat stack step stir stretch stroll stroke swing tackle tend "
    "tie toss train trim twirl twist unload unpack vacuum wag weave weigh whisper whistle wipe "
    "wrap wrestle yawn".split()
)
IRREGULAR_PAST = frozenset(
    "ate became began blew bought broke brought built came caught chose did drank drew drove fell "
    "felt fled flew forgot fought found froze gave got grew had heard held hid kept knew laid led "
    "left lent lost made meant met paid ran rode rose said sang sat saw sent shook shot slept sold "
    "spent spoke stole stood swam taught thought threw told took tore understood went woke won "
    "wore wrote was were been gone done".split()
)
SAME_IN_PAST = frozenset("read cut put let hit set cost hurt shut bet quit spread".split())

_TO_PLURAL = {
    "is": "are", "was": "were", "has": "have", "does": "do", "isn't": "aren't",
    "wasn't": "weren't", "hasn't": "haven't", "doesn't": "don't", "goes": "go", "dies": "die",
    "lies": "lie", "ties": "tie", "'s": "'re",
}  # fmt: skip
_TO_SINGULAR = {plural: singular for singular, plural in _TO_PLURAL.items() if plural != "'re"}
_TO_SINGULAR["'re"] = "'s"
_NO_THIRD_PERSON = frozenset(
    "always perhaps besides sometimes afterwards this thus less yes".split()
)


class Unsure(Exception):
    """The grammar of a place can't be told surely; the message is for people."""


@functools.cache
def _inflect() -> Any:
    import inflect

    return inflect.engine()


@functools.lru_cache(maxsize=4096)
def article(word: str) -> str:
    """The article before a word, "a" or "an", by how it sounds."""
    return str(_inflect().a(word)).split(" ", 1)[0]


def follows_noun(word: str) -> bool:
    """Whether a word stands behind the noun that it goes with: "a woman dressed", "a man alone"."""
    return (
        word.endswith(("ing", "'s"))
        or (word.endswith("ed") and word not in _NOUNS_IN_ED)
        or word in IRREGULAR_PAST
        or word in SAME_IN_PAST
        or word in COMPLEMENTS
        or word in BEHIND_NOUNS
    )


_NOUNS_IN_ED = frozenset(
    "bed bleed breed deed feed flatbed reed seed seaweed shed sled speed weed".split()
)


def is_third_person(word: str) -> bool:
    """Whether a word can be a verb in the third person singular present, from its form alone."""
    return word in _TO_PLURAL or (
        word.endswith("s") and len(word) > 2 and not word.endswith(("ss", "us", "'s"))
        and word not in _NO_THIRD_PERSON
    )  # fmt: skip


def plural_verb(verb: str) -> str:
    """The form that agrees with "they"; verbs that do not change are returned as they are."""
    if verb in _TO_PLURAL:
        return _TO_PLURAL[verb]
    if not is_third_person(verb):
        return verb
    if verb.endswith("ies") and len(verb) > 4:
        return verb[:-3] + "y"
    if verb.endswith(_WITH_ES) and verb not in _KEEPING_E:
        return verb[: -3 if verb == "quizzes" else -2]
    return verb[:-1]


_WITH_ES = ("sses", "shes", "ches", "xes", "zzes", "oes", "cuses", "buses")
_KEEPING_E = frozenset("aches caches canoes shoes tiptoes hoes axes accuses excuses".split())


def is_adverb(word: str) -> bool:
    """Whether a word is an adverb, such as "slowly"."""
    return word in ADVERBS or (
        word.endswith("ly") and word not in _LY_NOUNS and word not in _LY_ADJECTIVES
    )


def is_adjective(word: str) -> bool:
    """Whether a word before a noun is an adjective by its ending: "a bearded man"."""
    return word in _LY_ADJECTIVES or (
        len(word) > 4 and word.endswith(_ADJECTIVE_ENDINGS) and word not in _NO_ADJECTIVES
    )


_ADJECTIVE_ENDINGS = ("ed", "ing", "ful", "less", "ous", "ish", "ive", "able", "ible", "ic")
_NO_ADJECTIVES = frozenset(
    "being building ceiling clinic cooking detective dining driving evening executive fabric "
    "fishing housing licensing magic marketing meeting morning music opening painting parking "
    "plastic plumbing public racing representative riding roofing sewing shipping shopping singing "
    "skiing spring string styling something swimming teaching thing traffic training weaving "
    "wedding welding wrestling".split()
)


def singular_verb(verb: str) -> str:
    """The form that agrees with "she"; the inverse of `plural_verb`.

    Raises:
        Unsure: the word can be present or past, or is no verb that is known.
    """
    if verb in _TO_SINGULAR:
        return _TO_SINGULAR[verb]
    if verb in MODALS or verb in HAVE or verb in DO or verb in IRREGULAR_PAST:
        return verb
    if verb.endswith("ed") and verb not in ("need", "feed", "speed", "breed", "shed", "weed"):
        return verb
    if verb not in BASE_VERBS or verb in SAME_IN_PAST:
        raise Unsure(f"whether {verb!r} is a verb in the present can't be told")
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    if verb.endswith(("ss", "sh", "ch", "x", "zz", "o", "us")):
        return verb + "es"
    return verb + "s"


def role_of_her(words: Sequence[str], at: int, ends: bool) -> str:
    """What "her" is at a place: ``object`` ("sees her") or ``determiner`` ("her hat").

    Args:
        words: the sentence's words in lower case.
        at: where "her" stands.
        ends: whether a stop follows it, or nothing.

    Raises:
        Unsure: it can be either.
    """
    after = words[at + 1 : at + 3] if not ends else []
    before = words[at - 1] if at else ""
    if not after or after[0] in _AFTER_OBJECT:
        return "object"
    follower, beyond = after[0], after[1] if len(after) > 1 else ""
    closed = not beyond or beyond in FUNCTION_WORDS
    if follower in ("home", "back") and before not in MOTION:
        return "determiner"
    if follower in _ALSO_PARTICLES:
        if not closed or before in _HOLDING:
            raise Unsure(f"whether 'her {follower}' is one thing can't be told")
        return "object"
    if is_adverb(follower):
        return _before_adverb(before, follower, closed or is_adverb(beyond))
    if before in DITRANSITIVES:
        return _recipient_or_owner(words, at)
    if follower in _MEALS and before in _MAKING:
        raise Unsure(f"whether 'her {follower}' is hers or made for her can't be told")
    if (closed or follower in _DEGREE) and (
        follower in _DEGREE or (before in COMPLETING and follower in COMPLEMENTS)
    ):  # fmt: skip
        return "object"
    return _doer_or_owner(follower, beyond) if before in INFINITIVE_AFTER else "determiner"


# "threw her down the stairs", but "her down jacket"; "drove her home", but "her home".
_ALSO_PARTICLES = frozenset("back down home off opposite out over under up".split())
_HOLDING = frozenset("hold held carry carried push pushed pull pulled see saw".split())
_COUNTS = frozenset("one two three four five six seven eight nine ten many few most".split())
_AFTER_OBJECT = (
    (PREPOSITIONS | CONJUNCTIONS | DETERMINERS | BE | DO | HAVE | MODALS | PERSONAL | NEGATION)
    - {"past", "inside", "outside", "like", "more"}
    - _COUNTS
    - _ALSO_PARTICLES
) | {"her", "his", "my", "your", "their", "our"}  # fmt: skip
_MEALS = frozenset("breakfast lunch dinner supper coffee tea".split())
_MAKING = frozenset(
    "make makes made making cook cooks cooked cooking buy buys bought buying bring brings brought "
    "bringing get gets got getting serve serves served serving".split()
)
# Adverbs that stand before an adjective: "her very old coat".
_OF_DEGREE = frozenset("very quite too only almost well once ever newly".split())


def _before_adverb(before: str, follower: str, closed: bool) -> str:
    """Before an adverb: "saw her again", but "her very old coat"."""
    if closed:
        return "object"
    if before in PREPOSITIONS or follower in _OF_DEGREE:
        return "determiner"
    raise Unsure(f"whether 'her {follower}' goes on to a thing of hers can't be told")


def _recipient_or_owner(words: Sequence[str], at: int) -> str:
    """After "gave": a recipient in "gave her money", an owner in "gave her dog a bath"."""
    if at > 1 and words[at - 2] in BE and not words[at - 1].endswith("ing"):
        raise Unsure("whether 'her' is the recipient or the owner can't be told")
    after = list(itertools.dropwhile(_COUNTS.__contains__, words[at + 1 :]))
    phrase = list(itertools.takewhile(lambda word: word not in FUNCTION_WORDS, after))
    owned = bool({"a", "an", "the", *POSSESSIVES}.intersection(after[len(phrase) :][:1]))
    while phrase[1:] and (phrase[0] in _KINDS_GIVEN or is_adjective(phrase[0])):
        phrase = phrase[1:]
    given = bool(phrase) and (
        phrase[0] in _GIVEN or (phrase[0].endswith("s") and words[at - 1] not in _PAYING)
    )
    if owned and not given and len(phrase) == 1:
        return "determiner"
    alone = len(phrase) == 1 or not _GIVEN_WITH_MORE.isdisjoint(phrase)
    elsewhere = not {"to", "for", "away", "over"}.isdisjoint(after[len(phrase) :])
    if owned or elsewhere or not (given and alone):
        raise Unsure("whether 'her' is the recipient or the owner can't be told")
    return "object"


# What is given without an article, and is seldom the recipient's own.
_DEGREE = frozenset({"less", "more"})
_GIVEN_WITH_MORE = _DEGREE | {"else"}
_GIVEN = _DEGREE | frozenset(
    "advice anything birthday bread cash chocolate comfort directions dollars encouragement "
    "everything evidence feedback food help hope information instructions love medicine money "
    "nothing permission praise something space support time tips water work".split()
)
_KINDS_GIVEN = frozenset(
    "bad big correct extra fresh full good great happy hundred incorrect little new nice old right "
    "small special thousand wrong".split()
)
_PAYING = frozenset("pay pays paid tell tells told telling charge charges charged owe owes".split())


def _doer_or_owner(follower: str, beyond: str) -> str:
    """After "helped": "helped her do it", or "helped her friend"."""
    if follower in _NOUNS_TOO and (not beyond or beyond in PREPOSITIONS):
        raise Unsure(f"whether 'her {follower}' is one thing can't be told")
    if follower in BASE_VERBS:
        as_verb = not beyond or beyond in AFTER_VERBS
        return "object" if as_verb else "determiner"
    if follower in COMPLEMENTS and not beyond:
        return "object"
    # "helped her identify a mistake": no noun stands right before "a".
    return "object" if beyond in DETERMINERS else "determiner"


_NOUNS_TOO = frozenset("smile work watch dance walk talk play report love laugh cry study".split())


def role_of_his(words: Sequence[str], at: int, ends: bool) -> str:
    """What "his" is at a place: ``determiner`` ("his hat") or ``possessive`` ("a hat of his")."""
    if ends or at + 1 >= len(words):
        return "possessive"
    follower = words[at + 1]
    if at and words[at - 1] == "of" and is_third_person(follower):
        raise Unsure(f"whether {follower!r} is a verb can't be told")  # "a hat of his lies there"
    return "possessive" if follower in _AFTER_POSSESSIVE else "determiner"


_AFTER_POSSESSIVE = (PREPOSITIONS | CONJUNCTIONS | AUXILIARIES | MODALS) - {
    "past", "inside", "outside", "like", "near", "down", "up", "off",
}  # fmt: skip
