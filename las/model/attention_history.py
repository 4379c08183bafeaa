"""Attention that remembers where it looked: its state passes from step to step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from las.errors import UserError
from las.model.additive_energy import energies, squash
from las.model.memory import Attention, AttentionConfig, Memory


@dataclass(frozen=True)
class LocationConfig(AttentionConfig):
    """Chorowski et al. 2015."""

    kind: str = "location"
    width: int = 256  # A, what speller states and listener frames are compared in
    kernel: int = 31  # listener frames that one look at the earlier weights spans; odd
    channels: int = 16  # features taken from the earlier weights

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise UserError(f"attention.kernel {self.kernel} must be odd, so that it has a middle")


class LocationAttention(Attention):
    """Additive attention that also sees where it looked before, so that equal sounds are read one after another.

    Chorowski et al. 2015 (arXiv:1506.07503), eq. 8-9, over the sum of all earlier weights as in Tacotron 2 (Shen et
    al. 2018, arXiv:1712.05884): e = w . tanh(W s + V h + U f), f = convolution of the summed weights.
    State: the summed weights (B, K, S).
    """

    keeps_state = True

    def __init__(self, config: LocationConfig, speller_width: int, frame_width: int):
        super().__init__()
        self.query = nn.Linear(speller_width, config.width, bias=False)  # W
        self.key = nn.Linear(frame_width, config.width)  # V
        self.location = nn.Conv1d(1, config.channels, config.kernel, padding=config.kernel // 2, bias=False)  # f
        self.place = nn.Linear(config.channels, config.width, bias=False)  # U
        self.energy = nn.Linear(config.width, 1, bias=False)  # w

    def keys(self, frames: Tensor) -> Tensor:
        return self.key(frames)  # (B, S, A)

    def start(self, memory: Memory, beams: int) -> Tensor:
        """Nothing was looked at: zeros (B, K, S)."""
        return memory.frames.new_zeros(len(memory.frames), beams, memory.frames.shape[1])

    def forward(self, speller: Tensor, memory: Memory, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        kernel = self.location.weight.squeeze(1)  # (C, k)
        half = kernel.shape[1] // 2
        around = nn.functional.pad(state, (half, half)).unfold(2, kernel.shape[1], 1)  # (B, K, S, k)
        seen = nn.functional.linear(around, kernel)  # f (B, K, S, C); as a convolution its gradient is slow on a CPU
        energy = energies(memory.keys, self.query(speller), self.energy.weight, seen, self.place.weight)
        context, weights = memory.read(energy)
        return context, weights, state + weights.to(state.dtype)


@dataclass(frozen=True)
class CoverageConfig(AttentionConfig):
    """See et al. 2017."""

    kind: str = "coverage"
    width: int = 256  # A, what speller states and listener frames are compared in


class CoverageAttention(Attention):
    """Additive attention that sees how much of each frame was read: e = w . tanh(W s + V h + b + u c).

    See et al. 2017 (arXiv:1704.04368), eq. 10-11; c is the sum of all earlier weights of the frame. Their extra loss
    is not part of it. State: c (B, K, S).
    """

    keeps_state = True

    def __init__(self, config: CoverageConfig, speller_width: int, frame_width: int):
        super().__init__()
        self.query = nn.Linear(speller_width, config.width, bias=False)  # W
        self.key = nn.Linear(frame_width, config.width)  # V, b
        self.covered = nn.Linear(1, config.width, bias=False)  # u
        self.energy = nn.Linear(config.width, 1, bias=False)  # w

    def keys(self, frames: Tensor) -> Tensor:
        return self.key(frames)  # (B, S, A)

    def start(self, memory: Memory, beams: int) -> Tensor:
        """Nothing was read: zeros (B, K, S)."""
        return memory.frames.new_zeros(len(memory.frames), beams, memory.frames.shape[1])

    def forward(self, speller: Tensor, memory: Memory, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen = state.unsqueeze(3).to(memory.keys.dtype)
        energy = energies(memory.keys, self.query(speller), self.energy.weight, seen, self.covered.weight)
        context, weights = memory.read(energy)
        return context, weights, state + weights.to(state.dtype)


@dataclass(frozen=True)
class WindowedConfig(AttentionConfig):
    """Chorowski et al. 2015, windowing."""

    kind: str = "windowed"
    width: int = 256  # A, what speller states and listener frames are compared in
    window: int = 30  # listener frames that can be read on either side of the last peak


class WindowedAttention(Attention):
    """Additive attention over the frames around the last peak alone; the first step looks around the first frame.

    Chorowski et al. 2015 (arXiv:1506.07503), section 2.3, with the largest weight in place of the weights' median.
    A step costs the same however long the recording is. State: the frame of the last peak (B, K, 1) int64.
    """

    keeps_state = True

    def __init__(self, config: WindowedConfig, speller_width: int, frame_width: int):
        super().__init__()
        self.window = config.window
        self.query = nn.Linear(speller_width, config.width, bias=False)  # W
        self.key = nn.Linear(frame_width, config.width)  # V, b
        self.energy = nn.Linear(config.width, 1, bias=False)  # w

    def keys(self, frames: Tensor) -> Tensor:
        return self.key(frames)  # (B, S, A)

    def start(self, memory: Memory, beams: int) -> Tensor:
        """The first frame: zeros (B, K, 1) int64."""
        return torch.zeros(len(memory.frames), beams, 1, dtype=torch.int64, device=memory.frames.device)

    def forward(self, speller: Tensor, memory: Memory, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, frames = memory.frames.shape[:2]
        span = min(2 * self.window + 1, frames)
        first = (state - self.window).clamp(0, frames - span)
        near = first + torch.arange(span, device=state.device)  # (B, K, span) the window, shifted inwards at the ends
        rows = torch.arange(batch, device=state.device)[:, None, None]
        mixed = memory.keys[rows, near] + self.query(speller).unsqueeze(2)  # (B, K, span, A)
        energy = nn.functional.linear(squash(mixed), 2 * self.energy.weight).squeeze(-1)
        energy = energy.masked_fill((near - state).abs() > self.window, -torch.inf)
        everywhere = energy.new_full((batch, state.shape[1], frames), -torch.inf)
        context, weights = memory.read(everywhere.scatter(2, near, energy))
        return context, weights, weights.argmax(2, keepdim=True)


@dataclass(frozen=True)
class GmmConfig(AttentionConfig):
    """Graves 2013; Battenberg et al. 2020."""

    kind: str = "gmm"
    width: int = 256  # A, of the layer between speller states and the mixture
    mixtures: int = 5  # Gaussians


class GmmAttention(Attention):
    """A mixture of Gaussians over the frames' numbers that moves forward only: it cannot go back and repeat.

    Graves 2013 (arXiv:1308.0850), section 5.1, in the form V2 of Battenberg et al. 2020 (arXiv:1910.10288), eq. 7-8
    and table 1: shares = softmax, steps and deviations = softplus of V tanh(W s + b), which start at steps of 1 frame
    and deviations of 10 frames. A frame gets the mass of the mixture within half a frame of it, in place of the
    density at it: so weights sum to at most 1; what lies outside the recording is lost. What frames hold is not
    looked at. State: the means (B, K, mixtures), in float32 at least.
    """

    keeps_state = True
    narrowest = 0.1  # frames; the least deviation

    def __init__(self, config: GmmConfig, speller_width: int, frame_width: int):
        super().__init__()
        self.query = nn.Linear(speller_width, config.width)  # W, b
        self.mixture = nn.Linear(config.width, 3 * config.mixtures)  # V
        shares, steps, deviations = self.mixture.bias.data.chunk(3)
        nn.init.zeros_(shares)
        nn.init.constant_(steps, math.log(math.expm1(1.0)))
        nn.init.constant_(deviations, math.log(math.expm1(10.0)))

    def keys(self, frames: Tensor) -> Tensor:
        return frames.new_zeros(len(frames), 0)

    def start(self, memory: Memory, beams: int) -> Tensor:
        """All means on the first frame: zeros (B, K, mixtures)."""
        frames = memory.frames
        dtype = torch.promote_types(frames.dtype, torch.float32)
        return torch.zeros(len(frames), beams, self.mixture.out_features // 3, dtype=dtype, device=frames.device)

    def forward(self, speller: Tensor, memory: Memory, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mixture = self.mixture(self.query(speller).tanh()).to(state.dtype)
        shares, steps, deviations = mixture.chunk(3, dim=-1)  # (B, K, mixtures) each
        means = state + nn.functional.softplus(steps)
        scale = (nn.functional.softplus(deviations) + self.narrowest) * math.sqrt(2)
        edges = torch.arange(memory.frames.shape[1] + 1, device=state.device, dtype=state.dtype) - 0.5
        below = torch.erf((edges - means.unsqueeze(3)) / scale.unsqueeze(3)) / 2  # (B, K, mixtures, S + 1)
        mass = below.diff(dim=3).clamp(min=0.0)
        weights = (shares.softmax(2).unsqueeze(2) @ mass).squeeze(2)  # (B, K, S)
        weights = weights.masked_fill(memory.hidden < 0, 0.0)
        return memory.average(weights), weights, means
