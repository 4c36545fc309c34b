"""Questions to a generative model, and what its answer likelihoods say of the options.

*Forced choice.* An option's score is the mean log-likelihood of its tokens after the prompt,

    s(option | prompt) = (1/T) sum_{t=1..T} ln p(token_t | picture, prompt, token_1 .. token_{t-1})

the mean rather than the sum, so that an option of more tokens isn't the worse for it (length
normalisation by tokens; Brown et al. 2020, section 2.4). The options are listed in the prompt,
and a model may prefer what is listed first. So the question is asked in every cyclic order, in
which each option stands once in each place, and an option's probability is the mean over the
orders of the softmax of the scores. What order alone does to the model is recorded as *position
bias*: the mean probability of the option that is listed first, less 1/n; 0 for a model that order
does not move.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ASSOCIATION: Final = "association"
FORCED_CHOICE: Final = "forced_choice"
OPEN: Final = "open"

# Probabilities nearer than this are a tie; rounding of the likelihoods moves them by less.
TIE = 1e-6


class NotFinite(LabError):
    """A model answered with what is no number."""


class Question(BaseModel):
    """What a generative model is asked about each picture.

    Attributes:
        name: what results call it.
        text: the question, as it stands in an open format.
        options: its possible answers.
        formats: in which it is asked.
        choice_template: the prompt of a forced choice; holds `{text}` and `{options}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    text: str = Field(min_length=1)
    options: tuple[str, ...] = Field(min_length=2)
    formats: tuple[Literal["forced_choice", "open"], ...] = Field(
        default=("forced_choice", "open"), min_length=1
    )
    choice_template: str = "{text} Answer with one of these only: {options}."

    @model_validator(mode="after")
    def _consistent(self) -> Question:
        if len({option.strip().casefold() for option in self.options}) < len(self.options):
            raise ValueError(f"question {self.name!r} has an option twice")
        if not all(option.strip() for option in self.options):
            raise ValueError(f"question {self.name!r} has an empty option")
        if any(part not in self.choice_template for part in ("{text}", "{options}")):
            raise ValueError(f"question {self.name!r}: choice_template must hold text and options")
        return self

    @property
    def orders(self) -> tuple[tuple[str, ...], ...]:
        """All cyclic orders of the options; the one at index i begins with option i."""
        return tuple(
            self.options[start:] + self.options[:start] for start in range(len(self.options))
        )

    def prompt(self, order: tuple[str, ...]) -> str:
        """The text of a forced choice with its options in this order."""
        return self.choice_template.format(text=self.text, options=", ".join(order))


@dataclass(frozen=True)
class Choice:
    """A model's forced choice about one picture.

    Attributes:
        likelihoods: mean log-likelihoods in nats, (orders, options); orders as
            `Question.orders`, options as declared.
        probabilities: of each option, over all orders; they sum to 1.
        option: the likeliest one; None where two share the highest probability, as no choice was
            made then.
        position_bias: from -1/n to 1 - 1/n for n options.
    """

    likelihoods: tuple[tuple[float, ...], ...]
    probabilities: tuple[float, ...]
    option: str | None
    position_bias: float


def choose(question: Question, likelihoods: NDArray[np.floating]) -> Choice:
    """The choice that follows from the likelihoods; see the module's docstring.

    Args:
        question: what was asked.
        likelihoods: as in `Choice`.

    Raises:
        NotFinite: One of them is no finite number.
    """
    import numpy as np

    scores = np.asarray(likelihoods, np.float64)
    count = len(question.options)
    if scores.shape != (count, count):
        raise ValueError(f"{count} options have {count} orders, not scores of {scores.shape}")
    if not np.isfinite(scores).all():
        raise NotFinite("the likelihood of an option is not a finite number")
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    by_order = weights / weights.sum(axis=1, keepdims=True)
    probabilities = by_order.mean(axis=0)
    second, first = np.sort(probabilities)[-2:]
    tied = math.isclose(first, second, rel_tol=0.0, abs_tol=TIE)
    return Choice(
        tuple(tuple(map(float, row)) for row in scores),
        tuple(map(float, probabilities)),
        None if tied else question.options[int(probabilities.argmax())],
        float(np.diagonal(by_order).mean() - 1 / count),
    )
