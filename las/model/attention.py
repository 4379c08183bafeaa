"""Attention: what the speller wants to know -> a weighted average of the listener's frames.

Each kind is a class with the same three methods: `remember` prepares the frames once for all steps, `start` gives
the state before the first step, and calling it is one step. State comes in and goes out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from las.errors import UserError


@dataclass(frozen=True)
class AttentionConfig:
    """Which attention, and its size."""

    kind: str = "content"  # content (Chan et al. 2015) or location (Chorowski et al. 2015)
    width: int = 256  # A, what speller states and listener frames are compared in
    kernel: int = 31  # location: listener frames that one look at the earlier weights spans; odd
    channels: int = 16  # location: features taken from them

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"attention.kind {self.kind!r}: wanted one of {', '.join(KINDS)}")
        if min(self.width, self.channels) < 1:
            raise UserError("attention: width and channels must be at least 1")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise UserError(f"attention.kernel {self.kernel} must be odd, so that it has a middle")


@dataclass(frozen=True)
class Memory:
    """The listened utterances as attention reads them; made once, the same for every step and beam."""

    frames: Tensor  # h (B, S, H)
    keys: Tensor  # of each frame, as the kind of attention wants them
    hidden: Tensor  # (B, 1, S), 0 at frames and -inf at padding

    def select(self, utterances: Tensor) -> Memory:
        """The memory of some of the utterances, (B') numbers."""
        return Memory(self.frames[utterances], self.keys[utterances], self.hidden[utterances])

    def read(self, energy: Tensor) -> tuple[Tensor, Tensor]:
        """Energies e (B, Q, S) -> context c (B, Q, H), weights alpha (B, Q, S), exactly 0 at padding."""
        weights = (energy + self.hidden).softmax(dim=-1)  # eq. 10 of Chan et al. 2015
        return weights.to(self.frames.dtype) @ self.frames, weights  # eq. 11


def _hidden(frames: Tensor, valid: Tensor) -> Tensor:
    zeros = torch.zeros(valid.shape, device=frames.device, dtype=frames.dtype)
    return zeros.masked_fill(~valid, -torch.inf).unsqueeze(1)


class ContentAttention(nn.Module):
    """Average the listener frames, weighted by how well each answers the speller.

    Chan et al. 2015 (arXiv:1508.01211), eq. 9-11. Padded frames get weight exactly 0, so a transcript does not depend
    on what else is in the batch. Q questions are asked of each utterance at once: one of each beam in search.
    Shapes: speller (B, Q, D), memory, state -> context (B, Q, H), weights (B, Q, S), state.
    """

    def __init__(self, config: AttentionConfig, speller_width: int, frame_width: int):
        super().__init__()
        self.query = nn.Linear(speller_width, config.width)  # phi
        self.key = nn.Linear(frame_width, config.width)  # psi

    def remember(self, frames: Tensor, valid: Tensor) -> Memory:
        """Frames (B, S, H) and which of them are real, (B, S) bool, as a `Memory`."""
        keys = self.key(frames).transpose(1, 2).contiguous()  # (B, A, S)
        return Memory(frames, keys, _hidden(frames, valid))

    def start(self, memory: Memory, beams: int) -> Tensor:
        """No state: (B, K, 0)."""
        return memory.frames.new_zeros(len(memory.frames), beams, 0)

    def forward(self, speller: Tensor, memory: Memory, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        context, weights = memory.read(self.query(speller) @ memory.keys)  # e, eq. 9
        return context, weights, state


class LocationAttention(nn.Module):
    """Content attention that also sees where it looked before, so that equal sounds are read one after another.

    Chorowski et al. 2015 (arXiv:1506.07503), eq. 8-9, over the sum of all earlier weights as in Tacotron 2 (Shen et
    al. 2018, arXiv:1712.05884): e = w . tanh(W s + V h + U f), f = convolution of the summed weights.
    Shapes: speller (B, K, D), memory, state (B, K, S) -> context (B, K, H), weights (B, K, S), state.
    """

    def __init__(self, config: AttentionConfig, speller_width: int, frame_width: int):
        super().__init__()
        self.query = nn.Linear(speller_width, config.width, bias=False)  # W
        self.key = nn.Linear(frame_width, config.width)  # V
        self.location = nn.Conv1d(1, config.channels, config.kernel, padding=config.kernel // 2, bias=False)  # f
        self.place = nn.Linear(config.channels, config.width, bias=False)  # U
        self.energy = nn.Linear(config.width, 1, bias=False)  # w

    def remember(self, frames: Tensor, valid: Tensor) -> Memory:
        """Frames (B, S, H) and which of them are real, (B, S) bool, as a `Memory`."""
        return Memory(frames, self.key(frames), _hidden(frames, valid))

    def start(self, memory: Memory, beams: int) -> Tensor:
        """Nothing was looked at: zeros (B, K, S)."""
        return memory.frames.new_zeros(len(memory.frames), beams, memory.frames.shape[1])

    def forward(self, speller: Tensor, memory: Memory, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, beams, frames = state.shape
        seen = self.location(state.reshape(batch * beams, 1, frames)).transpose(1, 2)  # f (B * K, S, channels)
        places = self.place(seen).view(batch, beams, frames, -1)  # (B, K, S, A)
        mixed = (places + memory.keys.unsqueeze(1) + self.query(speller).unsqueeze(2)).tanh()
        context, weights = memory.read(self.energy(mixed).squeeze(-1))
        return context, weights, state + weights.to(state.dtype)


KINDS: dict[str, type[ContentAttention] | type[LocationAttention]] = {
    "content": ContentAttention,
    "location": LocationAttention,
}
