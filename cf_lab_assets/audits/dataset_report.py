"""The report on a dataset of the lab: what it is made of, from the bucket and back into it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cf_lab_assets.audits import bundle, data, examples, impact, report, store, wording
from cf_lab_assets.audits.about import About
from cf_lab_assets.audits.answers import read_answers
from cf_lab_assets.audits.association import audit_of
from cf_lab_assets.audits.declaration import AuditConfig, canonical_json
from cf_lab_assets.models import artifacts, registry
from cf_lab_resources import __version__

if TYPE_CHECKING:
    import pyarrow as pa

    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.catalog import Waiver
    from cf_lab_resources.credentials.keys import SigningKey

# Of the responses, what scores are read from.
ANSWER_COLUMNS = ["role", "set_id", "source_id", "attribute", "value", "is_placebo", "values"]
ANSWER_COLUMNS += ["format", "prompt", "score"]
# Of what stands beside the responses, what a report says of the asking.
ASKED = ("formats", "pictures", "failed_pictures")
PICTURE_COLUMNS = ["set_id", "value", "image_key", "source_image_key"]


@dataclass(frozen=True)
class Making:
    """Who makes a report, on which day, in which run, and what waivers of gates were given."""

    key: SigningKey
    day: datetime.date
    run_id: str | None = None
    waivers: Sequence[Waiver] = ()


def make(
    bucket: Bucket,
    manifest: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    drawn: Sequence[pa.Table] | None,
    making: Making,
) -> dict[str, Any]:
    """Make, sign and store the report with its files; give its JSON.

    A report of this very content keeps date, history and signature of its first making, so that a
    rerun changes no byte.

    Args:
        bucket: of the lab.
        manifest: of the dataset.
        metrics: of `metrics.compute`, one of each audited model.
        drawn: sets that were drawn, see `data.acceptance_cells`.
        making: who makes it.

    Raises:
        AuditError: something that it is made of is not in the bucket; the message says what.
    """
    dataset_hash = str(manifest["content_hash"])
    sets = store.read_table(
        bucket, store.dataset_key(dataset_hash, "sets.parquet"), "counterfactuals/dataset"
    )
    cells = data.acceptance_cells(sets, drawn)
    material = _material(bucket, manifest, metrics, cells, in_force(making.waivers, making.day))
    made_before, before = _reports(bucket), _before(bucket, dataset_hash)
    earlier = [
        json.loads(bucket.get_bytes(one["key"])) for one in made_before[-report.SHOWN_REPORTS :]
    ]
    built = report.build(metrics, material, making.day.isoformat(), earlier, making.run_id)
    built = bundle.kept(built, before)
    pictures = _pictures(bucket, dataset_hash, material.examples)
    files = bundle.files(built, making.key, making.day.isoformat(), pictures, before)
    for name, content in files.items():
        bucket.put_bytes(store.report_file_key(dataset_hash, name), content)
    _remember(bucket, made_before, built, files[bundle.REPORT_JSON])
    return built


def in_force(waivers: Sequence[Waiver], day: datetime.date) -> list[dict[str, Any]]:
    """Waivers that count on a day, as the report shows them."""
    return [
        {
            "waiver_id": one.waiver_id,
            "gate": one.gate,
            "person": one.person,
            "reason": one.reason,
            "until": one.until.isoformat(),
        }
        for one in waivers
        if one.counts_on(day)
    ]


def _material(
    bucket: Bucket,
    manifest: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    cells: Sequence[Mapping[str, Any]],
    waivers: Sequence[Mapping[str, Any]],
) -> report.Material:
    dataset_hash = str(manifest["content_hash"])
    chosen: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []
    systems: dict[str, dict[str, Any]] = {}
    for one in metrics:  # one by one: the responses of a model may fill the memory
        name = one["model"]["name"]
        config = AuditConfig.model_validate(one["declaration"])
        key = store.responses_key(dataset_hash, name)
        responses = store.read_table(bucket, key, "audits/responses", ANSWER_COLUMNS)
        systems[name] = _system(bucket, name) | _asked(responses)
        answers = read_answers(responses, config)
        ids = examples.member_sets(responses, list(config.attributes))
        chosen += examples.examples_of(answers, ids, config, name)
        rows = impact.of_responses(answers, config.occupations)
        ratios += [{"model": name, **row} for row in rows]
    return report.Material(
        data=data.of_dataset(manifest, cells, metrics[0]["counts"] if metrics else {}),
        about=About(),
        systems=systems,
        limitations=wording.LIMITATIONS_OF_PICTURES,
        examples=chosen,
        impact_ratios=ratios,
        calibration=_optional(bucket, store.calibration_key(dataset_hash)),
        instrument_checks=_optional(bucket, store.instrument_key(dataset_hash)),
        waivers=waivers,
    )


def _system(bucket: Bucket, name: str) -> dict[str, str]:
    """Revision and licence of an audited model, as its record says."""
    told = {"decoding": report.DECODING}
    uri = artifacts.models_in_use().get(name)
    record = registry.recorded(bucket, uri) if uri else None
    if record is not None:
        known = registry.file_metadata(record)
        return told | {"licence": known["licence"], "revision": known["revision"] or "none"}
    if name in artifacts.FOLDERS:
        return told | {"licence": registry.STARTER_LICENCE, "revision": __version__}
    return told


def _asked(responses: pa.Table) -> dict[str, Any]:
    audit = audit_of(responses)
    return {name: audit[name] for name in ASKED if name in audit}


def _optional(bucket: Bucket, key: str) -> dict[str, Any] | None:
    return store.read_json(bucket, key, "it") if bucket.exists(key) else None


def _pictures(
    bucket: Bucket, dataset_hash: str, chosen: Sequence[Mapping[str, Any]]
) -> bundle.Pictures:
    sheet = store.dataset_key(dataset_hash, "contact_sheet.png")
    pairs = store.read_table(
        bucket,
        store.dataset_key(dataset_hash, "pairs.parquet"),
        "counterfactuals/dataset",
        PICTURE_COLUMNS,
    )
    return bundle.Pictures(
        bucket.get_bytes(sheet) if bucket.exists(sheet) else None,
        examples.pictures(bucket, pairs, chosen),
    )


def _before(bucket: Bucket, dataset_hash: str) -> dict[str, Any] | None:
    """The report on this dataset as it was last written."""
    found = _optional(bucket, store.report_key(dataset_hash, ".json"))
    return found if found and found.get("schema") == report.SCHEMA else None


def _reports(bucket: Bucket) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if bucket.exists(store.REPORTS):
        found = json.loads(bucket.get_bytes(store.REPORTS))
    return found


def _remember(
    bucket: Bucket,
    made_before: Sequence[Mapping[str, Any]],
    built: Mapping[str, Any],
    content: bytes,
) -> None:
    """Note a report that was never made before, for those that come after it."""
    if any(one["report_id"] == built["report_id"] for one in made_before):
        return
    entry = {
        "key": bucket.put_content("reports", content, ".json"),
        **{name: built[name] for name in ("report_id", "date")},
    }
    bucket.put_bytes(store.REPORTS, canonical_json([*made_before, entry]))
