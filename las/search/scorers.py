"""What search asks of a model: one step for many beams. Search knows scorers, never a model.

A `Scorer` gives scores to all tokens; a `CandidateScorer`, whose work grows with the number of tokens, only to those
that the scorers of the first kind propose. A `Part` is one of them with its name and weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from las.errors import UserError
from las.model.memory import Memory
from las.model.speller import Speller, SpellerState

State = TypeVar("State")
UNREAD = 1e-3  # the least that a frame counts as read: the logarithm of 0 would end all comparison


class _Reordered(Protocol, Generic[State]):
    """What both kinds of scorers do alike."""

    def start(self) -> State:
        """The state before the first token, one beam for each utterance."""

    def select(self, state: State, utterances: Tensor, parents: Tensor) -> State:
        """Keep the utterances with these numbers (B'), in rising order, each with the beams that grew from `parents`
        (B', K). A beam whose score is already -inf may be given any token; what `step` says of it is not read."""


class Scorer(_Reordered[State], Protocol, Generic[State]):
    """Gives each beam of each utterance the scores of its next token: log-probabilities, or others at most `gain`.

    `gain` may be left out, and is 0 then.
    """

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """The last tokens (B, K) -> scores of the next (B, K, V), new state."""


class CandidateScorer(_Reordered[State], Protocol, Generic[State]):
    """The same for a few tokens of each beam."""

    vocabulary: int  # V, of the tokens it knows

    def step(self, tokens: Tensor, candidates: Tensor, state: State) -> tuple[Tensor, State]:
        """The last tokens (B, K), candidates for the next (B, K, C) -> log-probabilities (B, K, C), new state."""


class FinishingScorer(Scorer[State], Protocol, Generic[State]):
    """A scorer that has a word to say of whole transcripts."""

    def finish(self, state: State) -> Tensor:
        """What is added to the score of a beam's transcript if it ends now, never above 0: (B, K). It is not divided
        by the length. The state is the one that scored the end of sentence."""


@dataclass(frozen=True)
class MeanScorer:
    """The mean of what scorers of one kind say, whichever it is, of utterances that each has heard in its own way."""

    scorers: Sequence[Any]

    @property
    def vocabulary(self) -> int:
        return self.scorers[0].vocabulary

    def start(self) -> tuple[Any, ...]:
        return tuple(one.start() for one in self.scorers)

    def select(self, states: tuple[Any, ...], utterances: Tensor, parents: Tensor) -> tuple[Any, ...]:
        return tuple(one.select(own, utterances, parents) for one, own in zip(self.scorers, states, strict=True))

    def step(self, *asked: Any) -> tuple[Tensor, tuple[Any, ...]]:
        *given, states = asked
        found = [one.step(*given, own) for one, own in zip(self.scorers, states, strict=True)]
        scores = [own for own, _ in found]
        return sum(scores[1:], scores[0]) / len(scores), tuple(state for _, state in found)

    def finish(self, states: tuple[Any, ...]) -> Tensor:
        added = [one.finish(own) for one, own in zip(self.scorers, states, strict=True)]
        return sum(added[1:], added[0]) / len(added)


class Ending(NamedTuple):
    """The word that a `FinishingScorer` has at the end: what it is called, and its weight, above 0."""

    name: str
    weight: float


@dataclass(frozen=True)
class Part:
    """One scorer's part in a search."""

    name: str  # what its share of a transcript's score is called
    scorer: Any  # Scorer or CandidateScorer
    weight: float  # that its scores are multiplied with; below 0 they are subtracted
    ending: Ending | None = None  # for a FinishingScorer whose `finish` is to count

    def __post_init__(self) -> None:
        if not abs(self.weight) < float("inf") or self.weight == 0:
            raise UserError(f"search: the weight of {self.name} is {self.weight}; wanted a number other than 0")

    @property
    def gain(self) -> float:
        """The most that this part can add to a beam's score with one token."""
        return self.weight * getattr(self.scorer, "gain", 0.0) if self.weight > 0 else float("inf")


SpelledState = tuple[SpellerState, Memory, Tensor]  # speller; what it reads; what was read so far (B, K, S)


@dataclass(frozen=True)
class SpellerScorer:
    """The speller's next-token log-probabilities for utterances it remembers. Logits of tokens `never` are cut.

    `finish` is the coverage of Wu et al. 2016 (arXiv:1609.08144), eq. 14: the sum over the frames of
    log min(what attention gave the frame in all steps, 1), here of max(that, 1e-3).
    """

    speller: Speller
    memory: Memory
    never: tuple[int, ...]  # token ids that no transcript holds: blank, unknown, begin of sentence
    temperature: float = 1.0  # logits are divided by it
    coverage: bool = False  # whether `finish` will be asked

    @cached_property
    def _never(self) -> Tensor:
        return torch.tensor(self.never, dtype=torch.int64, device=self.memory.frames.device)

    def start(self) -> SpelledState:
        state = self.speller.start(self.memory)
        return (
            state,
            self.memory,
            torch.zeros_like(state.weights, dtype=torch.promote_types(state.weights.dtype, torch.float32)),
        )

    def step(self, tokens: Tensor, state: SpelledState) -> tuple[Tensor, SpelledState]:
        spelled, memory, read = state
        logits, spelled = self.speller.step(tokens, spelled, memory)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / self.temperature
        scores = logits.index_fill_(2, self._never, -torch.inf).log_softmax(-1)
        return scores, (spelled, memory, read + spelled.weights if self.coverage else read)

    def finish(self, state: SpelledState) -> Tensor:
        _, memory, read = state
        covered = read.double().clamp(UNREAD, 1.0).log()  # (B, K, S)
        return covered.masked_fill(memory.hidden.isneginf(), 0.0).sum(2)

    def select(self, state: SpelledState, utterances: Tensor, parents: Tensor) -> SpelledState:
        spelled, memory, read = state
        everyone = len(utterances) == len(memory.frames)  # numbers are in order, so nobody left
        read = read[utterances.unsqueeze(1), parents] if self.coverage else read
        return spelled.select(utterances, parents), memory if everyone else memory.select(utterances), read


def internal_language_model(speller: Speller, utterances: int, never: tuple[int, ...]) -> SpellerScorer:
    """The speller with nothing to hear: what it knows of the language by itself.

    Its context is that of a single frame of zeros. Meng et al. 2021 (arXiv:2011.01991), section 3.2.
    """
    weight = speller.output.weight
    width = speller.frame_width
    frames = torch.zeros(utterances, 1, width, dtype=weight.dtype, device=weight.device)
    valid = torch.ones(utterances, 1, dtype=torch.bool, device=weight.device)
    return SpellerScorer(speller, speller.remember(frames, valid), never)
