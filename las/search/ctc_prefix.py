"""CTC's opinion of partial transcripts: the probability that the transcript begins so, summed over all alignments.

Watanabe et al. 2017 (Hybrid CTC/Attention, IEEE JSTSP 11(8)), algorithm 2. Vectorised over utterances, beams,
candidates and time: the sum over the frame at which a candidate begins is a matrix product, and the recursion over
time is a cumulative log-sum, so that a step holds no loop. Sums are in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from las.model.masking import valid_frames


@dataclass(frozen=True)
class CtcState:
    """Forward probabilities of the beams' prefixes g; times run from 0, before the first frame, to S."""

    numbers: Tensor  # which utterances are still searched (B,)
    token_ended: Tensor  # log P(g, its last frame is its last token | frames 1..t) (B, K, S + 1)
    blank_ended: Tensor  # the same for blank as its last frame
    last: Tensor  # last token of g (B, K), -1 before the first
    prefix: Tensor  # log P(a transcript begins with g) (B, K)
    candidates: Tensor  # tokens that `step` was last asked about (B, K, C)
    longer: Tensor  # log P(a transcript begins with g and a candidate) (B, K, C); for the end P(it is g)
    started: bool  # False before the first step, whose tokens only begin the sentence


class CtcPrefixScorer:
    """Scores next tokens by log P(begins with g + token) - log P(begins with g), the end by P(is g)."""

    def __init__(self, log_probabilities: Tensor, lengths: Tensor, blank: int, end: int):
        """CTC log-probabilities (B, S, V) of B utterances with `lengths` (B,) real frames."""
        self.batch, self.steps, self.vocabulary = log_probabilities.shape
        self.lengths = lengths
        self.blank = blank
        self.end = end
        self.padding = ~valid_frames(lengths, self.steps)  # (B, S)
        table = log_probabilities.transpose(1, 2).contiguous()  # (B, V, S)
        self.silent = table[:, blank].double()  # (B, S)
        self.rows = table.flatten(0, 1)  # (B * V, S)
        self.peaks = self.rows.new_zeros(len(self.rows), 1)  # greatest of each row, 0 where all are -inf
        if self.steps:
            self.peaks = self.rows.amax(1, keepdim=True)
            self.peaks.masked_fill_(self.peaks.isneginf(), 0.0)
        shares = (self.rows - self.peaks).exp_()  # probabilities, of the greatest
        self.shares = (shares.view_as(table) * ~self.padding.unsqueeze(1)).flatten(0, 1)  # (B * V, S)

    def start(self) -> CtcState:
        zeros = self.silent.new_zeros(self.batch, 1)
        blanks = torch.cat([zeros, self.silent.cumsum(1)], 1).unsqueeze(1)  # (B, 1, S + 1)
        never = torch.full_like(blanks, -torch.inf)
        nothing = torch.full((self.batch, 1), -1, device=zeros.device)
        numbers = torch.arange(self.batch, device=zeros.device)
        return CtcState(numbers, never, blanks, nothing, zeros, nothing.unsqueeze(2), zeros.unsqueeze(2), False)

    def step(self, tokens: Tensor, candidates: Tensor, state: CtcState) -> tuple[Tensor, CtcState]:
        if state.started:
            state = self._extend(tokens, state)
        longer = self._longer(candidates, state)  # (B, K, C)
        return longer - state.prefix.unsqueeze(2), replace(state, candidates=candidates, longer=longer, started=True)

    def select(self, state: CtcState, utterances: Tensor, parents: Tensor) -> CtcState:
        rows = utterances.unsqueeze(1)
        return CtcState(
            state.numbers[utterances],
            state.token_ended[rows, parents],
            state.blank_ended[rows, parents],
            state.last[rows, parents],
            state.prefix[rows, parents],
            state.candidates[rows, parents],
            state.longer[rows, parents],
            state.started,
        )

    def _row(self, tokens: Tensor, state: CtcState) -> Tensor:
        """Where `rows` has tokens (B, K, ...)."""
        return tokens + (state.numbers * self.vocabulary).view(-1, *(1,) * (tokens.dim() - 1))

    def _extend(self, tokens: Tensor, state: CtcState) -> CtcState:
        """The state of each beam's prefix with its new token (B, K), one of its candidates."""
        before = _before(state, tokens == state.last)  # (B, K, S)
        spoken = self.rows[self._row(tokens, state)].double()  # (B, K, S)
        token_ended = _decay(before, spoken)
        silent = self.silent[state.numbers].unsqueeze(1).expand_as(spoken)
        blank_ended = _decay(token_ended[..., :-1], silent)
        chosen = state.candidates == tokens.unsqueeze(2)  # (B, K, C)
        prefix = state.longer.masked_fill(~chosen, -torch.inf).amax(2)
        return replace(state, token_ended=token_ended, blank_ended=blank_ended, last=tokens, prefix=prefix)

    def _longer(self, candidates: Tensor, state: CtcState) -> Tensor:
        """log P(begins with g + candidate), log P(is g) for the end: (B, K, C)."""
        padding = self.padding[state.numbers].unsqueeze(1)  # (B, 1, S)
        both = torch.logaddexp(state.token_ended, state.blank_ended)  # (B, K, S + 1)
        longer = self._begins(both[..., :-1], padding, self._row(candidates, state))  # (B, K, C)
        again = self._row(state.last.clamp(min=0).unsqueeze(2), state)  # (B, K, 1)
        repeated = self._begins(state.blank_ended[..., :-1], padding, again)
        longer = torch.where(candidates == state.last.unsqueeze(2), repeated, longer)
        at_end = self.lengths[state.numbers].view(-1, 1, 1).expand(-1, both.shape[1], 1)
        longer = torch.where(candidates == self.end, both.gather(2, at_end), longer)
        return longer.masked_fill(candidates == self.blank, -torch.inf)

    def _begins(self, before: Tensor, padding: Tensor, rows: Tensor) -> Tensor:
        """log of the sum over real frames of P(before) * P(token at the frame): (B, K, S), (B, 1, S) and numbers of
        rows (B, K, C) -> (B, K, C)."""
        if self.steps == 0:
            return before.new_full(rows.shape, -torch.inf)
        before = before.masked_fill(padding, -torch.inf)
        greatest = before.amax(2, keepdim=True).clamp(min=torch.finfo(before.dtype).min)  # (B, K, 1)
        flat = rows.flatten()
        shares = self.shares.index_select(0, flat).view(*rows.shape, -1)  # (B, K, C, S)
        sums = (shares.double() @ (before - greatest).exp().unsqueeze(3)).squeeze(3)
        return sums.log() + greatest + self.peaks.index_select(0, flat).view_as(sums)


def _before(state: CtcState, repeats: Tensor) -> Tensor:
    """log P(g | frames 1..t) for t = 0..S-1, from where a next token can begin; one that repeats g's last one needs a
    blank before it. Shapes: repeats (B, K) -> (B, K, S)."""
    both = torch.logaddexp(state.token_ended, state.blank_ended)
    return torch.where(repeats.unsqueeze(2), state.blank_ended, both)[..., :-1]


def _decay(entering: Tensor, staying: Tensor) -> Tensor:
    """x with x[0] = 0, x[t] = (x[t-1] + entering[t-1]) * staying[t], all in logarithms: (B, K, S) -> (B, K, S + 1)."""
    fallen = staying.cumsum(2)  # staying[1..t] together
    ended = fallen + torch.logcumsumexp(entering - (fallen - staying), 2)
    return nn.functional.pad(ended, (1, 0), value=-torch.inf)
