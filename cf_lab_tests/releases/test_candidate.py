"""What a release is made of, and that staging it ends in the same release however often."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from cf_lab_assets.releases import candidate
from cf_lab_assets.releases.candidate import ReleaseError
from cf_lab_resources.bucket import Bucket
from cf_lab_resources.cache import Cache, record_key
from cf_lab_resources.catalog import Catalog, CatalogError
from cf_lab_tests.releases.sample import png, sample_rows, write_dataset, write_report

PAIR = "s000000000000001-age-old"
SET = "s000000000000001-age"


def staged(bucket: Bucket, catalog: Catalog) -> str:
    content = candidate.read_content(bucket)
    candidate.stage_candidate(bucket, catalog, content)
    return content.release_id


def test_a_release_is_staged_whole_and_its_records_are_ready_to_be_sent(
    bucket: Bucket, catalog: Catalog
) -> None:
    dataset_hash = write_dataset(bucket)
    release_id = staged(bucket, catalog)
    release = catalog.get_release(release_id)
    assert release is not None
    assert (release.state, release.dataset_hash) == ("candidate", dataset_hash)
    assert release_id == "r" + release.content_hash[:12]
    assert catalog.counts(release_id) == {"pair": 20, "set": 8}
    stored = json.loads(bucket.get_bytes(candidate.manifest_key(release_id)))
    assert stored == release.manifest
    assert stored["counts"] == {"pairs": 20, "sets": 8, "images": 24}
    pair = json.loads(catalog.pair(release_id, PAIR) or b"")
    assert pair["release_id"] == release_id
    assert (pair["value"], pair["is_placebo"], pair["sim_dir"]) == ("old", True, None)
    assert (pair["cits"], pair["values"]) == (0.8, {"gender": "woman", "age": "old"})
    assert pair["caption"] == 'a "old" person, caf\u00e9 1'
    assert pair["image"] == f"/v1/images/{pair['image_sha256']}"
    assert not [name for name in pair if name.endswith("_key")]
    whole = json.loads(catalog.set(release_id, SET) or b"")
    assert [member["value"] for member in whole["pairs"]] == ["middle-aged", "old", "young"]
    assert whole["pairs"][1] == pair
    assert catalog.has_image(release_id, pair["image_sha256"])
    assert catalog.has_image(release_id, pair["source_image_sha256"])


def test_the_id_follows_the_content_and_nothing_else(bucket: Bucket) -> None:
    dataset_hash = write_dataset(bucket)
    first = candidate.read_content(bucket)
    assert candidate.read_content(bucket) == first == candidate.read_content(bucket, dataset_hash)
    bucket.put_bytes(f"audits/{dataset_hash}/report/report.json", b"{}")
    second = candidate.read_content(bucket)
    assert second.release_id != first.release_id
    write_dataset(bucket, sources=5)
    third = candidate.read_content(bucket)
    assert len({first.release_id, second.release_id, third.release_id}) == 3
    write_dataset(bucket, sources=4)
    assert candidate.read_content(bucket) == first


def test_a_report_written_anew_leaves_that_of_a_release_alone(
    bucket: Bucket, catalog: Catalog
) -> None:
    dataset_hash = write_dataset(bucket)
    release = catalog.get_release(staged(bucket, catalog))
    assert release is not None
    assert release.report_key is not None
    before = bucket.get_bytes(release.report_key)
    write_report(bucket, dataset_hash, named="f" * 64)
    assert bucket.get_bytes(release.report_key) == before


def test_a_missing_report_is_left_to_the_gate(bucket: Bucket, catalog: Catalog) -> None:
    write_dataset(bucket, report=False)
    release = catalog.get_release(staged(bucket, catalog))
    assert release is not None
    assert release.report_key is None
    assert candidate.read_staged(bucket, release).report_html is None


def test_no_dataset_and_a_damaged_one_say_what_to_do(bucket: Bucket, catalog: Catalog) -> None:
    with pytest.raises(ReleaseError, match="materialise counterfactuals/dataset"):
        candidate.read_content(bucket)
    dataset_hash = write_dataset(bucket)
    content = candidate.read_content(bucket)
    bucket.delete([f"datasets/{dataset_hash}/sets.parquet"])
    with pytest.raises(ReleaseError, match=r"sets\.parquet is not in the bucket"):
        candidate.stage_candidate(bucket, catalog, content)
    assert catalog.list_releases() == []


def test_two_pairs_of_one_id_are_never_loaded(bucket: Bucket, catalog: Catalog) -> None:
    write_dataset(bucket, spoil=lambda pairs, sets: pairs.append(dict(pairs[0])))
    with pytest.raises(CatalogError, match="two pairs with the same id"):
        staged(bucket, catalog)
    assert catalog.list_releases() == []


def test_sets_come_whole_from_tables_in_any_order(bucket: Bucket) -> None:
    pairs, sets = sample_rows(bucket)
    ordered = list(candidate.set_records(pairs, sets, "r" + "0" * 12))
    shuffled = list(candidate.set_records(pairs[::2] + pairs[1::2], sets[::-1], "r" + "0" * 12))
    assert sorted(r.id for r in ordered) == [row["set_id"] for row in sets]
    assert sorted(ordered, key=lambda r: r.id) == sorted(shuffled, key=lambda r: r.id)
    incomplete = list(candidate.set_records(pairs[1:], sets, "r" + "0" * 12))
    assert sorted(r.id for r in incomplete) == [row["set_id"] for row in sets]
    unknown = [{**pairs[0], "set_id": "s" + "f" * 15 + "-age"}, *pairs]
    assert len(list(candidate.set_records(unknown, sets, "r" + "0" * 12))) == len(sets)


def test_a_score_that_is_no_number_is_null_in_the_record(bucket: Bucket) -> None:
    row: dict[str, Any] = sample_rows(bucket, sources=1)[0][0]
    record = candidate.pair_record({**row, "sim_dir": math.nan, "cits": 1 / 3}, "r" + "0" * 12)
    body = json.loads(record.body)
    assert (body["sim_dir"], body["cits"]) == (None, 0.333333)


def test_the_cache_is_warmed_with_every_record(
    bucket: Bucket, catalog: Catalog, cache: Cache
) -> None:
    write_dataset(bucket)
    release_id = staged(bucket, catalog)
    assert candidate.warm(catalog, cache, release_id) == 28
    keys = [record_key(release_id, "pair", PAIR), record_key(release_id, "set", SET)]
    assert cache.get_many(keys) == [catalog.pair(release_id, PAIR), catalog.set(release_id, SET)]


def test_results_are_written_as_files(bucket: Bucket, catalog: Catalog, tmp_path: Path) -> None:
    write_dataset(bucket)
    release_id = staged(bucket, catalog)
    sheet, report = candidate.result_files(bucket, catalog, release_id, tmp_path / "out")
    assert json.loads(report.with_suffix(".json").read_bytes())["report_id"] == "b0"
    assert sheet.read_bytes() == png("sheet")
    assert report.read_text().startswith("<!DOCTYPE html>")
    with pytest.raises(ReleaseError, match="no release"):
        candidate.result_files(bucket, catalog, "r" + "0" * 12, tmp_path)


STAGE = """
import sys, time
from cf_lab_assets.releases import candidate
from cf_lab_resources.bucket import open_bucket
from cf_lab_resources.catalog import open_catalog
made = candidate.pair_record
def slowly(row, release_id):
    print("row", flush=True)
    time.sleep(0.05)
    return made(row, release_id)
candidate.pair_record = slowly
bucket, catalog = open_bucket(sys.argv[1]), open_catalog(sys.argv[2])
candidate.stage_candidate(bucket, catalog, candidate.read_content(bucket))
"""


def test_staging_killed_amid_copy_and_run_again_ends_in_the_same_release(
    bucket: Bucket, bucket_url: str, catalog: Catalog, postgres_url: str
) -> None:
    write_dataset(bucket, sources=30)
    expected = candidate.read_content(bucket).release_id
    with subprocess.Popen(
        [sys.executable, "-c", STAGE, bucket_url, postgres_url], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        for _ in range(3):
            child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
    assert catalog.list_releases() == []
    assert staged(bucket, catalog) == expected
    assert staged(bucket, catalog) == expected
    assert catalog.counts(expected) == {"pair": 150, "set": 60}
    assert [event.event for event in catalog.events()] == ["staged"]
    connection = psycopg2.connect(postgres_url)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), count(DISTINCT id) FROM release_pairs")
        assert cursor.fetchone() == (150, 150)
    connection.close()
