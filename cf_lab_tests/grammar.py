"""Whether English sentences are grammatical, asked of the Link Grammar parser.

It knows nothing of the rewriter: a sentence is grammatical where its dictionary links every word
of it. Debian has it as `link-grammar`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence

_FOUND = re.compile(
    r"^Found \d+ linkages? \((\d+)(?: of \d+ random linkages)? had no P\.P\. violations\)"
    r"(?: at null count (\d+))?"
)
_OPTIONS = ("-graphics=0", "-limit=100", "-timeout=10", "-verbosity=1", "-null=1")


def is_installed() -> bool:
    """Whether the parser is on this machine."""
    return shutil.which("link-parser") is not None


def unlinked_words(sentences: Sequence[str]) -> list[int]:
    """How many words of each sentence the parser can't link; 0 is grammatical.

    Raises:
        RuntimeError: it gave another number of answers than there are sentences.
    """
    # A first letter such as "!" would be a command of the parser's.
    lines = "\n".join(" ".join(sentence.split()) for sentence in sentences) + "\n"
    done = subprocess.run(
        ["link-parser", "en", *_OPTIONS], input=lines, capture_output=True, text=True, check=True
    )
    found = [match for line in done.stdout.splitlines() if (match := _FOUND.match(line))]
    if len(found) != len(sentences):
        raise RuntimeError(f"{len(found)} answers for {len(sentences)} sentences")
    return [int(m.group(2) or 0) or (0 if int(m.group(1)) else 1) for m in found]
