"""Hot words: bonuses by eye, against a slow definition over lists, and in a search."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from las.search.hot_words import HotWordScorer

VOCABULARY, END = 6, 0
A, B, C, D, E = 1, 2, 3, 4, 5
Tokens = tuple[int, ...]


def bonuses(phrases: list[Tokens], tokens: Tokens) -> list[float]:
    """What each token of a transcript and then its end brings."""
    scorer = HotWordScorer(phrases, VOCABULARY, 1, torch.device("cpu"))
    state, found = scorer.start(), []
    for last, token in itertools.pairwise([99, *tokens, END]):
        scores, state = scorer.step(torch.tensor([[last]]), state)
        assert (scores <= scorer.gain).all()
        found.append(float(scores[0, 0, token]))
    return found


def slowly(phrases: list[Tokens], tokens: Tokens) -> float:
    """The tokens in phrases said in full: a match is dropped where it breaks off, for the longest end of it that may
    still become one; what is complete stays."""
    prefixes = {()} | {phrase[:length] for phrase in phrases for length in range(len(phrase))} | set(phrases)
    kept = first = 0  # tokens of whole phrases that were left; where the present match begins
    tokens = (*tokens, END)
    for place in range(len(tokens)):
        while tokens[first : place + 1] not in prefixes:  # () is one
            whole = longest_phrase(phrases, tokens[first:place])
            kept += whole
            first += whole or 1
            while first < place and tokens[first:place] not in prefixes:
                first += 1
    return kept


def longest_phrase(phrases: list[Tokens], tokens: Tokens) -> int:
    return max((len(phrase) for phrase in phrases if tokens[: len(phrase)] == phrase), default=0)


@pytest.mark.parametrize(
    ("phrases", "tokens", "expected"),
    [
        ([(A, B)], (A, B), [1, 1, 0]),
        ([(A, B)], (A, C), [1, -1, 0]),  # taken back
        ([(A, B)], (A,), [1, -1]),  # also at the end
        ([(A, B)], (A, A, B), [1, 0, 1, 0]),  # the second one begins anew
        ([(A, B)], (A, B, A, B), [1, 1, 1, 1, 0]),
        ([(A, B, C)], (A, B, A, B, C), [1, 1, -1, 1, 1, 0]),
        ([(A, A, B)], (A, A, A, B), [1, 1, 0, 1, 0]),  # the end of the match goes on
        ([(A,), (A, B, C)], (A, B, D), [1, 1, -1, 0]),  # the short one was said in full
        ([(A,), (A, B, C)], (A, B, C), [1, 1, 1, 0]),
        ([(A, B), (B, C)], (A, B, C), [1, 1, 0, 0]),  # b belongs to the first
        ([(A, B, D), (B,)], (A, B, C), [1, 1, -1, 0]),  # b was said in full within what broke off
        ([(A, B, C), (D,)], (A, B, D), [1, 1, -1, 0]),
        ([], (A, B), [0, 0, 0]),
        ([(A, B), ()], (A, B, A), [1, 1, 1, -1]),
    ],
)
def test_by_eye(phrases, tokens, expected):
    assert bonuses(phrases, tokens) == expected


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple), min_size=0, max_size=4),
    st.lists(st.integers(1, 4), max_size=9).map(tuple),
)
def test_a_transcript_gains_its_tokens_in_whole_phrases(phrases, tokens):
    assert sum(bonuses(phrases, tokens)) == slowly(phrases, tokens)


def test_beams_keep_their_own_places():
    scorer = HotWordScorer([(A, B, C), (D, E)], VOCABULARY, 2, torch.device("cpu"))
    _, state = scorer.step(torch.full((2, 1), 99), scorer.start())
    state = scorer.select(state, torch.arange(2), torch.zeros(2, 3, dtype=torch.int64))
    _, state = scorer.step(torch.tensor([[A, D, C], [D, A, A]]), state)
    state = scorer.select(state, torch.tensor([1]), torch.tensor([[2, 0]]))
    scores, _ = scorer.step(torch.tensor([[B, E]]), state)
    assert scores[0].tolist() == [[-2, -1, -2, 1, -1, -2], [0, 1, 0, 0, 1, 0]]
