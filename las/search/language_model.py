"""Language models as search sees them (shallow fusion: Gulcehre et al. 2015, arXiv:1503.03535)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from las.model.language_model import LanguageModelState, LanguageModelSteps
from las.search.scorers import Scorer


@dataclass(frozen=True)
class LanguageModelScorer:
    """The language model's next-token log-probabilities for some utterances; a `Scorer`."""

    steps: LanguageModelSteps  # made once for many searches; it knows which tokens no transcript holds
    utterances: int  # B

    def start(self) -> LanguageModelState:
        return self.steps.start(self.utterances)

    def step(self, tokens: Tensor, state: LanguageModelState) -> tuple[Tensor, LanguageModelState]:
        return self.steps.step(tokens, state)

    def select(self, state: LanguageModelState, utterances: Tensor, parents: Tensor) -> LanguageModelState:
        return state.select(utterances, parents)


@torch.no_grad()
def sentence_scores(scorer: Scorer[Any], inputs: Tensor, targets: Tensor, padding: int) -> Tensor:
    """What any scorer gives whole sentences: tokens from BOS (B, L), those that follow (B, L) -> log p (B), float64.

    Targets of `padding` score 0.
    """
    state = scorer.start()
    total = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device)
    for token, target in zip(inputs.split(1, dim=1), targets.split(1, dim=1), strict=True):
        scores, state = scorer.step(token, state)  # (B, 1, V)
        found = scores.squeeze(1).gather(1, target).double()
        total += found.masked_fill(target == padding, 0.0).squeeze(1)
    return total


@torch.no_grad()
def sample(
    scorer: Scorer[Any], sentences: int, begin: int, end: int, longest: int, temperature: float, chance: torch.Generator
) -> list[list[int]]:
    """Draw sentences, of `longest` tokens at most, from the scorer's distribution to the power of 1 / temperature."""
    state = scorer.start()
    tokens = torch.full((sentences, 1), begin, device=chance.device)
    drawn: list[Tensor] = []
    ended = torch.zeros(sentences, 1, dtype=torch.bool, device=chance.device)
    while len(drawn) < longest and not ended.all():
        scores, state = scorer.step(tokens, state)
        tokens = torch.multinomial((scores.squeeze(1) / temperature).softmax(-1), 1, generator=chance)
        ended = ended | (tokens == end)
        drawn.append(tokens.masked_fill(ended, end))
    rows = torch.cat(drawn, dim=1).tolist() if drawn else [[] for _ in range(sentences)]
    return [row[: row.index(end)] if end in row else row for row in rows]
