"""Attention by what a frame holds: energies of all frames from one question, no memory of earlier steps.

Also here: `location_base`, whose energies come from the question alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from las.errors import UserError
from las.model.additive_energy import energies
from las.model.memory import Attention, AttentionConfig, Memory


@dataclass(frozen=True)
class ContentConfig(AttentionConfig):
    """Chan et al. 2015."""

    kind: str = "content"
    width: int = 256  # A, what speller states and listener frames are compared in


class ContentAttention(Attention):
    """e = phi(s) . psi(h), linear phi and psi. Chan et al. 2015 (arXiv:1508.01211), eq. 9-11."""

    def __init__(self, config: ContentConfig, speller_width: int, frame_width: int):
        super().__init__()
        self.query = nn.Linear(speller_width, config.width)  # phi
        self.key = nn.Linear(frame_width, config.width)  # psi

    def keys(self, frames: Tensor) -> Tensor:
        return self.key(frames).transpose(1, 2).contiguous()  # (B, A, S)

    def forward(self, speller: Tensor, memory: Memory, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        context, weights = memory.read(self.query(speller) @ memory.keys)  # e, eq. 9
        return context, weights, state


@dataclass(frozen=True)
class DotConfig(AttentionConfig):
    """Luong et al. 2015, without parameters."""

    kind: str = "dot"


@dataclass(frozen=True)
class ScaledDotConfig(AttentionConfig):
    """Vaswani et al. 2017, without parameters."""

    kind: str = "scaled_dot"


@dataclass(frozen=True)
class GeneralConfig(AttentionConfig):
    """Luong et al. 2015, with a matrix between."""

    kind: str = "general"


class DotAttention(Attention):
    """e = s . h. Luong et al. 2015 (arXiv:1508.04025), eq. 8, dot.

    It needs D = H. Where they differ, frames are projected to D by a matrix, which makes it `general`.
    """

    def __init__(self, config: DotConfig | ScaledDotConfig | GeneralConfig, speller_width: int, frame_width: int):
        super().__init__()
        self.key: nn.Module = nn.Identity()
        if speller_width != frame_width:
            self.key = nn.Linear(frame_width, speller_width, bias=False)

    def keys(self, frames: Tensor) -> Tensor:
        return self.key(frames).transpose(1, 2).contiguous()  # (B, D, S)

    def forward(self, speller: Tensor, memory: Memory, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        context, weights = memory.read(speller @ memory.keys)
        return context, weights, state


class ScaledDotAttention(DotAttention):
    """e = s . h / sqrt(D). Vaswani et al. 2017 (arXiv:1706.03762), eq. 1; projected like `dot`."""

    def keys(self, frames: Tensor) -> Tensor:
        keys = super().keys(frames)
        return keys / keys.shape[1] ** 0.5


class GeneralAttention(DotAttention):
    """e = s . W h. Luong et al. 2015 (arXiv:1508.04025), eq. 8, general."""

    def __init__(self, config: GeneralConfig, speller_width: int, frame_width: int):
        super().__init__(config, speller_width, frame_width)
        self.key = nn.Linear(frame_width, speller_width, bias=False)  # W


@dataclass(frozen=True)
class AdditiveConfig(AttentionConfig):
    """Bahdanau et al. 2015; Luong's concat."""

    kind: str = "additive"
    width: int = 256  # A, what speller states and listener frames are compared in


class AdditiveAttention(Attention):
    """e = w . tanh(W s + V h + b). Bahdanau et al. 2015 (arXiv:1409.0473), A.1.2; Luong's concat is the same."""

    def __init__(self, config: AdditiveConfig, speller_width: int, frame_width: int):
        super().__init__()
        self.query = nn.Linear(speller_width, config.width, bias=False)  # W
        self.key = nn.Linear(frame_width, config.width)  # V, b
        self.energy = nn.Linear(config.width, 1, bias=False)  # w

    def keys(self, frames: Tensor) -> Tensor:
        return self.key(frames)  # (B, S, A)

    def forward(self, speller: Tensor, memory: Memory, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        context, weights = memory.read(energies(memory.keys, self.query(speller), self.energy.weight))
        return context, weights, state


@dataclass(frozen=True)
class LocationBaseConfig(AttentionConfig):
    """Luong et al. 2015: places are known by their number."""

    kind: str = "location_base"
    longest: int = 1000  # listener frames of the longest utterance that can be read


class LocationBaseAttention(Attention):
    """alpha = softmax(W s) over the first S frames. Luong et al. 2015 (arXiv:1508.04025), eq. 9, location.

    Raises `UserError` for an utterance longer than the rows of W.
    """

    def __init__(self, config: LocationBaseConfig, speller_width: int, frame_width: int):
        super().__init__()
        self.place = nn.Linear(speller_width, config.longest, bias=False)  # W

    def remember(self, frames: Tensor, valid: Tensor) -> Memory:
        heard, longest = frames.shape[1], self.place.out_features
        if heard > longest:
            raise UserError(
                f"an utterance has {heard} listener frames, attention.longest is {longest}: raise it, leave out longer "
                "recordings (data.longest), or take an attention.kind without such a limit"
            )
        return super().remember(frames, valid)

    def keys(self, frames: Tensor) -> Tensor:
        return frames.new_zeros(len(frames), 0)

    def forward(self, speller: Tensor, memory: Memory, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        energy = nn.functional.linear(speller, self.place.weight[: memory.frames.shape[1]])  # (B, Q, S)
        context, weights = memory.read(energy)
        return context, weights, state
