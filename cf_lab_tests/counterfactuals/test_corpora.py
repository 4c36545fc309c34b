import pytest

from cf_lab_assets.counterfactuals.rewrite import Rewriter
from cf_lab_assets.counterfactuals.taxonomy import load_taxonomy
from cf_lab_tests import corpora, grammar

pytestmark = pytest.mark.skipif(not corpora.DATA.is_dir(), reason=corpora.MISSING)
REWRITER = Rewriter(load_taxonomy())


def test_members_of_caption_sets_follow_from_any_member():
    outcome = corpora.rewrite_caption_sets(REWRITER, every=12)
    assert outcome.tried > 12_000
    assert outcome.share >= 0.995, outcome.wrong[:5]


@pytest.mark.slow
def test_members_of_all_caption_sets_follow_from_any_member():
    outcome = corpora.rewrite_caption_sets(REWRITER)
    assert outcome.tried == 1044 * 144
    assert outcome.share >= 0.995, outcome.wrong[:5]


def test_each_winobias_sentence_follows_from_its_counterpart():
    outcome, others = corpora.rewrite_winobias(REWRITER)
    assert outcome.tried + 2 * others == 2 * 792
    assert outcome.share >= 0.99, outcome.wrong


def test_nearly_every_sentence_can_be_made_nonbinary():
    made = corpora.nonbinary_sample(REWRITER)
    assert len(made) == 200
    assert all(after != before for before, after in made)


@pytest.mark.skipif(not grammar.is_installed(), reason="Debian's link-grammar is not installed")
def test_nonbinary_sentences_are_grammatical_where_their_sources_are():
    made = corpora.nonbinary_sample(REWRITER, only_sound=True)
    assert len(made) == 200
    unlinked = grammar.unlinked_words([rewritten for _, rewritten in made])
    wrong = [pair for pair, words in zip(made, unlinked, strict=True) if words]
    assert len(wrong) <= 0.02 * len(made), wrong
