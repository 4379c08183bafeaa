"""The samples of a piece -> what of it could be speech, by the signal alone: no model is asked.

Speech is louder than what is around it, and its spectrum moves. Noise and hum stand at one level; a tone, a chord or
a note keeps its spectrum for longer than speech ever does. Clicks, however loud and many, are shorter than any
vowel. A constant, as cheap microphones add, is no sound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from las.transcribe.timing import STEP, loudness, noise_edge

WINDOW = 0.064  # s, of a spectrum; two of them that do not overlap are compared
LEVEL_STEP = 0.05  # s, over which loudness is averaged to see how far it varies
BRIDGE = 0.03  # s; a shorter gap in a sound does not part it
SHORTEST = 0.1  # s of a sound
CLICK = 0.06  # s; all sounds shorter than that: clicks. Of speech in noise more than that stands out
EDGE = 0.06  # s; sound this near to an end of the piece ends with it
LEAST = 1e-3  # how far a spectrum always moves


def stillness(wave: Tensor, rate: int) -> float:
    """-log of how far the spectrum moves in 64 ms: about 1 in speech, 1.5 in noise, 7 in tones and where nothing is.

    It is that of the middle of the piece's sound, weighed by power: 1 - the cosine between two magnitude spectra.

    >>> round(stillness(torch.sin(torch.arange(8000) * 0.3), 8000), 1)
    6.9
    """
    window = int(WINDOW * rate)
    hop = window // 2
    if len(wave) < window + 2 * hop:
        return 0.0  # too short to tell
    cut = (wave - wave.mean()).unfold(0, window, hop)
    spectra = torch.fft.rfft(cut * torch.hann_window(window)).abs()  # (windows, bins)
    power = spectra.square().sum(1)
    before, after = spectra[:-2], spectra[2:]
    likeness = (before * after).sum(1) / (before.norm(dim=1) * after.norm(dim=1)).clamp(min=1e-12)
    weight = torch.minimum(power[:-2], power[2:])
    order = likeness.argsort()
    half = weight[order].cumsum(0)
    if not half[-1] > 0:
        return -math.log(LEAST)
    middle = likeness[order][int(torch.searchsorted(half, half[-1] / 2).clamp(max=len(order) - 1))]
    return -math.log(LEAST + max(0.0, 1.0 - float(middle)))


def variation(wave: Tensor, rate: int) -> float:
    """dB between the quiet and the loud moments of a piece, the 10th and the 95th percentile.

    >>> tone = torch.tensor([1.0, -1.0]).repeat(2000)
    >>> variation(tone, 8000), variation(torch.cat([tone, 0.1 * tone]), 8000)
    (0.0, 20.0)
    """
    levels = loudness(wave - wave.mean(), max(1, round(LEVEL_STEP * rate)), smooth=1)
    return round(float(np.percentile(levels, 95) - np.percentile(levels, 10)), 6) if len(levels) else 0.0


def ends_loud(wave: Tensor, rate: int) -> tuple[bool, bool]:
    """Whether sound begins with a wave, and whether it ends with it; both where nothing in it stands out.

    >>> word, quiet = torch.ones(4000) * torch.tensor([1.0, -1.0]).repeat(2000), torch.zeros(800)
    >>> ends_loud(word, 8000), ends_loud(torch.cat([word, quiet]), 8000)
    ((True, True), (True, False))
    """
    found = loud_stretches(wave, rate)
    if not found:
        return True, True
    return found[0][0] <= EDGE, found[-1][1] >= len(wave) / rate - EDGE


def sounds(found: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of some loud stretches that last longer than a tick."""
    return [(start, end) for start, end in found if end - start >= SHORTEST]


def only_clicks(found: Sequence[tuple[float, float]]) -> bool:
    """Whether there are loud stretches, and none of them lasts longer than a click does.

    >>> wave = torch.zeros(8000); wave[2000], wave[5000] = 0.5, -0.7
    >>> [only_clicks(loud_stretches(one, 8000)) for one in (wave, 0 * wave)]
    [True, False]
    """
    return bool(found) and all(end - start < CLICK for start, end in found)


def loud_stretches(wave: Tensor, rate: int) -> list[tuple[float, float]]:
    """Start and end in s of what is louder than the piece's noise, from pause to pause, however short.

    None where nothing stands out: there is no telling then.
    """
    hop = max(1, round(STEP * rate))
    levels = loudness(wave - wave.mean(), hop)
    edge = noise_edge(levels)
    if edge == -np.inf:
        return []
    flags = np.concatenate([[0], levels >= edge, [0]]).astype(int)
    found: list[list[float]] = []
    step = hop / rate
    for start, end in zip(np.flatnonzero(np.diff(flags) > 0), np.flatnonzero(np.diff(flags) < 0), strict=True):
        if found and start * step - found[-1][1] < BRIDGE:
            found[-1][1] = end * step
        else:
            found.append([start * step, end * step])
    return [(float(start), float(end)) for start, end in found]
