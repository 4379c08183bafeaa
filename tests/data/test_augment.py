from __future__ import annotations

from collections import Counter

import pytest
import torch

from las.data.augment import AugmentConfig, change_speed
from las.data.loader import Loader, LoaderConfig
from las.data.shards import read_index
from las.errors import UserError
from las.text.tokenizer import Tokenizer


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1, 2.0])
def test_a_faster_tone_is_shorter_and_higher(speed):
    rate, pitch = 8_000, 500.0
    wave = torch.sin(2 * torch.pi * pitch * torch.arange(2 * rate) / rate)
    changed = change_speed(wave, speed, rate)
    assert len(changed) == pytest.approx(len(wave) / speed, abs=1)
    spectrum = torch.fft.rfft(changed * torch.hann_window(len(changed))).abs()
    assert float(spectrum.argmax()) * rate / len(changed) == pytest.approx(pitch * speed, abs=1)


def test_speeds_are_drawn_alike_and_the_same_every_time():
    config = AugmentConfig(speeds=(0.9, 1.0, 1.1))
    drawn = [config.speed(0, 3, f"utterance {number}") for number in range(3000)]
    assert drawn == [config.speed(0, 3, f"utterance {number}") for number in range(3000)]
    assert all(900 < count < 1100 for count in Counter(drawn).values())
    assert drawn != [config.speed(0, 4, f"utterance {number}") for number in range(3000)]


@pytest.mark.parametrize("speeds", [(), (0.4,), (1.0, 2.1)])
def test_speeds_that_cannot_be_meant_are_refused(speeds):
    with pytest.raises(UserError, match=r"augment\.speeds .* between 0\.5 and 2"):
        AugmentConfig(speeds=speeds)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_changes_each_utterance_as_drawn(corpus, workers):
    index = read_index(corpus / "shards" / "train")
    tokenizer = Tokenizer.load(corpus / "tokenizer.model")
    config, augment = LoaderConfig(workers=workers), AugmentConfig(speeds=(0.5, 1.0, 2.0))
    plain = Loader(index, tokenizer, 8_000, config, shuffle=True, seed=7)
    changed = Loader(index, tokenizer, 8_000, config, shuffle=True, seed=7, augment=augment)
    for epoch in (0, 1):
        lengths = {
            id: samples
            for batch in plain.epoch(epoch)
            for id, samples in zip(batch.ids, batch.samples.tolist(), strict=True)
        }
        for batch in changed.epoch(epoch):
            for id, samples in zip(batch.ids, batch.samples.tolist(), strict=True):
                assert samples == pytest.approx(lengths[id] / augment.speed(7, epoch, id), abs=1)
