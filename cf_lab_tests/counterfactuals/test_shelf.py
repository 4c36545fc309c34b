from contextlib import closing

import pytest

from cf_lab_assets.counterfactuals import scores, tables
from cf_lab_assets.counterfactuals.shelf import Shelf


@pytest.fixture
def shelf(tmp_path):
    with closing(Shelf(tmp_path / "rows")) as opened:
        yield opened


def test_rows_are_looked_up_by_kind_and_key_and_the_first_one_stays(shelf):
    assert shelf.put("pair", "a", {"cits": 0.8123, "values": {"age": "old"}, "none": None})
    assert not shelf.put("pair", "a", {"cits": 0.1})
    assert shelf.put("set", "a", {"of": "another kind"})
    assert shelf.get("pair", "a") == {"cits": 0.8123, "values": {"age": "old"}, "none": None}
    assert shelf.has("pair", "a")
    assert not shelf.has("pair", "b")
    with pytest.raises(KeyError):
        shelf.get("pair", "b")


def test_rows_come_in_the_order_of_python_s_strings(shelf):
    keys = ["b", "a-man", "a", "ä", "Z", "a+b", "\U0001f600", "\uffff", "10", "9"]
    for key in keys:
        shelf.put("pair", key, {"key": key})
        shelf.put("set", key, {})
    assert [row["key"] for row in shelf.in_order("pair")] == sorted(keys)
    shelf.clear("pair")
    assert list(shelf.in_order("pair")) == []
    assert len(list(shelf.in_order("set"))) == len(keys)


def test_who_stops_reading_a_table_midway_leaves_no_copy_of_it(bucket, tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tables.tempfile, "tempdir", str(tmp_path / "scratch"))
    rows = [{"source_id": str(n), "attribute": "age"} for n in range(3 * tables.ROWS_AT_ONCE)]
    with tables.staged("refused_edits") as staged:
        for row in rows:
            staged.add("refused_edits", row)
        assert [row["source_id"] for row in staged.rows("refused_edits")][-1] == rows[-1][
            "source_id"
        ]
        staged.put(bucket, "b", "refused_edits")
    stream = tables.stream_rows(bucket, tables.batch_key("b", "refused_edits"), ["source_id"])
    assert next(stream) == {"source_id": "0"}
    assert list((tmp_path / "scratch").iterdir()) == []
    assert len(list(stream)) == len(rows) - 1


class Encoder:
    """Embeds texts and counts them."""

    def __init__(self):
        self.embedded = 0

    def embed_texts(self, sentences):
        import numpy as np

        self.embedded += len(sentences)
        return np.array([[float(len(text)), 1.0] for text in sentences], np.float32)


def test_a_judge_remembers_sentences_and_not_all_of_them_for_ever(monkeypatch):
    monkeypatch.setattr(scores, "TEXTS_KEPT", 10)
    encoder = Encoder()
    judge = scores.Judge(encoder, None, None, {})
    for number in range(100):
        found = judge.embed_texts(["the same", "x" * number, "x" * number])
        assert found.tolist() == [[8.0, 1.0], [number, 1.0], [number, 1.0]]
        assert len(judge._texts) <= 10 + 2
    assert 100 < encoder.embedded < 120
