"""Documents of the reviews: a key of one form, one a day, the newest ones read back."""

from __future__ import annotations

from datetime import date

import pytest

from cf_lab_assets.operations.documents import (
    DocumentDamaged,
    document_key,
    keep,
    kept,
    parse_document_key,
)

DAYS = [date(2026, 10, 1), date(2027, 1, 1), date(2027, 4, 1)]


def test_a_key_is_read_back_and_others_are_refused():
    key = document_key("capacity", DAYS[0])
    assert key == "operations/capacity/2026-10-01.json"
    assert parse_document_key(key) == ("capacity", DAYS[0])
    for other in ("operations/capacity/2026-10-01.txt", "other/capacity/2026-10-01.json"):
        with pytest.raises(ValueError, match="not the key of a review's document"):
            parse_document_key(other)


def test_the_newest_documents_come_back_oldest_first(bucket):
    for number, day in enumerate(DAYS):
        keep(bucket, "capacity", day, {"number": number})
    keep(bucket, "configuration", DAYS[0], {"number": 9})
    bucket.put_bytes("operations/capacity/notes.txt", b"not a document")
    found = kept(bucket, "capacity", 2)
    assert list(found) == DAYS[1:]
    assert [one["number"] for one in found.values()] == [1, 2]
    assert found[DAYS[1]]["date"] == "2027-01-01"


def test_a_second_review_of_a_day_replaces_the_first(bucket):
    assert keep(bucket, "capacity", DAYS[0], {"number": 1}) == keep(
        bucket, "capacity", DAYS[0], {"number": 2}
    )
    assert [one["number"] for one in kept(bucket, "capacity", 9).values()] == [2]


@pytest.mark.parametrize("damaged", [b"", b'{"date": ', b"[]", b"\xff"])
def test_a_damaged_document_is_named(bucket, damaged):
    bucket.put_bytes(document_key("capacity", DAYS[0]), damaged)
    with pytest.raises(DocumentDamaged, match=r"capacity/2026-10-01.json .* restore it"):
        kept(bucket, "capacity", 9)
