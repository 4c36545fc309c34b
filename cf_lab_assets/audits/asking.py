"""Asking an audited model about pictures, in every format that it knows.

What comes back is a table with the same number of rows for each picture, in the pictures' order:

association: a row for each occupation, `prompt`; `score` is the model's, a cosine of CLIP and its
    kin.
forced_choice: a row for each option of each question; `prompt` is the option, `score` its
    probability, `likelihoods` its mean log-likelihood in each order, `prediction` the option that
    was chosen, null in a tie, and `position_bias` what order alone does (see
    `cf_lab_resources.engine.questions`).
open: a row for each question; `answer` is the text, `outcome` what was read from it and
    `prediction` the option where it was parsed (see `parsing`).

Where the model failed, `failure` says why, and all else that it should have given is null.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cf_lab_assets.audits.declaration import AuditConfig
from cf_lab_assets.audits.errors import AuditError
from cf_lab_assets.audits.parsing import read_answer
from cf_lab_resources.engine.contract import Audited, Missing, isolated
from cf_lab_resources.engine.questions import ASSOCIATION, FORCED_CHOICE, OPEN, Choice, Question

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

Failed = Callable[[int, str], None]
# The columns that say what a row is the answer to.
ITEM = ("format", "question", "prompt")
JOINT = "\t"
NO_SCORE = "the model gave no finite score for this prompt"


class Failures:
    """Counts the pictures that a model failed on, and gives up when they are too many.

    Attributes:
        pictures: reason of the first failure on each.
    """

    def __init__(self, model: str, total: int, share: float) -> None:
        """Begin with none.

        Args:
            model: named in errors.
            total: pictures that are asked about.
            share: of them that may fail.
        """
        self.pictures: dict[int, str] = {}
        self._model, self._total, self._share = model, total, share

    def since(self, start: int) -> Failed:
        """What notes failures on pictures that are counted from `start` on."""

        def failed(index: int, why: str) -> None:
            self.pictures.setdefault(start + index, why)
            if len(self.pictures) > self._share * self._total:
                raise AuditError(
                    f"audited model {self._model} failed on {len(self.pictures)} of "
                    f"{self._total} pictures and {self._share:.1%} may fail; the last reason: "
                    f"{why}. Mend the model or endpoint and run again, or declare a larger "
                    "maximum_failures"
                )

        return failed


def answer_schema() -> pa.Schema:
    """Columns of what is known of a picture and a question or prompt."""
    import pyarrow as pa

    return pa.schema(
        [
            ("prompt", pa.string()),
            ("score", pa.float32()),
            ("format", pa.string()),
            ("question", pa.string()),
            ("prediction", pa.string()),
            ("answer", pa.string()),
            ("outcome", pa.string()),
            ("likelihoods", pa.list_(pa.float32())),
            ("position_bias", pa.float32()),
            ("failure", pa.string()),
        ]
    )


def items(config: AuditConfig, formats: Sequence[str]) -> list[str]:
    """What each picture is asked, as `ITEM`'s columns joined by `JOINT`, "" where one is null."""
    found = []
    if ASSOCIATION in formats:
        found += [(ASSOCIATION, "", occupation) for occupation in config.occupations]
    for question in config.questions:
        if FORCED_CHOICE in formats and FORCED_CHOICE in question.formats:
            found += [(FORCED_CHOICE, question.name, option) for option in question.options]
        if OPEN in formats and OPEN in question.formats:
            found.append((OPEN, question.name, ""))
    return [JOINT.join(item) for item in found]


def ask(
    model: Audited, images: Sequence[Image.Image], config: AuditConfig, batch: int, failed: Failed
) -> pa.Table:
    """All answers about some pictures; see the module's docstring.

    Args:
        model: is asked in the formats that it knows.
        images: at least one.
        config: declares prompts and questions.
        batch: pictures at once.
        failed: told of each failure by index and reason.

    Raises:
        AuditError: The model knows no format of the declaration.
    """
    import numpy as np
    import pyarrow as pa

    parts = []
    if ASSOCIATION in model.formats:
        parts.append(_associations(model, images, config, batch, failed))
    for question in config.questions:
        for kind, asked in ((FORCED_CHOICE, _choices), (OPEN, _spoken)):
            if kind in model.formats and kind in question.formats:
                parts.append(asked(model, images, question, config, batch, failed))
    if not parts:
        raise AuditError(
            f"the model can be asked in {', '.join(model.formats)} and the declaration "
            f"{config.name!r} asks nothing in that; declare questions"
        )
    starts = np.cumsum([0, *(len(part) for part in parts)])[:-1]
    places = [
        start + np.arange(len(part)).reshape(len(images), -1)
        for start, part in zip(starts, parts, strict=True)
    ]
    return pa.concat_tables(parts).take(pa.array(np.concatenate(places, axis=1).ravel()))


def _associations(
    model: Audited, images: Sequence[Image.Image], config: AuditConfig, batch: int, failed: Failed
) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    asked = model.associate([config.prompt(one) for one in config.occupations])
    answers = isolated(asked, images, batch, failed)
    scores = np.full((len(images), len(config.occupations)), np.nan, np.float32)
    failures = np.full(scores.shape, NO_SCORE, object)
    for row, answer in enumerate(answers):
        if isinstance(answer, Missing):
            failures[row] = answer.reason
        else:
            scores[row] = answer
    finite = np.isfinite(scores)
    for lacking in map(int, np.flatnonzero(~finite.all(axis=1))):
        failed(lacking, failures[lacking][~finite[lacking]][0])
    failures[finite] = None
    count = scores.size
    columns = {
        "prompt": list(config.occupations) * len(images),
        "score": pa.array(scores.ravel(), pa.float32(), mask=~finite.ravel()),
        "format": pa.repeat(ASSOCIATION, count),
        "failure": failures.ravel().tolist(),
    }
    schema = answer_schema()
    return pa.table(
        [columns.get(name, pa.nulls(count, schema.field(name).type)) for name in schema.names],
        schema=schema,
    )


def _choices(
    model: Audited,
    images: Sequence[Image.Image],
    question: Question,
    config: AuditConfig,
    batch: int,
    failed: Failed,
) -> pa.Table:
    answers = isolated(model.choose(question), images, batch, failed)
    rows = []
    for answer in answers:
        for index, option in enumerate(question.options):
            row = {"prompt": option, "format": FORCED_CHOICE, "question": question.name}
            rows.append({**row, **_of_choice(answer, index)})
    return _table(rows)


def _of_choice(answer: Choice | Missing, index: int) -> dict[str, Any]:
    if isinstance(answer, Missing):
        return {"failure": answer.reason}
    return {
        "score": answer.probabilities[index],
        "prediction": answer.option,
        "likelihoods": [order[index] for order in answer.likelihoods],
        "position_bias": answer.position_bias,
    }


def _spoken(
    model: Audited,
    images: Sequence[Image.Image],
    question: Question,
    config: AuditConfig,
    batch: int,
    failed: Failed,
) -> pa.Table:
    rows: list[dict[str, Any]] = []
    asked = model.speak(question.text, config.maximum_tokens)
    for answer in isolated(asked, images, batch, failed):
        row: dict[str, Any] = {"format": OPEN, "question": question.name}
        if isinstance(answer, Missing):
            rows.append({**row, "failure": answer.reason})
            continue
        reading = read_answer(answer, question.options, config.refusals)
        read = {"answer": answer, "outcome": reading.outcome, "prediction": reading.option}
        rows.append({**row, **read})
    return _table(rows)


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=answer_schema())
