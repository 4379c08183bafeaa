"""A seed -> a recording in which nobody speaks: silence, noise, hum, tones, music-like notes and clicks."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

LEVELS = (-50.0, -6.0)  # dB of full scale, the loudest moment of a sound
SEMITONE = 2 ** (1 / 12)
LOWEST_NOTE = 110.0  # Hz


def nonspeech(kind: str, seconds: float, rate: int, generator: np.random.Generator) -> np.ndarray:
    """Samples (N,) float32 within -1..1; every second sound has a faint noise below it."""
    count = max(1, round(seconds * rate))
    wave = KINDS[kind](count, rate, generator)
    peak = np.abs(wave).max()
    if peak > 0:
        wave = wave / peak * 10 ** (generator.uniform(*LEVELS) / 20)
        if generator.random() < 0.5:
            wave = wave + 10 ** (generator.uniform(-70, -50) / 20) * generator.standard_normal(count)
    return np.clip(wave, -1.0, 1.0).astype(np.float32)


def _zeros(count: int, rate: int, generator: np.random.Generator) -> np.ndarray:
    return np.zeros(count)


def _coloured(slope: float) -> Callable[[int, int, np.random.Generator], np.ndarray]:
    """Noise whose power falls with frequency to the power of `slope`: 0 white, 1 pink, 2 brown."""

    def noise(count: int, rate: int, generator: np.random.Generator) -> np.ndarray:
        spectrum = np.fft.rfft(generator.standard_normal(count))
        hertz = np.maximum(np.fft.rfftfreq(count, 1 / rate), 20.0)
        return np.fft.irfft(spectrum / hertz ** (slope / 2), count)

    return noise


def _hum(count: int, rate: int, generator: np.random.Generator) -> np.ndarray:
    """Mains: 50 or 60 Hz and overtones."""
    time = np.arange(count) / rate
    base = generator.choice([50.0, 60.0])
    parts = [generator.uniform(0.1, 1.0) / order * np.sin(2 * np.pi * base * order * time) for order in range(1, 9)]
    return np.sum(parts, axis=0)


def _tone(count: int, rate: int, generator: np.random.Generator) -> np.ndarray:
    return np.sin(2 * np.pi * generator.uniform(100.0, 0.4 * rate) * np.arange(count) / rate)


def _chord(count: int, rate: int, generator: np.random.Generator) -> np.ndarray:
    """A triad with overtones, held."""
    base = generator.uniform(100.0, 400.0)
    return np.sum([_note(base * ratio, count, rate, generator) for ratio in (1.0, 1.25, 1.5)], axis=0)


def _melody(count: int, rate: int, generator: np.random.Generator) -> np.ndarray:
    """Notes that die away, one after another or with rests between."""
    wave = np.zeros(count)
    place = 0
    while place < count:
        length = round(rate * generator.uniform(0.15, 0.6))
        if generator.random() < 0.8:
            note = _note(LOWEST_NOTE * SEMITONE ** generator.integers(0, 30), length, rate, generator)
            note = note * np.exp(-np.arange(length) / rate * generator.uniform(1.0, 8.0))
            wave[place : place + length] = note[: count - place]
        place += length
    return wave


def _clicks(count: int, rate: int, generator: np.random.Generator) -> np.ndarray:
    """Ticks that die away within milliseconds, one to ten a second."""
    wave = np.zeros(count)
    place = round(rate * generator.uniform(0.0, 0.5))
    while place < count:
        fade = rate * generator.uniform(0.001, 0.006)  # samples
        tick = generator.standard_normal(round(5 * fade)) * np.exp(-np.arange(round(5 * fade)) / fade)
        wave[place : place + len(tick)] += generator.uniform(0.2, 1.0) * tick[: count - place]
        place += round(rate * generator.uniform(0.1, 1.0))
    return wave


def _note(hertz: float, count: int, rate: int, generator: np.random.Generator) -> np.ndarray:
    time = np.arange(count) / rate
    orders = range(1, max(2, math.ceil(min(5.0, 0.45 * rate / hertz))))
    return np.sum([np.sin(2 * np.pi * hertz * n * time) * generator.uniform(0.3, 1.0) / n for n in orders], axis=0)


KINDS: dict[str, Callable[[int, int, np.random.Generator], np.ndarray]] = {
    "zeros": _zeros,
    "white": _coloured(0.0),
    "pink": _coloured(1.0),
    "brown": _coloured(2.0),
    "hum": _hum,
    "tone": _tone,
    "chord": _chord,
    "melody": _melody,
    "clicks": _clicks,
}
