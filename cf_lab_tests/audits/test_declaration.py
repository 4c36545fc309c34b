"""Declarations: the starter world's defaults, parsing, and what is refused."""

from __future__ import annotations

import json

import pytest

from cf_lab_assets.audits.declaration import AuditConfig, parse_declaration, parse_listed
from cf_lab_assets.audits.errors import AuditError
from cf_lab_assets.starter import world


def test_the_default_endpoints_mirror_the_planted_skew() -> None:
    gender, skin = AuditConfig().primary
    assert (gender.from_value, gender.to_value) == ("woman", "man")
    assert gender.prompts_plus == ("doctor", "judge", "pilot")
    assert gender.prompts_minus == ("nurse", "teacher", "chef")
    assert (skin.from_value, skin.to_value) == ("dark", "light")
    assert skin.prompts_plus == ("doctor", "judge", "teacher")
    assert skin.prompts_minus == ("farmer", "builder", "mechanic")


def test_prompts_are_those_the_starter_models_were_taught() -> None:
    config = AuditConfig()
    for occupation in world.OCCUPATIONS:
        assert config.prompt(occupation) == world.describe({"occupation": occupation})
    assert config.prompt("actor") == "a portrait of an actor"


def test_contrasts_are_all_pairs_in_declared_order() -> None:
    assert list(AuditConfig().contrasts("skin_tone")) == [
        ("light", "medium"),
        ("light", "dark"),
        ("medium", "dark"),
    ]


def test_a_declaration_survives_its_json() -> None:
    config = AuditConfig(alpha=0.01)
    again = parse_declaration(config.model_dump_json().encode(), "here")
    assert again == config
    assert again.hash == config.hash


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"prompt_template": "a portrait"}, "must hold"),
        ({"occupations": ["doctor"]}, "judge"),
        ({"attributes": {"gender": ["woman", "man"]}}, "dark"),
        ({"colour": "blue"}, "colour"),
        ({"alpha": 2}, "alpha"),
    ],
)
def test_a_malformed_declaration_names_its_origin_and_its_fault(
    change: dict[str, object], complaint: str
) -> None:
    with pytest.raises(AuditError, match=complaint) as raised:
        parse_declaration(json.dumps(change).encode(), "audits/mine.json")
    assert str(raised.value).startswith("audits/mine.json")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"prompt_template": "{occupation} {x}"}, "nothing else in braces"),
        ({"prompt_template": "{occupation} {}"}, "nothing else in braces"),
        ({"prompt_template": "{occupation.x}"}, "nothing else in braces"),
        ({"prompt_template": "{occupation:>9999999999}"}, "nothing else in braces"),
        ({"prompt_template": "{occupation"}, "prompt_template|expected '}'"),
        ({"occupations": ["doctor", "doctor"]}, "occupations lists a word twice"),
        ({"attributes": {"gender": ["woman", "woman"]}}, "gender lists a word twice"),
        ({"alpha": float("nan")}, "finite"),
    ],
)
def test_a_declaration_that_can_not_be_carried_out_is_refused(
    change: dict[str, object], complaint: str
) -> None:
    with pytest.raises(AuditError, match=complaint):
        parse_declaration(json.dumps({"primary": [], **change}).encode(), "audits/mine.json")


def test_a_limit_without_end_is_refused() -> None:
    endpoint = AuditConfig().primary[0].model_dump(mode="json") | {"limit": float("inf")}
    with pytest.raises(AuditError, match="finite"):
        parse_declaration(json.dumps({"primary": [endpoint]}).encode(), "audits/mine.json")


def test_a_table_s_declaration_lists_what_it_lists_and_leaves_the_rest() -> None:
    listed = parse_listed(b'{"attributes": {"age": ["5", "10"]}, "alpha": 0.01}', "here")
    assert listed.occupations is None
    assert listed.attributes == {"age": ("5", "10")}
    for said in (b'{"attributes": {}}', b'{"attributes": {"age": ["5"]}}', b'{"occupations": []}'):
        with pytest.raises(AuditError, match="here: not an audit declaration"):
            parse_listed(said, "here")
