"""What the UI shows of every asset and check: as they are defined, and as runs store it."""

import base64
import io
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import psycopg2
import pytest
from PIL import Image

from cf_lab_assets import automation, faces, lineage, names, pipeline
from cf_lab_assets.definitions import build_defs
from cf_lab_assets.sources.ingest import ingest
from cf_lab_assets.starter import world
from cf_lab_assets.starter.portraits import write_image_folder
from cf_lab_resources.bucket import open_bucket
from cf_lab_resources.catalog import migrate, open_catalog
from cf_lab_resources.dagster import (
    BackupResource,
    BucketResource,
    CacheResource,
    CatalogResource,
    PublicationResource,
)
from cf_lab_tests.conftest import fresh_database

pytestmark = pytest.mark.timeout(1200)

DEFS = build_defs()
SPECS = {spec.key: spec for spec in DEFS.resolve_all_asset_specs()}
GRAPH = DEFS.resolve_asset_graph()
KEYS = sorted(SPECS)
CHECKS = sorted(GRAPH.asset_check_keys)
# Folders of models, and a database, which are no table.
NO_TABLE = {key for key in KEYS if key.path[0] == names.STARTER} | {names.CATALOG_BACKUP}
# What is seen at a glance in the others: a table, a card, or the gates.
NO_PICTURE = {
    names.MODEL_ARTIFACTS,
    names.OPTIMISED_MODELS,
    names.PACKAGE,
    names.DEPENDENCIES,
    names.CONFIGURATION,
    names.RELEASE_CANDIDATE,
    names.RELEASE_CURRENT,
}
# More than there are here; words say so instead.
NEEDS_SETS = {names.CALIBRATION, names.MULTIVERSE}
DOCUMENTS = {
    **{key: ["results"] for key in names.BIAS_METRICS.values()},
    names.CALIBRATION: ["quantities"],
    names.MULTIVERSE: ["points"],
}
REVIEWS = ("report_dependencies", "review_configuration", "review_capacity")
EVENT_BYTES = 200_000
UNKNOWN = {"insufficient", "not applicable", "not measurable", "not measured"}


def named(key):
    return key.to_user_string()


@dataclass
class Made:
    """What a lab has in its event log after everything was made once."""

    metadata: dict
    bytes: dict
    evaluations: dict
    pair_columns: list


@pytest.fixture(scope="module")
def made(services, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    with fresh_database(services) as postgres_url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CF_LAB_HOME", str(folder / "home"))
        patch.setenv("PIP_NO_INDEX", "1")  # nobody outside is asked
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        migrate(postgres_url)
        bucket = open_bucket(f"file://{folder / 'bucket'}")
        definitions = build_defs(
            {
                "bucket": BucketResource(url=bucket.root),
                "catalog": CatalogResource(url=postgres_url),
                "cache": CacheResource(url=services.redis_url),
                "backup": BackupResource(url=f"file://{folder / 'backups'}"),
                "publication": PublicationResource(home=str(folder)),
            }
        )
        write_image_folder(folder / "portraits", 4, seed=5)
        ingest(folder / "portraits", "portraits", bucket, world.ATTRIBUTES)
        with dg.DagsterInstance.ephemeral() as instance, open_catalog(postgres_url) as catalog:
            pipeline.run(definitions, instance, bucket, catalog, lambda line: None)
            make_the_rest(definitions, instance, folder / "trained")
            yield read(instance, postgres_url)


def make_the_rest(definitions, instance, trained):
    """What no pipeline makes: reviews, variants of the editor, and the starter models anew."""
    for review in REVIEWS:
        pipeline.execute(definitions, instance, review, lambda line: None)
    starter = [key for key in KEYS if key.path[0] == names.STARTER]
    config = {
        key.to_python_identifier(): {"config": {"small": True, "into": str(trained)}}
        for key in starter
    }
    pipeline.execute(definitions, instance, automation.TRAIN_STARTER, lambda line: None, ops=config)
    job = definitions.resolve_implicit_global_asset_job_def()
    key = names.OPTIMISED_MODELS
    done = job.execute_in_process(
        instance=instance,
        asset_selection=[key],
        run_config={"ops": {key.to_python_identifier(): {"config": {"portraits": 1}}}},
        raise_on_error=False,
    )
    assert done.asset_materializations_for_node(key.to_python_identifier())


def read(instance, postgres_url):
    metadata, sizes = {}, {}
    for key in KEYS:
        (record,) = instance.fetch_materializations(key, limit=1).records
        metadata[key] = record.asset_materialization.metadata
        sizes[key] = len(dg.serialize_value(record.event_log_entry))
    evaluations = {}
    for key in CHECKS:
        record = instance.get_latest_asset_check_evaluation_record(key)
        evaluations[key] = record and record.event.dagster_event.asset_check_evaluation_data
    with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM release_pairs LIMIT 0")
        columns = [column.name for column in cursor.description]
    connection.close()
    return Made(metadata, sizes, evaluations, columns)


@pytest.mark.parametrize("key", KEYS, ids=named)
def test_a_description_begins_with_a_sentence_of_its_own_and_goes_on(key):
    first, *more = SPECS[key].description.split("\n\n")
    assert re.fullmatch(r"[A-Z].{30,150}[.]", " ".join(first.split())), first
    assert more
    assert all(paragraph.strip() for paragraph in more)


def test_no_two_assets_are_described_alike():
    assert len({spec.description.split("\n\n")[0] for spec in SPECS.values()}) == len(SPECS)


@pytest.mark.parametrize("key", KEYS, ids=named)
def test_an_asset_leads_to_its_section_of_the_runbook(key):
    assert SPECS[key].metadata["runbook"] == faces.runbook(SPECS[key].group_name)


def test_report_and_api_are_linked_to_where_their_address_is_known(monkeypatch):
    spec = dg.AssetSpec(names.RELEASE_CURRENT, group_name=names.RELEASES)
    assert faces.with_links(spec).metadata.keys() == {"runbook"}
    monkeypatch.setenv("CF_LAB_API_URL", "https://lookup.example.org/lab/")
    links = faces.with_links(spec).metadata
    assert links["report page"] == dg.MetadataValue.url("https://lookup.example.org/lab/v1/report")
    assert links["lookup API"].value == "https://lookup.example.org/lab/docs"
    assert faces.with_links(dg.AssetSpec("other", group_name="g")).metadata.keys() == {"runbook"}


@pytest.mark.parametrize("key", CHECKS, ids=str)
def test_a_check_is_described_in_a_sentence(key):
    spec = GRAPH.get_check_spec(key)
    assert re.match(r"[A-Za-z].{20,}[.]", spec.description)


@pytest.mark.parametrize("key", [key for key in KEYS if key not in NO_TABLE], ids=named)
def test_a_table_has_rows_a_place_and_described_columns(made, key):
    metadata = made.metadata[key]
    assert metadata["dagster/row_count"].value > 0
    assert urlsplit(str(metadata["dagster/uri"].value)).scheme == "file"
    columns = metadata["dagster/column_schema"].schema.columns
    assert len({column.name for column in columns}) == len(columns) > 1
    assert [column.name for column in columns if not (column.type and column.description)] == []


@pytest.mark.parametrize("key", sorted(DOCUMENTS), ids=named)
def test_the_described_columns_of_a_document_are_those_that_it_has(made, key):
    path = urlsplit(str(made.metadata[key]["dagster/uri"].value)).path
    rows = json.loads(Path(path).read_bytes())
    for step in DOCUMENTS[key]:
        rows = rows[step]
    described = {
        column.name for column in made.metadata[key]["dagster/column_schema"].schema.columns
    }
    assert {name for row in rows for name in row} <= described
    assert len(rows) == made.metadata[key]["dagster/row_count"].value


def test_the_described_columns_of_a_release_are_those_of_the_catalog(made):
    for key in (names.RELEASE_CANDIDATE, names.RELEASE_CURRENT):
        columns = made.metadata[key]["dagster/column_schema"].schema.columns
        assert sorted(column.name for column in columns) == sorted(made.pair_columns)


def pictures(metadata):
    for value in metadata.values():
        if isinstance(value, dg.MarkdownMetadataValue):
            yield from re.findall(r"!\[(.+?)\]\(data:image/\w+;base64,([^)]+)\)", value.value)


@pytest.mark.parametrize("key", [key for key in KEYS if key not in NO_PICTURE], ids=named)
def test_a_picture_can_be_seen_without_a_server(made, key):
    found = list(pictures(made.metadata[key]))
    if not found:
        assert key in NEEDS_SETS
        assert any("too few sets" in str(one.value) for one in made.metadata[key].values())
    for words, data in found:
        assert words
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert 300 <= picture.width <= 1100
        assert 100 <= picture.height <= 4000
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 4


@pytest.mark.parametrize("key", KEYS, ids=named)
def test_an_event_stays_small(made, key):
    assert made.bytes[key] < EVENT_BYTES


@pytest.mark.parametrize("key", sorted(lineage.MADE_FROM), ids=named)
def test_lineage_names_columns_that_are_there_on_both_sides(made, key):
    def columns(asset):
        return {one.name for one in made.metadata[asset]["dagster/column_schema"].schema.columns}

    stored = made.metadata[key]["dagster/column_lineage"].value.deps_by_column
    assert stored.keys() == lineage.MADE_FROM[key].keys()
    assert stored.keys() <= columns(key)
    upstream = ancestors(key)
    for sources in stored.values():
        assert sources
        for one in sources:
            assert one.asset_key in upstream
            assert one.column_name in columns(one.asset_key)


def test_a_described_column_names_what_it_is_made_from():
    schema = faces.described({"id": ("text", "the pair's id"), "release_id": ("text", "of it")})
    shown = faces.tabular(names.RELEASE_CANDIDATE, 1, schema, "file:///x")["dagster/column_schema"]
    assert [column.description for column in shown.columns] == [
        "the pair's id (from dataset: pair_id)",
        "of it",
    ]


def ancestors(key):
    found, left = set(), [key]
    while left:
        parents = GRAPH.get(left.pop()).parent_keys - found
        found |= parents
        left += parents
    return found


@pytest.mark.parametrize("key", CHECKS, ids=str)
def test_a_check_shows_what_it_measured_beside_its_limit(made, key):
    evaluation = made.evaluations[key]
    measured, limit, unit = (
        evaluation.metadata[name].value for name in ("measured", "limit", "unit")
    )
    assert unit
    if measured in UNKNOWN:
        return
    assert isinstance(measured, int | float)
    assert isinstance(limit, int | float)
    assert not isinstance(measured, bool)


def test_gates_are_shown_on_the_current_release_with_what_they_measured(made):
    records = [one.data for one in made.metadata[names.RELEASE_CURRENT]["gates"].records]
    assert all(one["passed"] == "yes" for one in records)
    assert (
        float(next(one for one in records if one["gate"] == "quality_is_above_floor")["measured"])
        > 0.5
    )


def test_a_picture_that_is_too_large_is_made_smaller_and_not_left_out():
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 255, (600, 900, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(noise).save(sink, "PNG")
    assert len(sink.getvalue()) > EVENT_BYTES
    shown = faces.picture(sink.getvalue(), "noise")
    assert len(shown.value) <= 0.7 * EVENT_BYTES
    ((words, _),) = pictures({"noise": shown})
    assert words == "noise"
