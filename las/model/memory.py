"""What all kinds of attention share: the remembered frames, the class and the settings each kind fills in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from las.errors import UserError
from las.model.stepwise import StepwiseProduct


@dataclass(frozen=True)
class AttentionConfig:
    """What every kind of attention has; the kinds add their sizes."""

    kind: str  # which attention

    def __post_init__(self) -> None:
        own = type(self).__dataclass_fields__["kind"].default
        if self.kind != own:
            raise UserError(f"attention.kind {self.kind!r}: a {type(self).__name__} is of kind {own!r}")
        for name, value in vars(self).items():
            if isinstance(value, int) and value < 1:
                raise UserError(f"attention.{name} {value} must be at least 1 (attention.kind {self.kind})")


@dataclass(frozen=True)
class Memory:
    """The listened utterances as attention reads them; made once, the same for every step and beam."""

    frames: Tensor  # h (B, S, H)
    keys: Tensor  # of each frame, as the kind of attention wants them; B comes first
    hidden: Tensor  # (B, 1, S), 0 at frames and -inf at padding

    def select(self, utterances: Tensor) -> Memory:
        """The memory of some of the utterances, (B') numbers."""
        return Memory(self.frames[utterances], self.keys[utterances], self.hidden[utterances])

    def read(self, energy: Tensor) -> tuple[Tensor, Tensor]:
        """Energies e (B, Q, S) -> context c (B, Q, H), weights alpha (B, Q, S), exactly 0 at padding."""
        weights = (energy + self.hidden).softmax(dim=-1)  # eq. 10 of Chan et al. 2015
        return self.average(weights), weights

    def average(self, weights: Tensor) -> Tensor:
        """Weights alpha (B, Q, S) -> context c (B, Q, H)."""
        return self._product(weights)  # eq. 11

    @cached_property
    def _product(self) -> StepwiseProduct:
        return StepwiseProduct(self.frames)


class Attention(nn.Module):
    """What the speller wants to know -> a weighted average of the listener's frames.

    `remember` prepares the frames once for all steps, `start` gives the state before the first step, and calling it
    is one step: questions (B, Q, D), memory, state (B, Q, ...) -> context (B, Q, H), weights (B, Q, S), state. Q
    questions are asked of each utterance at once: one of each beam in search, or, where no state passes from step to
    step, one of each token in training. Padded frames get weight exactly 0, so a transcript does not depend on what
    else is in the batch.
    """

    keeps_state = False  # whether a step depends on earlier ones

    def remember(self, frames: Tensor, valid: Tensor) -> Memory:
        """Frames (B, S, H) and which of them are real, (B, S) bool, as a `Memory`."""
        return Memory(frames, self.keys(frames), hide(frames, valid))

    def keys(self, frames: Tensor) -> Tensor:
        """What each frame answers to, made once: frames (B, S, H) -> (B, ...)."""
        raise NotImplementedError

    def start(self, memory: Memory, beams: int) -> Tensor:
        """The state before the first step; no state: (B, K, 0)."""
        return memory.frames.new_zeros(len(memory.frames), beams, 0)

    def forward(self, speller: Tensor, memory: Memory, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raise NotImplementedError


def hide(frames: Tensor, valid: Tensor) -> Tensor:
    """Which frames are real, (B, S) bool, as what is added to energies: 0 at frames, -inf at padding, (B, 1, S)."""
    zeros = torch.zeros(valid.shape, device=frames.device, dtype=frames.dtype)
    return zeros.masked_fill(~valid, -torch.inf).unsqueeze(1)
