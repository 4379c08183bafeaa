"""Waveforms -> other waveforms that say the same, drawn by seed so that a run can be repeated.

Speed after Ko et al. 2015 (Audio augmentation for speech recognition): resampling, so tempo and pitch change together.
Noise and reverberation as in Ko et al. 2017 (A study on data augmentation of reverberant speech), from recordings or
generated: noise whose power falls with a power of the frequency, and a room that answers with exponentially decaying
noise (Polack 1988).

What is drawn for an utterance hangs on run seed, epoch and its id, each change by itself: neither worker processes,
nor a resumed run, nor another change beside it draw otherwise. All sums are made by numpy on one thread, to the same
bits.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torchaudio
from torch import Tensor

from las import audio
from las.errors import UserError

PADDED_TO = 1 << 13  # samples; oneDNN prepares a convolution anew for each length it meets, which takes 13 ms
GENERATED = "generated"
SLOPES = (0.0, 2.0)  # generated noise: its power falls as 1 / frequency ** slope, from white to brown
DIRECT = (0.0, 12.0)  # dB, generated room: the direct sound over all that comes back
SIZES = sorted(2**two * 3**three * 5**five for two in range(1, 30) for three in range(8) for five in range(6))
KEPT_FILES = 16  # recordings of noise and rooms that a process keeps in memory


@dataclass(frozen=True)
class AugmentConfig:
    """What is changed in training utterances, anew in every epoch."""

    speeds: tuple[float, ...] = (1.0,)  # one is drawn for each utterance, such as [0.9,1.0,1.1]; 1: as recorded
    reverberation: str = ""  # a folder of recorded room responses, or generated; empty: none
    reverberation_chance: float = 0.5  # share of the utterances that get one
    reverberation_times: tuple[float, ...] = (0.1, 0.6)  # s, shortest and longest time in which a generated room's
    #                                                       answer falls by 60 dB
    noise: str = ""  # a folder of recordings, or generated; empty: none
    noise_chance: float = 0.5  # share of the utterances that get noise
    noise_ratios: tuple[float, ...] = (5.0, 25.0)  # dB, lowest and highest ratio of speech to noise
    gains: tuple[float, ...] = (0.0, 0.0)  # dB, lowest and highest change of loudness, such as [-10,10]
    token_alpha: float = 0.0  # tokens of a text are drawn: of a unigram tokenizer, in proportion to their probability
    #                           to the power of alpha, such as 0.2 (Kudo 2018); of a bpe tokenizer, merges left out with
    #                           probability alpha, such as 0.1 (Provilkov et al. 2020); 0: always the same tokens
    token_nbest: int = -1  # of how many best ways to write a text with unigram tokens one is drawn; -1: of all

    def __post_init__(self) -> None:
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise UserError(f"augment.speeds {list(self.speeds)}: at least one, each between 0.5 and 2")
        for name in ("reverberation_chance", "noise_chance"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"augment.{name} {getattr(self, name)}: a share, between 0 and 1")
        for name, lowest, highest in (
            ("reverberation_times", 0.01, 10),
            ("noise_ratios", -50, 100),
            ("gains", -60, 60),
        ):
            found = getattr(self, name)
            if len(found) != 2 or not lowest <= found[0] <= found[1] <= highest:
                raise UserError(
                    f"augment.{name} {list(found)}: two numbers, the lower one first, from {lowest} to {highest}"
                )
        if not 0 <= self.token_alpha <= 1:
            raise UserError(f"augment.token_alpha {self.token_alpha}: between 0 and 1")
        if self.token_nbest != -1 and self.token_nbest < 2:
            raise UserError(f"augment.token_nbest {self.token_nbest}: -1 for all, or at least 2 to choose from")

    def speed(self, *seeds: object) -> float:
        """The speed drawn for these seeds: run, epoch, utterance."""
        return _chance(seeds).choice(self.speeds)

    def token_seed(self, *seeds: object) -> int:
        """The seed that the tokens of an utterance are drawn with."""
        return _chance(seeds, "tokens").getrandbits(31)


class Augmenter:
    """Changes waveforms as a config says. Raises `UserError` for a folder without recordings or with a damaged one."""

    def __init__(self, config: AugmentConfig, rate: int):
        self.config = config
        self.rate = rate
        self.rooms = _recordings(config.reverberation, "augment.reverberation")
        self.noises = _recordings(config.noise, "augment.noise")

    def __call__(self, wave: Tensor, *seeds: object) -> Tensor:
        """A wave (N,) changed in speed, then room, noise and loudness, as drawn for run seed, epoch and utterance."""
        config = self.config
        wave = change_speed(wave, config.speed(*seeds), self.rate)
        chance = _chance(seeds, "room")
        if config.reverberation and chance.random() < config.reverberation_chance:
            wave = reverberate(wave, self._room(chance))
        chance = _chance(seeds, "noise")
        if config.noise and chance.random() < config.noise_chance:
            wave = add_noise(wave, self._noise(len(wave), chance), chance.uniform(*config.noise_ratios))
        if any(config.gains):
            wave = wave * 10 ** (_chance(seeds, "gain").uniform(*config.gains) / 20)
        return wave

    def _room(self, chance: random.Random) -> Tensor:
        if self.config.reverberation != GENERATED:
            return _recording(chance.choice(self.rooms), self.rate)
        seconds, direct = chance.uniform(*self.config.reverberation_times), chance.uniform(*DIRECT)
        return room_response(seconds, direct, self.rate, chance.getrandbits(64))

    def _noise(self, samples: int, chance: random.Random) -> Tensor:
        if self.config.noise == GENERATED:
            return coloured_noise(samples, chance.uniform(*SLOPES), chance.getrandbits(64))
        noise = _recording(chance.choice(self.noises), self.rate)
        start = chance.randrange(len(noise))
        return torch.cat([noise[start:], noise.repeat(-(-samples // len(noise)))])[:samples]


def change_speed(wave: Tensor, speed: float, rate: int) -> Tensor:
    """A wave (N,) at `rate` Hz played `speed` times as fast: (about N / speed,).

    >>> change_speed(torch.zeros(8_000), 1.25, 8_000).shape
    torch.Size([6400])
    """
    if speed == 1:
        return wave
    whole = torch.nn.functional.pad(wave, (0, -len(wave) % PADDED_TO))
    return _resampler(round(rate * speed), rate)(whole)[: math.ceil(len(wave) / speed)]


def reverberate(wave: Tensor, response: Tensor) -> Tensor:
    """A wave (N,) as heard through a room: (N,), as loud as before.

    The response begins at its highest peak, the direct sound, so that words stay where they are.
    """
    response = response[int(response.abs().argmax()) :]
    size = fast_size(len(wave) + len(response) - 1)
    spectrum = np.fft.rfft(wave.numpy(), size) * np.fft.rfft(response.numpy(), size)
    heard = np.fft.irfft(spectrum, size)[: len(wave)]
    power = _power(heard)
    return torch.from_numpy((heard * math.sqrt(_power(wave.numpy()) / power)).astype(np.float32)) if power else wave


def add_noise(wave: Tensor, noise: Tensor, ratio: float) -> Tensor:
    """A wave (N,) with noise (N,) so loud that speech has `ratio` dB more power; silence stays what it is."""
    speech, power = _power(wave.numpy()), _power(noise.numpy())
    if not speech or not power:
        return wave
    return wave + noise * math.sqrt(speech / power * 10 ** (-ratio / 10))


def coloured_noise(samples: int, slope: float, seed: int) -> Tensor:
    """Gaussian noise (samples,) with power in proportion to 1 / frequency ** slope: 0 white, 1 pink, 2 brown."""
    size = fast_size(samples)
    spectrum = np.random.default_rng(seed).standard_normal(size + 2).view(np.complex128)  # white is white there too
    spectrum[0] = 0  # no constant part
    spectrum[1:] *= np.arange(1.0, len(spectrum)) ** (-slope / 2)  # a power of integers takes five times as long
    return torch.from_numpy(np.fft.irfft(spectrum, size)[:samples].astype(np.float32))


def room_response(seconds: float, direct: float, rate: int, seed: int) -> Tensor:
    """A room's answer to a click: the click, then noise that falls by 60 dB in `seconds`; (seconds * rate,).

    The click has `direct` dB more power than all the rest.
    """
    samples = max(2, round(seconds * rate))
    tail = np.random.default_rng(seed).standard_normal(samples) * 10 ** (-3 * np.arange(samples) / samples)
    tail[0] = 0
    tail *= math.sqrt(10 ** (-direct / 10) / np.square(tail).sum())
    tail[0] = 1
    return torch.from_numpy(tail.astype(np.float32))


def fast_size(samples: int) -> int:
    """The smallest even number from `samples` on with no prime factor above 5, which a Fourier transform likes.

    >>> fast_size(140_000)
    144000
    """
    return SIZES[bisect_left(SIZES, samples)]


@lru_cache(maxsize=32)
def _resampler(old: int, new: int) -> torchaudio.transforms.Resample:
    """Keeps its filter, which is made anew by `torchaudio.functional.resample` at every call."""
    return torchaudio.transforms.Resample(old, new)


def _chance(seeds: tuple[object, ...], *what: str) -> random.Random:
    return random.Random(" ".join(map(str, (*seeds, *what))))


def _power(wave: np.ndarray) -> float:
    return float(np.square(wave, dtype=np.float64).mean()) if len(wave) else 0.0


def _recordings(folder: str, key: str) -> list[str]:
    """The recordings below a folder by their names, in order; none where nothing is recorded."""
    if folder in ("", GENERATED):
        return []
    files = (path for path in audio.files_below(Path(folder)) if not path.name.startswith("."))
    paths = sorted(str(path) for path in files if path.suffix.lower() in audio.SUFFIXES)
    if not paths:
        raise UserError(f"{key} {folder}: no recordings in this folder; name one that has some, or {GENERATED}")
    for path in paths:
        try:
            audio.probe(path)
        except UserError as error:
            raise UserError(f"{key}: {error}") from None
    return paths


@lru_cache(maxsize=KEPT_FILES)
def _recording(path: str, rate: int) -> Tensor:
    return audio.load(path, rate)
