"""The report's document: sentences, JSON by its schema, history; and a page that needs nothing."""

from __future__ import annotations

import copy
import html
import json
import re
from html.parser import HTMLParser
from typing import Any

import jsonschema
import pyarrow as pa
import pytest

from cf_lab_assets.audits import (
    data,
    figures,
    metric_definitions,
    metrics,
    page,
    report,
    results,
    sentences,
)
from cf_lab_assets.audits.errors import AuditError
from cf_lab_assets.audits.instrument.findings import Finding, Limit
from cf_lab_tests.audits import test_generative
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


CELLS = [
    {"attribute": "gender", "from_value": "woman", "accepted": 3, "offered": 4, "excluded": 1}
    | {"share": 0.75, "low": 0.3, "high": 0.95},
    {"attribute": "gender", "from_value": "man", "accepted": 4, "offered": 4, "excluded": 0}
    | {"share": 1.0, "low": 0.5, "high": 1.0},
    {"attribute": "age", "from_value": "old", "accepted": 3} | data.UNKNOWN_SHARE,
]


def reported(
    documents: list[dict[str, Any]],
    date: str = "2026-11-23",
    earlier: list[dict[str, Any]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    counts = documents[0]["counts"] if documents else {}
    material = report.Material(data.of_dataset(MANIFEST, CELLS, counts), **more)
    return report.build(documents, material, date, earlier or [])


@pytest.fixture(scope="module")
def built(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return reported(documents)


def test_the_same_metrics_give_the_same_bytes(
    documents: list[dict[str, Any]], built: dict[str, Any]
) -> None:
    again = reported(documents[::-1])
    assert report.to_json(again) == report.to_json(built)
    assert page.render(again) == page.render(built)


def test_the_date_changes_neither_identity_nor_hash(
    documents: list[dict[str, Any]], built: dict[str, Any]
) -> None:
    later = reported(documents, "2027-01-01")
    assert later["report_id"] == built["report_id"]
    assert later["date"] == "2027-01-01"
    other = reported(documents[:1])
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
        assert set(definition) == {
            *("names", "metric", "definition", "zero", "ties", "missing", "interval")
        }


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
    built = reported([small])
    assert "6 counterfactual sets, 10 are needed" in built["body"]["headlines"][0]["sentence"]
    assert "insufficient" in Page(page.render(built)).text


def test_an_excluded_group_is_shown_as_minus_infinity() -> None:
    members, sources = noisy(40, 4)
    members["gender"][:, 1, 0] += 10
    built = reported([metrics.compute(responses(members, sources))])
    assert b'"estimate":"-inf"' in report.to_json(built)
    assert "\u2212\u221e" in Page(page.render(built)).text


def test_the_page_is_well_formed_and_needs_nothing_else(built: dict[str, Any]) -> None:
    sheets = {"skewed": (b"\xff\xd8\xff", "Sets of skewed")}
    text = page.render(built, contact_sheet=b"\x89PNG", pictures=sheets)
    shown = Page(text)
    assert shown.open == []
    assert shown.pictures_without_words == 0
    outside = [one for one in shown.addresses if not one.startswith("#")]
    assert len(outside) > 5
    assert all(one.startswith(("data:image/png;", "data:image/jpeg;")) for one in outside)
    assert "http" not in text
    assert "url(" not in text
    assert "<script" not in text


def test_the_page_names_every_primary_endpoint_of_every_model(built: dict[str, Any]) -> None:
    shown = page.render(built)
    for endpoint in SMALL.primary:
        assert shown.count(f"<code>{endpoint.name}</code>") == 2
    text = html.unescape(shown)
    for line in built["body"]["headlines"]:
        assert line["sentence"] in text


def test_what_came_from_outside_is_escaped(documents: list[dict[str, Any]]) -> None:
    hostile = copy.deepcopy(documents[0])
    hostile["model"]["name"] = "<script>alert(1)</script>"
    assert "<script" not in page.render(reported([hostile]))


def test_plots_are_the_same_for_the_same_numbers(built: dict[str, Any]) -> None:
    results = built["body"]["results"]
    assert figures.primary_plot(results) == figures.primary_plot(results)
    assert len(figures.primary_plot(results, dpi=70)) < 70_000


def test_metrics_of_another_dataset_or_declaration_are_refused(
    documents: list[dict[str, Any]],
) -> None:
    other = copy.deepcopy(documents[1])
    other["dataset_hash"] = "e" * 64
    with pytest.raises(AuditError, match="balanced"):
        reported([documents[0], other])
    other = copy.deepcopy(documents[1])
    other["declaration_hash"] = "e" * 64
    with pytest.raises(AuditError, match="different declarations"):
        reported([documents[0], other])
    with pytest.raises(AuditError, match="no bias metrics"):
        reported([])


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
        for one in data.acceptance_cells(sets, [drawn])
    }
    assert cells == {
        ("age", "old"): (1, 1, 1.0),
        ("gender", "man"): (1, 0, 0.0),
        ("gender", "woman"): (2, 2, 1.0),
    }


def test_what_was_offered_is_unknown_and_not_zero_without_tables() -> None:
    sets = pa.table({"attribute": ["age"], "from_value": ["old"]})
    (cell,) = data.acceptance_cells(sets, None)
    assert cell["offered"] is None
    assert cell["share"] is None
    assert cell["accepted"] == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "\u2013"),
        ("-inf", "\u2212\u221e"),
        (0.0, "0.000"),
        (-1e-9, "0.000"),
        (-0.000123, "\u22120.00012"),
        (-0.25, "\u22120.250"),
    ],
)
def test_numbers_for_people(value: Any, shown: str) -> None:
    assert sentences.plain(value) == shown
    assert sentences.signed(value) == shown


def limited(document: dict[str, Any], limit: float, against: str) -> dict[str, Any]:
    other = copy.deepcopy(document)
    other["results"][0] |= {"limit": limit, "against_limit": against}
    return other


def test_a_limit_is_in_headline_table_and_json(documents: list[dict[str, Any]]) -> None:
    made = reported([limited(documents[0], 0.02, "limit_exceeded")])
    (line,) = [one for one in made["body"]["headlines"] if one["endpoint"] != "secondary"]
    assert line["against_limit"] == "limit_exceeded"
    assert line["sentence"].endswith("Tolerated is 0.020 either way: limit exceeded.")
    assert page.render(made).count("limit exceeded</span>") == 2


# --- schema -------------------------------------------------------------------------------


def faults(made: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft202012Validator(report.schema())
    document = json.loads(report.to_json(made))
    return [f"{list(one.path)}: {one.message}" for one in validator.iter_errors(document)]


def test_the_schema_is_one_and_reports_satisfy_it(
    documents: list[dict[str, Any]], built: dict[str, Any]
) -> None:
    jsonschema.Draft202012Validator.check_schema(report.schema())
    assert faults(built) == []
    calibrated = {"coverage": 0.95, "false_positives": 0.049}
    checked = {"probe": {"auc": 0.52, "passed": True}}
    more = reported(documents, calibration=calibrated, instrument_checks=checked)
    assert faults(more) == []
    assert "0.95" in Page(page.render(more)).text
    small = metrics.compute(responses(*noisy(6, 3)))
    assert faults(reported([small])) == []


@pytest.mark.parametrize(
    "part",
    ["legal_scope", "calibration", "metric_definitions", "systems_under_test", "independence"],
)
def test_a_report_without_a_field_does_not_satisfy_the_schema(
    built: dict[str, Any], part: str
) -> None:
    lacking = copy.deepcopy(built)
    del lacking["body"][part]
    assert any(part in fault for fault in faults(lacking))


def test_every_metric_is_defined_with_its_policies() -> None:
    not_metrics = {"primary", "secondary"}
    verdicts = {*sentences.VERDICTS, *sentences.REASONS, *sentences.AGAINST_LIMIT}
    known = {
        value
        for name, value in vars(results).items()
        if name.isupper() and isinstance(value, str) and "/" not in value
    }
    defined = [name for one in metric_definitions.DEFINITIONS for name in one["names"]]
    assert sorted(defined) == sorted(known - verdicts - not_metrics)
    assert all(one[part] for one in metric_definitions.DEFINITIONS for part in one)


def test_only_metrics_that_were_computed_are_explained(built: dict[str, Any]) -> None:
    names = {name for one in built["body"]["metric_definitions"] for name in one["names"]}
    assert "paired_effect" in names
    assert "disparate_impact" not in names


def test_acceptance_parity_is_of_the_least_and_the_greatest_share(built: dict[str, Any]) -> None:
    parity = built["body"]["data"]["acceptance_parity"]
    assert parity == {"age": None, "gender": {"least": "woman", "most": "man", "ratio": 0.75}}


# --- history ------------------------------------------------------------------------------


def test_the_first_report_has_no_changes(built: dict[str, Any]) -> None:
    assert built["version"] == 1
    assert built["context"]["changes"] is None
    assert built["context"]["drift"] == []


def test_a_report_says_what_changed_since_the_last(
    documents: list[dict[str, Any]], built: dict[str, Any]
) -> None:
    skewed = copy.deepcopy(documents[0])
    primary = skewed["results"][0]
    for name in ("estimate", "ci_low", "ci_high"):
        primary[name] -= 0.1
    primary["verdict"] = "not_found"
    primary["reasons"] = ["within_placebo_floor"]
    skewed["model"]["sha256"] = "b" * 64
    added = copy.deepcopy(documents[1])
    added["model"]["name"] = "new"
    later = reported([skewed, added], "2026-12-01", [built])
    changes = later["context"]["changes"]
    assert later["version"] == 2
    assert changes["since"] == {"report_id": built["report_id"], "date": "2026-11-23"}
    assert (changes["models_added"], changes["models_removed"]) == (["new"], ["balanced"])
    assert changes["models_changed"] == ["skewed"]
    assert changes["dataset"] is None
    (moved,) = changes["endpoints"]
    assert moved["beyond_interval"]
    assert (moved["before"]["verdict"], moved["now"]["verdict"]) == ("found", "not_found")
    assert faults(later) == []
    shown = Page(page.render(later)).text
    assert "Model added: new." in shown
    assert "outside of the earlier interval" in shown


def test_drift_shows_the_estimates_of_a_model_over_reports(
    documents: list[dict[str, Any]], built: dict[str, Any]
) -> None:
    second = reported(documents, "2026-12-01", [built])
    third = reported(documents, "2026-12-09", [built, second])
    assert third["body"] == built["body"]
    assert third["version"] == 3
    series = third["context"]["drift"]
    assert [one["model"] for one in series] == ["balanced", "skewed"]
    assert [one["date"] for one in series[0]["points"]] == [
        "2026-11-23",
        "2026-12-01",
        "2026-12-09",
    ]
    assert third["context"]["changes"]["endpoints"] == []
    shown = page.render(third)
    assert "No primary endpoint has another verdict" in shown
    assert "Estimates of skewed over reports" in shown


def test_an_endpoint_that_asks_something_else_is_no_drift(
    documents: list[dict[str, Any]], built: dict[str, Any]
) -> None:
    other = copy.deepcopy(documents[0])
    other["results"][0]["prompts_plus"] = ["doctor"]
    later = reported([other], "2026-12-01", [built])
    assert later["context"]["drift"] == []
    (change,) = later["context"]["changes"]["endpoints"]
    assert not change["same_question"]


# --- many results -------------------------------------------------------------------------


def test_tables_and_plots_are_bounded_and_say_so(documents: list[dict[str, Any]]) -> None:
    many = copy.deepcopy(documents[0])
    effect = next(one for one in many["results"] if one["id"].startswith("effect/gender"))
    many["results"] += [
        {**effect, "id": f"{effect['id']}-{n}", "prompts_plus": [f"occupation {n}"]}
        for n in range(2000)
    ]
    made = reported([many])
    tables = page.tables(made["body"])
    assert len(tables["effects"].rows) == page.MAX_ROWS
    assert tables["effects"].left_out == tables["effects"].total - page.MAX_ROWS
    shown = page.render(made)
    assert "are in results.csv and report.json" in shown
    assert len(shown) < 1_500_000
    assert faults(made) == []


def test_what_is_found_comes_first(built: dict[str, Any]) -> None:
    verdicts = [one["verdict"] for one in page.tables(built["body"])["effects"].rows]
    assert verdicts == sorted(verdicts, key=sentences.VERDICT_ORDER.__getitem__)
    assert verdicts[0] == "found"


def test_a_system_without_embeddings_or_without_files_says_so(
    documents: list[dict[str, Any]],
) -> None:
    skewed, balanced = copy.deepcopy(documents)
    skewed["model"] |= {"dimension": None, "model_type": "llava"}
    nothing: dict[str, Any] = dict.fromkeys(("parameters", "dimension", "dtype", "tokenizer"))
    adapter = {"model_type": "foo", "image_processor": {}, "sha256": None, "architectures": []}
    balanced["model"] |= nothing | adapter | {"uri": "https://host/score"}
    shown = Page(page.render(reported([skewed, balanced]))).text
    assert "1,234 parameters, run in float32" in shown
    assert "https://host/score, declared to be of the family foo" in shown


def test_models_asked_in_different_formats_stand_side_by_side(
    documents: list[dict[str, Any]],
) -> None:
    chosen = metrics.compute(test_generative.responses())
    effect = copy.deepcopy(next(r for r in chosen["results"] if r["id"].startswith("forced")))
    other = copy.deepcopy(documents[1])
    other["results"] = [effect | {"endpoint": "gender-woman-man"}, *other["results"][1:]]
    made = reported([documents[0], other])
    assert faults(made) == []
    ((_, row),) = page.tables(made["body"])["side_by_side"]
    assert [[one.get("format") for one in ones] for ones in row] == [["forced_choice"], [None]]
    shown = Page(page.render(made)).text
    assert "balanced gives the same person more probability of being" in shown
    assert figures.primary_plot(made["body"]["results"])


def test_a_generative_model_has_a_report_of_its_own() -> None:
    document = metrics.compute(test_generative.responses(refusals=0.3))
    made = reported([document])
    assert faults(made) == []
    shown = Page(page.render(made)).text
    assert "abstention rate" in shown.lower()
    assert "forced choice" in shown


def test_a_calibration_that_failed_says_so(documents: list[dict[str, Any]]) -> None:
    quantity = {"oracle": "null", "attribute": "gender", "name": "coverage", "measured": 0.8}
    quantity |= {"low": 0.93, "high": 0.97, "audits": 1000, "sets": 60, "passed": False}
    curve = [
        {"attribute": "gender", "sets": 60, "multiple_of_mde": size, "found": size / 2}
        for size in (0.5, 1.0, 2.0)
    ]
    found = {"audits": 1000, "alpha": 0.05, "level": 0.95, "quantities": [quantity]}
    made = reported(documents, calibration=found | {"power": curve, "passed": False})
    assert faults(made) == []
    text = page.render(made)
    assert "calibration failed" in text
    assert "Power: share of simulated audits" in text
    assert "0.800" in Page(text).text


def test_numbers_of_the_instrument_are_held_against_their_limits(
    documents: list[dict[str, Any]],
) -> None:
    limit = Limit(0.8, "ratio", "a trial", is_floor=True)
    holds = Finding("success", "gender", 40, 0.95, 0.9, 1.0, limit, "holds")
    fails = Finding("success", "skin_tone", 40, 0.5, 0.4, 0.6, limit, "fails")
    given = {
        "editor": {"success": {"gaps": [holds.as_dict(), fails.as_dict()]}},
        "note": "Read it.",
    }
    made = reported(documents, instrument_checks=given)
    assert faults(made) == []
    text = Page(page.render(made)).text
    assert "1 of 2 numbers lie within their limits, 1 do not" in text
    assert text.index("skin_tone") < text.index("0.950")
