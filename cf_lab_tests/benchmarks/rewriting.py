"""What the rewriter makes of the corpora, and how fast.

Run as ``python -m cf_lab_tests.benchmarks.rewriting``.

The rate counts rewritten captions a second of one core's time, each read anew, in the fastest of
ten rounds, as other work on the machine slows some; its last row is of all the rows above.
``--sample`` prints 200 nonbinary sentences with the parser's verdict, to be read by people.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time

from rich.console import Console
from rich.table import Table

from cf_lab_assets.counterfactuals.rewrite import CannotRewrite, Rewriter
from cf_lab_assets.counterfactuals.taxonomy import load_taxonomy
from cf_lab_tests import corpora, grammar

CAPTIONS = 20_000
ROUND = 2_000
ENDINGS = 997  # few enough to become known words, and prime to the sizes of the corpora


def captions_per_second(captions: list[str], value: str) -> float:
    """Captions rewritten to a gender, a second of processor time, none of them read before."""
    rewriter = Rewriter(load_taxonomy())
    rewriter.rewrite("a man with his dog", {"gender": value})
    many = [
        f"{caption.removesuffix('.')} {number % ENDINGS}"
        for number, caption in zip(range(CAPTIONS), itertools.cycle(captions))
    ]
    rates = []
    for start in range(0, CAPTIONS, ROUND):
        began = time.process_time()
        for caption in many[start : start + ROUND]:
            try:
                rewriter.rewrite(caption, {"gender": value})
            except CannotRewrite:
                continue
        rates.append(ROUND / (time.process_time() - began))
    return max(rates)


def print_accuracy(console: Console, rewriter: Rewriter) -> None:
    """Exact matches with both corpora."""
    sets = corpora.rewrite_caption_sets(rewriter)
    pairs, others = corpora.rewrite_winobias(rewriter)
    table = Table("corpus", "tried", "exact", "share", title="exact string match")
    for name, outcome in (("caption sets", sets), ("WinoBias", pairs)):
        table.add_row(name, f"{outcome.tried:,}", f"{outcome.right:,}", f"{outcome.share:.2%}")
    console.print(table)
    console.print(f"{others} WinoBias pairs differ in other words too and were passed over")
    for wrong in pairs.wrong:
        console.print("  ", *wrong, sep="\n    ", highlight=False)


def print_speed(console: Console) -> None:
    """Captions a second of one core, by corpus and target."""
    sources = {
        "caption sets": [caption for captions in corpora.caption_sets() for caption in captions],
        "WinoBias": [
            caption.replace("[", "").replace("]", "") for caption, _ in corpora.winobias()
        ],
    }
    table = Table("corpus", "to", "captions/s", title="one core, processor time")
    rates = []
    for name, captions in sources.items():
        for value in ("woman", "man", "nonbinary"):
            rates.append(captions_per_second(captions, value))
            table.add_row(name, value, f"{rates[-1]:,.0f}")
    table.add_row("both", "all", f"{statistics.harmonic_mean(rates):,.0f}", end_section=True)
    console.print(table)


def print_sample(console: Console, rewriter: Rewriter) -> None:
    """Nonbinary sentences, each with the number of words that the parser can't link in it."""
    judged = grammar.is_installed()
    made = corpora.nonbinary_sample(rewriter, only_sound=judged)
    rewritten = [sentence for _, sentence in made]
    unlinked = grammar.unlinked_words(rewritten) if judged else ["-"] * len(made)
    for sentence, words in zip(rewritten, unlinked, strict=True):
        console.print(f"{words}  {sentence}", highlight=False, soft_wrap=True)
    if not judged:
        console.print("Debian's link-grammar is not installed: read them without its verdict")
        return
    console.print(
        f"{unlinked.count(0) / len(made):.1%} of {len(made)} are grammatical by the parser, which "
        "accepts all their sources"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", action="store_true", help="print 200 nonbinary sentences")
    console, rewriter = Console(), Rewriter(load_taxonomy())
    if parser.parse_args().sample:
        print_sample(console, rewriter)
        return
    print_accuracy(console, rewriter)
    print_speed(console)


if __name__ == "__main__":
    main()
