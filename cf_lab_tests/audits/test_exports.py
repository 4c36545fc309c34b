"""A table's report as files: CSVs, impact ratios, examples, and what its owner says of it."""

from __future__ import annotations

import datetime
import io
import json
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cf_lab_assets import cli
from cf_lab_assets.audits import examples, exports, impact, report, signature, table_audit
from cf_lab_assets.audits.about import About, read_about
from cf_lab_assets.audits.errors import AuditError
from cf_lab_assets.audits.table import Words, read_table
from cf_lab_resources.credentials.home_key import home_test_key
from cf_lab_resources.credentials.keys import SigningKey
from cf_lab_tests.audits.test_table import frame, written

# A new key's certificate is valid from today on.
TODAY = datetime.datetime.now(datetime.UTC).date()


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return home_test_key(tmp_path_factory.mktemp("key") / "signing")


def made(
    folder: Path, rows: pd.DataFrame, key: SigningKey, about: About | None = None, **choices: object
) -> dict[str, bytes]:
    path = written(folder, rows)
    document, table = table_audit.audit_table(path, table_audit.Choices(**choices))  # type: ignore[arg-type]
    reporting = table_audit.Reporting(key, TODAY.isoformat(), about or About())
    return table_audit.report_files(document, table, reporting)


def csv_of(files: dict[str, bytes], name: str) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(files[name]))


def test_a_table_s_report_is_whole_and_signed(tmp_path: Path, key: SigningKey) -> None:
    rows = frame(40, shift=0.2)
    rows.loc[0, "gender"] = None
    rows["prediction"] = (rows["score"] > 0).astype(int)
    rows["label"] = 1
    files = made(tmp_path, rows, key, limit=0.1)
    assert set(files) == {
        *("report.html", "report.json", "results.csv", "impact_ratios.csv"),
        *("summary.md", "metrics.json"),
    }
    document = json.loads(files.pop("report.json"))
    jsonschema.validate(document, report.schema(), jsonschema.Draft202012Validator)
    assert signature.verify_report(document, files).faults == ()
    results = csv_of(files, "results.csv")
    assert len(results) == len(document["body"]["results"]["model"])
    assert set(results["verdict"]) >= {"found", "not_found", "descriptive"}
    assert document["body"]["data"]["unknown"] == {"age": 0, "gender": 1}
    assert document["body"]["data"]["synthetic"] is None
    summary = files["summary.md"].decode()
    assert "limit exceeded" in summary
    assert "not a Local Law 144 audit" in summary


def test_the_same_table_gives_the_same_body_on_another_day(tmp_path: Path, key: SigningKey) -> None:
    path = written(tmp_path, frame(30))
    document, table = table_audit.audit_table(path, table_audit.Choices())
    bodies = {
        json.loads(
            table_audit.report_files(document, table, table_audit.Reporting(key, day))[
                "report.json"
            ]
        )["body_sha256"]
        for day in (TODAY.isoformat(), (TODAY + datetime.timedelta(days=1)).isoformat())
    }
    assert len(bodies) == 1


def test_text_that_a_spreadsheet_would_run_is_quoted(tmp_path: Path, key: SigningKey) -> None:
    rows = frame(30).replace({"gender": {"man": "=cmd()"}})
    results = csv_of(made(tmp_path, rows, key), "results.csv")
    assert "'=cmd()" in set(results["from_value"])
    assert not results.astype(str).apply(lambda column: column.str.startswith("=")).any().any()


def test_infinity_stays_a_number_in_the_csv() -> None:
    body = {"results": {"m": [{"id": "skew", "estimate": "-inf", "metric": "skew_at_k"}]}}
    assert b",-inf," in exports.results_csv(body)


# --- impact ratios ------------------------------------------------------------------------


def test_impact_ratios_are_rates_over_the_greatest_rate(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        [
            (f"s{s}", group, int(s < selected))
            for group, selected in (("a", 8), ("b", 4))
            for s in range(10)
        ],
        columns=["set_id", "group", "prediction"],
    )
    table = read_table(written(tmp_path, rows))
    found = {row["category"]: row for row in impact.of_table(table)}
    assert (found["a"]["rate"], found["a"]["impact_ratio"]) == (0.8, 1.0)
    assert (found["b"]["rate"], found["b"]["impact_ratio"]) == (0.4, 0.5)
    assert {row["basis"] for row in found.values()} == {impact.SELECTION}


def test_scoring_rates_are_shares_above_the_median(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {
            "set_id": np.repeat([f"s{n}" for n in range(4)], 2),
            "group": ["a", "b"] * 4,
            "score": [1.0, 5, 2, 6, 3, 7, 8, 4],
        }
    )
    found = {
        row["category"]: row["rate"] for row in impact.of_table(read_table(written(tmp_path, rows)))
    }
    assert found == {"a": 0.25, "b": 0.75}


def test_intersections_unknowns_and_small_categories_are_told(tmp_path: Path) -> None:
    rows = frame(100)
    rows.loc[:2, "age"] = None
    rare = (rows["gender"] == "man") & (rows["age"] == "old") & (rows["set_id"] > "s0004")
    table = read_table(written(tmp_path, rows[~rare]))
    found = {(row["attribute"], row["category"]): row for row in impact.of_table(table)}
    assert found["gender+age", "man, old"]["below_2_percent"]
    assert not found["gender+age", "woman, old"]["below_2_percent"]
    assert found["gender+age", "man, old"]["unknown"] == 3
    assert found["gender", "man"]["unknown"] == 0


# --- examples -----------------------------------------------------------------------------


def test_examples_are_the_extreme_sets_of_an_endpoint(tmp_path: Path, key: SigningKey) -> None:
    rows = frame(40, shift=0.1)
    woman = rows["gender"] == "woman"
    rows.loc[woman & (rows["set_id"] == "s0007"), "score"] -= 5
    rows.loc[woman & (rows["set_id"] == "s0011"), "score"] += 5
    document = json.loads(made(tmp_path, rows, key)["report.json"])
    own = [one for one in document["body"]["examples"] if one["endpoint"] == "gender-man-woman"]
    first = {one["kind"]: one for one in reversed(own)}
    extremes = {first[kind]["set_id"] for kind in (examples.LARGEST, examples.OPPOSITE)}
    assert extremes == {"s0007", "s0011"}
    assert abs(first[examples.SMALLEST]["effect"]) < 0.1
    assert len({one["set_id"] for one in own}) == len(own)


def test_sets_that_were_rejected_do_not_shift_the_names_of_the_others(
    tmp_path: Path, key: SigningKey
) -> None:
    rows = frame(40)
    rows.loc[rows["set_id"] == "s0003", "score"] = np.inf
    rows.loc[(rows["set_id"] == "s0020") & (rows["gender"] == "man"), "score"] += 9
    document = json.loads(made(tmp_path, rows, key)["report.json"])
    largest = [one for one in document["body"]["examples"] if one["kind"] == examples.LARGEST]
    assert "s0020" in {one["set_id"] for one in largest[:3]}


def test_no_set_is_called_opposite_that_is_not() -> None:
    found = examples._extremes(np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    assert found[examples.OPPOSITE] == []
    assert found[examples.LARGEST] == [4, 3, 2]
    assert found[examples.SMALLEST] == [0, 1]


# --- what is said about an audit ----------------------------------------------------------


def test_what_the_owner_says_stands_in_the_report(tmp_path: Path, key: SigningKey) -> None:
    path = tmp_path / "about.json"
    path.write_text(
        json.dumps(
            {
                "responsible": ["A. Person"],
                "thresholds_set_by": "the risk board",
                "model": {"revision": "r7", "licence": "apache-2.0", "decoding": "greedy"},
                "data": {"name": "our scores", "synthetic": False},
            }
        )
    )
    files = made(tmp_path, frame(30), key, read_about(path))
    body = json.loads(files["report.json"])["body"]
    assert body["systems_under_test"][0]["revision"] == "r7"
    assert body["thresholds"]["set_by"].startswith("the risk board")
    page = files["report.html"].decode()
    assert all(words in page for words in ("A. Person", "greedy", "our scores", "apache-2.0"))


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "JSON"), ('{"modell": {}}', "modell"), ('{"model": {"revision": 1}}', "revision")],
)
def test_what_can_not_be_said_is_named(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "about.json"
    path.write_text(content)
    with pytest.raises(AuditError, match=says):
        read_about(path)
    with pytest.raises(AuditError, match="can't be read"):
        read_about(tmp_path / "none.json")


def test_the_command_compares_with_an_earlier_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CF_LAB_HOME", str(tmp_path / "home"))
    first, second = tmp_path / "first", tmp_path / "second"
    before = written(tmp_path, frame(60), "before.csv")
    after = written(tmp_path, frame(60, shift=0.4), "after.csv")
    for table, arguments in (
        (before, ["--out", str(first)]),
        (after, ["--out", str(second), "--earlier", str(first / "report.json")]),
    ):
        done = CliRunner().invoke(cli.app, ["audit", str(table), *arguments])
        assert done.exit_code == 0, done.output
    document = json.loads((second / "report.json").read_bytes())
    assert document["version"] == 2
    changed = document["context"]["changes"]["endpoints"]
    assert [one["endpoint"] for one in changed] == ["gender-man-woman"]
    assert document["context"]["changes"]["dataset"]
    verified = CliRunner().invoke(cli.app, ["verify-report", str(second / "report.html")])
    assert verified.exit_code == 0, verified.output


def test_predictions_alone_give_selection_rates_and_no_scoring_rates(
    tmp_path: Path, key: SigningKey
) -> None:
    rows = frame(40, shift=0.5)
    rows["prediction"] = np.where(rows["score"] > 0, "hire", "reject")
    files = made(tmp_path, rows.drop(columns="score"), key, words=Words("hire"))
    assert set(csv_of(files, "impact_ratios.csv")["basis"]) == {impact.SELECTION}
    assert "selects the same scene more often" in files["summary.md"].decode()
