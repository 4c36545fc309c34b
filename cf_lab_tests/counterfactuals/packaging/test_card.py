"""The card says what is there, and nothing from outside becomes markup or a header."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import DatasetCard

from cf_lab_assets.counterfactuals.packaging.build import build_package
from cf_lab_assets.counterfactuals.packaging.card import escaped
from cf_lab_tests.counterfactuals.packaging.conftest import HOSTILE
from cf_lab_tests.releases.sample import publication, write_dataset


@pytest.fixture
def card(packaged):
    return (packaged.folder / "README.md").read_text()


def header_of(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_the_header_is_what_the_hub_reads(packaged, card):
    data = DatasetCard(card).data.to_dict()
    assert data == header_of(card)
    assert data["license"] == "unknown"
    assert data["size_categories"] == ["n<1K"]
    assert [config["config_name"] for config in data["configs"]] == ["pairs", "sets"]
    info = data["dataset_info"][0]
    assert info["splits"][0]["num_examples"] == 20
    assert {"name": "image", "dtype": "image"} in info["features"]


def test_the_body_has_the_real_numbers(card):
    assert "20 image-text pairs in 8 counterfactual sets, made from 4 source pairs" in card
    assert "| age | old | 4 | 4 |" in card
    assert "| gender | man | 4 | 0 |" in card
    assert "median 0.800" in card
    assert "Signed with a test key" in card
    assert "no statement of compliance" in card
    assert "](contact_sheet.png)" in card


def test_hostile_captions_stay_text(card):
    body = card.split("---\n", 2)[2]
    assert "<script" not in card
    assert "<img" not in body
    assert "stolen" not in str(header_of(card))
    assert not re.search(r"(?<!\\)\]\((?!contact_sheet\.png)", body), "no link but the sheet's"
    rows = [
        line for line in body.splitlines() if re.search(r"\((middle-aged|old|young), \d+\)", line)
    ]
    assert len(rows) == 3
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) == 5, row


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_is_one_line_without_live_markup(text):
    shown = escaped(text)
    assert "\n" not in shown
    assert "\u202e" not in shown
    assert "\x00" not in shown
    assert "<" not in shown
    assert not re.search(r"(?<!\\)[`*_\[\]{}|$#]", shown)


def test_escaping_keeps_words_and_cuts_what_is_long():
    assert (
        escaped("caf\u00e9 \U0001f469\u200d\U0001f52c, \u4f60\u597d")
        == "caf\u00e9 \U0001f469\u200d\U0001f52c, \u4f60\u597d"
    )
    assert escaped("x" * 1000).endswith("x\u2026")
    assert len(escaped("x" * 1000)) == 300


@pytest.mark.parametrize(
    ("license_", "in_header"),
    [
        ("CC-BY-4.0", {"license": "cc-by-4.0"}),
        (
            "https://licenses.invalid/ours",
            {"license": "other", "license_link": "https://licenses.invalid/ours"},
        ),
        ("x: y\u0020# {a}", {"license": "x: y # {a}"}),
    ],
)
def test_licence_and_publisher_are_those_of_the_settings(bucket, license_, in_header):
    dataset_hash = write_dataset(bucket, report=False, package=False)
    said = replace(publication(), license=license_, publisher="L\u00e4b & [Co](x)")
    package = build_package(bucket, dataset_hash, said)
    card = bucket.get_bytes(f"{package.prefix}/README.md").decode()
    header = header_of(card)
    assert {name: header.get(name) for name in in_header} == in_header
    assert r"Publisher: L&auml;b" not in card
    assert r"L" + "\u00e4" + r"b &amp; \[Co\](x)" in card
    sheet = bucket.get_bytes(f"{package.prefix}/datasheet.md").decode()
    for section in (
        "Motivation",
        "Composition",
        "Collection process",
        "Preprocessing",
        "Uses",
        "Distribution",
        "Maintenance",
    ):
        assert f"\n## {section}" in sheet
