"""Modified Kneser-Ney: against a slow reference written from the definition, and every context sums to 1."""

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from las.errors import UserError
from las.train import ngram
from las.train.ngram import FALLBACK, estimate

BLANK, UNK, BOS, EOS = range(4)
VOCABULARY = 8  # a b c d are 4 to 7
TEXTS = st.lists(st.lists(st.integers(4, 7), min_size=1, max_size=12), min_size=1, max_size=25)


class Slow:
    """Interpolated modified Kneser-Ney from Chen & Goodman's definition: dicts, one n-gram at a time."""

    def __init__(self, sentences, order, cutoffs=()):
        self.order = order
        self.cutoffs = [0, *cutoffs, *[cutoffs[-1] if cutoffs else 0] * order][:order]
        self.raw = [Counter() for _ in range(order + 1)]
        for sentence in sentences:
            line = [BOS, *sentence, EOS]
            for k in range(1, order + 1):
                for i in range(len(line) - k + 1):
                    self.raw[k][tuple(line[i : i + k])] += 1
        self.a = [{} for _ in range(order + 1)]
        for k in range(1, order + 1):
            for gram, times in self.raw[k].items():
                befores = {longer[0] for longer in self.raw[k + 1] if longer[1:] == gram} if k < order else set()
                self.a[k][gram] = times if k == order or gram[0] == BOS else len(befores)
        del self.a[1][(BOS,)]
        self.d = [None, *(self.discounts(list(self.a[k].values())) for k in range(1, order + 1))]

    @staticmethod
    def discounts(values):
        n = [values.count(times) for times in range(5)]
        if all(n[1:]):
            y = n[1] / (n[1] + 2 * n[2])
            d = [0, 1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
            if all(0 < d[k] <= k for k in (1, 2, 3)):
                return d
        return [0, *FALLBACK]

    def p(self, word, context):
        k = len(context) + 1
        after = {gram[-1]: times for gram, times in self.a[k].items() if gram[:-1] == context}
        shorter = self.p(word, context[1:]) if context else 1 / (VOCABULARY - 2)
        if not after:
            return shorter
        total = sum(after.values())
        kept = {w: times for w, times in after.items() if k == 1 or self.raw[k][(*context, w)] > self.cutoffs[k - 1]}
        taken = sum(times - self.d[k][min(times, 3)] for times in kept.values())
        own = kept[word] - self.d[k][min(kept[word], 3)] if word in kept else 0
        return (own + (total - taken) * shorter) / total


def backed_off(orders):
    """p(w | context) from the estimated n-grams, by the rule of ARPA files."""
    scores, backoffs = {}, defaultdict(float)
    for ngrams in orders:
        for tokens, score, backoff in zip(ngrams.tokens.tolist(), ngrams.scores, ngrams.backoffs, strict=True):
            scores[tuple(tokens)], backoffs[tuple(tokens)] = score, backoff

    def p(word, context):
        if (*context, word) in scores:
            return 10 ** scores[(*context, word)]
        return 10 ** backoffs[context] * p(word, context[1:])

    return p


def contexts(order):
    for length in range(order):
        for tokens in itertools.product(range(4, 8), repeat=length):
            yield tokens
            if length:
                yield (BOS, *tokens[1:])


@settings(max_examples=25, deadline=None)
@given(TEXTS, st.integers(2, 4), st.sampled_from([(), (1,), (0, 1), (1, 2)]))
def test_probabilities_are_those_of_the_definition_and_sum_to_one(sentences, order, cutoffs):
    p, slow = backed_off(estimate(sentences, VOCABULARY, order, cutoffs)), Slow(sentences, order, cutoffs)
    for context in itertools.islice(contexts(order), 0, None, 3):
        found = [p(word, context) for word in (UNK, EOS, 4, 5, 6, 7)]
        assert found == pytest.approx([slow.p(word, context) for word in (UNK, EOS, 4, 5, 6, 7)], rel=1e-9)
        assert sum(found) == pytest.approx(1, abs=1e-12)


def test_discounts_come_from_the_counts_of_counts_where_there_are_enough():
    chance = np.random.default_rng(0)
    sentences = [list(4 + chance.geometric(0.3, size=9) % 4) for _ in range(150)]
    slow = Slow(sentences, 4)
    assert slow.d[4] != [0, *FALLBACK]
    p = backed_off(estimate(sentences, VOCABULARY, 4))
    for context in [(4, 5, 6), (BOS, 4, 4), (7, 7), (5, 4, 5)]:
        for word in (UNK, EOS, 4, 5, 6, 7):
            assert p(word, context) == pytest.approx(slow.p(word, context), rel=1e-9)


def test_an_answer_one_sees_by_eye():
    """One sentence of one token: every a is 1, every discount 0.5."""
    unigrams, bigrams = estimate([[4]], VOCABULARY, 2)
    lowest = 0.5 * 2 / 2 / 6  # what two tokens gave up, for six that can come
    expected = {UNK: lowest, EOS: 0.25 + lowest, 4: 0.25 + lowest}
    for token, score in zip(unigrams.tokens[:, 0], unigrams.scores, strict=True):
        if token != BOS:
            assert 10**score == pytest.approx(expected.get(token, lowest), rel=1e-12)
    assert bigrams.tokens.tolist() == [[BOS, 4], [4, EOS]]
    assert 10**bigrams.scores == pytest.approx([0.5 + 0.5 * (0.25 + lowest)] * 2, rel=1e-12)


def test_cut_offs_leave_out_what_comes_seldom_and_no_context_of_what_stays():
    sentences = [[4, 5, 6]] * 3 + [[4, 7, 6]] * 2 + [[5, 5, 7]]
    unigrams, bigrams, trigrams = estimate(sentences, VOCABULARY, 3, (1, 2))
    assert len(unigrams.scores) == VOCABULARY - 1  # all tokens but blank
    assert [7, 6] in bigrams.tokens.tolist()
    assert [5, 5] not in bigrams.tokens.tolist()
    assert trigrams.tokens.tolist() == [[BOS, 4, 5], [4, 5, 6], [5, 6, EOS]]


@settings(max_examples=10, deadline=None)
@given(TEXTS, st.integers(2, 5))
def test_pieces_of_the_text_add_up(sentences, order):
    whole = estimate(sentences, VOCABULARY, order)
    before, ngram.PIECE = ngram.PIECE, 7
    try:
        parts = estimate(iter(sentences), VOCABULARY, order)
    finally:
        ngram.PIECE = before
    for one, other in zip(whole, parts, strict=True):
        assert (one.tokens == other.tokens).all()
        assert (one.scores == other.scores).all()
        assert (one.backoffs == other.backoffs).all()


def test_large_vocabularies_and_few_words():
    orders = estimate([[60_000, 5]], 65_000, 3)
    assert [len(ngrams.scores) for ngrams in orders] == [64_999, 3, 2]
    assert math.fsum(10 ** orders[0].scores) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[4]], 8, 1), "order 1 of an n-gram model: wanted 2 to 8"),
        (([[4]], 8, 9), "order 9 of an n-gram model: wanted 2 to 8"),
        (([[4]], 10_000, 5), "5-grams of 10000 tokens are too many to be numbered; take a lower order"),
        (([[4]], 8, 3, (2, 1)), "cut-offs 2,1: wanted numbers of 0 or more that do not fall with the order"),
        (([[4]], 8, 3, (-1,)), "cut-offs -1: wanted numbers of 0 or more"),
        (([[], []], 8, 3), "no text to count n-grams in: no sentence with a word in it"),
    ],
)
def test_what_cannot_be_estimated(arguments, message):
    with pytest.raises(UserError, match=message):
        estimate(*arguments)
