"""Attention: what the speller wants to know -> a weighted average of the listener's frames.

Chan et al. 2015 (arXiv:1508.01211), eq. 9-11.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from las.errors import UserError


@dataclass(frozen=True)
class AttentionConfig:
    """Content attention."""

    width: int = 256  # A, what speller states and listener frames are compared in

    def __post_init__(self) -> None:
        if self.width < 1:
            raise UserError(f"attention.width {self.width} must be at least 1")


@dataclass(frozen=True)
class Memory:
    """The listened utterances as attention reads them; made once, the same for every step and beam."""

    frames: Tensor  # h (B, S, H)
    keys: Tensor  # psi(h) (B, A, S)
    hidden: Tensor  # (B, 1, S), 0 at frames and -inf at padding

    def select(self, utterances: Tensor) -> Memory:
        """The memory of some of the utterances, (B') numbers."""
        return Memory(self.frames[utterances], self.keys[utterances], self.hidden[utterances])


class ContentAttention(nn.Module):
    """Average the listener frames, weighted by how well each answers the speller.

    Padded frames get weight exactly 0, so a transcript does not depend on what else is in the batch. Q questions are
    asked of each utterance at once: one of each beam in search.
    Shapes: speller (B, Q, D), memory -> context (B, Q, H), weights (B, Q, S).
    """

    def __init__(self, config: AttentionConfig, speller_width: int, frame_width: int):
        super().__init__()
        self.query = nn.Linear(speller_width, config.width)  # phi
        self.key = nn.Linear(frame_width, config.width)  # psi

    def remember(self, frames: Tensor, valid: Tensor) -> Memory:
        """Frames (B, S, H) and which of them are real, (B, S) bool, as a `Memory`."""
        hidden = torch.zeros(valid.shape, device=frames.device, dtype=frames.dtype).masked_fill(~valid, -torch.inf)
        keys = self.key(frames).transpose(1, 2).contiguous()
        return Memory(frames, keys, hidden.unsqueeze(1))

    def forward(self, speller: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        energy = self.query(speller) @ memory.keys  # e (B, Q, S), eq. 9
        weights = (energy + memory.hidden).softmax(dim=-1)  # alpha, eq. 10
        return weights.to(memory.frames.dtype) @ memory.frames, weights  # c (B, Q, H), eq. 11
