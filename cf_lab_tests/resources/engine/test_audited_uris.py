"""The line that says which models are audited."""

from __future__ import annotations

import pytest

from cf_lab_resources.engine.audited_uris import (
    STARTERS,
    AuditedUri,
    AuditedUriError,
    parse_audited,
)
from cf_lab_resources.engine.model_uris import HUB
from cf_lab_resources.settings import DEFAULT_AUDITED, Settings, SettingsError


def test_every_kind_reads_back_to_what_it_was_made_from() -> None:
    line = (
        "a=hf://owner/name@main, b=file:///models/x,c=python://my.module:score#family=foo,"
        "d=https://host:8443/score#family=foo.2&authorization=SCORE_KEY&timeout=2.5"
    )
    found = parse_audited(line)
    assert ",".join(map(str, found)) == line.replace(", ", ",")
    assert [one.scheme for one in found] == ["hf", "file", "python", "https"]
    assert found[0].model is not None
    assert found[0].model.scheme == HUB
    assert found[2].model is None
    assert found[3] == AuditedUri(
        "d", "https://host:8443/score", family="foo.2", authorization="SCORE_KEY", timeout=2.5
    )


def test_without_a_setting_the_starter_models_are_audited() -> None:
    assert Settings.from_env({}).audited == parse_audited(STARTERS) == DEFAULT_AUDITED
    assert Settings.from_env({"CF_LAB_AUDITED": "a=python://m:f"}).audited == (
        AuditedUri("a", "python://m:f"),
    )


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (",", "names no model"),
        ("hf://owner/name@main", "no name"),
        ("a b=hf://owner/name@main", "no name"),
        ("../up=hf://owner/name@main", "no name"),
        ("a=hf://owner/name", "a: .*names no revision"),
        ("a=ftp://owner/name", "a: .*no form that is known"),
        ("a=hf://o/n@m#family=clip", "read from the model itself"),
        ("a=python://module", "a: .*names no function"),
        ("a=python://mod ule:f", "names no function"),
        ("a=python://m:f#timeout=3", "not known to a python://"),
        ("a=http://", "malformed"),
        ("a=http://h:99999/", "malformed"),
        ("a=http://h/?key=1", "no query"),
        ("a=https://u:p@h/", "no credentials"),
        ("a=http://h#authorization=Bearer%20x", "the NAME of an environment variable"),
        ("a=http://h#timeout=0", "timeout must be"),
        ("a=http://h#timeout=soon", "timeout must be"),
        ("a=http://h#family=", "family must be"),
        ("a=http://h#nonsense", "not known"),
        ("a=python://m:f,a=python://m:g", "a stands there twice"),
    ],
)
def test_a_malformed_line_says_what_to_write(line: str, complaint: str) -> None:
    with pytest.raises(AuditedUriError, match=complaint):
        parse_audited(line)
    with pytest.raises(SettingsError, match="CF_LAB_AUDITED: "):
        Settings.from_env({"CF_LAB_AUDITED": line})


def test_a_secret_in_the_wrong_place_is_not_repeated() -> None:
    for line in ("a=https://u:s3cret@h/", "s3cret!", "a=http://h#authorization=s3cret"):
        with pytest.raises(AuditedUriError) as raised:
            parse_audited(line)
        assert "s3cret" not in str(raised.value)
