import pytest
from hypothesis import given
from hypothesis import strategies as st

from cf_lab_resources.engine.model_uris import ModelUri, ModelUriError, parse_model_uri
from cf_lab_resources.settings import Settings, SettingsError

SHA = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
NAME = st.from_regex(r"[A-Za-z0-9_.-]+", fullmatch=True)
FOLDERS = st.lists(
    st.text(st.characters(exclude_characters="/", exclude_categories=["Cs", "Cc"]), min_size=1),
    min_size=1,
).map(lambda parts: "/" + "/".join(parts))
URIS = st.one_of(
    st.builds(ModelUri, st.just("hf"), st.builds("{}/{}".format, NAME, NAME), NAME),
    st.builds(ModelUri, st.just("s3"), st.builds("lab/{}".format, NAME), st.none() | SHA),
    st.builds(ModelUri, st.just("file"), FOLDERS, st.none() | SHA),
    st.builds(ModelUri, st.just("starter"), st.from_regex(r"[a-z0-9-]+", fullmatch=True)),
    st.builds(ModelUri, st.just("artifact"), SHA),
)


@given(URIS)
def test_every_uri_makes_the_round_trip(uri):
    assert parse_model_uri(str(uri)) == uri


def test_the_parts_are_the_ones_that_are_meant():
    assert parse_model_uri("hf://openai/clip@refs/pr/3") == ModelUri(
        "hf", "openai/clip", "refs/pr/3"
    )
    assert parse_model_uri("file:///a%20b/@c".replace("@", "%40")).path == "/a b/@c"
    assert parse_model_uri(f"s3://lab/models/x/@{'a' * 64}") == ModelUri(
        "s3", "lab/models/x", "a" * 64
    )


@pytest.mark.parametrize(
    "text",
    [
        *["", "starter", "openai/clip", "http://host/model", "hf://a/b/c@main", "hf://a/b@"],
        *["hf://a b@main", "s3://lab", "file://relative/x", "file:///x@abc", "starter://../x"],
        *["artifact://abc", "hf://a/b@../x y"],
    ],
)
def test_what_is_no_model_uri_is_refused_with_examples(text):
    with pytest.raises(ModelUriError, match=r"hf://owner/name@revision"):
        parse_model_uri(text)


def test_a_repository_without_a_revision_is_told_how_to_name_one():
    with pytest.raises(ModelUriError, match=r"openai/clip@ and the commit"):
        parse_model_uri("hf://openai/clip")


def test_a_malformed_editor_is_a_malformed_setting():
    assert Settings.from_env({}).editor == "starter://editor"
    with pytest.raises(SettingsError, match=r"CF_LAB_EDITOR.*sd15.*hf://owner"):
        Settings.from_env({"CF_LAB_EDITOR": "sd15"})
