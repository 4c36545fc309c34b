"""Each gate passes on a good release, fails on the fault that it is for, and says which."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest

from cf_lab_assets.counterfactuals import tables
from cf_lab_assets.counterfactuals.dataset import dataset_content_hash
from cf_lab_assets.releases import candidate, gates
from cf_lab_assets.releases.gates import GateResult, Staged
from cf_lab_assets.releases.smoke import Smoke
from cf_lab_resources.bucket import Bucket, BucketError
from cf_lab_tests.releases.sample import QUANTITY, Rows, write_dataset

Spoil = Callable[[Rows, Rows], None]


def read(bucket: Bucket, dataset_hash: str) -> Staged:
    prefix, report = f"datasets/{dataset_hash}", f"audits/{dataset_hash}/report/report"
    return Staged(
        dataset_hash=dataset_hash,
        manifest=json.loads(bucket.get_bytes(f"{prefix}/manifest.json")),
        pairs=tables.from_bytes(bucket.get_bytes(f"{prefix}/pairs.parquet")),
        sets=tables.from_bytes(bucket.get_bytes(f"{prefix}/sets.parquet")),
        report_html=bucket.get_bytes(f"{report}.html"),
        report_json=bucket.get_bytes(f"{report}.json"),
        package=candidate.read_content(bucket, dataset_hash).package,
        smoke=lambda: Smoke([], [0.01] * 100),
    )


def judge(bucket: Bucket, staged: Staged) -> dict[str, GateResult]:
    results = gates.evaluate(staged, bucket.get_bytes, dataset_content_hash)
    return {result.name: result for result in results}


def failed(bucket: Bucket, staged: Staged) -> list[str]:
    return [name for name, result in judge(bucket, staged).items() if not result.passed]


@pytest.fixture
def good(bucket: Bucket) -> Staged:
    return read(bucket, write_dataset(bucket))


def test_the_gates_are_these() -> None:
    assert [gate.name for gate in gates.GATES] == [
        "schema_matches",
        "every_set_is_complete",
        "no_hash_mismatch",
        "quality_is_above_floor",
        "report_is_present",
        "auditor_is_calibrated",
        "package_is_verified",
        "lookups_are_right",
        "lookups_are_fast",
    ]
    for gate in gates.GATES:
        assert gate.unit
        assert gate.origin
        assert gate.description.endswith(".")


def test_every_gate_passes_on_a_good_release(bucket: Bucket, good: Staged) -> None:
    results = judge(bucket, good)
    assert list(results) == [gate.name for gate in gates.GATES]
    assert all(result.passed for result in results.values())
    assert results["no_hash_mismatch"].detail == "24 pictures and the dataset"
    assert results["quality_is_above_floor"].measured == pytest.approx(0.8)
    assert results["package_is_verified"].detail == "20 pictures in 9 files"
    with pytest.raises(dataclasses.FrozenInstanceError):
        results["schema_matches"].passed = False  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop_columns(["caption"]), "no column caption"),
        (lambda t: t.append_column("note", [["x"] * t.num_rows]), "unknown column note"),
        (
            lambda t: t.set_column(0, "pair_id", [["bad"] * t.num_rows]),
            "pair_id 'bad' is malformed",
        ),
        (
            lambda t: t.set_column(t.column_names.index("draw"), "draw", [["1"] * t.num_rows]),
            "draw is string, not int32",
        ),
        (lambda t: t.slice(1), "19 rows, and 20 in the manifest"),
    ],
)
def test_another_schema_is_found(bucket: Bucket, good: Staged, change: Callable, says: str) -> None:
    result = judge(bucket, dataclasses.replace(good, pairs=change(good.pairs)))["schema_matches"]
    assert not result.passed
    assert says in result.detail


def _drop_member(pairs: Rows, sets: Rows) -> None:
    del pairs[0]


def _second_placebo(pairs: Rows, sets: Rows) -> None:
    for pair in pairs[:3]:
        pair["is_placebo"] = True


def _no_placebo(pairs: Rows, sets: Rows) -> None:
    for pair in pairs[:3]:
        pair["is_placebo"] = False


def _wrong_placebo(pairs: Rows, sets: Rows) -> None:
    sets[0]["from_value"] = "young"


def _same_value_twice(pairs: Rows, sets: Rows) -> None:
    pairs.append({**pairs[0], "pair_id": pairs[0]["pair_id"] + "x"})


def _same_pair_twice(pairs: Rows, sets: Rows) -> None:
    pairs.append(dict(pairs[0]))


def _unknown_value(pairs: Rows, sets: Rows) -> None:
    sets[0]["member_values"] = sets[0]["member_values"][:2]


def _set_twice(pairs: Rows, sets: Rows) -> None:
    sets.append(dict(sets[0]))


def _pairs_of_no_set(pairs: Rows, sets: Rows) -> None:
    del sets[0]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_drop_member, "no member for ['middle-aged']"),
        (_second_placebo, "placebos are"),
        (_no_placebo, "placebos are []"),
        (_wrong_placebo, "not the source's own value 'young'"),
        (_same_value_twice, "a value is there twice"),
        (_same_pair_twice, "two members have the same id"),
        (_unknown_value, "unknown values ['young']"),
        (_set_twice, "the set is there twice"),
        (_pairs_of_no_set, "pairs of no set"),
    ],
)
def test_a_set_that_is_not_whole_is_found(bucket: Bucket, spoil: Spoil, says: str) -> None:
    staged = read(bucket, write_dataset(bucket, spoil=spoil))
    result = judge(bucket, staged)["every_set_is_complete"]
    assert (result.passed, result.measured) == (False, 1)
    assert says in result.detail
    assert "s000000000000000-age" in result.detail


def test_a_changed_a_lost_and_an_exchanged_picture_are_found(bucket: Bucket, good: Staged) -> None:
    keys = sorted(set(good.pairs.column("image_key").to_pylist()))
    bucket.put_bytes(keys[0], bucket.get_bytes(keys[0]) + b"\0")
    bucket.delete([keys[1]])
    source = good.pairs.column("source_image_key").to_pylist()[0]
    bucket.put_bytes(source, bucket.get_bytes(keys[2]))
    result = judge(bucket, good)["no_hash_mismatch"]
    assert (result.passed, result.measured) == (False, 3)
    assert keys[0] in result.detail
    assert f"{keys[1]} is missing" in result.detail
    assert source in result.detail


def test_a_changed_row_or_setting_is_found_by_the_datasets_hash(
    bucket: Bucket, good: Staged
) -> None:
    captions = ["other"] * good.pairs.num_rows
    column = good.pairs.column_names.index("caption")
    changed = dataclasses.replace(good, pairs=good.pairs.set_column(column, "caption", [captions]))
    assert failed(bucket, changed) == ["no_hash_mismatch"]
    changed = dataclasses.replace(good, manifest={**good.manifest, "config": {}})
    assert failed(bucket, changed) == ["no_hash_mismatch"]


@pytest.mark.parametrize(
    ("sources", "cits", "passes"),
    [(3, 0.5, True), (3, 0.49, False), (2, 0.9, False), (4, float("nan"), False)],
)
def test_quality_has_a_floor_in_score_and_number(
    bucket: Bucket, sources: int, cits: float, passes: bool
) -> None:
    staged = read(bucket, write_dataset(bucket, sources=sources, cits=cits))
    result = gates.quality_is_above_floor(staged)
    assert result.passed is passes
    assert result.limit == gates.MEDIAN_CITS_FLOOR
    assert passes or "ingest more sources" in result.detail


def test_placebos_do_not_lift_the_quality(bucket: Bucket) -> None:
    def spoil(pairs: Rows, sets: Rows) -> None:
        for pair in pairs:
            pair["cits"] = 0.99 if pair["is_placebo"] else 0.2

    staged = read(bucket, write_dataset(bucket, spoil=spoil))
    assert gates.quality_is_above_floor(staged).measured == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"report_html": None}, "report.html is missing"),
        ({"report_html": b"\xff"}, "not UTF-8"),
        ({"report_html": b"<html></html>"}, "not a whole HTML page"),
        ({"report_html": b"<!DOCTYPE html><html></html>"}, "of another dataset"),
        ({"report_json": None}, "report.json is missing"),
        ({"report_json": b"{"}, "not a report's JSON"),
        ({"report_json": b"[]"}, "not a report's JSON"),
        ({"report_json": b'{"body": {"data": {"dataset_hash": "ff"}}}'}, "of dataset ff"),
    ],
)
def test_a_missing_or_foreign_report_is_found(
    bucket: Bucket, good: Staged, change: dict, says: str
) -> None:
    result = judge(bucket, dataclasses.replace(good, **change))["report_is_present"]
    assert (result.passed, result.measured) == (False, 1)
    assert says in result.detail


def test_a_release_without_its_package_is_found(bucket: Bucket, good: Staged) -> None:
    result = judge(bucket, dataclasses.replace(good, package=None))["package_is_verified"]
    assert (result.passed, result.measured) == (False, 1)
    assert "materialise counterfactuals/package" in result.detail


def test_a_package_that_was_changed_or_exchanged_is_found(bucket: Bucket, good: Staged) -> None:
    assert good.package is not None
    key = f"{good.package['prefix']}/shards/test-000000.tar"
    tar = bucket.get_bytes(key)
    bucket.put_bytes(key, tar[:700] + bytes([tar[700] ^ 1]) + tar[701:])
    result = judge(bucket, good)["package_is_verified"]
    assert not result.passed
    assert "shards/test-000000.tar is not the file that the manifest names" in result.detail
    other = read(bucket, write_dataset(bucket, sources=3))
    swapped = dataclasses.replace(good, package=other.package)
    assert "of another dataset" in judge(bucket, swapped)["package_is_verified"].detail
    key = f"{good.package['prefix']}/manifest.json"
    bucket.put_bytes(key, bucket.get_bytes(key) + b" ")
    result = judge(bucket, good)["package_is_verified"]
    assert "not the one that the release names" in result.detail
    bucket.delete([key])
    assert judge(bucket, good)["package_is_verified"].measured is None


def test_an_auditor_that_is_not_calibrated_publishes_nothing(bucket: Bucket, good: Staged) -> None:
    def with_calibration(found: object) -> Staged:
        document = json.loads(good.report_json or b"")
        document["body"]["calibration"]["found"] = found
        return dataclasses.replace(good, report_json=json.dumps(document).encode())

    off = QUANTITY | {"measured": 0.31, "passed": False}
    broken = with_calibration({"measured": 1, "audits": 1000, "quantities": [QUANTITY, off]})
    result = judge(bucket, broken)["auditor_is_calibrated"]
    assert (result.passed, result.measured) == (False, 1)
    assert "null, gender: false positive rate of one test is 0.31" in result.detail
    result = judge(bucket, with_calibration(None))["auditor_is_calibrated"]
    assert not result.passed
    assert "materialise audits/calibration" in result.detail
    few = with_calibration({"measured": 0, "audits": 1000, "quantities": []})
    assert "too few sets" in judge(bucket, few)["auditor_is_calibrated"].detail


def test_wrong_and_slow_lookups_are_found(bucket: Bucket, good: Staged) -> None:
    def answered(wrong: list[str], seconds: list[float]) -> dict[str, GateResult]:
        return judge(bucket, dataclasses.replace(good, smoke=lambda: Smoke(wrong, seconds)))

    few_slow = answered([], [0.1] * 95 + [9.0] * 5)
    assert few_slow["lookups_are_fast"].passed
    assert few_slow["lookups_are_fast"].measured == 0.1
    found = answered(["/v1/sets/a: status 503"], [0.1] * 94 + [9.0] * 6)
    assert (found["lookups_are_right"].measured, found["lookups_are_right"].passed) == (1, False)
    assert "/v1/sets/a: status 503" in found["lookups_are_right"].detail
    assert (found["lookups_are_fast"].measured, found["lookups_are_fast"].passed) == (9.0, False)
    unasked = judge(bucket, dataclasses.replace(good, smoke=None))
    assert "was not asked" in unasked["lookups_are_right"].detail


def test_a_gate_that_can_not_be_measured_has_failed(bucket: Bucket, good: Staged) -> None:
    broken = dataclasses.replace(good, pairs=good.pairs.drop_columns(["cits", "image_key"]))
    results = judge(bucket, broken)
    assert {name for name, result in results.items() if not result.passed} == {
        "schema_matches",
        "no_hash_mismatch",
        "quality_is_above_floor",
    }
    assert results["quality_is_above_floor"].measured is None


def test_a_store_that_does_not_answer_is_no_verdict(good: Staged) -> None:
    def down(key: str) -> bytes:
        raise BucketError("the store does not answer")

    with pytest.raises(BucketError):
        gates.evaluate(good, down, dataset_content_hash)
