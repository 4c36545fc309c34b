"""Croissant is valid without a warning and answers what the RAI vocabulary asks."""

import json
import logging
from dataclasses import replace

import pytest

from cf_lab_assets.counterfactuals.packaging import croissant
from cf_lab_assets.counterfactuals.packaging.build import build_package
from cf_lab_assets.counterfactuals.packaging.croissant import issues
from cf_lab_tests.releases.sample import publication, write_dataset

MINIMAL_RAI = (  # what NeurIPS asks of datasets since 2026
    "rai:dataLimitations",
    "rai:dataBiases",
    "rai:personalSensitiveInformation",
    "rai:dataUseCases",
    "rai:dataSocialImpact",
    "rai:hasSyntheticData",
    "prov:wasDerivedFrom",
    "prov:wasGeneratedBy",
)


@pytest.fixture
def document(packaged):
    return json.loads((packaged.folder / "croissant.json").read_text())


def test_mlcroissant_finds_no_error_no_warning_and_logs_nothing(packaged, caplog):
    with caplog.at_level(logging.WARNING):
        found = issues(packaged.folder / "croissant.json")
    assert (found.errors, found.warnings) == ([], [])
    assert caplog.records == []


def test_the_responsible_ai_properties_are_there(document, packaged):
    assert document["conformsTo"] == [
        "http://mlcommons.org/croissant/1.1",
        "http://mlcommons.org/croissant/RAI/1.0",
    ]
    for name in MINIMAL_RAI:
        assert document[name], name
    assert document["rai:hasSyntheticData"] is True
    assert document["prov:wasDerivedFrom"][0]["sc:identifier"] == "sha256:" + "b" * 64


def test_every_file_that_matters_has_its_hash_and_nothing_an_invented_address(document, packaged):
    hashes = {f["path"]: f["sha256"] for f in packaged.package.manifest["files"]}
    objects = [one for one in document["distribution"] if one["@type"] == "cr:FileObject"]
    assert len(objects) == 4 * 3 + 1
    for one in objects:
        assert one["sha256"] == hashes[one["contentUrl"]]
    assert "url" not in document
    assert "publisher" not in document


def test_a_broken_document_is_an_error_and_a_thin_one_a_warning(document, tmp_path):
    path = tmp_path / "croissant.json"
    broken = json.loads(json.dumps(document))
    broken["recordSet"][0]["field"][0]["source"]["fileSet"]["@id"] = "nowhere"
    path.write_text(json.dumps(broken))
    assert issues(path).errors
    path.write_text("{}")
    assert issues(path).errors
    path.write_text(json.dumps({k: v for k, v in document.items() if k != "license"}))
    assert "license" in issues(path).warnings[0]


def test_the_major_version_is_the_format_of_the_package(bucket, monkeypatch):
    monkeypatch.setattr(croissant, "FORMAT", 7)
    package = build_package(
        bucket, write_dataset(bucket, report=False, package=False), publication()
    )
    document = json.loads(bucket.get_bytes(f"{package.prefix}/croissant.json"))
    assert document["version"].startswith("7.0.0+")


def test_a_hostile_publisher_breaks_nothing(bucket, tmp_path):
    dataset_hash = write_dataset(bucket, report=False, package=False)
    said = replace(publication(), publisher='"} , {"@type": "x" \u00e9 \u202e', license="CC0-1.0")
    package = build_package(bucket, dataset_hash, said)
    path = tmp_path / "bucket" / package.prefix / "croissant.json"
    assert issues(path).errors == []
    assert json.loads(path.read_text())["publisher"]["name"] == said.publisher
