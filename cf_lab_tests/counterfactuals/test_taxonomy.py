import pytest

from cf_lab_assets.counterfactuals.rewrite import Rewriter
from cf_lab_assets.counterfactuals.taxonomy import TaxonomyError, load_taxonomy
from cf_lab_assets.starter.world import ATTRIBUTES


def written(folder, text):
    path = folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_taxonomy_has_what_the_starter_editor_draws():
    taxonomy = load_taxonomy()
    for attribute, values in ATTRIBUTES.items():
        assert set(values) <= set(taxonomy.values(attribute))


def test_it_has_the_attributes_of_the_field_and_says_how_they_are_known():
    taxonomy = load_taxonomy()
    assert {"gender", "race", "age", "physical_trait", "religion", "disability"} <= set(
        taxonomy.attributes
    )
    assert taxonomy.values("gender") == ("woman", "man", "nonbinary")
    assert {one.basis for one in taxonomy.attributes.values()} <= {"prompted", "perceived"}


def test_an_own_file_adds_attributes_and_words_without_code(tmp_path):
    own = written(
        tmp_path,
        """
attributes:
  nationality:
    basis: prompted
    place: 55
    values: [French, Kenyan]
    adjectives: [{French: French, Kenyan: Kenyan}]
  gender:
    nouns: [{woman: [abbess, abbesses], man: [abbot, abbots]}]
people:
  nouns: [gondolier]
protected: [french window]
""",
    )
    rewriter = Rewriter(load_taxonomy(own))
    made = rewriter.rewrite("a French gondolier by a French window", {"nationality": "Kenyan"})
    assert made.caption == "a Kenyan gondolier by a French window"
    assert rewriter.rewrite("an abbess", {"gender": "man"}).caption == "an abbot"
    assert rewriter.rewrite("a gondolier", {"gender": "man"}).caption == "a male gondolier"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("attributes: {age: {basis: guessed}}", "attributes.age.basis"),
        ("attributes: {age: {nouns: [{ancient: [elder, elders]}]}}", "ancient"),
        ("attributes: {shoe: {basis: perceived, place: 1, values: [big]}}", "attributes.shoe"),
        ("attributes: {gender: {adjectives: [{man: female}]}}", "'female' names both"),
        ("people: 3", "people"),
        ('people: {nouns: ["?"]}', "has no word"),
        ('protected: [""]', "has no word"),
        ("attributes: {gender: {values: [woman, man, nonbinary, neutral]}}", "is kept for forms"),
        ("attributes: {race: {agrees: {with: gendr, forms: {}}}}", "no attribute 'gendr'"),
        ("attributes: {gender: {values: [agender]}}", "add it to `inserted`"),
        (
            "attributes: {gender: {pronouns: {man: {subject: they}}}}",
            "the pronoun 'they' is of both",
        ),
        ("- a\n- b", "no taxonomy"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_place(tmp_path, text, message):
    with pytest.raises(TaxonomyError, match=r"own\.yaml") as error:
        load_taxonomy(written(tmp_path, text))
    assert message in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(TaxonomyError, match="can't be read"):
        load_taxonomy(tmp_path / "none.yaml")


def test_unknown_attributes_and_values_are_refused_with_those_there_are():
    taxonomy = load_taxonomy()
    with pytest.raises(TaxonomyError, match="use one of age"):
        taxonomy.values("colour")
    with pytest.raises(TaxonomyError, match="use one of woman, man, nonbinary"):
        taxonomy.value("gender", "robot")
