"""What of a piece could be speech, by the signal alone."""

import math

import numpy as np
import pytest
import torch

from las.transcribe.sound import LEAST, loud_stretches, only_clicks, sounds, stillness, variation

RATE = 8000


def tone(hertz: float, seconds: float) -> torch.Tensor:
    return torch.sin(2 * math.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)


def noise(seconds: float) -> torch.Tensor:
    return torch.randn(round(seconds * RATE), generator=torch.manual_seed(0))


def test_a_tone_stands_still_and_noise_does_not():
    assert stillness(tone(440, 1.0), RATE) == pytest.approx(-math.log(LEAST), abs=0.1)
    assert 1.0 < stillness(noise(1.0), RATE) < 2.0
    sweep = torch.sin(torch.cumsum(torch.linspace(0.1, 2.0, 4000), 0))
    assert stillness(sweep, RATE) < 1.0


@pytest.mark.parametrize(("samples", "still"), [(0, 0.0), (100, 0.0), (RATE, -math.log(LEAST))])
def test_nothing_stands_still_where_it_lasts(samples, still):
    wave = torch.zeros(samples)
    assert (stillness(wave, RATE), variation(wave, RATE), loud_stretches(wave, RATE)) == (still, 0.0, [])


def test_level_does_not_count_but_its_changes_do():
    assert stillness(0.001 * noise(1.0), RATE) == pytest.approx(stillness(noise(1.0), RATE), abs=1e-3)
    assert variation(torch.cat([noise(0.5), 0.01 * noise(0.5)]), RATE) == pytest.approx(40.0, abs=2.0)


def test_a_constant_is_not_heard():
    wave = torch.cat([0.001 * noise(0.5), 0.1 * noise(0.5), 0.001 * noise(0.5)])
    for of in (stillness, variation, loud_stretches):
        assert np.array(of(wave + 0.2, RATE)) == pytest.approx(np.array(of(wave, RATE)), abs=0.02)


def test_clicks_are_told_from_syllables():
    clicks = 0.001 * noise(2.0)
    for place in (0.3, 0.9, 1.0, 1.7):
        clicks[int(place * RATE) :][:80] += 0.5 * noise(0.01)
    assert only_clicks(loud_stretches(clicks, RATE))
    assert only_clicks(loud_stretches(clicks - 0.001 * noise(2.0), RATE))  # in digital silence
    clicks[RATE : RATE + 800] += 0.1 * tone(300, 0.1)
    assert not only_clicks(loud_stretches(clicks, RATE))
    assert not only_clicks(loud_stretches(noise(1.0), RATE))  # nothing stands out


def test_sounds_go_from_pause_to_pause():
    wave = 0.001 * noise(2.0)
    for start, end in ((0.3, 0.7), (0.72, 0.9), (1.2, 1.25), (1.5, 1.8)):  # 20 ms do not part, 50 ms are a click
        wave[int(start * RATE) : int(end * RATE)] += 0.5 * tone(500, end - start)
    assert np.array(sounds(loud_stretches(wave, RATE))) == pytest.approx(np.array([(0.3, 0.9), (1.5, 1.8)]), abs=0.011)
    assert loud_stretches(noise(1.0), RATE) == []  # nothing stands out
