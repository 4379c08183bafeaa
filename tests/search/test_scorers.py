"""The speller as search sees it."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from las.errors import UserError
from las.model.attention_history import LocationConfig
from las.model.masking import valid_frames
from las.model.speller import Speller, SpellerConfig
from las.search.scorers import UNREAD, MeanScorer, Part, SpellerScorer, internal_language_model

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


def test_a_weight_that_does_nothing_or_everything_is_refused():
    for weight in (0.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match=f"the weight of lm is {weight}; wanted a number other than 0"):
            Part("lm", scorer_of(), weight)


@torch.no_grad()
def test_temperature_divides_the_logits():
    warm = replace(scorer_of(), temperature=2.0)
    cold, _ = after(scorer_of(), [[2], [2], [2]])
    scores, _ = after(warm, [[2], [2], [2]])
    torch.testing.assert_close(scores, (cold / 2).log_softmax(-1), rtol=0, atol=1e-12)


@torch.no_grad()
def test_coverage_is_that_of_gnmt():
    scorer = replace(scorer_of(), coverage=True)
    state, weights = scorer.start(), []
    for tokens in ([2, 2, 2], [4, 5, 6], [7, 7, 4]):
        _, state = scorer.step(torch.tensor(tokens).unsqueeze(1), state)
        weights.append(state[0].weights[:, 0])
        read = sum(weights)
        for row, length in enumerate(LENGTHS.tolist()):
            expected = sum(math.log(min(max(float(one), UNREAD), 1.0)) for one in read[row, :length])
            assert float(scorer.finish(state)[row, 0]) == pytest.approx(expected, abs=1e-12)
    moved = scorer.select(state, torch.tensor([0, 2]), torch.tensor([[0, 0], [0, 0]]))
    assert torch.equal(scorer.finish(moved), scorer.finish(state)[[0, 2]].expand(2, 2))


@torch.no_grad()
@pytest.mark.parametrize("context", ["attention", "every_step", "initial"])
def test_the_internal_language_model_hears_nothing(context):
    """Its scores are those of a speller whose context has no weight."""
    torch.manual_seed(1)
    config = SpellerConfig(width=5, embedding=3, context=context)
    speller = Speller(config, 6, 8).double().eval()
    inner = internal_language_model(speller, 3, NEVER)
    steps = [[[2], [2], [2]], [[4], [5], [6]], [[7], [7], [4]]]
    scores, _ = after(inner, *steps)
    memory = speller.remember(torch.zeros(3, 4, 6).double(), valid_frames(torch.tensor([4, 3, 2]), 4))
    expected, _ = after(SpellerScorer(speller, memory, NEVER), *steps)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-12)
    if context == "attention":
        heard = speller.remember(torch.randn(3, 4, 6).double(), valid_frames(torch.tensor([4, 3, 2]), 4))
        speller.recurrent[0].weight[:, :6] = 0.0
        speller.hidden.weight[:, 5:] = 0.0
        for scorer in (inner, SpellerScorer(speller, heard, NEVER)):
            other, _ = after(scorer, *steps)
            torch.testing.assert_close(other, after(inner, *steps)[0], rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_mean_of_scorers_follows_each_of_them():
    first = replace(scorer_of(), coverage=True)
    second = replace(first, memory=first.speller.remember(-first.memory.frames, valid_frames(LENGTHS, 5)))
    both = MeanScorer([first, second])
    states = [one.start() for one in (first, second, both)]
    for tokens in ([[2], [2], [2]], [[4], [5], [6]]):
        found = [
            one.step(torch.tensor(tokens), state) for one, state in zip((first, second, both), states, strict=True)
        ]
        (one, _), (other, _), (mean, _) = found
        assert not torch.equal(one, other)
        torch.testing.assert_close(mean[..., 3:], (one[..., 3:] + other[..., 3:]) / 2, rtol=0, atol=1e-12)
        assert (mean[..., list(NEVER)] == -torch.inf).all()
        ends = [scorer.finish(state) for scorer, (_, state) in zip((first, second, both), found, strict=True)]
        torch.testing.assert_close(ends[2], (ends[0] + ends[1]) / 2, rtol=0, atol=1e-12)
        states = [
            scorer.select(state, torch.arange(3), torch.zeros(3, 1, dtype=torch.int64))
            for scorer, (_, state) in zip((first, second, both), found, strict=True)
        ]
