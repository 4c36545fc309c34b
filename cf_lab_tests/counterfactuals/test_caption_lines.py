import io
import json

import pytest

from cf_lab_assets.counterfactuals.caption_lines import (
    MOST_BYTES,
    read_lines,
    rewrite_lines,
    targets,
)
from cf_lab_assets.counterfactuals.rewrite import Rewriter
from cf_lab_assets.counterfactuals.taxonomy import TaxonomyError, load_taxonomy

TAXONOMY = load_taxonomy()


def rewritten(lines, attributes, to=()):
    wanted = targets(TAXONOMY, attributes, to)
    return [json.loads(line) for line in rewrite_lines(lines, Rewriter(TAXONOMY), wanted)]


def test_lines_and_json_lines_come_out_in_their_order():
    lines = [b"a woman\n", b'{"caption": "A man with his dog", "id": 7}\n']
    out = rewritten(lines, ["gender"], ["man", "woman", "nonbinary"])
    assert [(one["caption"], one["from"], one["to"]) for one in out] == [
        ("a woman", "woman", "man"),
        ("a woman", "woman", "woman"),
        ("a woman", "woman", "nonbinary"),
        ("A man with his dog", "man", "man"),
        ("A man with his dog", "man", "woman"),
        ("A man with his dog", "man", "nonbinary"),
    ]
    assert out[4]["counterfactual"] == "A woman with her dog"
    assert {change["rule"] for change in out[4]["explanation"]} == {"noun", "pronoun: determiner"}


def test_several_attributes_are_intersected():
    out = rewritten([b"a doctor"], ["gender", "race"], ["woman", "Black", "Asian"])
    assert [one["counterfactual"] for one in out] == [
        "a Black female doctor",
        "an Asian female doctor",
    ]
    assert out[0]["attribute"] == ["gender", "race"]
    assert out[0]["to"] == {"gender": "woman", "race": "Black"}


def test_refusals_keep_their_place_with_a_reason():
    out = rewritten([b"a woman and a man", b"a man"], ["gender"], ["woman"])
    assert out[0]["refused"]["reason"] == "several_people"
    assert "counterfactual" not in out[0]
    assert out[1]["counterfactual"] == "a woman"


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        b"{broken",
        b'{"text": "a man"}',
        b'{"caption": 3}',
        b"x" * 2_000_000,
        b"a man " * 3000,
        b'{"caption": "\\ud800"}',
    ],
)
def test_a_line_without_a_caption_is_refused_and_the_next_one_read(line):
    bad, good = rewritten([line, b"a man"], ["gender"], ["woman"])
    assert bad["refused"]["reason"] == "bad_line"
    assert good["counterfactual"] == "a woman"


def test_a_byte_order_mark_is_no_part_of_the_first_caption():
    file = io.BytesIO(b'\xef\xbb\xbf{"caption": "a man"}\na man')
    lines = read_lines(file)
    assert [one["caption"] for one in rewritten(lines, ["gender"], ["woman"])] == ["a man"] * 2


def test_a_line_that_never_ends_is_not_held():
    asked = set()

    class Watched(io.BytesIO):
        def readline(self, size=-1):
            asked.add(size)
            return super().readline(size)

    file = Watched(b"x" * 5 * MOST_BYTES + b"\n" + b"y" * (MOST_BYTES - 1) + b"\na man")
    lengths = [len(line) for line in read_lines(file)]
    assert lengths == [MOST_BYTES + 1, MOST_BYTES, 5]
    assert asked == {MOST_BYTES + 1}


def test_values_that_no_attribute_has_are_refused():
    with pytest.raises(TaxonomyError, match="'purple' is no value of gender"):
        targets(TAXONOMY, ["gender"], ["purple"])
    with pytest.raises(TaxonomyError, match="not in the taxonomy"):
        targets(TAXONOMY, ["colour"], [])
    with pytest.raises(TaxonomyError, match=r"no attribute is named; use .*gender"):
        targets(TAXONOMY, [], [])
