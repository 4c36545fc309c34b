"""Questions: cyclic orders, and what follows from the likelihoods of the options."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from cf_lab_resources.engine.questions import NotFinite, Question, choose

TWO = Question(name="two", text="Which?", options=("doctor", "nurse"))
THREE = Question(name="three", text="Which?", options=("a", "b", "c"))


def test_each_option_stands_once_in_each_place() -> None:
    assert THREE.orders == (("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b"))
    assert THREE.prompt(THREE.orders[1]) == "Which? Answer with one of these only: b, c, a."


def test_pure_position_bias_gives_even_probabilities_and_is_recorded() -> None:
    # The option that is listed first has the likelihood e times that of the other.
    choice = choose(TWO, np.array([[-1.0, -2.0], [-2.0, -1.0]]))
    assert choice.probabilities == pytest.approx((0.5, 0.5), abs=1e-12)
    assert choice.option is None
    assert choice.position_bias == pytest.approx(np.e / (1 + np.e) - 0.5)


def test_a_preference_that_order_does_not_move_has_no_position_bias() -> None:
    choice = choose(TWO, np.log([[0.2, 0.8], [0.2, 0.8]]))
    assert choice.probabilities == pytest.approx((0.2, 0.8))
    assert choice.option == "nurse"
    assert choice.position_bias == pytest.approx(0.0, abs=1e-12)
    assert choice.likelihoods[1] == pytest.approx(np.log([0.2, 0.8]))


def test_probabilities_are_means_over_orders_and_sum_to_one() -> None:
    by_order = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    choice = choose(THREE, np.log(by_order) - 100.0)  # softmax knows no common offset
    assert choice.probabilities == pytest.approx(by_order.mean(axis=0))
    assert sum(choice.probabilities) == pytest.approx(1.0)
    assert choice.position_bias == pytest.approx((0.5 + 0.8 + 0.4) / 3 - 1 / 3)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_a_likelihood_that_is_no_number_makes_no_choice(bad: float) -> None:
    with pytest.raises(NotFinite):
        choose(TWO, np.array([[-1.0, bad], [-2.0, -1.0]]))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"options": ("nurse",)}, "at least 2"),
        ({"options": ("nurse", " Nurse")}, "twice"),
        ({"options": ("nurse", " ")}, "empty"),
        ({"choice_template": "{text}"}, "must hold"),
        ({"formats": ("guess",)}, "forced_choice"),
    ],
)
def test_a_malformed_question_says_what_is_wrong(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Question.model_validate({**TWO.model_dump(), **change})
