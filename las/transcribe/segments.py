"""Long recordings -> pieces that a model trained on sentences can read, cut where it is quietest, as they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

FRAME = 0.02  # s, over which loudness is measured
PAUSE = 0.2  # s, over which it is averaged to find a pause


def pieces(blocks: Iterable[Tensor], rate: int, longest: float) -> Iterator[Tensor]:
    """Consecutive pieces (n,) of a recording that comes in blocks, none longer than `longest` seconds.

    A cut lies in the middle of the quietest stretch in the second half of what a piece may hold. No more than a piece
    and a block are held, whatever the recording's length.

    >>> wave = torch.ones(50); wave[32:38] = 0.0
    >>> [len(piece) for piece in pieces(wave.split(7), rate=10, longest=4.0)]    # quiet from 3.2 s to 3.8 s of 5 s
    [35, 15]
    """
    most = int(longest * rate)
    held: list[Tensor] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += len(block)
        if count > most:
            wave = torch.cat(held)
            while len(wave) > most:
                end = _quiet_place(wave[:most], rate)
                yield wave[:end]
                wave = wave[end:]
            held, count = [wave.clone()], len(wave)  # the clone lets go of the rest
    if count:
        yield torch.cat(held)


def _quiet_place(wave: Tensor, rate: int) -> int:
    """A sample in the middle of the quietest stretch in the second half of a wave."""
    frame = max(1, int(FRAME * rate))
    width = 2 * max(1, int(PAUSE / FRAME / 2)) + 1
    first, frames = len(wave) // 2 // frame, len(wave) // frame
    if frames - 1 <= first:
        return len(wave)
    energy = wave[: frames * frame].view(-1, frame).square().mean(1)
    loudness = torch.nn.functional.avg_pool1d(
        energy[None, None], width, stride=1, padding=width // 2, count_include_pad=False
    )[0, 0, first : frames - 1]
    quietest = (loudness == loudness.min()).nonzero()  # several in digital silence: the middle one
    return (first + int(quietest[len(quietest) // 2])) * frame + frame // 2
