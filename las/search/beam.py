"""Beam search over utterances and beams at once.

As in Sutskever et al. 2014 (arXiv:1409.3215): of all continuations of an utterance's beams the best K stay, and one
that ends leaves the beam. A beam of 1 is greedy search. Utterances that are done leave the batch.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from las.errors import UserError
from las.search.scorers import Scorer


@dataclass(frozen=True)
class SearchConfig:
    """How transcripts are searched for."""

    beam: int = 8  # K, partial transcripts kept for each utterance; 1: greedy
    length_exponent: float = 0.6  # a transcript's log-probability is divided by its length to this power; 0: not at all
    ctc_weight: float = (
        0.3  # share of the CTC branch in the log-probability, where the model has one; the rest is the speller's
    )
    longest: float = 1.0  # most tokens of a transcript for each listener frame

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise UserError(f"search.beam {self.beam} must be at least 1")
        if not 0 <= self.ctc_weight < 1:
            raise UserError(f"search.ctc_weight {self.ctc_weight} must be at least 0 and below 1")
        if self.length_exponent < 0 or self.longest <= 0:
            raise UserError("search: length_exponent must be 0 or more, longest above 0")


@dataclass(frozen=True)
class Hypothesis:
    """A transcript in tokens, without begin and end of sentence."""

    tokens: tuple[int, ...]
    score: float  # what hypotheses are ranked by: log_probability / length ** length_exponent
    log_probability: float  # of the tokens and the end of sentence
    complete: bool  # False: it was ended because it reached the greatest length


def beam_search(
    scorers: Sequence[tuple[Scorer[Any], float]],
    limits: Tensor,
    config: SearchConfig,
    begin: int,
    end: int,
    best: int = 1,
) -> list[list[Hypothesis]]:
    """The `best` hypotheses of each utterance, best first.

    `scorers` are given with their weights, each above 0; a log-probability here is the weighted sum of theirs.
    `limits` (B,) are the greatest numbers of tokens, end of sentence not counted; at the limit only the end is
    allowed. Equal scores: the earlier parent beam, then the smaller token id, comes first. An utterance whose every
    continuation has log-probability -inf has no hypothesis. Raises `UserError` when a score is not a number.
    """
    beams = config.beam
    batch = len(limits)
    device = limits.device
    found = [_Found(best, config.length_exponent) for _ in range(batch)]
    active = torch.arange(batch, device=device)  # utterances still searched, (B')
    states = [scorer.start() for scorer, _ in scorers]
    last = torch.full((batch, 1), begin, device=device)  # (B', K)
    totals = torch.zeros(batch, 1, device=device, dtype=torch.float64)  # (B', K) log-probabilities
    history = torch.zeros(batch, 1, 0, dtype=torch.int64, device=device)  # (B', K, steps)
    for length in range(int(limits.max()) + 1 if batch else 0):
        log_probabilities, states = _step(scorers, last, states)  # (B', K, V)
        dead = totals.isneginf().unsqueeze(2)  # ended, or there were fewer continuations than beams
        log_probabilities = log_probabilities.masked_fill(dead, -torch.inf)  # whatever a scorer says of them
        if log_probabilities.isnan().any():
            raise UserError("search: the model gives scores that are not numbers; its weights may be damaged")
        at_limit = limits[active] <= length  # (B')
        not_end = torch.arange(log_probabilities.shape[2], device=device) != end
        scores = totals.unsqueeze(2) + log_probabilities  # (B', K, V)
        scores = scores.masked_fill(at_limit[:, None, None] & not_end, -torch.inf)
        scores, parents, tokens = _best(scores, beams)  # (B', K) each
        history = torch.cat([history.gather(1, parents.unsqueeze(2).expand(-1, -1, length)), tokens.unsqueeze(2)], 2)
        ends = (tokens == end) & scores.isfinite()
        for row, beam in ends.nonzero().tolist():
            one = found[int(active[row])]
            one.add(history[row, beam, :-1].tolist(), float(scores[row, beam]), complete=not at_limit[row])
        totals = scores.masked_fill(ends, -torch.inf)
        open_ = _still_open(found, active, totals, limits, config.length_exponent)
        rows = open_.nonzero().squeeze(1)
        if len(rows) == 0:
            break
        active, totals, last, history = active[rows], totals[rows], tokens[rows], history[rows]
        kept = zip(scorers, states, strict=True)
        states = [scorer.select(state, rows, parents[rows]) for (scorer, _), state in kept]
    return [one.best(best) for one in found]


def _step(scorers: Sequence[tuple[Scorer[Any], float]], last: Tensor, states: list[Any]) -> tuple[Tensor, list[Any]]:
    """The weighted sum of all scorers' log-probabilities, and their new states."""
    steps = [scorer.step(last, state) for (scorer, _), state in zip(scorers, states, strict=True)]
    first, *others = (scores * weight for (scores, _), (_, weight) in zip(steps, scorers, strict=True))
    return sum(others, first), [state for _, state in steps]


def _best(scores: Tensor, beams: int) -> tuple[Tensor, Tensor, Tensor]:
    """The highest of (B, K, V): scores, parent beams and tokens, (B, K') each, K' <= beams; ties in reading order."""
    vocabulary = scores.shape[2]
    flat = scores.flatten(1)
    beams = min(beams, flat.shape[1])
    least = flat.topk(beams).values[:, -1:]
    # topk leaves open which of equal scores it takes: take all that reach the least, in order, by a stable sort
    reach = int((flat >= least).sum(1).max())
    if reach > beams:
        flat_order = flat.sort(dim=1, descending=True, stable=True).indices[:, :beams]
    else:
        order = flat.topk(beams).indices.sort(dim=1).values
        flat_order = order.gather(1, flat.gather(1, order).sort(dim=1, descending=True, stable=True).indices)
    return flat.gather(1, flat_order), flat_order // vocabulary, flat_order % vocabulary


class _Found:
    """The complete hypotheses of one utterance, the best `room` of them."""

    def __init__(self, room: int, exponent: float):
        self.room = room
        self.exponent = exponent
        self.heap: list[tuple[float, int, Hypothesis]] = []  # worst first; the earlier of equals counts as better
        self.count = 0

    def add(self, tokens: list[int], total: float, complete: bool) -> None:
        score = total / (len(tokens) + 1) ** self.exponent
        self.count += 1
        push = heapq.heappushpop if len(self.heap) >= self.room else heapq.heappush
        push(self.heap, (score, -self.count, Hypothesis(tuple(tokens), score, total, complete)))

    def least(self) -> float:
        """The score that a new hypothesis must beat to be kept."""
        return self.heap[0][0] if len(self.heap) >= self.room else -torch.inf

    def best(self, number: int) -> list[Hypothesis]:
        return [hypothesis for _, _, hypothesis in sorted(self.heap, reverse=True)][:number]


def _still_open(found: list[_Found], active: Tensor, totals: Tensor, limits: Tensor, exponent: float) -> Tensor:
    """False for utterances whose kept hypotheses no beam can reach any more: (B',) bool.

    A log-probability only falls, and is divided by at most its greatest length to the exponent.
    """
    reachable = totals.max(1).values / (limits[active] + 1).double() ** exponent
    least = torch.tensor([found[number].least() for number in active.tolist()], dtype=torch.float64)
    return reachable.isfinite() & (reachable.cpu() > least).to(totals.device)
