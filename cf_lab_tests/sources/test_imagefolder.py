from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cf_lab_assets.sources import rows as rows_module
from cf_lab_assets.sources.imagefolder import read_metadata
from cf_lab_assets.sources.refusals import DeliveryRefused, Rejected
from cf_lab_assets.sources.rows import Row


def read(path: Path) -> list[Row | Rejected]:
    with path.open("rb") as file:
        return list(read_metadata(file, path.name))


def of(folder: Path, name: str, content: str | bytes) -> list[Row | Rejected]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read(path)


def refused(folder: Path, name: str, content: str | bytes) -> DeliveryRefused:
    with pytest.raises(DeliveryRefused) as caught:
        of(folder, name, content)
    assert name in str(caught.value)
    return caught.value


def test_csv_with_quotes_line_breaks_and_blank_lines(tmp_path: Path) -> None:
    content = 'file_name,text,note\r\na.png,"one, two\nthree",x\r\n\r\nb.png,"a ""b""",\r\n'
    assert of(tmp_path, "metadata.csv", content) == [
        Row(1, "a.png", "one, two\nthree", {"note": "x"}),
        Row(2, "b.png", 'a "b"', {"note": ""}),
    ]


def test_csv_of_excel_with_a_byte_order_mark(tmp_path: Path) -> None:
    rows = of(tmp_path, "metadata.csv", b"\xef\xbb\xbffile_name,text\r\na.png,caf\xc3\xa9\r\n")
    assert rows == [Row(1, "a.png", "café", {})]


def test_csv_of_pandas_with_an_index_column(tmp_path: Path) -> None:
    rows = of(tmp_path, "metadata.csv", ",file_name,text\n0,a.png,hello\n")
    assert rows == [Row(1, "a.png", "hello", {"column_1": "0"})]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("b.png,one,two,three", "4 fields where the header has 2"),
        ("b.png", "1 fields"),
        ('b.png,"x"y', "not valid CSV"),
        ("b.png," + "x" * 200_000, "not valid CSV"),
    ],
)
def test_a_malformed_csv_row_is_rejected_and_reading_goes_on(
    tmp_path: Path, line: str, said: str
) -> None:
    first, bad, last = of(
        tmp_path, "metadata.csv", f"file_name,text\na.png,one\n{line}\nc.png,three\n"
    )
    assert first == Row(1, "a.png", "one", {})
    assert isinstance(bad, Rejected)
    assert (bad.row, bad.reason) == (2, "malformed_row")
    assert said in bad.detail
    assert last == Row(3, "c.png", "three", {})


def test_a_quote_that_is_never_closed_is_rejected(tmp_path: Path) -> None:
    rows = of(tmp_path, "metadata.csv", 'file_name,text\na.png,one\nb.png,"two\nc.png,three\n')
    assert [type(row) for row in rows] == [Row, Rejected]
    assert "unexpected end of data" in rows[1].detail


def test_json_lines(tmp_path: Path) -> None:
    content = (
        '{"file_name": "a.png", "text": "one", "n": 1.5, "ok": true, "none": null, "l": [1]}\n'
        "\n"
        '{"text": "two", "file_name": "b.png"}'
    )
    assert of(tmp_path, "metadata.jsonl", content) == [
        Row(1, "a.png", "one", {"n": "1.5", "ok": "true", "l": "[1]"}),
        Row(2, "b.png", "two", {}),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"file_name": "b.png", "text": ', "not valid JSON"),
        ("[1, 2]", "one JSON object"),
        ("[" * 100_000, "JSON"),
        ('{"file_name": "b.png", "text": 5}', "`text` must be a string"),
        ('{"file_name": ["b.png"], "text": "x"}', "`file_name` must be a string"),
        ('{"file_name": "b.png", "text": "x", "n": ' + "9" * 5000 + "}", "not valid JSON"),
    ],
)
def test_a_malformed_json_line_is_rejected_and_reading_goes_on(
    tmp_path: Path, line: str, said: str
) -> None:
    good = '{"file_name": "a.png", "text": "one"}'
    rows = of(tmp_path, "metadata.jsonl", f"{good}\n{line}\n{good}\n")
    assert [type(row) for row in rows] == [Row, Rejected, Row]
    assert (rows[1].row, rows[1].reason) == (2, "malformed_row")
    assert said in rows[1].detail
    assert rows[2].number == 3


def test_parquet_of_every_kind_of_column(tmp_path: Path) -> None:
    table = pa.table(
        {
            "file_name": pa.array(["a.png", "b.png"], pa.large_string()),
            "text": pa.array(["one", None]).dictionary_encode(),
            "n": pa.array([1, None], pa.int8()),
            "day": pa.array([0, 1], pa.date32()),
            "raw": pa.array([b"\xff", None]),
            "score": pa.array([0.5, float("nan")]),
            "tags": pa.array([["x"], []]),
        }
    )
    path = tmp_path / "metadata.parquet"
    pq.write_table(table, path)
    assert read(path) == [
        Row(
            1,
            "a.png",
            "one",
            {"n": "1", "day": "1970-01-01", "raw": "ff", "score": "0.5", "tags": '["x"]'},
        ),
        Row(2, "b.png", "", {"day": "1970-01-02", "tags": "[]"}),
    ]


def test_parquet_strings_that_are_not_utf8_reach_the_row(tmp_path: Path) -> None:
    text = pa.array([b"caf\xe9", b"fine"]).view(pa.string())
    path = tmp_path / "metadata.parquet"
    pq.write_table(pa.table({"file_name": ["a.png", "b.png"], "text": text}), path)
    assert [row.text for row in read(path)] == ["caf\udce9", "fine"]


def test_parquet_rows_of_the_wrong_kind_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "metadata.parquet"
    pq.write_table(pa.table({"file_name": ["a.png"], "text": [3]}), path)
    (row,) = read(path)
    assert isinstance(row, Rejected)
    assert "`text` must be a string" in row.detail


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
@pytest.mark.parametrize("column", ["file_name", "text"])
def test_a_missing_required_column_is_named(tmp_path: Path, name: str, column: str) -> None:
    row = {"file_name": "a.png", "text": "hello", "other": "x"}
    del row[column]
    path = tmp_path / name
    if name.endswith("csv"):
        path.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    elif name.endswith("jsonl"):
        path.write_text(json.dumps(row) + "\n")
    else:
        pq.write_table(pa.table({key: [value] for key, value in row.items()}), path)
    with pytest.raises(DeliveryRefused, match=f"no column `{column}`.*'other'") as caught:
        read(path)
    assert caught.value.reason == "missing_column"


def test_a_column_that_only_some_json_lines_have_is_not_missing(tmp_path: Path) -> None:
    rows = of(tmp_path, "metadata.jsonl", '{"text": "x"}\n{"file_name": "a.png", "text": "y"}\n')
    assert [row.file_name for row in rows] == ["", "a.png"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metadata.csv", b"", "is empty"),
        ("metadata.csv", "file_name,text\n".encode("utf-16"), "UTF-16"),
        ("metadata.csv", "file_name,text\n".encode("utf-16-be"), "UTF-16"),
        ("metadata.csv", b"file_name,text,caf\xe9\na.png,x,y\n", "not UTF-8 in its first line"),
        ("metadata.csv", b"file_name,text,x,x\n", "'x' twice"),
        ("metadata.csv", b'file_name,"text\n', "not valid CSV"),
        ("metadata.jsonl", '{"file_name": "a"}'.encode("utf-16"), "UTF-16"),
        ("metadata.parquet", b"PAR1 and then nothing", "can't be read as Parquet"),
        ("metadata.parquet", b"", "can't be read as Parquet"),
    ],
)
def test_metadata_that_can_not_be_read_at_all(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    error = refused(tmp_path, name, content)
    assert error.reason == "unreadable_metadata"
    assert said in str(error)


def test_a_line_without_end_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "MAX_LINE_BYTES", 1000)
    error = refused(tmp_path, "metadata.jsonl", b"{" * 5000)
    assert "line 1" in str(error)


def test_bytes_that_are_not_utf8_reach_the_row_and_not_the_file(tmp_path: Path) -> None:
    rows = of(tmp_path, "metadata.csv", b"file_name,text\na.png,caf\xe9\nb.png,fine\n")
    assert [row.text for row in rows] == ["caf\udce9", "fine"]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_memory_stays_flat_whatever_the_number_of_rows(tmp_path: Path, name: str) -> None:
    count, text = 30_000, "some words of a caption " * 8
    path = tmp_path / name
    if name.endswith("parquet"):
        names = [f"{i}.png" for i in range(count)]
        pq.write_table(pa.table({"file_name": names, "text": [text] * count}), path)
    else:
        row = {"file_name": "a.png", "text": text}
        line, head = (
            (json.dumps(row), "")
            if name.endswith("jsonl")
            else (f"a.png,{text}", "file_name,text\n")
        )
        path.write_text(head + f"{line}\n" * count)
    assert path.stat().st_size > 100_000
    with path.open("rb") as file:
        rows = read_metadata(file, name)
        next(rows)
        tracemalloc.start()
        try:
            assert sum(1 for _ in rows) == count - 1
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 1_500_000
