"""An audit of anyone's table of scores, without Dagster, pictures or a database."""

from __future__ import annotations

import io
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from cf_lab_assets.audits import (
    bundle,
    data,
    examples,
    impact,
    metrics,
    report,
    wording,
)
from cf_lab_assets.audits.about import About
from cf_lab_assets.audits.declaration import (
    AuditConfig,
    Listed,
    canonical_json,
    parse_declaration,
    parse_listed,
)
from cf_lab_assets.audits.errors import AuditError
from cf_lab_assets.audits.layout import (
    MAX_INTERSECTION,
    compares_nothing,
    left_out,
    query_by_query,
    scores_of,
)
from cf_lab_assets.audits.results import SCHEMA
from cf_lab_assets.audits.table import (
    OTHER_VALUE,
    POOLED,
    PREDICTION,
    SCORE,
    SHARE_RIGHT,
    SHARE_SELECTED,
    ScoreTable,
    Words,
    read_table,
    some,
)
from cf_lab_resources.bucket import open_bucket

if TYPE_CHECKING:
    from cf_lab_resources.credentials.keys import SigningKey

METRICS, REJECTED = "metrics.json", "rejected.parquet"
EMPTY: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True)
class Choices:
    """What whoever audits a table declares about it.

    Attributes:
        model: name of the audited model.
        attributes: names of the attribute columns; by default every column without a meaning.
        words: meaning of predictions and labels that are words.
        declaration: a JSON file of `AuditConfig`'s fields; what it leaves out follows from the
            table.
        top_k: K of the ranking metrics.
        limit: largest effect that is tolerated of every primary endpoint.
    """

    model: str = "model"
    attributes: Sequence[str] = ()
    words: Words = field(default_factory=Words)
    declaration: Path | None = None
    top_k: int | None = None
    limit: float | None = None


def audit_table(path: Path, choices: Choices) -> tuple[dict[str, Any], ScoreTable]:
    """Metrics of a table, as JSON-ready data like that of `metrics.compute`.

    Raises:
        AuditError: the table or the declaration can't be used, or no attribute has two values;
            the message says why.
    """
    said, origin = _declared(choices.declaration), str(choices.declaration or path)
    listed = parse_listed(said, origin)
    _check_said_once(said, choices, origin)
    table = read_table(path, choices.attributes, choices.words, listed)
    config = parse_declaration(said, origin, _defaults(table, choices, listed))
    prompts, answers = config.occupations, metrics.table_answers(table, config)
    document = {
        "schema": SCHEMA,
        "model": {"name": choices.model},
        "dataset_hash": table.sha256,
        "declaration": config.model_dump(mode="json"),
        "declaration_hash": config.hash,
        "prompts": dict(zip(prompts, prompts, strict=True)),
        "counts": {name: metrics.counts_of(one) for name, one in answers.items()},
        "undeclared": _undeclared(table, config),
        "notes": _notes(table, config),
        "rows": {"delivered": table.delivered, "used": len(table.sets), "rejected": table.reasons},
        "results": metrics.table_results(table, answers, config),
    }
    return document, table


def _defaults(table: ScoreTable, choices: Choices, listed: Listed) -> dict[str, Any]:
    """What a declaration leaves out, of its own lists or else of what the table holds.

    Where no primary endpoint is declared, each contrast of each attribute over all queries
    together is one.
    """
    one_by_one = query_by_query(table)
    prompts = listed.occupations or (table.queries.words if one_by_one else POOLED)
    attributes = listed.attributes or {
        name: column.words for name, column in table.attributes.items() if len(column.words) > 1
    }
    if not attributes:
        alone = ", ".join(f"{name}={one.words[0]}" for name, one in table.attributes.items())
        raise AuditError(
            f"nothing can be compared: {alone} is the only value there is; give members with "
            "other values"
        )
    return {
        "name": "table",
        "prompt_template": "{occupation}",
        "occupations": prompts,
        "attributes": attributes,
        "primary": _contrasts(attributes, prompts, _limit(choices)) if _scored(table) else [],
        "unit": _unit(table),
        "placebo": "optional",
        "top_k": choices.top_k,
    }


def _check_said_once(said: bytes, choices: Choices, origin: str) -> None:
    """What a declaration says nothing else may say: it stood before the scores did.

    Raises:
        AuditError: an option says it too.
    """
    declared = json.loads(said)
    for option, given, name in (("limit", choices.limit, "primary"), ("k", choices.top_k, "top_k")):
        if given is not None and name in declared:
            raise AuditError(
                f"{origin}: it declares {name}, and --{option} {given:g} would be ignored; leave "
                f"the option out, or {name} out of the declaration"
            )


def _limit(choices: Choices) -> float | None:
    if choices.limit is not None and not 0 < choices.limit < math.inf:
        raise AuditError(
            f"the limit is {choices.limit:g}; tolerate an effect above 0, or give no limit"
        )
    return choices.limit


def _contrasts(
    attributes: Mapping[str, Sequence[str]], prompts: Sequence[str], limit: float | None
) -> list[dict[str, Any]]:
    return [
        {
            "name": f"{name}-{a}-{b}",
            "attribute": name,
            "from_value": a,
            "to_value": b,
            "prompts_plus": tuple(prompts),
            "limit": limit,
        }
        for name, words in attributes.items()
        for a, b in itertools.combinations(words, 2)
    ]


def _scored(table: ScoreTable) -> bool:
    """Whether a row has a number, its own or one that its prediction gives."""
    return bool(np.isfinite(scores_of(table)).any())


def _unit(table: ScoreTable) -> str:
    if SCORE in table.has:
        return "score"
    return SHARE_SELECTED if table.selects else SHARE_RIGHT


def _undeclared(table: ScoreTable, config: AuditConfig) -> list[str]:
    """Values that the table holds and the declaration does not, and those that stand alone."""
    import pyarrow.compute as pc

    others = table.rejected.filter(pc.equal(table.rejected["reason"], OTHER_VALUE))
    found = set()
    for name, column in table.attributes.items():
        declared = config.attributes.get(name, ())
        held = {*column.words, *pc.unique(others[name]).drop_null().to_pylist()}
        found |= {f"{name}={word}" for word in held - set(declared)}
    return sorted(found)


def _notes(table: ScoreTable, config: AuditConfig) -> list[str]:
    """What the audit could not say of this table, and what would let it."""
    notes = [
        f"The intersection of {' and '.join(pair)} has more than {MAX_INTERSECTION} values and "
        "was left out."
        for pair in left_out(table, config.attributes)
        if PREDICTION in table.has
    ]
    notes += [
        f"No two members of a set differ in {name} and in nothing else, so that no effect of it "
        "can be measured. If another column is no attribute, name those that are with --attributes."
        for name in config.attributes
        if compares_nothing(table, name)
    ]
    if PREDICTION in table.has and not table.selects:
        notes.append(
            "No prediction counts as selected, because no word was named with --positive: there "
            f"are no selection rates. The words are {some(table.predicted)}."
        )
    return notes


def _declared(path: Path | None) -> bytes:
    if path is None:
        return b"{}"
    try:
        return path.read_bytes()
    except OSError as error:
        raise AuditError(f"{path}: the declaration can't be read: {error}") from error


@dataclass(frozen=True)
class Reporting:
    """What a table's report says besides its numbers, and who signs it.

    Attributes:
        key: that signs it.
        day: ISO.
        about: what whoever answers for the audit says.
        earlier: JSON of earlier reports of the model, oldest first.
        calibration: what the auditor found of planted biases.
    """

    key: SigningKey
    day: str
    about: About = field(default_factory=About)
    earlier: Sequence[Mapping[str, Any]] = ()
    calibration: Mapping[str, Any] | None = None


def report_files(
    document: Mapping[str, Any], table: ScoreTable, reporting: Reporting
) -> dict[str, bytes]:
    """The files of a table's report, by name.

    Args:
        document: of `audit_table`.
        table: as it was read.
        reporting: what is said besides.
    """
    name = document["model"]["name"]
    config = AuditConfig.model_validate(document["declaration"])
    material = report.Material(
        data=data.of_table(table, document, reporting.about.data),
        about=reporting.about,
        limitations=(*wording.LIMITATIONS_OF_TABLES, *document["notes"]),
        examples=_examples(table, config, name),
        impact_ratios=[{"model": name, **row} for row in impact.of_table(table)],
        calibration=reporting.calibration,
    )
    built = report.build([document], material, reporting.day, reporting.earlier)
    beside = {METRICS: canonical_json(document)}
    return bundle.files(built, reporting.key, reporting.day, beside=beside)


def _examples(table: ScoreTable, config: AuditConfig, name: str) -> list[dict[str, Any]]:
    answers = metrics.table_answers(table, config)
    return examples.examples_of(answers, dict.fromkeys(answers, table.set_ids), config, name)


def write(
    folder: Path, document: dict[str, Any], table: ScoreTable, files: Mapping[str, bytes] = EMPTY
) -> list[Path]:
    """Write metrics, report and, where there are any, the rejected rows; give the files' paths.

    Raises:
        LabError: the folder can't be written.
    """
    import pyarrow.parquet as pq

    made = {METRICS: canonical_json(document), **files}
    if len(table.rejected):
        sink = io.BytesIO()
        pq.write_table(table.rejected, sink)
        made[REJECTED] = sink.getvalue()
    out = open_bucket(folder.resolve().as_uri())
    for name, content in made.items():
        out.put_bytes(name, content)
    return [folder / name for name in made]
