"""Long recordings -> pieces that a model trained on sentences can read, cut where it is quietest, as they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

FRAME = 0.02  # s, over which loudness is measured
PAUSE = 0.2  # s, over which it is averaged to find a pause


def pieces(blocks: Iterable[Tensor], rate: int, longest: float, whole: float = 0.0) -> Iterator[Tensor]:
    """Consecutive pieces (n,) of a recording that comes in blocks, none longer than `longest` seconds.

    A recording of up to `whole` seconds is one piece.

    A cut lies in the middle of the quietest stretch in the second half of what a piece may hold. No more than a piece
    and a block are held, whatever the recording's length.

    >>> wave = torch.tensor([1.0, -1.0]).repeat(25); wave[32:38] = 0.0
    >>> [len(piece) for piece in pieces(wave.split(7), rate=10, longest=4.0)]    # quiet from 3.2 s to 3.8 s of 5 s
    [35, 15]
    """
    most = max(1, int(longest * rate))
    frame = max(1, int(FRAME * rate))
    reach = max(1, int(PAUSE / FRAME / 2))  # frames on either side that loudness is averaged over
    ahead = most + (reach + 1) * frame  # samples that a cut looks at
    held: list[Tensor] = []
    count = 0
    uncut = max(most, int(whole * rate))
    full = max(ahead, uncut)  # samples that may wait for more
    for block in blocks:
        held.append(block)
        count += len(block)
        if count > full:
            wave = torch.cat(held)
            while len(wave) > ahead:
                end = _quiet_place(wave[:ahead], most, frame, reach)
                yield wave[:end].clone()  # a clone lets go of the rest
                wave = wave[end:]
            held, count = [wave.clone()], len(wave)
            full, uncut = ahead, most
    wave = torch.cat(held) if held else torch.empty(0)
    while len(wave) > uncut:
        uncut = most
        end = _quiet_place(wave[:ahead], most, frame, reach)
        yield wave[:end].clone()
        wave = wave[end:]
    if len(wave):
        yield wave


def _quiet_place(wave: Tensor, most: int, frame: int, reach: int) -> int:
    """A sample in the middle of the quietest stretch in the second half of the first `most` samples."""
    first, last = most // 2 // frame, most // frame - 1
    if last <= first:
        return most
    wave = wave[: len(wave) // frame * frame]
    energy = (wave - wave.mean()).view(-1, frame).square().mean(1)  # a constant is no sound
    loudness = torch.nn.functional.avg_pool1d(
        energy[None, None], 2 * reach + 1, stride=1, padding=reach, count_include_pad=False
    )[0, 0, first:last]
    quietest = (loudness == loudness.min()).nonzero()  # several in digital silence: the middle one
    return (first + int(quietest[len(quietest) // 2])) * frame + frame // 2
