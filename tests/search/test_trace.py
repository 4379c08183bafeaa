"""Where tokens are: by attention as search saw it, by CTC against all alignments."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from las.model.attention_history import LocationConfig
from las.model.masking import valid_frames
from las.model.speller import Speller, SpellerConfig
from las.search.trace import Trace, ctc_spans, trace

BLANK = 0


@torch.no_grad()
def test_attention_is_that_of_the_steps():
    torch.manual_seed(0)
    attention = LocationConfig(width=4, kernel=3, channels=2)
    speller = Speller(SpellerConfig(width=5, embedding=3, attention=attention), 6, 8).double().eval()
    lengths = torch.tensor([5, 2, 3])
    memory = speller.remember(torch.randn(3, 5, 6).double(), valid_frames(lengths, 5))
    transcripts = [(4, 5, 6), (), (7,)]
    ctc = torch.randn(3, 5, 8).log_softmax(-1)
    found = trace(transcripts, speller, memory, lengths, begin=2, ctc=ctc)
    for row, (tokens, frames) in enumerate(zip(transcripts, lengths.tolist(), strict=True)):
        state, seen, spoken = speller.start(memory), [], []
        for token, following in zip((2, *tokens), (*tokens, 3), strict=True):
            logits, state = speller.step(torch.full((3, 1), token), state, memory)
            seen.append(state.weights[row, 0, :frames])
            spoken.append(logits[row, 0].log_softmax(-1)[following].item())
        torch.testing.assert_close(found[row].weights, torch.stack(seen), rtol=0, atol=1e-12)
        assert found[row].spans == ctc_spans(ctc[row, :frames], tokens, BLANK)
        assert len(found[row].peaks) == len(found[row].means) == len(tokens)
        assert found[row].spoken == pytest.approx(spoken[:-1], rel=1e-6)
    (first, _), token = found[2].spans[0], 7
    assert found[2].heard == [max(ctc[2, frame, token].item() for frame in range(first, found[2].spans[0][1] + 1))]
    without = trace(transcripts, speller, memory, lengths, begin=2)[0]
    assert without.spans is without.heard is None


def test_peaks_and_means_by_eye():
    weights = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])  # the last row is the end's
    assert Trace(weights, None, [], None).peaks == [0, 2]
    assert Trace(weights, None, [], None).means == [0.75, 2.0]
    assert Trace(torch.zeros(1, 0), None, [], None).peaks == Trace(torch.zeros(1, 0), None, [], None).means == []


@pytest.mark.parametrize(("frames", "tokens"), [(0, [1]), (1, [1, 2]), (2, [1, 1])])
def test_too_few_frames_have_no_alignment(frames, tokens):
    assert ctc_spans(torch.zeros(frames, 3), tokens, BLANK) is None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(0, 6), st.lists(st.integers(1, 2), max_size=3))
def test_spans_are_those_of_the_best_alignment(seed, frames, tokens):
    table = torch.randn(frames, 3, generator=torch.manual_seed(seed)).double().log_softmax(-1)
    rows = table.tolist()
    best, value = None, -float("inf")
    for path in itertools.product(range(3), repeat=frames):
        runs = [(token, len(list(run))) for token, run in itertools.groupby(path)]
        if [token for token, _ in runs if token != BLANK] == tokens:
            score = sum(row[token] for row, token in zip(rows, path, strict=True))
            if score > value:
                value, best, first = score, [], 0
                for token, length in runs:
                    if token != BLANK:
                        best.append((first, first + length - 1))
                    first += length
    assert ctc_spans(table, tokens, BLANK) == best
