"""Long recordings -> pieces that a model trained on sentences can read, cut in pauses, as they are read.

A pause is where it is quiet and where CTC hears no token: noise as loud as the speech hides the one, a model that does
not know such speech misses the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

FRAME = 0.02  # s, over which loudness is measured
PAUSE = 0.2  # s, over which it is averaged to find a pause
NEAR = 0.16  # s; a token that is heard no further away than this speaks against a cut
LEAST = 1e-3  # a token counts as at least this likely
FAINT = 1e-10  # mean square that counts as no sound
CONTEXT = 1.0  # s before the places in question that CTC hears as well

Heard = Callable[[Tensor], Tensor]  # wave (n,) -> probability that a token is heard in each of S equal parts (S,)


def pieces(
    blocks: Iterable[Tensor], rate: int, longest: float, whole: float = 0.0, heard: Heard | None = None
) -> Iterator[Tensor]:
    """Consecutive pieces (n,) of a recording that comes in blocks, none longer than `longest` seconds.

    A recording of up to `whole` seconds is one piece.

    A cut lies in the middle of the quietest stretch in the second half of what a piece may hold; with `heard`, where
    loudness times the probability of a token nearby is lowest. No more than a piece and a block are held, whatever the
    recording's length.

    >>> wave = torch.tensor([1.0, -1.0]).repeat(25); wave[32:38] = 0.0
    >>> [len(piece) for piece in pieces(wave.split(7), rate=10, longest=4.0)]    # quiet from 3.2 s to 3.8 s of 5 s
    [35, 15]
    """
    most = max(1, int(longest * rate))
    frame = max(1, int(FRAME * rate))
    reach = max(1, int(PAUSE / FRAME / 2))  # frames on either side that loudness is averaged over
    lead = int(CONTEXT * rate)
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
                end = _quiet_place(wave[:ahead], most, frame, reach, lead, heard)
                yield wave[:end].clone()  # a clone lets go of the rest
                wave = wave[end:]
            held, count = [wave.clone()], len(wave)
            full, uncut = ahead, most
    wave = torch.cat(held) if held else torch.empty(0)
    while len(wave) > uncut:
        uncut = most
        end = _quiet_place(wave[:ahead], most, frame, reach, lead, heard)
        yield wave[:end].clone()
        wave = wave[end:]
    if len(wave):
        yield wave


def _quiet_place(wave: Tensor, most: int, frame: int, reach: int, lead: int, heard: Heard | None) -> int:
    """A sample in the middle of the quietest stretch in the second half of the first `most` samples."""
    first, last = most // 2 // frame, most // frame - 1
    if last <= first:
        return most
    wave = wave[: len(wave) // frame * frame]
    energy = (wave - wave.mean()).view(-1, frame).square().mean(1)  # a constant is no sound
    loudness = torch.nn.functional.avg_pool1d(
        energy[None, None], 2 * reach + 1, stride=1, padding=reach, count_include_pad=False
    )[0, 0, first:last]
    if heard is not None:
        before = max(0, first - lead // frame)
        parts = heard(wave[before * frame :])
        if len(parts):  # a listener makes no frame of less than its window
            loudness = (loudness + FAINT) * _near(parts, len(energy) - before)[first - before : last - before]
    quietest = (loudness == loudness.min()).nonzero()  # several in digital silence: the middle one
    return (first + int(quietest[len(quietest) // 2])) * frame + frame // 2


def _near(heard: Tensor, frames: int) -> Tensor:
    """The greatest probability of a token near each of `frames` frames, from that in each of S equal parts (S,)."""
    part = (torch.arange(frames) + 0.5) * len(heard) / frames
    near = round(NEAR / FRAME)
    likely = heard.float().clamp(min=LEAST)[part.long()]
    return torch.nn.functional.max_pool1d(likely[None, None], 2 * near + 1, stride=1, padding=near)[0, 0]
