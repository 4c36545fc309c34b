"""The whole chain as Dagster runs, over a tiny random CLIP and a dataset in a local bucket."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import jsonschema
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cf_lab_assets import names
from cf_lab_assets.audits import assets, association, checks, examples, report, signature, store
from cf_lab_assets.audits.declaration import AuditConfig
from cf_lab_assets.audits.errors import AuditError
from cf_lab_assets.models import artifacts
from cf_lab_resources.bucket import Bucket, ContentDamaged, open_bucket
from cf_lab_resources.dagster import BucketResource, CatalogResource, PublicationResource
from cf_lab_resources.engine.audited import load_audited
from cf_lab_tests.audits.synthetic import DATASET_HASH, SMALL, put_dataset, tiny_clip

MODELS = names.AUDITED_MODELS
RESPONSES = dict(zip(MODELS, assets.responses, strict=True))
BIAS_METRICS = dict(zip(MODELS, assets.bias_metrics, strict=True))
SOURCES = 24


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: tiny_clip(root / name, seed) for seed, name in enumerate(MODELS)}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket"


@pytest.fixture
def bucket(url: str) -> Bucket:
    return open_bucket(url)


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]) -> None:
    monkeypatch.setattr(artifacts, "model_folder", folders.__getitem__)


@pytest.fixture(autouse=True)
def _catalog(monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> None:
    monkeypatch.setenv("CATALOG_OF_THIS_TEST", postgres_url)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def run(
    url: str,
    instance: dg.DagsterInstance,
    selected: list[dg.AssetsDefinition],
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        selected,
        instance=instance,
        resources={
            "bucket": BucketResource(url=url),
            "catalog": CatalogResource(url=dg.EnvVar("CATALOG_OF_THIS_TEST")),
            "publication": PublicationResource(home=url.removeprefix("file://") + "-home"),
        },
        raise_on_error=False,
    )


def failure(result: dg.ExecuteInProcessResult) -> str:
    assert not result.success
    (event,) = [one for one in result.all_events if one.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data is not None
    return str(data.description)


def whole_chain(url: str, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    for name in MODELS:
        done = run(url, instance, [RESPONSES[name], BIAS_METRICS[name]])
        assert done.success
        evaluated = {one.check_name: one.passed for one in done.get_asset_check_evaluations()}
        assert evaluated == {
            checks.RESPONSES_ARE_COMPLETE: True,
            checks.AUDITED_MODEL_IS_NOT_THE_SCORER: True,
        }
    return run(url, instance, [assets.bias_report])


def test_from_dataset_to_report_and_a_rerun_changes_no_byte(
    url: str, bucket: Bucket, instance: dg.DagsterInstance
) -> None:
    pairs = put_dataset(bucket, SOURCES)
    done = whole_chain(url, instance)
    assert done.success
    assert [one.check_name for one in done.get_asset_check_evaluations()] == [
        checks.EVERY_PRIMARY_ENDPOINT_IS_REPORTED
    ]
    written = store.read_table(bucket, store.responses_key(DATASET_HASH, MODELS[0]), "it")
    assert written.schema.remove_metadata() == association.responses_schema()
    assert len(written) == (len(pairs) + SOURCES) * 12
    assert association.audit_of(written)["declaration_hash"] == AuditConfig().hash
    built = json.loads(bucket.get_bytes(store.report_key(DATASET_HASH, ".json")))
    assert list(built["body"]["results"]) == sorted(MODELS)
    for results in built["body"]["results"].values():
        verdicts = {one["verdict"] for one in results if one["family"] == "primary"}
        assert verdicts <= {"found", "not_found"}
    page = bucket.get_bytes(store.report_key(DATASET_HASH, ".html")).decode()
    assert all(endpoint.name in page for endpoint in AuditConfig().primary)

    before = {one.key: bucket.get_bytes(one.key) for one in bucket.list("audits")}
    assert whole_chain(url, instance).success
    after = {one.key: bucket.get_bytes(one.key) for one in bucket.list("audits")}
    assert before == after


def test_the_report_keeps_the_day_on_which_its_content_was_first_made(
    url: str, bucket: Bucket, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_dataset(bucket, SOURCES)
    monkeypatch.setattr(assets, "_today", lambda: datetime.date(2026, 1, 1))
    assert whole_chain(url, instance).success
    monkeypatch.setattr(assets, "_today", lambda: datetime.date(2026, 2, 2))
    assert run(url, instance, [assets.bias_report]).success
    key = store.report_key(DATASET_HASH, ".json")
    assert json.loads(bucket.get_bytes(key))["date"] == "2026-01-01"


def test_the_report_is_signed_with_all_its_files_and_satisfies_the_schema(
    url: str, bucket: Bucket, instance: dg.DagsterInstance
) -> None:
    put_dataset(bucket, SOURCES)
    bucket.put_bytes(store.calibration_key(DATASET_HASH), b'{"coverage":0.951}')
    done = whole_chain(url, instance)
    assert done.success
    folder = store.report_file_key(DATASET_HASH, "")
    found = {one.key.removeprefix(folder): one.key for one in bucket.list(folder.rstrip("/"))}
    beside = {name: bucket.get_bytes(key) for name, key in found.items() if name != "report.json"}
    assert set(beside) == {"report.html", "results.csv", "impact_ratios.csv", "summary.md"}
    made = json.loads(bucket.get_bytes(found["report.json"]))
    jsonschema.validate(made, report.schema(), jsonschema.Draft202012Validator)
    verified = signature.verify_report(made, beside)
    assert verified.faults == ()
    assert verified.is_test
    assert set(verified.verified) == set(beside)
    assert made["context"]["run_id"] == done.run_id
    body = made["body"]
    assert body["calibration"]["found"] == {"coverage": 0.951}
    assert {one["model"] for one in body["examples"]} == set(MODELS)
    assert body["systems_under_test"][0]["licence"] == "MIT"
    assert body["impact_ratios"]["rows"]
    page = beside["report.html"].decode()
    assert page.count("data:image/jpeg") == len(MODELS)
    assert "a test key" in page


def test_the_next_report_says_what_changed(
    url: str, bucket: Bucket, instance: dg.DagsterInstance
) -> None:
    put_dataset(bucket, SOURCES)
    assert whole_chain(url, instance).success
    first = json.loads(bucket.get_bytes(store.report_key(DATASET_HASH, ".json")))
    bucket.put_bytes(store.calibration_key(DATASET_HASH), b'{"coverage":0.951}')
    assert run(url, instance, [assets.bias_report]).success
    second = json.loads(bucket.get_bytes(store.report_key(DATASET_HASH, ".json")))
    assert (first["version"], second["version"]) == (1, 2)
    assert second["context"]["changes"]["since"]["report_id"] == first["report_id"]
    assert {len(one["points"]) for one in second["context"]["drift"]} == {2}
    noted = json.loads(bucket.get_bytes(store.REPORTS))
    assert [one["report_id"] for one in noted] == [first["report_id"], second["report_id"]]


def test_metadata_shows_headlines_plot_and_rows(
    url: str, bucket: Bucket, instance: dg.DagsterInstance
) -> None:
    put_dataset(bucket, SOURCES)
    done = run(url, instance, [RESPONSES[MODELS[0]], BIAS_METRICS[MODELS[0]]])
    (event,) = done.asset_materializations_for_node("audits__bias_metrics__starter_balanced")
    assert event.metadata["dagster/row_count"].value > 84
    assert MODELS[0] in str(event.metadata["headlines"].value)
    plot = str(event.metadata["plot"].value)
    assert plot.startswith("![primary effects](data:image/png;base64,")
    assert len(plot) < 100_000


@pytest.mark.parametrize(
    "selected", [assets.responses[0], assets.bias_metrics[0], assets.bias_report]
)
def test_without_a_dataset_the_failure_says_what_to_do(
    url: str, instance: dg.DagsterInstance, selected: dg.AssetsDefinition
) -> None:
    assert "counterfactuals/dataset" in failure(run(url, instance, [selected]))


def test_metrics_without_responses_name_the_missing_asset(
    url: str, bucket: Bucket, instance: dg.DagsterInstance
) -> None:
    put_dataset(bucket, SOURCES)
    assert f"audits/responses/{MODELS[1]}" in failure(run(url, instance, [BIAS_METRICS[MODELS[1]]]))


def test_a_report_without_all_models_names_the_missing_one(
    url: str, bucket: Bucket, instance: dg.DagsterInstance
) -> None:
    put_dataset(bucket, SOURCES)
    assert run(url, instance, [RESPONSES[MODELS[0]], BIAS_METRICS[MODELS[0]]]).success
    assert MODELS[1] in failure(run(url, instance, [assets.bias_report]))
    assert not bucket.exists(store.report_key(DATASET_HASH, ".html"))


def test_a_scorer_of_the_audited_family_stops_the_audit(
    url: str, bucket: Bucket, instance: dg.DagsterInstance
) -> None:
    put_dataset(bucket, SOURCES)
    key = store.dataset_key(DATASET_HASH, "manifest.json")
    manifest = json.loads(bucket.get_bytes(key))
    manifest["models"]["encoder"]["family"] = "clip"
    bucket.put_bytes(key, json.dumps(manifest).encode())
    done = run(url, instance, [RESPONSES[MODELS[0]], BIAS_METRICS[MODELS[0]]])
    assert not done.success
    assert not bucket.exists(store.metrics_key(DATASET_HASH, MODELS[0]))


@pytest.mark.parametrize(
    "models",
    [
        {"editor": {"name": "e", "family": "clip", "sha256": "1"}},
        {"encoder": {"name": "s", "sha256": "1"}},
        {"encoder": {"name": "s", "family": "siglip", "sha256": "same"}},
    ],
    ids=["no scorer", "unknown family", "same files"],
)
def test_what_cannot_be_told_apart_fails_the_circularity_check(
    models: dict[str, dict[str, str]],
) -> None:
    audited = {"model_type": "clip", "sha256": "same"}
    assert not checks.audited_model_is_not_the_scorer(audited, models).passed


def test_one_missing_or_infinite_score_fails_completeness(
    tmp_path: Path, bucket: Bucket, folders: dict[str, Path]
) -> None:
    pairs = put_dataset(bucket, 3)
    config = AuditConfig(occupations=("doctor", "nurse"), primary=())
    path = tmp_path / "responses.parquet"
    model = load_audited(folders[MODELS[0]])
    association.respond(model, "m", bucket, pairs, config, path, DATASET_HASH, batch=2)
    table = pq.read_table(path)
    whole = checks.responses_are_complete(table, pairs, config, model.formats)
    assert whole.passed
    short = checks.responses_are_complete(table.slice(1), pairs, config, model.formats)
    assert not short.passed
    assert short.metadata["members_unanswered"].value == 1
    scores = table["score"].to_pylist()
    scores[-1] = float("nan")
    column = table.schema.get_field_index("score")
    broken = table.set_column(column, "score", pa.array(scores, pa.float32()))
    result = checks.responses_are_complete(broken, pairs, config, model.formats)
    assert not result.passed
    assert result.metadata["sources_unanswered"].value == 1


def test_scores_are_cosines_of_each_picture_and_each_prompt(
    tmp_path: Path, bucket: Bucket, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    from PIL import Image

    monkeypatch.setattr(association, "STREAMED", 5)
    monkeypatch.setattr(association, "WRITTEN", 7)
    pairs = put_dataset(bucket, 4)
    model = load_audited(folders[MODELS[0]])
    path = tmp_path / "responses.parquet"
    distinct = association.respond(
        model, "m", bucket, pairs, AuditConfig(), path, DATASET_HASH, batch=3
    )
    assert distinct == len(set(pairs["image_sha256"].to_pylist())) + 4
    table = pq.read_table(path)
    for row in (0, 17, len(pairs) - 1):
        pair = pairs.slice(row, 1).to_pylist()[0]
        picture = Image.open(io.BytesIO(bucket.get_bytes(pair["image_key"])))
        expected = float(
            (model.embed_images([picture]) @ model.embed_texts(["a portrait of a judge"]).T)[0, 0]
        )
        mask = pc.and_(
            pc.equal(table["pair_id"], pair["pair_id"]), pc.equal(table["prompt"], "judge")
        )
        (found,) = table.filter(mask)["score"].to_pylist()
        assert found == pytest.approx(expected, abs=1e-5)


def test_a_missing_picture_is_named(
    tmp_path: Path, bucket: Bucket, folders: dict[str, Path]
) -> None:
    pairs = put_dataset(bucket, 2)
    gone = pairs["image_key"][0].as_py()
    bucket.delete([gone])
    with pytest.raises(AuditError, match=gone):
        association.respond(
            load_audited(folders[MODELS[0]]),
            "m",
            bucket,
            pairs,
            SMALL,
            tmp_path / "responses.parquet",
            DATASET_HASH,
        )


def overwrite(bucket: Bucket, key: pa.Scalar, other: pa.Scalar) -> str:
    """Put another picture's bytes in a picture's place: it can be opened as before."""
    bucket.put_bytes(key.as_py(), bucket.get_bytes(other.as_py()))
    return str(key.as_py())


def test_no_model_is_asked_about_a_picture_that_was_overwritten(
    tmp_path: Path, bucket: Bucket, folders: dict[str, Path]
) -> None:
    pairs = put_dataset(bucket, 2)
    planted = overwrite(bucket, pairs["image_key"][0], pairs["image_key"][1])
    model, path = load_audited(folders[MODELS[0]]), tmp_path / "responses.parquet"
    with pytest.raises(ContentDamaged, match=planted):
        association.respond(model, "m", bucket, pairs, SMALL, path, DATASET_HASH)


def test_no_report_shows_a_picture_that_was_overwritten(bucket: Bucket) -> None:
    pairs = put_dataset(bucket, 2)
    chosen = {"model": "m", "endpoint": "e", "kind": examples.LARGEST, "effect": 0.1}
    chosen["set_id"] = pairs["set_id"][0].as_py()
    assert examples.pictures(bucket, pairs, [chosen])["m"]
    planted = overwrite(bucket, pairs["image_key"][0], pairs["image_key"][1])
    with pytest.raises(ContentDamaged, match=planted):
        examples.pictures(bucket, pairs, [chosen])


@pytest.mark.parametrize("asset", [*assets.responses, *assets.bias_metrics, assets.bias_report])
def test_every_asset_is_described_owned_and_versioned(asset: dg.AssetsDefinition) -> None:
    (spec,) = asset.specs
    assert spec.description
    assert spec.owners == names.OWNERS
    assert spec.kinds
    assert spec.code_version
    assert spec.group_name == names.AUDITS
