"""N-best lists scored anew against searches that had the scorer from the beginning."""

import pytest
import torch
from test_beam import BEGIN, Prefixes, row_of

from las.search.beam import SearchConfig, beam_search
from las.search.rescore import rescore, score_transcripts
from las.search.scorers import Ending, Part

END, LIMITS = 0, torch.tensor([3, 0, 4])
CONFIG = SearchConfig(beam=6, length_exponent=0.6, token_reward=0.2)


def parts() -> tuple[Part, Part]:
    torch.manual_seed(0)
    tables = torch.randn(2, 3, 23, 4).double().log_softmax(-1).tolist()
    first, second = (Prefixes([row_of(one) for one in table], lambda tokens: -0.1 * len(tokens)) for table in tables)
    return Part("first", first, 0.8, Ending("coverage", 0.5)), Part("second", second, 0.4)


def test_rescored_transcripts_have_the_scores_of_a_search_with_both():
    first, second = parts()
    both = beam_search([first, second], LIMITS, CONFIG, BEGIN, END, best=50)
    alone = beam_search([first], LIMITS, CONFIG, BEGIN, END, best=50)
    known = [{one.tokens: one for one in row} for row in both]
    seen = 0
    for row, own in zip(rescore(alone, second, CONFIG, BEGIN, END), known, strict=True):
        assert row == sorted(row, key=lambda one: -one.score)
        for one in row:
            if one.tokens in own:
                seen += 1
                other = own[one.tokens]
                assert (one.score, one.log_probability) == pytest.approx((other.score, other.log_probability), abs=1e-9)
                assert {name: one.scores[name] for name in other.scores} == pytest.approx(other.scores, abs=1e-9)
    assert seen > 10


def test_nothing_to_score():
    assert score_transcripts([], parts()[0], BEGIN, END) == []
    assert score_transcripts([[], []], parts()[0], BEGIN, END) == [[], []]
    table = [[[-1.0, -2.0]] * 3]
    alone = Part("one", Prefixes([row_of(one) for one in table]), 1.0)
    assert score_transcripts([[(), (1,)]], alone, BEGIN, END) == [[-1.0, -3.0]]
