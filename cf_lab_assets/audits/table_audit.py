"""An audit of anyone's table of scores, without Dagster, pictures or a database."""

from __future__ import annotations

import io
import itertools
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
    Endpoint,
    canonical_json,
    parse_declaration,
)
from cf_lab_assets.audits.errors import AuditError
from cf_lab_assets.audits.layout import query_by_query, scores_of
from cf_lab_assets.audits.results import SCHEMA
from cf_lab_assets.audits.table import (
    EVERY_QUERY,
    SCORE,
    SET_ID,
    SHARE_RIGHT,
    SHARE_SELECTED,
    ScoreTable,
    Words,
    read_table,
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
    table = read_table(path, choices.attributes, choices.words)
    config = declare(table, choices)
    prompts, answers = config.occupations, metrics.table_answers(table, config)
    document = {
        "schema": SCHEMA,
        "model": {"name": choices.model},
        "dataset_hash": table.sha256,
        "declaration": config.model_dump(mode="json"),
        "declaration_hash": config.hash,
        "prompts": dict(zip(prompts, prompts, strict=True)),
        "counts": {name: metrics.counts_of(one) for name, one in answers.items()},
        "undeclared": _alone(table),
        "rows": {"delivered": table.delivered, "used": len(table.sets), "rejected": table.reasons},
        "results": metrics.table_results(table, answers, config),
    }
    return document, table


def declare(table: ScoreTable, choices: Choices) -> AuditConfig:
    """The declaration of a table's audit: what a file says, and else what the table holds.

    Where no primary endpoint is declared, each contrast of each attribute over all queries
    together is one.
    """
    prompts = table.queries.words if query_by_query(table) else (EVERY_QUERY,)
    attributes = {name: c.words for name, c in table.attributes.items() if len(c.words) > 1}
    if not attributes:
        raise AuditError(
            f"nothing can be compared: {', '.join(_alone(table))} is the only value there is; give "
            "members with other values"
        )
    found: dict[str, Any] = {
        "name": "table",
        "prompt_template": "{occupation}",
        "occupations": prompts,
        "attributes": attributes,
        "primary": _contrasts(attributes, prompts, choices.limit) if _scored(table) else [],
        "unit": _unit(table),
        "placebo": "optional",
        "top_k": choices.top_k,
    }
    if choices.declaration is None:
        return AuditConfig.model_validate(found)
    return parse_declaration(_declared(choices.declaration), str(choices.declaration), found)


def _contrasts(
    attributes: Mapping[str, Sequence[str]], prompts: Sequence[str], limit: float | None
) -> list[dict[str, Any]]:
    return [
        Endpoint(
            name=f"{name}-{a}-{b}",
            attribute=name,
            from_value=a,
            to_value=b,
            prompts_plus=tuple(prompts),
            limit=limit,
        ).model_dump(mode="json")
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


def _alone(table: ScoreTable) -> list[str]:
    """Attributes with one value, which has no other to be compared with."""
    found = table.attributes.items()
    return [f"{name}={column.words[0]}" for name, column in found if len(column.words) == 1]


def _declared(path: Path) -> bytes:
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
    path: Path, document: Mapping[str, Any], table: ScoreTable, reporting: Reporting
) -> dict[str, bytes]:
    """The files of a table's report, by name.

    Args:
        path: of the table.
        document: of `audit_table`.
        table: as it was read.
        reporting: what is said besides.
    """
    name = document["model"]["name"]
    config = AuditConfig.model_validate(document["declaration"])
    material = report.Material(
        data=data.of_table(table, document, reporting.about.data),
        about=reporting.about,
        limitations=wording.LIMITATIONS_OF_TABLES,
        examples=_examples(path, table, config, name),
        impact_ratios=[{"model": name, **row} for row in impact.of_table(table)],
        calibration=reporting.calibration,
    )
    built = report.build([document], material, reporting.day, reporting.earlier)
    beside = {METRICS: canonical_json(document)}
    return bundle.files(built, reporting.key, reporting.day, beside=beside)


def _examples(
    path: Path, table: ScoreTable, config: AuditConfig, name: str
) -> list[dict[str, Any]]:
    answers = metrics.table_answers(table, config)
    ids = _set_ids(path, table)
    return examples.examples_of(answers, dict.fromkeys(answers, ids), config, name)


def _set_ids(path: Path, table: ScoreTable) -> list[str]:
    """Ids of the sets by their number: those of the file of which some row is used, in order."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    def counted(column: Any) -> dict[str, int]:
        counts = pc.value_counts(column.cast(pa.string()).drop_null())
        return {one["values"]: one["counts"] for one in counts.to_pylist()}

    rejected = counted(table.rejected[SET_ID])
    only = csv.ConvertOptions(include_columns=[SET_ID], strings_can_be_null=True)
    is_csv = path.suffix == ".csv"
    column = (
        csv.read_csv(path, convert_options=only)
        if is_csv
        else pq.read_table(path, columns=[SET_ID])
    )
    delivered = counted(column[SET_ID])
    return sorted(one for one, count in delivered.items() if count > rejected.get(one, 0))


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
