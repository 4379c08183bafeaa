"""Attention made of parts: several heads side by side, or frames within segments."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from las.errors import UserError
from las.model.additive_energy import squash
from las.model.memory import Attention, AttentionConfig, Memory

ENERGIES = ("dot", "additive")


@dataclass(frozen=True)
class MultiHeadConfig(AttentionConfig):
    """Chiu et al. 2018."""

    kind: str = "multi_head"
    width: int = 256  # A, of all heads together, in which speller states and listener frames are compared
    heads: int = 4  # heads; they share out the width
    energy: str = "dot"  # how a head compares: dot or additive

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.energy not in ENERGIES:
            raise UserError(f"attention.energy {self.energy!r}: wanted one of {', '.join(ENERGIES)}")
        if self.width % self.heads:
            raise UserError(f"attention.heads {self.heads} do not divide attention.width {self.width}")


class MultiHeadAttention(Attention):
    """Heads that look each at their own place; what they read is joined by a linear layer to width H.

    Chiu et al. 2018 (arXiv:1712.01769), section 2.2.2, after Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.2.
    Energies of a head are scaled dots or additive. The weights given out are the mean over the heads.
    """

    def __init__(self, config: MultiHeadConfig, speller_width: int, frame_width: int):
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(speller_width, config.width, bias=False)
        self.key = nn.Linear(frame_width, config.width, bias=config.energy == "additive")
        self.value = nn.Linear(frame_width, config.width, bias=False)
        self.join = nn.Linear(config.width, frame_width)
        for part in (self.query, self.key, self.value, self.join):
            nn.init.xavier_uniform_(part.weight)  # torch's own for a layer is a third of it, each time: slow to learn
        self.energy: nn.Parameter | None = None
        if config.energy == "additive":
            narrow = config.width // config.heads
            self.energy = nn.Parameter(torch.empty(config.heads, narrow).uniform_(-(narrow**-0.5), narrow**-0.5))

    def keys(self, frames: Tensor) -> Tensor:
        return torch.stack([self._split(self.key(frames)), self._split(self.value(frames))], 1)  # (B, 2, heads, S, a)

    def forward(self, speller: Tensor, memory: Memory, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query = self._split(self.query(speller))  # (B, heads, Q, a)
        keys, values = memory.keys.unbind(1)  # (B, heads, S, a)
        if self.energy is None:
            energy = query @ keys.transpose(2, 3) / keys.shape[3] ** 0.5  # (B, heads, Q, S)
        else:
            mixed = keys.unsqueeze(2) + query.unsqueeze(3)  # (B, heads, Q, S, a)
            energy = (squash(mixed) @ (2 * self.energy)[:, None, :, None]).squeeze(-1)
        weights = (energy + memory.hidden.unsqueeze(1)).softmax(dim=-1)
        read = (weights.to(values.dtype) @ values).transpose(1, 2).flatten(2)  # (B, Q, A)
        return self.join(read), weights.mean(1), state

    def _split(self, wide: Tensor) -> Tensor:
        return wide.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, n, A) -> (B, heads, n, a)


@dataclass(frozen=True)
class HierarchicalConfig(AttentionConfig):
    """Yang et al. 2016."""

    kind: str = "hierarchical"
    width: int = 256  # A, what speller states are compared in with frames, and with segments
    segment: int = 16  # listener frames of a segment


class HierarchicalAttention(Attention):
    """Frames within segments of the recording, then segments: a weight is that of the segment times that within it.

    Yang et al. 2016 (Hierarchical Attention Networks, NAACL), eq. 5-10, at both levels: e = q . tanh(W h + b),
    weights = softmax, segment = their average of the frames. Their learned question q is here a projection of the
    speller's state, one for each level.
    """

    def __init__(self, config: HierarchicalConfig, speller_width: int, frame_width: int):
        super().__init__()
        self.segment = config.segment
        self.query = nn.Linear(speller_width, config.width)  # for frames
        self.key = nn.Linear(frame_width, config.width)
        self.segment_query = nn.Linear(speller_width, config.width)
        self.segment_key = nn.Linear(frame_width, config.width)

    def keys(self, frames: Tensor) -> Tensor:
        return self.key(frames).tanh().transpose(1, 2).contiguous()  # (B, A, S)

    def forward(self, speller: Tensor, memory: Memory, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        frames = memory.frames.shape[1]
        rest = -frames % self.segment
        heard = nn.functional.pad(memory.frames, (0, 0, 0, rest)).unflatten(1, (-1, self.segment))  # (B, G, g, H)
        hidden = nn.functional.pad(memory.hidden, (0, rest), value=-torch.inf).unflatten(2, (-1, self.segment))
        empty = hidden.isneginf().all(3)  # (B, 1, G)
        hidden = hidden.masked_fill(empty.unsqueeze(3), 0.0)  # any weights will do there
        energy = nn.functional.pad(self.query(speller) @ memory.keys, (0, rest)).unflatten(2, (-1, self.segment))
        within = (energy + hidden).softmax(dim=3)  # (B, Q, G, g)
        segments = torch.einsum("bqgs,bgsh->bqgh", within.to(heard.dtype), heard)
        among = (self.segment_key(segments).tanh() @ self.segment_query(speller).unsqueeze(3)).squeeze(3)
        among = among.masked_fill(empty, -torch.inf).softmax(dim=2)  # (B, Q, G)
        weights = (among.unsqueeze(3) * within).flatten(2)[..., :frames]
        return memory.average(weights), weights, state
