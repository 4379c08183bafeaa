"""Long recordings -> pieces that a model trained on sentences can read, cut where it is quietest."""

from __future__ import annotations

import torch
from torch import Tensor

FRAME = 0.02  # s, over which loudness is measured
PAUSE = 0.2  # s, over which it is averaged to find a pause


def cut_points(wave: Tensor, rate: int, longest: float) -> list[int]:
    """Ends of pieces, in samples, the last one the end of the wave (N,); no piece is longer than `longest` seconds.

    A cut lies in the middle of the quietest stretch in the second half of what a piece may hold.

    >>> wave = torch.ones(50); wave[32:38] = 0.0
    >>> cut_points(wave, rate=10, longest=4.0)    # 5 s of sound, quiet from 3.2 s to 3.8 s
    [35, 50]
    """
    most = int(longest * rate)
    if len(wave) <= most:
        return [len(wave)]
    frame = max(1, int(FRAME * rate))
    energy = wave[: len(wave) // frame * frame].view(-1, frame).square().mean(1)
    width = 2 * max(1, int(PAUSE / FRAME / 2)) + 1
    loudness = torch.nn.functional.avg_pool1d(
        energy[None, None], width, stride=1, padding=width // 2, count_include_pad=False
    )[0, 0]
    ends: list[int] = []
    start = 0
    while len(wave) - start > most:
        first, last = (start + most // 2) // frame, (start + most) // frame - 1
        end = (first + _quietest(loudness[first:last])) * frame + frame // 2 if last > first else start + most
        ends.append(end)
        start = end
    return [*ends, len(wave)]


def _quietest(loudness: Tensor) -> int:
    """The place of the least loudness; the middle one where several are equal, as in digital silence."""
    places = (loudness == loudness.min()).nonzero()
    return int(places[len(places) // 2])
