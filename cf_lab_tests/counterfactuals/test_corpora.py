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
def test_nonbinary_sentences_are_as_grammatical_as_their_sources():
    made = corpora.nonbinary_sample(REWRITER)
    before = grammar.unlinked_words([source for source, _ in made])
    after = grammar.unlinked_words([rewritten for _, rewritten in made])
    worse = [pair for pair, a, b in zip(made, before, after, strict=True) if b > a]
    assert len(worse) <= 0.02 * len(made), worse
