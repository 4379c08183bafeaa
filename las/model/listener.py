"""The listener: features -> fewer, richer frames through a pyramid of bidirectional LSTMs or GRUs.

Chan et al. 2015 (arXiv:1508.01211), eq. 4-5: a layer that reduces reads its lower neighbour's frames in concatenated
pairs. An optional front of two 3x3 convolutions, each halving time, stands before the pyramid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from las.errors import UserError
from las.model.gru import BiGRU
from las.model.lstm import BiLSTM
from las.model.masking import valid_frames

CELLS = {"lstm": BiLSTM, "gru": BiGRU}


@dataclass(frozen=True)
class ListenerConfig:
    """The pyramid from bottom to top."""

    width: int = 256  # cells of one direction; H is twice that
    reduce: tuple[int, ...] = (1, 2, 2)  # frames that each layer reads at once, bottom first
    convolutions: int = 0  # channels of a front of two 3x3 convolutions, each halving time; 0: none
    dropout: float = 0.1  # share of values set to 0 behind each layer in training
    cell: str = "lstm"  # lstm or gru

    def __post_init__(self) -> None:
        if not self.reduce or min(self.reduce) < 1:
            raise UserError(f"listener.reduce {list(self.reduce)}: one number of frames per layer, each at least 1")
        if self.width < 1 or self.convolutions < 0:
            raise UserError("listener: width must be at least 1, convolutions 0 or more")
        if not 0 <= self.dropout < 1:
            raise UserError(f"listener.dropout {self.dropout} must be at least 0 and below 1")
        if self.cell not in CELLS:
            raise UserError(f"listener.cell {self.cell!r}: wanted one of {', '.join(CELLS)}")

    @property
    def reduction(self) -> int:
        """Input frames for each frame that comes out."""
        return math.prod(self.reduce) * (4 if self.convolutions else 1)

    def frames_out(self, frames: int) -> int:
        """S for T input frames: every halving rounds up.

        >>> ListenerConfig(reduce=(1, 2, 2)).frames_out(98)
        25
        """
        for factor in ((2, 2) if self.convolutions else ()) + tuple(self.reduce):
            frames = -(-frames // factor)
        return frames


class Listener(nn.Module):
    """Features (B, T, F), frames (B,) -> listened (B, S, H), their number (B,). Padded frames are exactly 0.

    Only `running` layers run, the lowest ones and the top one: all of them, unless training lets the pyramid grow
    (`las/train/growth.py`). A layer between that waits is replaced by the maximum over the frames it would join.
    """

    def __init__(self, config: ListenerConfig, feature_width: int):
        super().__init__()
        self.config = config
        self.front = ConvolutionalFront(config.convolutions, feature_width) if config.convolutions else None
        size = self.front.width if self.front else feature_width
        layers = []
        for factor in config.reduce:
            layers.append(CELLS[config.cell](size * factor, config.width))
            size = 2 * config.width
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(config.dropout)
        self.width = size  # H
        self.running = len(layers)

    def forward(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        if self.front is not None:
            features, frames = self.front(features, frames)
        for number, (layer, factor) in enumerate(zip(self.layers, self.config.reduce, strict=True)):
            if self.running - 1 <= number < len(self.layers) - 1:
                features, frames = pool(features, frames, factor)
                continue
            features, frames = concatenate(self.dropout(features) if number else features, frames, factor)
            features = layer(features, frames)  # (B, T', H)
        return self.dropout(features), frames


def concatenate(features: Tensor, frames: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Join each `factor` neighbouring frames to one (eq. 5); a short tail is filled with zero frames.

    Shapes: (B, T, F), (B,) -> (B, ceil(T / factor), factor * F), (B,). Features past `frames` must be 0.
    """
    if factor == 1:
        return features, frames
    batch, time, width = features.shape
    if time % factor:
        features = nn.functional.pad(features, (0, 0, 0, -time % factor))
    return features.reshape(batch, -1, factor * width), (frames + factor - 1) // factor


def pool(features: Tensor, frames: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """The greatest of each `factor` neighbouring frames, value by value; what `concatenate` joins to one.

    Shapes: (B, T, H), (B,) -> (B, ceil(T / factor), H), (B,). Features past `frames` must be 0.
    """
    joined, fewer = concatenate(features, frames, factor)
    return joined.unflatten(2, (factor, -1)).amax(2), fewer


class ConvolutionalFront(nn.Module):
    """Two 3x3 convolutions over time and frequency with stride 2 and ReLU; padding stays 0 after each of them.

    Shapes: (B, T, F), (B,) -> (B, ceil(T / 4), channels * ceil(F / 4)), (B,).
    """

    def __init__(self, channels: int, feature_width: int):
        super().__init__()
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(1, channels, 3, stride=2, padding=1), nn.Conv2d(channels, channels, 3, stride=2, padding=1)]
        )
        self.width = channels * math.ceil(feature_width / 4)

    def forward(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        grid = features.unsqueeze(1)  # (B, C, T, F)
        for convolution in self.convolutions:
            grid = convolution(grid).relu()
            frames = (frames + 1) // 2
            grid = grid.masked_fill(~valid_frames(frames, grid.shape[2])[:, None, :, None], 0.0)
        return grid.transpose(1, 2).flatten(2), frames
