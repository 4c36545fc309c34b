"""Responses: what an audited model says of each picture, as one table.

It is asked about every member of every counterfactual set, and about every source picture too: the
difference between a source picture and the member that was re-rendered with the same values is the
placebo floor. What it is asked, and in which formats, is in `asking`. The table keeps the answers
raw, so that metrics are computed without the model.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_assets.audits import asking
from cf_lab_assets.audits.declaration import AuditConfig, canonical_json
from cf_lab_assets.audits.errors import AuditError
from cf_lab_assets.audits.remembered import Remembered, answers_key
from cf_lab_resources.bucket import Bucket, BucketKeyError

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

    from cf_lab_resources.engine.contract import Audited

# Pictures asked about between two looks at the bucket; bounds memory.
STREAMED = 1024
READERS = 8
# Pairs written to the table at a time: row groups of about 50,000 scores for 12 prompts.
WRITTEN = 4096
AUDIT_METADATA = b"cf_lab.audit"

PAIR_COLUMNS = [
    "pair_id",
    "set_id",
    "source_id",
    "attribute",
    "value",
    "is_placebo",
    "values",
    "image_key",
    "image_sha256",
    "source_image_key",
    "source_image_sha256",
]
# Of them, those that responses repeat.
REPEATED = ["pair_id", "set_id", "source_id", "attribute", "value", "is_placebo", "values"]

RESPONSES_MEANING = {
    "model": "the audited model",
    "role": "member of a counterfactual set, or source",
    "pair_id": "the member's pair; for a source picture its source_id",
    "set_id": "null for a source picture",
    "source_id": "of the source that the picture was made from, or is",
    "attribute": "null for a source picture",
    "value": "null for a source picture",
    "is_placebo": "re-rendered with the source's own values",
    "values": "of all known attributes; null for a source picture",
    "prompt": "the occupation or option; null in open format",
    "score": "cosine, an adapter's score, or an option's probability",
    "format": "association, forced_choice or open",
    "question": "its name; null for association",
    "prediction": "the option that was chosen, or read from the answer",
    "answer": "text, in open format",
    "outcome": "parsed, refusal or parse_failure, in open format",
    "likelihoods": "the option's mean log-likelihood in each order, in nats",
    "position_bias": "mean probability of what is listed first, less chance",
    "failure": "why there is no answer; null where there is one",
}


def responses_schema(audit: dict[str, Any] | None = None) -> pa.Schema:
    """Columns of the responses; `audit` is kept beside them (see `audit_of`)."""
    import pyarrow as pa

    fields = [
        *((name, pa.string()) for name in ("model", "role", "pair_id", "set_id", "source_id")),
        *((name, pa.string()) for name in ("attribute", "value")),
        ("is_placebo", pa.bool_()),
        ("values", pa.map_(pa.string(), pa.string())),
        *asking.answer_schema(),
    ]
    metadata = None if audit is None else {AUDIT_METADATA: canonical_json(audit)}
    return pa.schema(fields, metadata=metadata)


def respond(
    model: Audited,
    name: str,
    bucket: Bucket,
    pairs: pa.Table,
    config: AuditConfig,
    path: Path,
    dataset_hash: str,
    batch: int = 64,
) -> int:
    """Ask about every member and source picture and write the table.

    What the model is known to answer about a picture it is not asked again (see `remembered`).

    Args:
        model: the audited model.
        name: what the lab calls it.
        bucket: holds the pictures.
        pairs: the dataset's pairs, with at least `PAIR_COLUMNS`.
        config: the declaration; it is written into the table with the model's description.
        path: where the parquet file goes.
        dataset_hash: content hash of the dataset.
        batch: pictures at once.

    Returns:
        How many distinct pictures the answers are about.

    Raises:
        AuditError: The dataset is empty, a picture is missing or can't be read, the model can't
            be asked what is declared, or failed on too many pictures.
        ContentDamaged: A picture is another than the dataset's.
    """
    import pyarrow.parquet as pq

    if not len(pairs):
        raise AuditError(f"dataset {dataset_hash} has no pairs, so there is nothing to audit")
    members, sources = pairs, _source_rows(pairs)
    keys = dict(
        zip(
            [*_texts(members, "image_sha256"), *_texts(sources, "image_sha256")],
            [*_texts(members, "image_key"), *_texts(sources, "image_key")],
            strict=True,
        )
    )
    failures = asking.Failures(name, len(keys), config.maximum_failures)
    index, answers = _answers(model, name, bucket, keys, config, batch, failures)
    each = len(answers) // len(index)
    audit = {
        "model": {"name": name, **model.describe()},
        "dataset_hash": dataset_hash,
        "declaration": config.model_dump(mode="json"),
        "declaration_hash": config.hash,
        "prompts": {one: config.prompt(one) for one in config.occupations},
        "formats": list(model.formats),
        "pictures": len(keys),
        "failed_pictures": len(failures.pictures),
    }
    with pq.ParquetWriter(path, responses_schema(audit), compression="zstd") as writer:
        for role, rows in (("member", members), ("source", sources)):
            for start in range(0, len(rows), WRITTEN):
                part = rows.slice(start, WRITTEN)
                numbers = [index[sha256] for sha256 in _texts(part, "image_sha256")]
                own = answers.take(_places(numbers, each))
                writer.write_table(_rows(name, role, part, own, audit))
    return len(keys)


def _answers(
    model: Audited,
    name: str,
    bucket: Bucket,
    keys: Mapping[str, str],
    config: AuditConfig,
    batch: int,
    failures: asking.Failures,
) -> tuple[dict[str, int], pa.Table]:
    """Answers about all pictures, those not remembered asked for, and each picture's number."""
    import pyarrow as pa

    known = Remembered(bucket, answers_key(name, model, config))
    before = set(known.pictures)
    new = [sha256 for sha256 in keys if sha256 not in before]
    parts = [] if known.answers is None else [known.answers]
    if new:
        asked = ask_pictures(model, bucket, [keys[one] for one in new], config, batch, failures)
        parts.append(asked)
    answers = pa.concat_tables(parts)
    index = {sha256: number for number, sha256 in enumerate([*known.pictures, *new])}
    if new:
        failed = {new[number] for number in failures.pictures}
        kept = [sha256 for sha256 in keys if sha256 not in failed]
        each = len(answers) // len(index)
        known.keep(kept, answers.take(_places([index[one] for one in kept], each)))
    return index, answers


def _places(numbers: Sequence[int], each: int) -> pa.Array:
    """Rows of so many answers each, from pictures' numbers."""
    import numpy as np
    import pyarrow as pa

    first = np.asarray(numbers, np.int64) * each
    return pa.array((first[:, None] + np.arange(each)).ravel())


def ask_pictures(
    model: Audited,
    bucket: Bucket,
    keys: Sequence[str],
    config: AuditConfig,
    batch: int,
    failures: asking.Failures,
) -> pa.Table:
    """All answers about each picture, as `asking.ask` gives them; reads ahead."""
    import pyarrow as pa

    parts, done = [], 0
    with ThreadPoolExecutor(READERS) as readers:
        for images in _read_ahead(readers, bucket, keys):
            parts.append(asking.ask(model, images, config, batch, failures.since(done)))
            done += len(images)
    return pa.concat_tables(parts)


def _read_ahead(
    readers: ThreadPoolExecutor, bucket: Bucket, keys: Sequence[str]
) -> Iterator[list[Image.Image]]:
    """Pictures in order, `STREAMED` at a time, the next ones being read meanwhile."""
    waiting: list[Future[Image.Image]] = []
    for start in range(0, len(keys), STREAMED):
        coming = [readers.submit(_open, bucket, key) for key in keys[start : start + STREAMED]]
        if waiting:
            yield [future.result() for future in waiting]
        waiting = coming
    yield [future.result() for future in waiting]


def _open(bucket: Bucket, key: str) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(bucket.get_content(key)))
        image.load()
    except BucketKeyError as error:
        raise AuditError(
            f"{key} is named by the dataset and is not in the bucket; restore it from a backup or "
            "materialise counterfactuals/dataset again"
        ) from error
    except (UnidentifiedImageError, OSError) as error:
        raise AuditError(f"{key} is not a readable picture ({error}); restore it") from error
    return image


def _source_rows(pairs: pa.Table) -> pa.Table:
    """One row per source picture, in the columns of pairs; its pair_id is its source_id."""
    import pyarrow as pa

    first: dict[str, int] = {}
    for row, source in enumerate(_texts(pairs, "source_id")):
        first.setdefault(source, row)
    chosen = pairs.take(pa.array(first.values(), pa.int64()))
    empty = pa.nulls(len(chosen), pa.string())
    return pa.table(
        {
            "pair_id": chosen["source_id"],
            "set_id": empty,
            "source_id": chosen["source_id"],
            "attribute": empty,
            "value": empty,
            "is_placebo": pa.repeat(False, len(chosen)),
            "values": pa.nulls(len(chosen), pairs.schema.field("values").type),
            "image_key": chosen["source_image_key"],
            "image_sha256": chosen["source_image_sha256"],
        }
    )


def _rows(
    name: str, role: str, part: pa.Table, answers: pa.Table, audit: dict[str, Any]
) -> pa.Table:
    """The pairs' columns beside the answers, which are as many for each pair."""
    import numpy as np
    import pyarrow as pa

    count = len(answers)
    repeated = part.select(REPEATED).take(
        pa.array(np.repeat(np.arange(len(part)), count // len(part)))
    )
    columns = {
        "model": pa.repeat(name, count),
        "role": pa.repeat(role, count),
        **{column: repeated[column] for column in REPEATED},
        **{column: answers[column] for column in answers.column_names},
    }
    schema = responses_schema(audit)
    return pa.table(
        [columns[column].cast(schema.field(column).type) for column in schema.names], schema=schema
    )


def audit_of(responses: pa.Table) -> dict[str, Any]:
    """What was declared and which model answered, as written beside the responses.

    Raises:
        AuditError: The table does not carry it.
    """
    import json

    metadata = (responses.schema.metadata or {}).get(AUDIT_METADATA)
    if metadata is None:
        raise AuditError("the responses carry no declaration; materialise audits/responses again")
    return json.loads(metadata)


def unanswered(
    responses: pa.Table, pairs: pa.Table, config: AuditConfig, formats: Sequence[str]
) -> dict[str, list[str]]:
    """Pictures that lack an answer and the reason for it: {"member": ids, "source": ids}.

    Args:
        responses: as `respond` wrote them.
        pairs: the dataset's.
        config: says what was to be asked.
        formats: those that the model knows.
    """
    import pyarrow.compute as pc

    scored = pc.fill_null(pc.is_finite(responses["score"]), False)
    told = pc.or_(pc.is_valid(responses["answer"]), pc.is_valid(responses["failure"]))
    names = [pc.fill_null(responses[name], "") for name in asking.ITEM]
    kept = responses.append_column("item", pc.binary_join_element_wise(*names, asking.JOINT))
    wanted = asking.items(config, formats)
    kept = kept.filter(pc.and_(pc.or_(scored, told), pc.is_in(kept["item"], _strings(wanted))))
    counted = kept.group_by(["role", "pair_id"]).aggregate([("item", "count_distinct")])
    whole = counted.filter(pc.equal(counted["item_count_distinct"], len(wanted)))
    answered = set(zip(_texts(whole, "role"), _texts(whole, "pair_id"), strict=True))
    expected = {"member": _texts(pairs, "pair_id"), "source": _texts(pairs, "source_id")}
    return {
        role: sorted({one for one in ids if (role, one) not in answered})
        for role, ids in expected.items()
    }


def _strings(values: Sequence[str]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.string())


def _texts(table: pa.Table, column: str) -> list[str]:
    return table[column].to_pylist()
