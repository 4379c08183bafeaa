"""Ways to write a text, drawn: against all of them counted out."""

import math
import random
from collections import Counter

import pytest

from las.text.draw import choose_way, draw_way, drop_merges
from las.text.tokenizer import Tokenizer, train_model

SCORES = {"a": -1.0, "b": -2.0, "c": -1.5, "ab": -2.5, "bc": -4.0, "abc": -3.0}
DRAWS = 3000


def ways(text):
    """All ways to write a text, slowly."""
    if not text:
        return [()]
    return [(text[:n], *rest) for n in range(1, len(text) + 1) if text[:n] in SCORES for rest in ways(text[n:])]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_ways_come_as_often_as_their_probability_says(alpha):
    text = "abcab"
    drawn = Counter(tuple(draw_way(text, SCORES, alpha, random.Random(seed))) for seed in range(DRAWS))
    weights = {way: math.exp(alpha * sum(SCORES[piece] for piece in way)) for way in ways(text)}
    assert set(drawn) <= set(weights)
    for way, weight in weights.items():
        share = weight / sum(weights.values())
        assert drawn[way] / DRAWS == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / DRAWS))
    few = [list(way) for way in list(weights)[:2]]
    chosen = Counter(tuple(choose_way(few, SCORES, alpha, random.Random(seed))) for seed in range(DRAWS))
    share = weights[tuple(few[0])] / sum(weights[tuple(way)] for way in few)
    assert chosen[tuple(few[0])] / DRAWS == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize("alpha", [1.0, 0.0])
def test_no_length_is_too_long(alpha):
    """The ways together weigh less, or more, than any float can say."""
    drawn = draw_way("a" * 5000, {"a": -20.0, "aa": -40.0}, alpha, random.Random(0))
    assert "".join(drawn) == "a" * 5000
    assert drawn.count("aa") / len(drawn) == pytest.approx(0.382, abs=0.03)  # 1 less the golden ratio's inverse


def test_without_left_out_merges_bpe_is_sentencepiece_s():
    texts = ["한국어 음성 인식 한국어", "she sells sea shells", "three free trees see three seas"]
    tokenizer = Tokenizer.from_bytes(train_model(texts, 60, "bpe"))
    for text in [*texts, "the sea sees her", "어음 국성"]:
        ids = tokenizer.encode(text)
        assert tokenizer.sample(text, 0.0, -1, 3) == ids
        single = tokenizer.pieces(tokenizer.sample(text, 1.0, -1, 3))
        assert single == list("".join(tokenizer.pieces(ids)))


def test_merges_are_left_out_as_often_as_is_asked_for():
    whole = [drop_merges("ab", {"a": 0.0, "b": 0.0, "ab": -1.0}, 0.3, random.Random(seed)) for seed in range(DRAWS)]
    assert whole.count(["ab"]) / DRAWS == pytest.approx(0.7, abs=0.04)
