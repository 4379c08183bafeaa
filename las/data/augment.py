"""Waveforms -> other waveforms that say the same, drawn by seed so that a run can be repeated.

Speed after Ko et al. 2015 (Audio augmentation for speech recognition): resampling, so tempo and pitch change together.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
import torchaudio
from torch import Tensor

from las.errors import UserError

PADDED_TO = 1 << 13  # samples; oneDNN prepares a convolution anew for each length it meets, which takes 13 ms


@dataclass(frozen=True)
class AugmentConfig:
    """What is changed in training recordings, anew in every epoch."""

    speeds: tuple[float, ...] = (1.0,)  # one is drawn for each utterance, such as [0.9,1.0,1.1]; 1: as recorded

    def __post_init__(self) -> None:
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise UserError(f"augment.speeds {list(self.speeds)}: at least one, each between 0.5 and 2")

    def speed(self, *seeds: object) -> float:
        """The speed drawn for these seeds: run, epoch, utterance."""
        return random.Random(" ".join(map(str, seeds))).choice(self.speeds)


def change_speed(wave: Tensor, speed: float, rate: int) -> Tensor:
    """A wave (N,) at `rate` Hz played `speed` times as fast: (about N / speed,).

    >>> change_speed(torch.zeros(8_000), 1.25, 8_000).shape
    torch.Size([6400])
    """
    if speed == 1:
        return wave
    whole = torch.nn.functional.pad(wave, (0, -len(wave) % PADDED_TO))
    return torchaudio.functional.resample(whole, round(rate * speed), rate)[: math.ceil(len(wave) / speed)]
