"""The contract of audited models, and what becomes of a picture that one fails on.

A model knows some formats. For each it is given what is asked and returns a function from
pictures to answers, one for each picture in their order. That function may raise: `isolated` finds
the picture that is to blame, and keeps the answers on all others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from cf_lab_resources.engine.batching import OutOfMemory, is_out_of_memory
from cf_lab_resources.engine.questions import Choice, Question
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from PIL import Image

Answer = TypeVar("Answer")
Ask = Callable[[Sequence["Image.Image"]], Sequence[Answer]]
# Of an adapter's message, which may be a whole page.
LONGEST_REASON = 300


class AuditedModelError(LabError):
    """A folder, function or endpoint can't serve as an audited model."""


class AnswerRefused(LabError):
    """A model's answer is not of the form that was asked for."""


@dataclass(frozen=True)
class Missing:
    """In the place of an answer: why there is none."""

    reason: str


class Audited(ABC):
    """An audited model, whatever runs it.

    Attributes:
        formats: those of `questions` that it can be asked in.
    """

    formats: tuple[str, ...] = ()

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a report says of it, JSON-ready.

        At least `model_type` (None where unknown), `families` (names of architectures in it, see
        `families`), `architectures`, `parameters`, `dimension`, `dtype`, `image_processor`,
        `tokenizer`, `sha256` and `files`; None or empty where it has no such thing.
        """

    def associate(self, prompts: Sequence[str]) -> Ask[Sequence[float]]:
        """A function that scores each picture for each prompt; NaN where there is no score."""
        raise NotImplementedError(f"{type(self).__name__} knows the formats {self.formats}")

    def choose(self, question: Question) -> Ask[Choice]:
        """A function that makes a forced choice about each picture."""
        raise NotImplementedError(f"{type(self).__name__} knows the formats {self.formats}")

    def speak(self, text: str, max_tokens: int) -> Ask[str]:
        """A function that answers freely about each picture, in at most so many tokens."""
        raise NotImplementedError(f"{type(self).__name__} knows the formats {self.formats}")


def isolated(
    ask: Ask[Answer],
    images: Sequence[Image.Image],
    batch: int,
    failed: Callable[[int, str], None],
) -> list[Answer | Missing]:
    """One answer for each picture, `Missing` where asking about it alone fails too.

    Args:
        ask: of an audited model.
        images: the pictures.
        batch: how many are asked about at once; fewer where memory runs out.
        failed: called with index and reason of each missing answer; may raise to give up.

    Raises:
        AuditedModelError: The model as a whole can't be asked.
        OutOfMemory: There is no room for a single picture.
    """
    found: list[Answer | Missing] = []
    for start in range(0, len(images), batch):
        for answer in _asked(ask, images[start : start + batch]):
            if isinstance(answer, Missing):
                failed(len(found), answer.reason)
            found.append(answer)
    return found


def _asked(ask: Ask[Answer], images: Sequence[Image.Image]) -> list[Answer | Missing]:
    try:
        answers = list(ask(images))
        if len(answers) != len(images):
            raise AnswerRefused(f"{len(answers)} answers to {len(images)} pictures")
        return list(answers)
    except AuditedModelError:
        raise
    except Exception as error:
        crowded = is_out_of_memory(error)
        if len(images) == 1 and crowded:
            raise OutOfMemory(
                "the device has no room for the audited model's answer on one picture; give a "
                "smaller batch, or another device"
            ) from error
        if len(images) == 1:
            return [Missing(reason(error))]
    # Outside of the handler, whose error would keep the failed batch in memory.
    size = max(1, len(images) // 2) if crowded else 1
    parts = [images[start : start + size] for start in range(0, len(images), size)]
    return [answer for part in parts for answer in _asked(ask, part)]


def reason(error: Exception) -> str:
    """An error on one line; those of the lab need no class name to be understood."""
    said = " ".join(str(error).split())
    named = said if isinstance(error, LabError) and said else f"{type(error).__name__}: {said}"
    return named[:LONGEST_REASON].rstrip(": ")
