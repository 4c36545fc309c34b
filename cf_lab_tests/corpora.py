"""Captions and sentences that nobody here wrote, and what the rewriter makes of them.

They lie in ``shared/data`` beside the project; tests that need them are skipped where they are
missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cf_lab_assets.counterfactuals.rewrite import CannotRewrite, Rewriter
from cf_lab_tests import grammar

DATA = Path(__file__).parents[2] / "shared" / "data"
MISSING = f"the corpora are not at {DATA}"
CAPTION_SETS = DATA / "social_counterfactuals" / "race_gender_occupation.jsonl"
WINOBIAS = DATA / "winobias"

# The members of a caption set, in the order of `caption` and `output_1` to `output_11`.
RACES = ("White", "Black", "Indian", "Asian", "Middle Eastern", "Latino")
MEMBERS = tuple({"race": race, "gender": gender} for race in RACES for gender in ("man", "woman"))
_GENDERED = re.compile(r"\b(?:he|she|him|her|his|hers)\b")


@dataclass
class Outcome:
    """How many rewrites were tried and right, and the others."""

    tried: int = 0
    right: int = 0
    wrong: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Of those that were right."""
        return self.right / max(self.tried, 1)

    def count(self, rewriter: Rewriter, caption: str, values: dict[str, str], truth: str) -> None:
        """Try one rewrite; a refusal is not right."""
        try:
            made = rewriter.rewrite(caption, values).caption
        except CannotRewrite as error:
            made = f"refused: {error}"
        self.tried += 1
        if made == truth:
            self.right += 1
        else:
            self.wrong.append((caption, made, truth))


def caption_sets() -> Iterator[list[str]]:
    """The twelve captions of each set, race by race, man before woman."""
    for line in CAPTION_SETS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield [row["caption"], *(row[f"output_{number}"] for number in range(1, 12))]


def rewrite_caption_sets(rewriter: Rewriter, every: int = 1) -> Outcome:
    """Every member of a set from every member, itself included."""
    outcome = Outcome()
    for number, captions in enumerate(caption_sets()):
        if number % every == 0:
            for caption in captions:
                for values, truth in zip(MEMBERS, captions, strict=True):
                    outcome.count(rewriter, caption, values, truth)
    return outcome


def winobias() -> Iterator[tuple[str, str]]:
    """Pro and anti sentence of each line, with the brackets that mark the person."""
    for kind in ("type1", "type2"):
        pro, anti = (
            (WINOBIAS / f"{side}_stereotyped_{kind}.txt.dev").read_text(encoding="utf-8")
            for side in ("pro", "anti")
        )
        for lines in zip(pro.splitlines(), anti.splitlines(), strict=True):
            first, second = (line.partition(" ")[2] for line in lines)
            yield first, second


def is_same_sentence(pro: str, anti: str) -> bool:
    """Whether two sentences differ in gendered words only; nine of the corpus do not."""
    return _GENDERED.sub("", pro) == _GENDERED.sub("", anti)


def rewrite_winobias(rewriter: Rewriter) -> tuple[Outcome, int]:
    """Each sentence of a pair from the other one, brackets left out; and pairs passed over.

    Returns:
        What became of pairs that differ in gendered words only, and how many others there are.
    """
    outcome, others = Outcome(), 0
    for marked in winobias():
        pro, anti = (re.sub(r"[\[\]]", "", sentence) for sentence in marked)
        if not is_same_sentence(pro, anti):
            others += 1
            continue
        for caption, truth in ((pro, anti), (anti, pro)):
            value = rewriter.named_value(truth, "gender")
            if value is None:
                value = "man" if rewriter.named_value(caption, "gender") == "woman" else "woman"
            outcome.count(rewriter, caption, {"gender": value}, truth)
    return outcome, others


def nonbinary_sample(
    rewriter: Rewriter, count: int = 200, only_sound: bool = False
) -> list[tuple[str, str]]:
    """Sentences and their nonbinary rewriting, every n-th of those that were not refused.

    Args:
        rewriter: what rewrites them.
        count: how many.
        only_sound: draw them from the sentences that the parser accepts as they are. One in
            twelve of the corpus it does not ("thanked her for the nice gift her gave").
    """
    sentences = sorted(
        {re.sub(r"[\[\]]", "", one).replace(" 's", "'s") for pair in winobias() for one in pair}
    )
    made = []
    for sentence in sentences:
        try:
            made.append((sentence, rewriter.rewrite(sentence, {"gender": "nonbinary"}).caption))
        except CannotRewrite:
            continue
    if only_sound:
        counts = grammar.unlinked_words([source for source, _ in made])
        made = [pair for pair, unlinked in zip(made, counts, strict=True) if not unlinked]
    step = len(made) / count
    return [made[int(number * step)] for number in range(count)]
