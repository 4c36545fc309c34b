"""What the starter models read: instructions, prompts and their own small tokenizer."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from cf_lab_assets.starter import world

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

MAX_TOKENS = 77
# The longest caption that every model reads whole; scorers of SigLIP layout end here.
CAPTION_TOKENS = 64
MERGES = 320
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def instruction(values: Mapping[str, str]) -> str:
    """The editor's instruction to show these values, and to leave alone what is not named."""
    return f"turn the person into {world.person(values)}"


def prompt(occupation: str) -> str:
    """The text that stands for an occupation in audits."""
    return world.describe({"occupation": occupation})


def named_subsets() -> list[dict[str, str]]:
    """Every choice of named attribute values, the empty one first."""
    options = [[None, *values] for values in world.ATTRIBUTES.values()]
    return [
        {name: value for name, value in zip(world.ATTRIBUTES, chosen, strict=True) if value}
        for chosen in itertools.product(*options)
    ]


def corpus() -> Iterable[str]:
    """Sentences that the tokenizer learns its merges from."""
    for portrait in world.sample(3000, seed=7):
        yield portrait.caption
    for values in named_subsets():
        yield instruction(values)
    for occupation in world.OCCUPATIONS:
        yield prompt(occupation)


def build_tokenizer() -> CLIPTokenizer:
    """A byte-level BPE tokenizer in CLIP's format; any text can be read, known words are short."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    learner.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(vocab_size=MERGES + 80, end_of_word_suffix="</w>", show_progress=False),
    )
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    pieces += [first + second for first, second in merges]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([*pieces, BEGIN, END]))}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        bos_token=BEGIN,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=MAX_TOKENS,
    )
