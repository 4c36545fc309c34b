"""Anyone's scores: what is read, what is refused and why, and what the audit says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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

Document = dict[str, Any]


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


def audited(folder: Path, rows: pd.DataFrame, **choices: Any) -> Document:
    document, _ = table_audit.audit_table(
        written(folder, rows),
        table_audit.Choices(**choices),
    )
    return document


def result(document: Document, ident: str) -> Document:
    return next(one for one in document["results"] if one["id"] == ident)


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
    assert [one for one in bare["results"] if one["family"] == "primary"] == []
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
    assert set(kept["reason"]) == set(document["rows"]["rejected"])


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
def test_a_table_that_can_not_be_used_says_why(tmp_path: Path, change: Any, says: str) -> None:
    path = written(tmp_path, change(frame(60)))
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


# --- declarations ---------------------------------------------------------------------------


def asked(queries: tuple[str, ...], sets: int = 40) -> pd.DataFrame:
    """Every member of `frame` under each query; men score higher under `ceo` alone."""
    rows = pd.concat([frame(sets, seed).assign(query=q) for seed, q in enumerate(queries)])
    rows.loc[(rows["query"] == "ceo") & (rows["gender"] == "man"), "score"] += 1.0
    return rows


def declared(folder: Path, **fields: object) -> Path:
    path = folder / "declaration.json"
    path.write_text(json.dumps({"bootstrap_draws": 200, "permutations": 999, **fields}))
    return path


def endpoint(**fields: object) -> dict[str, object]:
    return {
        "name": "one",
        "attribute": "gender",
        "from_value": "woman",
        "to_value": "man",
        "prompts_plus": ["all queries"],
    } | fields


@pytest.mark.parametrize("order", [("ceo", "nurse"), ("nurse", "ceo")])
def test_numbers_keep_their_query_in_whatever_order_it_is_declared(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    declaration = declared(tmp_path, occupations=order)
    document = audited(tmp_path, asked(("ceo", "nurse")), declaration=declaration)
    assert list(document["prompts"]) == list(order)
    assert result(document, "effect/gender/man-woman/ceo")["verdict"] == "found"
    assert result(document, "effect/gender/man-woman/nurse")["verdict"] == "not_found"
    size = "weat_effect_size/gender/man-woman/{}"
    assert result(document, size.format("ceo"))["verdict"] == "found"
    assert result(document, size.format("nurse"))["verdict"] == "not_found"


def test_queries_that_are_not_declared_are_rejected(tmp_path: Path) -> None:
    primary = [endpoint(prompts_plus=["nurse"])]
    declaration = declared(tmp_path, occupations=["nurse"], primary=primary)
    document = audited(tmp_path, asked(("ceo", "nurse")), declaration=declaration)
    assert document["rows"]["rejected"] == {"query_is_not_declared": 160}
    assert result(document, "primary/one")["verdict"] == "not_found"


def test_declared_queries_are_audited_one_by_one_and_all_queries_are_pooled(
    tmp_path: Path,
) -> None:
    rows = asked(("ceo", "nurse"))
    rows = rows[(rows["query"] == "ceo") | (rows["set_id"] < "s0030")]
    one_by_one = audited(
        tmp_path, rows, declaration=declared(tmp_path, occupations=["nurse", "ceo"], primary=[])
    )
    assert result(one_by_one, "effect/gender/man-woman/nurse")["n_sets"] == 30
    pooled = audited(
        tmp_path, rows, declaration=declared(tmp_path, occupations=["all queries"], primary=[])
    )
    assert result(pooled, "effect/gender/man-woman/all queries")["n_sets"] == 40


def test_contrasts_go_from_an_earlier_declared_value_to_a_later(tmp_path: Path) -> None:
    values = ["woman", "man"]
    declaration = declared(tmp_path, attributes={"gender": values})
    document = audited(tmp_path, frame(60, shift=0.2), declaration=declaration)
    assert result(document, "primary/gender-woman-man")["estimate"] > 0.1
    assert document["undeclared"] == ["age=old", "age=young"]


def test_a_declared_value_that_never_occurs_is_insufficient(tmp_path: Path) -> None:
    declaration = declared(
        tmp_path,
        attributes={"gender": ["man", "woman", "nonbinary"]},
        primary=[endpoint(from_value="nonbinary"), endpoint(name="two")],
    )
    rows = frame(60).assign(prediction=1, label=1)
    document = audited(tmp_path, rows, declaration=declaration)
    assert document["counts"]["gender"]["members"]["nonbinary"] == 0
    assert result(document, "primary/one")["verdict"] == "insufficient"
    assert result(document, "primary/two")["verdict"] == "not_found"
    assert result(document, "selection_rate/gender/nonbinary")["verdict"] == "insufficient"


def test_a_value_that_is_not_declared_is_rejected_and_listed(tmp_path: Path) -> None:
    rows = pd.concat([frame(60), frame(60).assign(gender="other").drop_duplicates("set_id")])
    declaration = declared(tmp_path, attributes={"gender": ["man", "woman"]}, primary=[])
    document = audited(tmp_path, rows, declaration=declaration)
    assert document["rows"]["rejected"] == {"attribute_value_is_not_declared": 60}
    assert document["undeclared"] == ["age=old", "age=young", "gender=other"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"occupations": ["ceo"], "primary": []}, "queries .occupations. 'ceo', and the table has"),
        ({"attributes": {"sex": ["m", "f"]}}, "attributes sex, and the attribute columns are"),
        ({"attributes": {"gender": ["man"]}}, "at least 2 items"),
        ({"attributes": {"gender": ["Man", "Woman"]}}, "none of the declared.*holds 'man', 'woman"),
        ({"primary": [endpoint(to_value="boy")]}, "names what is not declared: .'boy'"),
        ({"prompt_template": "{occupation} {x}"}, "nothing else in braces"),
    ],
)
def test_a_declaration_that_does_not_fit_the_table_says_why(
    tmp_path: Path, fields: dict[str, object], says: str
) -> None:
    with pytest.raises(AuditError, match=says):
        audited(tmp_path, frame(40), declaration=declared(tmp_path, **fields))


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_limit_that_tolerates_nothing_is_refused(tmp_path: Path, limit: float) -> None:
    with pytest.raises(AuditError, match="tolerate an effect above 0"):
        audited(tmp_path, frame(40), limit=limit)


# --- words as they stand ----------------------------------------------------------------------


def test_a_row_without_a_query_is_rejected_and_overwrites_nothing(tmp_path: Path) -> None:
    rows = asked(("ceo", "nurse"))
    stray = frame(2).assign(query=None, score=1000.0)
    document = audited(tmp_path, pd.concat([rows, stray]))
    assert document["rows"]["rejected"] == {"query_is_missing": 8}
    clean = audited(tmp_path, rows)
    ident = "effect/gender/man-woman/nurse"
    assert result(document, ident)["estimate"] == result(clean, ident)["estimate"]


@pytest.mark.parametrize("name", ["scores.csv", "scores.parquet"])
def test_columns_without_any_entry_are_as_good_as_absent(tmp_path: Path, name: str) -> None:
    rows = frame(40).assign(query="", role=None, label=None, prediction="")
    table = read_table(written(tmp_path, rows, name))
    assert table.queries.words == ("all queries",)
    assert table.has == {"score"}
    assert len(table.sets) == 160


def test_ids_and_values_of_a_csv_are_words_and_no_numbers(tmp_path: Path) -> None:
    ids = ["01", "1", "1.0", "1e0", str(10**19), str(10**19 + 1), "NA", "null"]
    values = ["05", "5", "5.0", "1e1", "10", "NA", "true", "True"]
    rows = pd.DataFrame(
        [(one, value, 0.5) for one in ids for value in values], columns=["set_id", "age", "score"]
    )
    table = read_table(written(tmp_path, rows))
    assert table.set_ids == tuple(sorted(ids))
    assert table.attributes["age"].words == tuple(sorted(values))
    assert table.reasons == {}


def test_numbers_and_truth_values_of_a_parquet_are_their_plain_text(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {
            "set_id": [1.0, 1.0, 2.0**50, 20000000.0],
            "age": [5.0, 10.5, 5.0, np.nan],
            "veteran": pd.Categorical([True, False, True, True]),
            "score": pd.Categorical(["0.5", " 1e1 ", "NA", "2"]),
            "prediction": [1.0, 0.0, 1.0, 1.0],
        }
    )
    table = read_table(written(tmp_path, rows, "scores.parquet"), words=Words("1.0"))
    assert table.set_ids == ("1", "1125899906842624")
    assert table.attributes["age"].words == ("10.5", "5")
    assert table.attributes["veteran"].words == ("false", "true")
    np.testing.assert_equal(table.score, [0.5, 10.0, np.nan])
    assert table.decided.tolist() == [1.0, 2.0, 1.0]
    assert table.reasons == {"attribute_value_is_missing": 1}


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("scores.csv", "True", ["True", "False"]),
        ("scores.csv", "1.0", ["1.0", "0.0"]),
        ("scores.parquet", "True", [True, False]),
        ("scores.parquet", "true", [True, False]),
        ("scores.parquet", "1.0", [1, 0]),
        ("scores.parquet", "1", [1.0, 0.0]),
    ],
)
def test_the_positive_word_is_found_as_the_file_spells_it(
    tmp_path: Path, name: str, given: str, words: Any
) -> None:
    rows = frame(40)
    rows["prediction"] = np.where(rows["gender"] == "man", *words)
    path = written(tmp_path, rows, name)
    for meaning in (Words(given), Words()):
        decided = read_table(path, words=meaning).decided
        assert (decided == 1).sum() == 80


@pytest.mark.parametrize(
    ("columns", "words", "says"),
    [
        (("yes", "no"), Words("Yes"), "--positive names 'Yes'.*the words are 'no', 'yes'"),
        (("1.0", "0.0"), Words("1"), "--positive names '1'.*'0.0', '1.0'"),
        (("yes", "unclear"), Words("yes", ("Unclear",)), "--abstained names 'Unclear'"),
        (("0.25", "0.75"), Words(), "'0.25', '0.75', which are measurements"),
        (([*map(str, range(12))] * 14)[:160], Words("x"), "and 4 more"),
    ],
)
def test_a_word_that_never_occurs_is_refused(
    tmp_path: Path, columns: Any, words: Words, says: str
) -> None:
    rows = frame(40).assign(prediction=np.resize(columns, 160))
    with pytest.raises(AuditError, match=says):
        read_table(written(tmp_path, rows), words=words)


def test_the_words_of_a_table_without_predictions_are_none(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"names 'yes', which is no prediction.*words are none"):
        read_table(written(tmp_path, frame(40)), words=Words("yes"))


def test_predictions_and_labels_share_their_words(tmp_path: Path) -> None:
    rows = frame(40).assign(
        prediction=np.resize(["1", "0", "unclear"], 160),
        label=np.resize(["yes", "no", "unclear"], 160),
    )
    with pytest.raises(AuditError, match="predictions are '0', '1', labels 'no', 'yes'"):
        read_table(written(tmp_path, rows), words=Words(abstained=("unclear",)))
    spelt = rows.assign(label=np.resize(["True", "False"], 160), prediction="1")
    assert set(read_table(written(tmp_path, spelt)).label) == {0.0, 1.0}


def test_a_model_may_abstain_in_words_that_mean_nothing_elsewhere(tmp_path: Path) -> None:
    rows = frame(40).assign(prediction=np.resize(["yes", "N/A"], 160))
    table = read_table(written(tmp_path, rows), words=Words("yes", ("N/A",)))
    assert table.abstained.sum() == 80


# --- what the audit says of a table -------------------------------------------------------------


def test_it_is_said_that_nothing_counts_as_selected(tmp_path: Path) -> None:
    rows = frame(40).assign(prediction=np.resize(["yes", "no"], 160))
    (note,) = audited(tmp_path, rows)["notes"]
    assert "--positive" in note
    assert "'no', 'yes'" in note
    assert audited(tmp_path, rows, words=Words("yes"))["notes"] == []


def test_it_is_said_that_an_attribute_leaves_every_row_alone(tmp_path: Path) -> None:
    rows = frame(15).assign(batch=[f"b{row}" for row in range(60)])
    notes = audited(tmp_path, rows)["notes"]
    for name in ("gender", "age", "batch"):
        assert any(f"differ in {name} and in nothing else" in note for note in notes)
    assert audited(tmp_path, rows, attributes=("gender", "age"))["notes"] == []


def test_an_intersection_of_too_many_values_is_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        [
            (s, f"a{i:02}", f"b{rng.integers(15):02}", int(rng.integers(2)))
            for s in range(30)
            for i in range(15)
        ],
        columns=["set_id", "a", "b", "prediction"],
    )
    document = audited(tmp_path, rows, declaration=declared(tmp_path))
    assert {one["attribute"] for one in document["results"]} == {"a", "b"}
    assert any("intersection of a and b" in note for note in document["notes"])


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
def test_an_index_is_no_attribute(tmp_path: Path, name: str) -> None:
    rows = frame(10)
    rows.insert(0, name, range(len(rows)))
    path = written(tmp_path, rows)
    with pytest.raises(AuditError, match=r"column 1 has no name.*index=False.*--attributes"):
        read_table(path)
    assert list(read_table(path, ("gender", "age")).attributes) == ["gender", "age"]


@pytest.mark.parametrize("name", ["set_id", "score"])
def test_a_column_with_a_meaning_is_no_attribute(tmp_path: Path, name: str) -> None:
    with pytest.raises(AuditError, match=f"'{name}' has a meaning of its own"):
        read_table(written(tmp_path, frame(10)), ("gender", name))


def test_dates_are_no_scores(tmp_path: Path) -> None:
    rows = frame(10)
    for name, day in (("d.csv", "2024-01-01"), ("d.parquet", pd.Timestamp("2024-01-01"))):
        path = written(tmp_path, rows.assign(score=day), name)
        with pytest.raises(AuditError, match=r"'score' holds what is no number.*leave the column"):
            read_table(path)


def test_the_command_says_what_was_left_out_and_refuses_a_limit_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CF_LAB_HOME", str(tmp_path / "home"))
    path = written(tmp_path, frame(40).assign(prediction=np.resize(["yes", "no"], 160)))
    command = ["audit", str(path), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    assert "no word was named with --positive" in done.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert any("--positive" in one for one in report["body"]["limitations"])
    refused = CliRunner().invoke(cli.app, [*command, "--limit", "0"])
    assert isinstance(refused.exception, AuditError)


def test_scores_without_room_for_their_powers_are_rejected(tmp_path: Path) -> None:
    rows = frame(30)
    rows.loc[0, "score"] = 1e200
    document, table = table_audit.audit_table(written(tmp_path, rows), table_audit.Choices())
    assert document["rows"]["rejected"] == {"score_is_too_large": 1}
    assert len(table.rejected) == 1


@pytest.mark.parametrize(
    ("declared", "option", "choices"),
    [({"primary": []}, "--limit 0.1", {"limit": 0.1}), ({"top_k": 5}, "--k 7", {"top_k": 7})],
)
def test_an_option_that_a_declaration_overrides_is_refused(
    tmp_path: Path, declared: dict[str, object], option: str, choices: dict[str, Any]
) -> None:
    said = tmp_path / "declaration.json"
    said.write_text(json.dumps(declared))
    with pytest.raises(AuditError, match=f"{option} would be ignored"):
        table_audit.audit_table(
            written(tmp_path, frame(30)), table_audit.Choices(declaration=said, **choices)
        )
