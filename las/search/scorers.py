"""What search asks of a model: one step for many beams. Search knows scorers, never a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from las.model.memory import Memory
from las.model.speller import Speller, SpellerState

State = TypeVar("State")


class Scorer(Protocol, Generic[State]):
    """Gives each beam of each utterance the log-probabilities of its next token."""

    def start(self) -> State:
        """The state before the first token, one beam for each utterance."""

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """The last tokens (B, K) -> log-probabilities of the next (B, K, V), new state."""

    def select(self, state: State, utterances: Tensor, parents: Tensor) -> State:
        """Keep the utterances with these numbers (B'), in rising order, each with the beams that grew from `parents`
        (B', K). A beam whose score is already -inf may be given any token; what `step` says of it is not read."""


@dataclass(frozen=True)
class SpellerScorer:
    """The speller's next-token log-probabilities for utterances it remembers. Logits of tokens `never` are cut."""

    speller: Speller
    memory: Memory
    never: tuple[int, ...]  # token ids that no transcript holds: blank, unknown, begin of sentence

    def start(self) -> tuple[SpellerState, Memory]:
        return self.speller.start(self.memory), self.memory

    def step(self, tokens: Tensor, state: tuple[SpellerState, Memory]) -> tuple[Tensor, tuple[SpellerState, Memory]]:
        spelled, memory = state
        logits, spelled = self.speller.step(tokens, spelled, memory)
        logits[..., list(self.never)] = -torch.inf
        return logits.float().log_softmax(-1) if logits.dtype == torch.bfloat16 else logits.log_softmax(-1), (
            spelled,
            memory,
        )

    def select(
        self, state: tuple[SpellerState, Memory], utterances: Tensor, parents: Tensor
    ) -> tuple[SpellerState, Memory]:
        spelled, memory = state
        everyone = len(utterances) == len(memory.frames)  # numbers are in order, so nobody left
        return spelled.select(utterances, parents), memory if everyone else memory.select(utterances)
