"""Anyone's scores: what is read, what is refused and why, and what the audit says of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cf_lab_assets import cli
from cf_lab_assets.audits import metrics, table_audit
from cf_lab_assets.audits.errors import AuditError
from cf_lab_assets.audits.layout import answers_of, decisions_of
from cf_lab_assets.audits.table import Words, read_table

Document = dict[str, object]


def frame(sets: int = 60, seed: int = 0, shift: float = 0.0) -> pd.DataFrame:
    """Sets that cross two attributes; men score higher by `shift`."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"s{s:04}", gender, age, scene + shift * (gender == "man") + rng.normal(0, 0.05))
        for s, scene in enumerate(rng.normal(0, 1, sets))
        for gender in ("man", "woman")
        for age in ("old", "young")
    ]
    return pd.DataFrame(rows, columns=["set_id", "gender", "age", "score"])


def written(folder: Path, rows: pd.DataFrame, name: str = "scores.csv") -> Path:
    path = folder / name
    if name.endswith(".csv"):
        rows.to_csv(path, index=False)
    else:
        rows.to_parquet(path, index=False)
    return path


def audited(folder: Path, rows: pd.DataFrame, **choices: object) -> Document:
    document, _ = table_audit.audit_table(
        written(folder, rows),
        table_audit.Choices(**choices),  # type: ignore[arg-type]
    )
    return document


def result(document: Document, ident: str) -> dict[str, object]:
    return next(one for one in document["results"] if one["id"] == ident)  # type: ignore[attr-defined]


def test_a_matched_row_differs_in_the_attribute_and_nothing_else(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, frame(3)))
    answers = answers_of(table, ["gender"], True)
    assert answers.values == ("man", "woman")
    assert answers.members.shape == (6, 2, 1)
    assert answers.sets.tolist() == [0, 0, 1, 1, 2, 2]
    assert answers.within["age"].tolist() == ["old", "young"] * 3
    assert len(answers) == 3


def test_csv_and_parquet_in_any_order_of_rows_give_the_same_numbers(tmp_path: Path) -> None:
    rows = frame(shift=0.1)
    first, _ = table_audit.audit_table(written(tmp_path, rows), table_audit.Choices())
    mixed = rows.sample(frac=1, random_state=1)
    second, _ = table_audit.audit_table(
        written(tmp_path, mixed, "scores.parquet"), table_audit.Choices()
    )
    for ours, theirs in zip(first["results"], second["results"], strict=True):
        assert ours["id"] == theirs["id"]
        assert ours.get("estimate") == pytest.approx(theirs.get("estimate"), abs=1e-8)
        assert ours["verdict"] == theirs["verdict"]


def test_a_planted_shift_is_found_and_nothing_else_is(tmp_path: Path) -> None:
    document = audited(tmp_path, frame(200, shift=0.2))
    effect = result(document, "primary/gender-man-woman")
    assert effect["estimate"] == pytest.approx(-0.2, abs=0.02)
    assert effect["verdict"] == "found"
    assert effect["n_sets"] == 200
    assert result(document, "primary/age-old-young")["verdict"] == "not_found"


def test_a_limit_is_held_against_the_interval_and_not_the_estimate(tmp_path: Path) -> None:
    tight = audited(tmp_path, frame(200, shift=0.2), limit=0.05)
    assert result(tight, "primary/gender-man-woman")["against_limit"] == "limit_exceeded"
    assert result(tight, "primary/age-old-young")["against_limit"] == "within_limit"
    edge = audited(tmp_path, frame(200, shift=0.2), limit=0.2)
    assert result(edge, "primary/gender-man-woman")["against_limit"] == "undecided"


def test_bias_that_cancels_out_over_all_is_found_at_the_intersection(tmp_path: Path) -> None:
    rows = frame(300, 3)
    crossed = (rows["gender"] == "man") == (rows["age"] == "old")
    rows.loc[crossed, "score"] += 0.2
    document = audited(tmp_path, rows)
    assert result(document, "primary/gender-man-woman")["verdict"] == "not_found"
    name = "paired_effect_in_stratum/age={}/gender/man-woman/all queries"
    old, young = (result(document, name.format(age)) for age in ("old", "young"))
    assert old["estimate"] == pytest.approx(-0.2, abs=0.02)
    assert young["estimate"] == pytest.approx(0.2, abs=0.02)
    assert old["verdict"] == young["verdict"] == "found"


def test_predictions_alone_are_audited_by_rates(tmp_path: Path) -> None:
    rows = frame(200, shift=0.5)
    rows["prediction"] = np.where(rows["score"] > 0, "hire", "reject")
    document = audited(tmp_path, rows.drop(columns="score"), words=Words("hire"))
    gap = result(document, "selection_rate_difference/gender/man-woman")
    by_group = (rows["prediction"] == "hire").groupby(rows["gender"]).mean()
    assert gap["estimate"] == pytest.approx(by_group["woman"] - by_group["man"], abs=1e-9)
    assert gap["verdict"] == "found"
    primary = result(document, "primary/gender-man-woman")
    assert (primary["unit"], primary["estimate"]) == (
        "share selected",
        pytest.approx(gap["estimate"]),
    )
    joint = result(document, "selection_rate/gender+age/woman, old")
    assert joint["verdict"] == "descriptive"


def test_words_without_a_positive_one_are_audited_by_whether_they_are_right(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    rows = frame(100).drop(columns="score")
    rows["label"] = np.where(rows["gender"] == "man", "his", "her")
    right = rng.random(len(rows)) < np.where(rows["gender"] == "man", 0.9, 0.5)
    rows["prediction"] = np.where(right, rows["label"], "their")
    primary = result(audited(tmp_path, rows), "primary/gender-man-woman")
    share = pd.Series(right).groupby(rows["gender"]).mean()
    assert primary["unit"] == "share right"
    assert primary["estimate"] == pytest.approx(share["woman"] - share["man"], abs=1e-9)
    assert primary["verdict"] == "found"
    bare = audited(tmp_path, rows.drop(columns="label"))
    assert [one for one in bare["results"] if one["family"] == "primary"] == []  # type: ignore[attr-defined]
    assert result(bare, "counterfactual_flip_rate/gender")["estimate"] > 0


def test_words_of_abstention_are_no_decisions(tmp_path: Path) -> None:
    rows = frame(60)
    rows["prediction"] = np.resize(["yes", "no", "unclear"], len(rows))
    table = read_table(written(tmp_path, rows), words=Words("yes", ("unclear",)))
    decisions = decisions_of(table, ["gender"])
    assert decisions.abstained.sum() == 80
    assert np.isnan(decisions.decided).sum() == 80
    assert (decisions.decided == 1).sum() == 80


def test_sources_give_a_placebo_floor(tmp_path: Path) -> None:
    rows = frame(100, shift=0.01)
    rows["role"] = "member"
    sources = rows[(rows["gender"] == "man") & (rows["age"] == "old")].copy()
    sources["role"], sources["score"] = "source", sources["score"] + 0.05
    document = audited(tmp_path, pd.concat([rows, sources]))
    primary = result(document, "primary/gender-man-woman")
    assert primary["placebo_sets"] == 100
    assert primary["placebo_floor"] == pytest.approx(0.05)
    assert "within_placebo_floor" in primary["reasons"]


def test_many_queries_are_pooled_and_few_are_audited_one_by_one(tmp_path: Path) -> None:
    few = pd.concat([frame(40, seed).assign(query=f"q{seed}") for seed in range(3)])
    document = audited(tmp_path, few)
    assert list(document["prompts"]) == ["q0", "q1", "q2"]
    assert result(document, "effect/gender/man-woman/q1")["n_sets"] == 40
    many = frame(60)
    many["query"] = many["set_id"] + "?"
    assert list(audited(tmp_path, many)["prompts"]) == ["all queries"]


# --- bad input ----------------------------------------------------------------------------


def test_rows_that_can_not_be_used_are_kept_with_their_reason(tmp_path: Path) -> None:
    rows = frame(60)
    rows.loc[0, "score"] = np.inf
    rows.loc[1, "score"] = np.nan
    rows.loc[2, "set_id"] = None
    rows.loc[3, "gender"] = None
    rows = pd.concat([rows, rows.iloc[[10]]])
    document, table = table_audit.audit_table(written(tmp_path, rows), table_audit.Choices())
    assert document["rows"] == {
        "delivered": 241,
        "used": 235,
        "rejected": {
            "score_is_not_a_finite_number": 1,
            "no_score_and_no_prediction": 1,
            "set_id_is_missing": 1,
            "attribute_value_is_missing": 1,
            "duplicate_of_another_row": 2,
        },
    }
    paths = table_audit.write(tmp_path / "out", document, table)
    kept = pq.read_table(paths[1]).to_pandas()
    assert len(kept) == 6
    assert set(kept["reason"]) == set(document["rows"]["rejected"])  # type: ignore[index]


def test_constant_scores_have_no_effect_and_no_effect_size(tmp_path: Path) -> None:
    document = audited(tmp_path, frame(60).assign(score=0.25))
    primary = result(document, "primary/gender-man-woman")
    assert (primary["estimate"], primary["p"], primary["verdict"]) == (0.0, 1.0, "not_found")
    size = result(document, "weat_effect_size/gender/man-woman/all queries")
    assert (size["verdict"], size["why"]) == ("undefined", "the scores are constant")
    json.dumps(document, allow_nan=False)


def test_a_group_alone_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    men = frame(60)
    men = men[men["gender"] == "man"]
    assert audited(tmp_path, men)["undeclared"] == ["gender=man"]
    with pytest.raises(AuditError, match="gender=man is the only value"):
        audited(tmp_path, men.drop(columns="age").drop_duplicates("set_id"))


def test_an_empty_cell_is_insufficient_and_listed(tmp_path: Path) -> None:
    rows = frame(60)
    few = rows[(rows["gender"] == "man") | (rows["set_id"] < "s0004")]
    document = audited(tmp_path, few)
    primary = result(document, "primary/gender-man-woman")
    assert (primary["verdict"], primary["n_sets"]) == ("insufficient", 4)
    assert "estimate" not in primary


def test_k_beyond_the_pool_is_undefined_and_says_so(tmp_path: Path) -> None:
    document = audited(tmp_path, frame(60), top_k=1000)
    skew = result(document, "max_skew_at_k/gender/all queries")
    assert (skew["verdict"], skew["why"]) == ("undefined", "K is 1000 and the pool holds 240")


@pytest.mark.parametrize("sets", [60, 1200])
def test_k_may_be_the_whole_pool(tmp_path: Path, sets: int) -> None:
    # Resamples of many sets hold a few more or fewer members than the pool.
    rows = frame(sets).drop_duplicates(["set_id", "gender"]).drop(columns="age")
    document = audited(tmp_path, rows, top_k=2 * sets)
    skew = result(document, "max_skew_at_k/gender/all queries")
    assert skew["estimate"] == pytest.approx(0, abs=1e-9)
    assert skew["verdict"] == "not_found"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: rows.drop(columns="set_id"), "no column 'set_id'"),
        (lambda rows: rows.drop(columns="score"), "neither a column 'score' nor 'prediction'"),
        (lambda rows: rows.drop(columns=["gender", "age"]), "no attribute column"),
        (lambda rows: rows.assign(score="high"), "'score' holds what is no number"),
        (lambda rows: rows.iloc[:0], "no rows"),
        (lambda rows: rows.assign(age=range(len(rows))), "'age' has 240 values"),
        (lambda rows: rows.assign(set_id=None), "none of its 240 rows"),
        (lambda rows: rows.assign(role="source"), "every usable row has the role 'source'"),
    ],
)
def test_a_table_that_can_not_be_used_says_why(tmp_path: Path, change: object, says: str) -> None:
    path = written(tmp_path, change(frame(60)))  # type: ignore[operator]
    with pytest.raises(AuditError, match=says):
        table_audit.audit_table(path, table_audit.Choices())


@pytest.mark.parametrize("name", ["score", "gender"])
def test_a_column_of_lists_is_refused_by_name(tmp_path: Path, name: str) -> None:
    rows = frame(60)
    rows[name] = [[value] for value in rows[name]]
    path = written(tmp_path, rows, "scores.parquet")
    with pytest.raises(AuditError, match=f"column '{name}' holds list"):
        table_audit.audit_table(path, table_audit.Choices())


def test_the_command_prints_what_was_found_and_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CF_LAB_HOME", str(tmp_path / "home"))
    path = written(tmp_path, frame(100, shift=0.3))
    done = CliRunner().invoke(
        cli.app, ["audit", str(path), "--out", str(tmp_path / "out"), "--model", "m1"]
    )
    assert done.exit_code == 0, done.output
    assert "m1" in done.output
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert document["schema"] == metrics.SCHEMA
    assert result(document, "primary/gender-man-woman")["verdict"] == "found"
