"""Metrics of generative models: forced choices by their likelihoods, and open answers as read.

A forced choice between two options is a score, the probability of the first less that of the
second, and a decision, whether the first is chosen. A primary endpoint has the mean of the scores
of those questions that set one of its plus prompts against one of its minus prompts. An open
answer is a decision among the options; a refusal is an abstention, and what could not be read is
missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cf_lab_assets.audits import decisions, effects
from cf_lab_assets.audits.answers import Answers, Floats, Integers, held_fixed
from cf_lab_assets.audits.decisions import Decisions
from cf_lab_assets.audits.declaration import AuditConfig, Endpoint
from cf_lab_assets.audits.parsing import REFUSAL
from cf_lab_assets.audits.results import Result
from cf_lab_resources.engine.questions import FORCED_CHOICE, OPEN, Question

if TYPE_CHECKING:
    import pyarrow as pa

UNIT = "probability"


def generative_results(responses: pa.Table, config: AuditConfig) -> list[Result]:
    """Metrics of both formats, for `metrics.judge` to judge; none where neither was asked."""
    results: list[Result] = []
    table = _Pictures(responses, config)
    chosen = [one for one in config.questions if FORCED_CHOICE in one.formats]
    if table.asked(FORCED_CHOICE):
        results += _choice_effects(table, [one for one in chosen if len(one.options) == 2])
    for form, questions in (
        (FORCED_CHOICE, chosen),
        (OPEN, [one for one in config.questions if OPEN in one.formats]),
    ):
        if table.asked(form):
            for question in questions:
                results += _decisions(table, form, question)
    return results


def _choice_effects(table: _Pictures, questions: Sequence[Question]) -> list[Result]:
    """Primary, secondary and stratum effects on probabilities, a question as a prompt."""
    config = table.config.model_copy(
        update={"occupations": tuple(one.name for one in questions), "primary": (), "unit": UNIT}
    )
    results: list[Result] = []
    for attribute in config.attributes:
        answers = table.scores(attribute, questions)
        results += _primary(answers, questions, table.config)
        results += effects.secondary_effects(answers, config)
        results += effects.stratum_effects(answers, config)
    return [_in_format(one, FORCED_CHOICE) for one in results]


def _primary(answers: Answers, questions: Sequence[Question], config: AuditConfig) -> list[Result]:
    """The endpoints of one attribute, each over the questions that are about it."""
    asked = {
        endpoint: signs
        for endpoint in config.primary
        if endpoint.attribute == answers.attribute
        and (signs := np.array([_sign(endpoint, one) for one in questions], float)).any()
    }
    if not asked:
        return []
    weights = np.stack([signs / np.abs(signs).sum() for signs in asked.values()], axis=1)
    # A question that is about no endpoint, or another, has no weight; a missing one is missing.
    over = Answers(
        answers.attribute,
        answers.values,
        answers.sets,
        _weighted(answers.members, weights),
        answers.placebo,
        _weighted(answers.sources, weights),
    )
    own = config.model_copy(
        update={
            "occupations": tuple(one.name for one in asked),
            "primary": tuple(
                one.model_copy(update={"prompts_plus": (one.name,), "prompts_minus": ()})
                for one in asked
            ),
            "unit": UNIT,
        }
    )
    found = effects.primary_effects(over, own)
    return [
        {
            **result,
            "prompts_plus": list(endpoint.prompts_plus),
            "prompts_minus": list(endpoint.prompts_minus),
        }
        for endpoint, result in zip(asked, found, strict=True)
    ]


def _weighted(scores: Floats, weights: Floats) -> Floats:
    used = [np.flatnonzero(column) for column in weights.T]
    parts = [scores[..., one] @ weights[one, i] for i, one in enumerate(used)]
    return np.stack(parts, axis=-1)


def _sign(endpoint: Endpoint, question: Question) -> int:
    """1 if a question sets a plus prompt against a minus prompt, -1 the other way round, or 0."""
    first, second = question.options
    if first in endpoint.prompts_plus and second in endpoint.prompts_minus:
        return 1
    return -int(first in endpoint.prompts_minus and second in endpoint.prompts_plus)


def _in_format(result: Result, form: str) -> Result:
    """A result that tells its format in id and family, so that formats are not mixed."""
    family = result["family"]
    return {
        **result,
        "id": f"{form}/{result['id']}",
        "family": family if family == "primary" else f"{family}/{form}",
        "format": form,
    }


def _decisions(table: _Pictures, form: str, question: Question) -> list[Result]:
    results: list[Result] = []
    for attribute in table.config.attributes:
        answers = table.decisions(attribute, form, question)
        if len(answers.sets):
            found = decisions.decision_metrics(answers, table.config, question.name)
            results += [_in_format(one, form) for one in found]
    return results


class _Pictures:
    """Responses as rows of Python values by format and question, and laid out by set."""

    def __init__(self, responses: pa.Table, config: AuditConfig) -> None:
        import pyarrow.compute as pc

        self.config = config
        wanted = pc.is_in(responses["format"], value_set=_strings((FORCED_CHOICE, OPEN)))
        columns = ["format", "question", "role", "set_id", "source_id", "attribute", "value"]
        columns += ["is_placebo", "values", "prompt", "score", "prediction", "outcome"]
        self.rows = responses.select(columns).filter(wanted).to_pylist()

    def asked(self, form: str) -> bool:
        """Whether there is any answer in a format."""
        return any(row["format"] == form for row in self.rows)

    def scores(self, attribute: str, questions: Sequence[Question]) -> Answers:
        """P(first option) - P(second) by set, value and question."""
        first = {one.name: one.options[0] for one in questions}
        place = {one.name: column for column, one in enumerate(questions)}
        rows = [
            row
            for row in self.rows
            if row["format"] == FORCED_CHOICE and row["prompt"] == first.get(row["question"])
        ]
        layout = _Layout(rows, attribute, self.config)
        members = np.full((layout.count, len(layout.values), len(place)), np.nan)
        sources = np.full((layout.count, len(place)), np.nan)
        for row in rows:
            for block, cell in layout.cells(row, members, sources):
                if row["score"] is not None:
                    block[(*cell, place[row["question"]])] = 2 * row["score"] - 1
        return Answers(
            attribute,
            layout.values,
            np.arange(layout.count),
            members,
            layout.placebo,
            sources,
            layout.within,
        )

    def decisions(self, attribute: str, form: str, question: Question) -> Decisions:
        """What was chosen, or read from the answer, by set and value."""
        rows = [r for r in self.rows if r["format"] == form and r["question"] == question.name]
        layout = _Layout(rows, attribute, self.config)
        shape = layout.count, len(layout.values)
        decided, sources = np.full(shape, np.nan), np.full(layout.count, np.nan)
        declined = np.zeros(shape, bool)
        code = {option: 1.0 + place for place, option in enumerate(question.options)}
        for row in rows:
            for block, cell in layout.cells(row, decided, sources):
                block[cell] = code.get(row["prediction"] or "", np.nan)
                if block is decided:
                    declined[cell] = row["outcome"] == REFUSAL
        return Decisions(
            attribute,
            layout.values,
            np.arange(layout.count),
            decided,
            declined,
            np.full(shape, np.nan),
            np.zeros(shape, bool),
            layout.flips(decided, sources),
            selects=len(question.options) == 2,
        )


class _Layout:
    """Which set and value each row of one attribute is of.

    Attributes:
        values: of the attribute.
        count: how many sets there are.
        placebo: by set, index of the value that its placebo shows, or -1.
        within: by other attribute, its value by set.
    """

    def __init__(
        self, rows: Sequence[Mapping[str, Any]], attribute: str, config: AuditConfig
    ) -> None:
        self.values = config.attributes[attribute]
        self._code = {value: place for place, value in enumerate(self.values)}
        own = [r for r in rows if r["attribute"] == attribute and r["value"] in self._code]
        by_set = {row["set_id"]: row for row in own}
        self._set = {name: place for place, name in enumerate(sorted(by_set))}
        self.count = len(self._set)
        self._of_source: dict[str, list[int]] = {}
        for name, place in self._set.items():
            self._of_source.setdefault(by_set[name]["source_id"], []).append(place)
        self.placebo: Integers = np.full(self.count, -1)
        for row in own:
            if row["is_placebo"]:
                self.placebo[self._set[row["set_id"]]] = self._code[row["value"]]
        shown = [by_set[name]["values"] for name in sorted(by_set)]
        self.within = held_fixed(shown, attribute)

    def cells(
        self, row: Mapping[str, Any], members: Any, sources: Any
    ) -> list[tuple[Any, tuple[int, ...]]]:
        """The blocks and places that a row fills: one member's, or its source's in each set."""
        if row["role"] == "source":
            return [(sources, (place,)) for place in self._of_source.get(row["source_id"], ())]
        place, code = self._set.get(row["set_id"]), self._code.get(row["value"] or "")
        return [] if place is None or code is None else [(members, (place, code))]

    def flips(self, decided: Any, sources: Any) -> Any:
        """Whether each placebo is decided other than its source picture, (sets with both, 1)."""
        rows = np.flatnonzero(self.placebo >= 0)
        again, original = decided[rows, self.placebo[rows]], sources[rows]
        both = np.isfinite(again) & np.isfinite(original)
        return (again != original)[both].astype(np.float64)[:, None]


def _strings(values: Sequence[str]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.string())
