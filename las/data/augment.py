"""Waveforms -> other waveforms that say the same, drawn by seed so that a run can be repeated.

Speed after Ko et al. 2015 (Audio augmentation for speech recognition): resampling, so tempo and pitch change together.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from torch import Tensor

from las import audio
from las.errors import UserError


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

    >>> import torch
    >>> change_speed(torch.zeros(8_000), 1.25, 8_000).shape
    torch.Size([6400])
    """
    return wave if speed == 1 else audio.load((wave, round(rate * speed)), rate)
