"""The speller as search sees it."""

import pytest
import torch
from torch import Tensor

from las.model.attention_history import LocationConfig
from las.model.masking import valid_frames
from las.model.speller import Speller, SpellerConfig
from las.search.scorers import SpellerScorer

NEVER = (0, 1, 2)
LENGTHS = torch.tensor([5, 2, 3])


def scorer_of(dtype: torch.dtype = torch.float64) -> SpellerScorer:
    torch.manual_seed(0)
    attention = LocationConfig(width=4, kernel=3, channels=2)
    speller = Speller(SpellerConfig(width=5, embedding=3, attention=attention), 6, 8).to(dtype).eval()
    valid = valid_frames(LENGTHS, 5)
    frames = torch.randn(3, 5, 6).to(dtype) * valid.unsqueeze(2)
    return SpellerScorer(speller, speller.remember(frames, valid), NEVER)


def after(scorer: SpellerScorer, *steps: list[list[int]]) -> tuple[Tensor, tuple]:
    """Scores after tokens (B, 1) of each step."""
    state = scorer.start()
    for tokens in steps:
        scores, state = scorer.step(torch.tensor(tokens), state)
    return scores, state


@torch.no_grad()
def test_scores_are_log_probabilities_of_what_a_transcript_may_hold():
    scores, _ = after(scorer_of(), [[2], [2], [2]], [[4], [5], [6]])
    assert scores.shape == (3, 1, 8)
    assert (scores[..., list(NEVER)] == -torch.inf).all()
    torch.testing.assert_close(scores.exp().sum(2), torch.ones(3, 1).double(), rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_best_tokens_are_those_of_the_teacher_forced_speller():
    scorer = scorer_of()
    scores, _ = after(scorer, [[2], [2], [2]], [[4], [5], [6]])
    logits = scorer.speller(torch.tensor([[2, 4], [2, 5], [2, 6]]), scorer.memory)[0][:, -1]
    expected = logits[:, 3:].log_softmax(1)
    torch.testing.assert_close(scores[:, 0, 3:], expected, rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("kept", [[0, 1, 2], [0, 2], [1]])
def test_select_keeps_utterances_and_grows_beams(kept):
    scorer = scorer_of()
    _, state = after(scorer, [[2], [2], [2]])
    state = scorer.select(state, torch.arange(3), torch.zeros(3, 2, dtype=torch.int64))
    _, state = scorer.step(torch.tensor([[4, 5], [5, 6], [6, 7]]), state)
    rows = torch.tensor(kept, dtype=torch.int64)
    ours, _ = scorer.step(
        torch.tensor([[7, 4]]).expand(len(kept), 2),
        scorer.select(state, rows, torch.tensor([[1, 0]]).expand(len(kept), 2)),
    )
    firsts = [[4, 5], [5, 6], [6, 7]]
    for place, row in enumerate(kept):
        for beam, (parent, token) in enumerate([(1, 7), (0, 4)]):
            steps = [[[one] * 1] * 3 for one in (2, firsts[row][parent], token)]
            torch.testing.assert_close(ours[place, beam], after(scorer, *steps)[0][row, 0], rtol=0, atol=1e-9)


@torch.no_grad()
def test_bfloat16_logits_are_normalised_in_float32():
    scores, _ = after(scorer_of(torch.bfloat16), [[2], [2], [2]])
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.exp().sum(2), torch.ones(3, 1), rtol=0, atol=1e-5)
