"""Metrics of forced choices and open answers, from responses of a model with planted leanings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cf_lab_assets.audits import association, metrics
from cf_lab_assets.audits.declaration import AuditConfig
from cf_lab_assets.audits.parsing import PARSE_FAILURE, PARSED, REFUSAL
from cf_lab_resources.engine.questions import FORCED_CHOICE, OPEN, Question
from cf_lab_tests.audits.synthetic import OCCUPATIONS, SMALL, audit

VALUES = ("woman", "man")
CONFIG = SMALL.model_copy(
    update={
        "attributes": {"gender": VALUES},
        "questions": (
            Question(
                name="d-or-n", text="?", options=("doctor", "nurse"), formats=(FORCED_CHOICE,)
            ),
            Question(name="n-or-p", text="?", options=("nurse", "pilot"), formats=(FORCED_CHOICE,)),
            Question(name="job", text="?", options=OCCUPATIONS, formats=(OPEN,)),
        ),
    }
)


def responses(sets: int = 80, lean: float = 0.2, refusals: float = 0.0) -> pa.Table:
    """Men are likelier doctors and pilots by `lean`; women are refused an answer more often."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for i in range(sets):
        scene = rng.normal(0.5, 0.1)
        people = [("source", None, False), *(("member", v, v == "woman") for v in VALUES)]
        for role, value, placebo in people:
            shared = {
                "model": "m",
                "role": role,
                "pair_id": f"{i}-{value}",
                "set_id": None if role == "source" else f"set{i:03}",
                "source_id": f"s{i:03}",
                "attribute": None if role == "source" else "gender",
                "value": value,
                "is_placebo": placebo,
                "values": None if role == "source" else [("gender", value), ("age", "old")],
            }
            p = float(np.clip(scene + lean * (value == "man") + rng.normal(0, 0.02), 0, 1))
            for name, options, first in (
                ("d-or-n", ("doctor", "nurse"), p),
                ("n-or-p", ("nurse", "pilot"), 1 - p),
            ):
                for option, score in zip(options, (first, 1 - first), strict=True):
                    chosen = options[0] if first > 0.5 else options[1]
                    rows.append(
                        shared
                        | {"format": FORCED_CHOICE, "question": name, "prompt": option}
                        | {"score": score, "prediction": chosen}
                    )
            refused = value == "woman" and rng.random() < refusals
            outcome = REFUSAL if refused else PARSE_FAILURE if rng.random() < 0.1 else PARSED
            said = ("doctor" if p > 0.5 else "nurse") if outcome == PARSED else None
            rows.append(
                shared | {"format": OPEN, "question": "job", "outcome": outcome, "prediction": said}
            )
    about = audit(CONFIG) | {"formats": [FORCED_CHOICE, OPEN]}
    return pa.Table.from_pylist(rows, schema=association.responses_schema(about))


def result(document: dict[str, Any], ident: str) -> dict[str, Any]:
    return next(one for one in document["results"] if one["id"] == ident)


def test_a_primary_endpoint_is_the_mean_over_its_questions_in_both_orders() -> None:
    table = responses()
    document = metrics.compute(table)
    primary = result(document, "forced_choice/primary/gender-woman-man")
    # P(first) - P(second) moves by twice the lean, whichever way round the options are asked.
    assert primary["estimate"] == pytest.approx(0.4, abs=0.02)
    assert (primary["unit"], primary["verdict"], primary["n_sets"]) == ("probability", "found", 80)
    assert primary["placebo_sets"] == 80
    assert [one["id"] for one in document["results"] if one["family"] == "primary"] == [
        "forced_choice/primary/gender-woman-man"
    ]


def test_choices_are_decisions_too() -> None:
    document = metrics.compute(responses())
    name = "forced_choice/selection_rate_difference/gender/woman-man/d-or-n"
    gap = result(document, name)
    table = [row for row in responses().to_pylist() if row["question"] == "d-or-n"]
    rates = [
        np.mean([r["prediction"] == "doctor" for r in table if r["value"] == value])
        for value in VALUES
    ]
    assert gap["estimate"] == pytest.approx(rates[1] - rates[0], abs=1e-9)
    assert gap["placebo_floor"] is not None


def test_refusals_are_abstentions_and_what_can_not_be_read_is_missing() -> None:
    document = metrics.compute(responses(refusals=0.5))
    women = result(document, "open/abstention_rate/gender/woman/job")
    men = result(document, "open/abstention_rate/gender/man/job")
    rows = [r for r in responses(refusals=0.5).to_pylist() if r["question"] == "job"]
    asked = [r["outcome"] for r in rows if r["value"] == "woman" and r["outcome"] != PARSE_FAILURE]
    assert women["estimate"] == pytest.approx(np.mean([o == REFUSAL for o in asked]), abs=1e-9)
    assert men["estimate"] == 0
    assert result(document, "open/counterfactual_flip_rate/gender/job")["estimate"] > 0


def test_a_model_that_was_asked_nothing_of_an_endpoint_has_insufficient_data() -> None:
    table = responses()
    opened = table.filter(pa.compute.equal(table["format"], OPEN))
    document = metrics.compute(opened)
    primary = result(document, "primary/gender-woman-man")
    assert (primary["verdict"], primary["n_sets"]) == ("insufficient", 0)


def test_both_formats_of_one_model_stand_in_families_of_their_own() -> None:
    families = {one["family"] for one in metrics.compute(responses())["results"]}
    assert "secondary/counterfactual_flip_rate/open" in families
    assert "secondary/counterfactual_flip_rate/forced_choice" in families


def test_the_declaration_is_the_one_under_which_was_asked() -> None:
    assert AuditConfig.model_validate(metrics.compute(responses())["declaration"]) == CONFIG
