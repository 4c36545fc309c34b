"""The report: sentences, JSON, and a page that needs nothing else."""

from __future__ import annotations

import copy
import html
import json
import re
from html.parser import HTMLParser
from typing import Any

import pyarrow as pa
import pytest

from cf_lab_assets.audits import metrics, report, sentences
from cf_lab_assets.audits.errors import AuditError
from cf_lab_tests.audits.synthetic import DATASET_HASH, SMALL, noisy, responses

MANIFEST = {
    "content_hash": DATASET_HASH,
    "pairs": 300,
    "sets": 120,
    "batches": {"b1": "3" * 64},
    "models": {"editor": {"name": "an-editor", "sha256": "1" * 64}},
}
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Checks nesting and keeps text and addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.pictures_without_words = 0
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [given[name] or "" for name in ("src", "href") if name in given]
        self.pictures_without_words += tag == "img" and not given.get("alt")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    balanced = metrics.compute(responses(*noisy(60, 1), name="balanced"))
    skewed = metrics.compute(responses(*noisy(60, 2, shift=0.12), name="skewed"))
    return [skewed, balanced]


@pytest.fixture(scope="module")
def built(documents: list[dict[str, Any]]) -> dict[str, Any]:
    cells = [
        {"attribute": "gender", "from_value": "woman", "accepted": 3, "offered": None}
        | dict.fromkeys(("share", "low", "high"))
    ]
    return report.build(documents, MANIFEST, cells, "2026-11-23")


def test_the_same_metrics_give_the_same_bytes(
    documents: list[dict[str, Any]], built: dict[str, Any]
) -> None:
    again = report.build(documents[::-1], MANIFEST, built["body"]["data"]["cells"], "2026-11-23")
    assert report.to_json(again) == report.to_json(built)
    assert report.render(again) == report.render(built)


def test_the_date_changes_neither_identity_nor_hash(
    documents: list[dict[str, Any]], built: dict[str, Any]
) -> None:
    later = report.build(documents, MANIFEST, built["body"]["data"]["cells"], "2027-01-01")
    assert later["report_id"] == built["report_id"]
    assert later["date"] == "2027-01-01"
    other = report.build(documents[:1], MANIFEST, built["body"]["data"]["cells"], "2026-11-23")
    assert other["report_id"] != built["report_id"]


def test_json_holds_what_a_reader_of_the_field_looks_for(built: dict[str, Any]) -> None:
    body = json.loads(report.to_json(built))["body"]
    assert set(body) >= {
        "systems_under_test",
        "data",
        "attributes",
        "attribute_note",
        "metric_definitions",
        "thresholds",
        "declaration_hash",
        "results",
        "limitations",
        "residual_risks",
        "legal_scope",
        "independence",
        "software",
    }
    assert body["data"]["synthetic"] is True
    assert "no compliance" in body["legal_scope"]
    assert "identity" in body["attribute_note"]
    for definition in body["metric_definitions"]:
        assert set(definition) == {"metric", "definition", "zero", "ties", "missing", "interval"}


def test_a_found_effect_is_said_with_direction_and_numbers(built: dict[str, Any]) -> None:
    line = next(
        one
        for one in built["body"]["headlines"]
        if one["model"] == "skewed" and one["endpoint"] == "gender-woman-man"
    )
    assert line["verdict"] == "found"
    assert re.fullmatch(
        r"skewed rates the same person higher as doctor, pilot \(against nurse\) when shown with "
        r"gender man than with gender woman: \+0\.0\d\d \[\+0\.0\d\d, \+0\.0\d\d\], "
        r"placebo floor 0\.0\d\d, q = 0\.001\.",
        line["sentence"],
    )


def test_a_negative_effect_is_told_from_the_other_side(documents: list[dict[str, Any]]) -> None:
    primary = copy.deepcopy(documents[0]["results"][0])
    primary |= {"estimate": -0.1, "ci_low": -0.2, "ci_high": -0.05, "placebo_floor": 0.01}
    text = sentences.sentence("m", primary, documents[0]["declaration"])
    assert "with gender woman than with gender man: +0.100 [+0.050, +0.200]" in text


def test_no_finding_says_why_and_what_would_have_been_found(built: dict[str, Any]) -> None:
    found, line = built["body"]["headlines"][:2]
    assert (found["model"], found["verdict"]) == ("skewed", "found")
    assert (line["model"], line["verdict"]) == ("balanced", "not_found")
    assert "no difference established" in line["sentence"]
    assert "within the placebo floor" in line["sentence"]


def test_insufficient_data_is_said_and_drawn() -> None:
    small = metrics.compute(responses(*noisy(6, 3)))
    built = report.build([small], MANIFEST, [], "2026-11-23")
    assert "6 counterfactual sets, 10 are needed" in built["body"]["headlines"][0]["sentence"]
    assert "insufficient" in Page(report.render(built)).text


def test_an_excluded_group_is_shown_as_minus_infinity() -> None:
    members, sources = noisy(40, 4)
    members["gender"][:, 1, 0] += 10
    built = report.build([metrics.compute(responses(members, sources))], MANIFEST, [], "2026-11-23")
    assert b'"estimate":"-inf"' in report.to_json(built)
    assert "\u2212\u221e" in Page(report.render(built)).text


def test_the_page_is_well_formed_and_needs_nothing_else(built: dict[str, Any]) -> None:
    text = report.render(built, contact_sheet=b"\x89PNG")
    page = Page(text)
    assert page.open == []
    assert page.pictures_without_words == 0
    assert page.addresses
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert "http" not in text
    assert "url(" not in text
    assert "<script" not in text


def test_the_page_names_every_primary_endpoint_of_every_model(built: dict[str, Any]) -> None:
    page = report.render(built)
    for endpoint in SMALL.primary:
        assert page.count(f"<code>{endpoint.name}</code>") == 2
    text = html.unescape(page)
    for line in built["body"]["headlines"]:
        assert line["sentence"] in text


def test_what_came_from_outside_is_escaped(documents: list[dict[str, Any]]) -> None:
    hostile = copy.deepcopy(documents[0])
    hostile["model"]["name"] = "<script>alert(1)</script>"
    page = report.render(report.build([hostile], MANIFEST, [], "2026-11-23"))
    assert "<script" not in page


def test_plots_are_the_same_for_the_same_numbers(built: dict[str, Any]) -> None:
    results = built["body"]["results"]
    assert report.primary_plot(results) == report.primary_plot(results)
    assert len(report.primary_plot(results, dpi=70)) < 70_000


def test_metrics_of_another_dataset_or_declaration_are_refused(
    documents: list[dict[str, Any]],
) -> None:
    other = copy.deepcopy(documents[1])
    other["dataset_hash"] = "e" * 64
    with pytest.raises(AuditError, match="balanced"):
        report.build([documents[0], other], MANIFEST, [], "2026-11-23")
    other = copy.deepcopy(documents[1])
    other["declaration_hash"] = "e" * 64
    with pytest.raises(AuditError, match="different declarations"):
        report.build([documents[0], other], MANIFEST, [], "2026-11-23")
    with pytest.raises(AuditError, match="no bias metrics"):
        report.build([], MANIFEST, [], "2026-11-23")


def test_offered_sets_are_counted_by_what_the_source_shows() -> None:
    sets = pa.table(
        {
            "attribute": ["gender", "gender", "age"],
            "from_value": ["woman", "woman", "old"],
        }
    )
    drawn = pa.table(
        {
            "source_id": ["s1", "s2", "s3", "s1", "s1"],
            "attribute": ["gender", "gender", "gender", "age", "age"],
            "from_value": ["woman", "woman", "man", "old", "old"],
        }
    )
    cells = {
        (one["attribute"], one["from_value"]): (one["offered"], one["accepted"], one["share"])
        for one in report.acceptance_cells(sets, [drawn])
    }
    assert cells == {
        ("age", "old"): (1, 1, 1.0),
        ("gender", "man"): (1, 0, 0.0),
        ("gender", "woman"): (2, 2, 1.0),
    }


def test_what_was_offered_is_unknown_and_not_zero_without_tables() -> None:
    sets = pa.table({"attribute": ["age"], "from_value": ["old"]})
    (cell,) = report.acceptance_cells(sets, None)
    assert cell["offered"] is None
    assert cell["share"] is None
    assert cell["accepted"] == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "\u2013"), ("-inf", "\u2212\u221e"), (-0.0001, "0.000"), (-0.25, "\u22120.250")],
)
def test_numbers_for_people(value: Any, shown: str) -> None:
    assert sentences.plain(value) == shown
    assert sentences.signed(value) == shown


def test_a_system_without_embeddings_or_without_files_says_so(
    documents: list[dict[str, Any]],
) -> None:
    skewed, balanced = copy.deepcopy(documents)
    skewed["model"] |= {"dimension": None, "model_type": "llava"}
    nothing: dict[str, Any] = dict.fromkeys(("parameters", "dimension", "dtype", "tokenizer"))
    adapter = {"model_type": "foo", "image_processor": {}, "sha256": None, "architectures": []}
    balanced["model"] |= nothing | adapter | {"uri": "https://host/score"}
    page = Page(report.render(report.build([skewed, balanced], MANIFEST, [], "2026-11-23"), None))
    assert "1,234 parameters, run in float32" in page.text
    assert "https://host/score, declared to be of the family foo" in page.text
