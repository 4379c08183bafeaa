"""CTC's opinion of partial transcripts: the probability that the transcript begins so, summed over all alignments.

Watanabe et al. 2017 (Hybrid CTC/Attention, IEEE JSTSP 11(8)), algorithm 2. Vectorised over utterances, beams, time
and all tokens: the sum over the frame at which the next token begins is a matrix product, and the recursion over time
is a cumulative log-sum, so that a step holds no loop. All in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from las.model.masking import valid_frames


@dataclass(frozen=True)
class CtcState:
    """Forward probabilities of the beams' prefixes g; times run from 0, before the first frame, to S."""

    frames: Tensor  # log-probabilities (B, S, V) of the utterances that are still searched
    lengths: Tensor  # (B,) real frames
    token_ended: Tensor  # log P(g, its last frame is its last token | frames 1..t) (B, K, S + 1)
    blank_ended: Tensor  # the same for blank as its last frame
    last: Tensor  # last token of g (B, K), -1 before the first
    prefix: Tensor  # log P(a transcript begins with g) (B, K)
    longer: Tensor  # the same of g and one more token, as `step` last found (B, K, V)
    started: bool  # False before the first step, whose tokens only begin the sentence


class CtcPrefixScorer:
    """Scores next tokens by log P(begins with g + token) - log P(begins with g), the end by P(is g)."""

    def __init__(self, log_probabilities: Tensor, lengths: Tensor, blank: int, end: int):
        """CTC log-probabilities (B, S, V) of B utterances with `lengths` (B,) real frames."""
        self.log_probabilities = log_probabilities.double()
        self.lengths = lengths
        self.blank = blank
        self.end = end

    def start(self) -> CtcState:
        frames = self.log_probabilities
        batch, _, vocabulary = frames.shape
        zeros = frames.new_zeros(batch, 1)
        blanks = torch.cat([zeros, frames[:, :, self.blank].cumsum(1)], 1).unsqueeze(1)  # (B, 1, S + 1)
        never = torch.full_like(blanks, -torch.inf)
        last = torch.full((batch, 1), -1, device=frames.device)
        return CtcState(frames, self.lengths, never, blanks, last, zeros, frames.new_zeros(batch, 1, vocabulary), False)

    def step(self, tokens: Tensor, state: CtcState) -> tuple[Tensor, CtcState]:
        if state.started:
            state = self._extend(tokens, state)
        longer = self._longer(state)  # (B, K, V)
        return longer - state.prefix.unsqueeze(2), replace(state, longer=longer, started=True)

    def select(self, state: CtcState, utterances: Tensor, parents: Tensor) -> CtcState:
        rows = utterances.unsqueeze(1)
        everyone = len(utterances) == len(state.frames)
        return CtcState(
            state.frames if everyone else state.frames[utterances],
            state.lengths[utterances],
            state.token_ended[rows, parents],
            state.blank_ended[rows, parents],
            state.last[rows, parents],
            state.prefix[rows, parents],
            state.longer[rows, parents],
            state.started,
        )

    def _extend(self, tokens: Tensor, state: CtcState) -> CtcState:
        """The state of each beam's prefix with its new token (B, K)."""
        before = _before(state, tokens == state.last)  # (B, K, S)
        batch, beams = tokens.shape
        steps = state.frames.shape[1]
        index = tokens.unsqueeze(1).expand(batch, steps, beams)
        spoken = state.frames.gather(2, index).transpose(1, 2)  # (B, K, S)
        token_ended = _decay(before, spoken)
        silent = state.frames[:, :, self.blank].unsqueeze(1).expand_as(spoken)
        blank_ended = _decay(token_ended[..., :-1], silent)
        prefix = state.longer.gather(2, tokens.unsqueeze(2)).squeeze(2)
        return replace(state, token_ended=token_ended, blank_ended=blank_ended, last=tokens, prefix=prefix)

    def _longer(self, state: CtcState) -> Tensor:
        """log P(begins with g + token) for every token, log P(is g) for the end: (B, K, V)."""
        steps = state.frames.shape[1]
        real = valid_frames(state.lengths, steps).unsqueeze(1)  # (B, 1, S)
        any_token = _begins(_before(state, torch.zeros_like(state.last, dtype=torch.bool)), real, state.frames)
        again = state.last.clamp(min=0).unsqueeze(2)  # (B, K, 1)
        index = state.last.clamp(min=0).unsqueeze(1).expand(-1, steps, -1)
        same = (_before(state, state.last >= 0) + state.frames.gather(2, index).transpose(1, 2)).masked_fill(
            ~real, -torch.inf
        )
        same = torch.where(state.last.unsqueeze(2) >= 0, same.logsumexp(2, keepdim=True), any_token.gather(2, again))
        longer = any_token.scatter(2, again, same)
        whole = torch.logaddexp(state.token_ended, state.blank_ended)  # (B, K, S + 1)
        at_end = state.lengths.view(-1, 1, 1).expand(-1, whole.shape[1], 1)
        longer[:, :, self.end] = whole.gather(2, at_end).squeeze(2)
        longer[:, :, self.blank] = -torch.inf
        return longer


def _before(state: CtcState, repeats: Tensor) -> Tensor:
    """log P(g | frames 1..t) for t = 0..S-1, from where a next token can begin; one that repeats g's last one needs a
    blank before it. Shapes: repeats (B, K) -> (B, K, S)."""
    both = torch.logaddexp(state.token_ended, state.blank_ended)
    return torch.where(repeats.unsqueeze(2), state.blank_ended, both)[..., :-1]


def _begins(before: Tensor, real: Tensor, frames: Tensor) -> Tensor:
    """log of the sum over frames of P(before) * P(token at the frame): (B, K, S), (B, 1, S), (B, S, V) -> (B, K, V)."""
    before = before.masked_fill(~real, -torch.inf)
    greatest = before.max(2, keepdim=True).values.clamp(min=torch.finfo(before.dtype).min)  # (B, K, 1)
    return ((before - greatest).exp() @ frames.exp()).log() + greatest


def _decay(entering: Tensor, staying: Tensor) -> Tensor:
    """x with x[0] = 0, x[t] = (x[t-1] + entering[t-1]) * staying[t], all in logarithms: (B, K, S) -> (B, K, S + 1)."""
    fallen = staying.cumsum(2)  # staying[1..t] together
    since = torch.cat([torch.zeros_like(fallen[..., :1]), fallen[..., :-1]], 2)
    ended = fallen + torch.logcumsumexp(entering - since, 2)
    return torch.cat([torch.full_like(ended[..., :1], -torch.inf), ended], 2)
