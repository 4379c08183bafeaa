from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
import torchaudio

from las.data.augment import (
    AugmentConfig,
    Augmenter,
    add_noise,
    change_speed,
    coloured_noise,
    fast_size,
    reverberate,
    room_response,
)
from las.data.loader import Loader, LoaderConfig
from las.data.manifest import Utterance
from las.data.sharding import write_shards
from las.data.shards import read_index
from las.errors import UserError
from las.text.tokenizer import Tokenizer, train_tokenizer

RATE = 8_000  # Hz


def speech(seconds=1.0, seed=0):
    return 0.1 * torch.randn(int(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def decibels(one, other):
    return 10 * math.log10(one.double().square().mean() / other.double().square().mean())


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1, 2.0])
def test_a_faster_tone_is_shorter_and_higher(speed):
    rate, pitch = 8_000, 500.0
    wave = torch.sin(2 * torch.pi * pitch * torch.arange(2 * rate) / rate)
    changed = change_speed(wave, speed, rate)
    assert len(changed) == pytest.approx(len(wave) / speed, abs=1)
    spectrum = torch.fft.rfft(changed * torch.hann_window(len(changed))).abs()
    assert float(spectrum.argmax()) * rate / len(changed) == pytest.approx(pitch * speed, abs=1)


@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_speed_is_torchaudios_resampling(speed):
    wave = speech(1.3)
    wanted = torchaudio.functional.resample(wave, round(RATE * speed), RATE)
    assert torch.allclose(change_speed(wave, speed, RATE)[: len(wanted)], wanted, atol=1e-6)


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


# --------------------------------------------------------------------------------------------------- noise, room, gain


@pytest.mark.parametrize("ratio", [-5.0, 0.0, 20.0])
def test_noise_has_the_power_that_is_asked_for(ratio):
    wave, noise = speech(), 3 * speech(seed=1)
    assert decibels(wave, add_noise(wave, noise, ratio) - wave) == pytest.approx(ratio, abs=0.01)


def test_silence_gets_no_noise_and_silent_noise_adds_none():
    wave = speech()
    assert add_noise(torch.zeros(80), wave[:80], 10.0).abs().max() == 0
    assert torch.equal(add_noise(wave, torch.zeros_like(wave), 10.0), wave)
    assert len(add_noise(torch.zeros(0), torch.zeros(0), 10.0)) == 0


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_coloured_noise_falls_as_its_colour_says(slope):
    """From one octave to the next, twice as wide, the power changes by (1 - slope) * 3 dB."""
    power = sum(torch.fft.rfft(coloured_noise(1 << 16, slope, seed)).abs().square() for seed in range(4))
    octaves = [power[1 << n : 2 << n].sum() for n in range(8, 14)]
    steps = [10 * math.log10(after / before) for before, after in itertools.pairwise(octaves)]
    assert steps == pytest.approx([3.01 * (1 - slope)] * 5, abs=0.7)


def test_a_fast_size_is_the_first_of_its_kind():
    def fast(number):
        for factor in (2, 3, 5):
            while number % factor == 0:
                number //= factor
        return number == 1

    for samples in (1, 2, 7, 1001, 140_000):
        assert fast_size(samples) == next(n for n in itertools.count(samples) if n % 2 == 0 and fast(n))


def test_a_room_answers_with_a_click_and_a_tail_that_falls_by_60_decibels():
    response = room_response(0.5, 6.0, RATE, 3)
    assert len(response) == 0.5 * RATE
    assert response[0] == 1
    assert decibels(response[:1], response[1:]) - 10 * math.log10(len(response) - 1) == pytest.approx(6.0, abs=0.01)
    first, last = response[1:401], response[-400:]  # 0.05 s each, 0.45 s apart
    assert decibels(first, last) == pytest.approx(60 * 0.45 / 0.5, abs=1.5)


def test_reverberation_is_a_convolution_as_loud_as_before():
    wave, response = speech(0.1), room_response(0.05, 3.0, RATE, 1)
    heard = reverberate(wave, response)
    by_hand = torch.tensor([
        sum(wave[n - k] * response[k] for k in range(min(n + 1, len(response)))) for n in range(0, len(wave), 97)
    ])  # fmt: skip
    assert decibels(heard, wave) == pytest.approx(0, abs=1e-4)
    scale = heard[::97] / by_hand
    assert torch.allclose(scale, scale[0], rtol=1e-3)


def test_a_click_for_a_room_changes_nothing_and_its_delay_is_taken_away():
    wave = speech(0.2)
    for response in (torch.tensor([1.0]), torch.tensor([0.0, 0.0, 0.0, -2.0])):
        assert torch.allclose(reverberate(wave, response), wave * response.sum().sign(), atol=1e-6)
    assert not reverberate(torch.zeros(10), torch.ones(3)).any()


def test_gain_changes_the_loudness():
    wave = speech()
    changed = [Augmenter(AugmentConfig(gains=(-10.0, 6.0)), RATE)(wave, 0, 0, f"u{n}") for n in range(50)]
    found = [decibels(one, wave) for one in changed]
    assert min(found) == pytest.approx(-10, abs=2)
    assert max(found) == pytest.approx(6, abs=2)


def test_nothing_is_changed_by_default():
    wave = speech()
    assert Augmenter(AugmentConfig(), RATE)(wave, 0, 0, "u") is wave


ALL = AugmentConfig(
    speeds=(0.9, 1.0, 1.1), reverberation="generated", noise="generated", gains=(-6.0, 6.0), reverberation_chance=0.7
)


def test_what_is_drawn_hangs_on_the_seeds_alone():
    wave = speech()
    one = Augmenter(ALL, RATE)(wave, 7, 3, "발화")
    torch.manual_seed(3)
    assert torch.equal(one, Augmenter(ALL, RATE)(wave, 7, 3, "발화"))
    assert one.dtype == torch.float32
    others = [Augmenter(ALL, RATE)(wave, *seeds) for seeds in ((8, 3, "발화"), (7, 4, "발화"), (7, 3, "말"))]
    assert not any(len(one) == len(other) and torch.equal(one, other) for other in others)


def test_a_share_of_the_utterances_is_changed():
    wave = speech(0.05)
    for key in ("noise", "reverberation"):
        augmenter = Augmenter(AugmentConfig(**{key: "generated", f"{key}_chance": 0.3}), RATE)
        assert 0.2 < sum(augmenter(wave, 0, 0, n) is not wave for n in range(400)) / 400 < 0.4


def test_noise_and_rooms_come_from_folders(tools, tmp_path):
    """The noise is a tone of another rate, and shorter than the speech; the room is a click and an echo."""
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(4_000) / 16_000)
    tools.write_wav(tmp_path / "noise" / "소음" / "tone.wav", 0.5 * tone, 16_000)
    for name in (".hidden", "README.md"):  # published collections hold more than sound
        (tmp_path / "noise" / name).write_text("not a recording")
    echo = torch.zeros(800)
    echo[[100, 500]] = torch.tensor([0.8, 0.4])
    tools.write_wav(tmp_path / "rooms" / "echo.wav", echo)
    wave = speech()
    noisy = Augmenter(AugmentConfig(noise=str(tmp_path / "noise"), noise_chance=1.0), RATE)(wave, 0, 0, "u")
    added = torch.fft.rfft(noisy - wave).abs()
    assert int(added.argmax()) == pytest.approx(1000, abs=2)
    assert 5 <= decibels(wave, noisy - wave) <= 25
    config = AugmentConfig(reverberation=str(tmp_path / "rooms"), reverberation_chance=1.0)
    heard = Augmenter(config, RATE)(wave, 0, 0, "u")
    by_hand = wave + torch.nn.functional.pad(wave, (400, 0))[:-400] * 0.5
    assert torch.allclose(heard / heard.std(), by_hand / by_hand.std(), atol=1e-2)


def test_a_folder_without_recordings_or_with_a_damaged_one_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("hello")
    with pytest.raises(UserError, match=r"augment.noise .*: no recordings in this folder; name one .* or generated"):
        Augmenter(AugmentConfig(noise=str(tmp_path)), RATE)
    (tmp_path / "readme.wav").write_text("hello")
    with pytest.raises(UserError, match=r"augment.reverberation: .*readme.wav"):
        Augmenter(AugmentConfig(reverberation=str(tmp_path)), RATE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_chance": 1.5}, r"augment.noise_chance 1.5: a share, between 0 and 1"),
        ({"reverberation_chance": -0.1}, r"augment.reverberation_chance -0.1: a share"),
        (
            {"noise_ratios": (20.0, 5.0)},
            r"augment.noise_ratios \[20.0, 5.0\]: two numbers, the lower one first, from -50",
        ),
        ({"gains": (1.0,)}, r"augment.gains \[1.0\]: two numbers"),
        ({"reverberation_times": (0.0, 1.0)}, r"augment.reverberation_times .* from 0.01 to 10"),
        ({"token_alpha": 1.5}, r"augment.token_alpha 1.5: between 0 and 1"),
        ({"token_nbest": 1}, r"augment.token_nbest 1: -1 for all, or at least 2 to choose from"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        AugmentConfig(**settings)


# ---------------------------------------------------------------------------------------------- tokens, and the loader

WORDS = ["the cat sat on the mat", "a hat that sat flat", "that cat chats at the hat", "mats and hats and cats"] * 3


@pytest.fixture(scope="module")
def words(tools, tmp_path_factory):
    """Shards that say WORDS, and a unigram tokenizer of them."""
    folder = tmp_path_factory.mktemp("words")
    wave = tools.write_wav(folder / "a.wav", speech(0.3))
    index = write_shards([Utterance(f"u{n}", str(wave), text) for n, text in enumerate(WORDS)], folder / "shards")
    return index, train_tokenizer(WORDS, 40, "unigram", folder / "tokenizer.model")


def tokens_and_waves(words, augment, workers=0, epoch=0, skip=0):
    index, tokenizer = words
    config = LoaderConfig(workers=workers, batch_utterances=3)
    loader = Loader(index, tokenizer, RATE, config, shuffle=True, seed=1, augment=augment)
    return {
        id: (tuple(tokens[:length].tolist()), wave[:samples])
        for batch in loader.epoch(epoch, skip)
        for id, tokens, length, wave, samples in zip(
            batch.ids, batch.tokens, batch.lengths, batch.waves, batch.samples, strict=True
        )
    }


@pytest.mark.parametrize(("workers", "skip"), [(0, 2), (2, 0), (2, 3)])
def test_neither_workers_nor_a_resumed_epoch_change_what_is_drawn(words, workers, skip):
    augment = AugmentConfig(reverberation="generated", noise="generated", gains=(-6.0, 6.0), token_alpha=0.2)
    alone, other = tokens_and_waves(words, augment), tokens_and_waves(words, augment, workers, skip=skip)
    assert len(other) == len(WORDS) - 3 * skip
    for id, (tokens, wave) in other.items():
        assert tokens == alone[id][0]
        assert torch.equal(wave, alone[id][1])


def test_tokens_are_drawn_anew_in_every_epoch_and_say_the_same(words):
    _, tokenizer = words
    epochs = [tokens_and_waves(words, AugmentConfig(token_alpha=0.2), epoch=epoch) for epoch in range(4)]
    for number, text in enumerate(WORDS):
        drawn = {epoch[f"u{number}"][0] for epoch in epochs}
        assert len(drawn) > 1
        assert {tokenizer.decode(ids) for ids in drawn} == {text}
    plain = tokens_and_waves(words, AugmentConfig())
    assert all(list(plain[f"u{number}"][0]) == tokenizer.encode(text) for number, text in enumerate(WORDS))


def test_characters_can_be_written_in_one_way_only(corpus):
    index, tokenizer = read_index(corpus / "shards" / "train"), Tokenizer.load(corpus / "tokenizer.model")
    with pytest.raises(UserError, match=r"augment.token_alpha: this tokenizer writes a text in one way only; use unig"):
        Loader(index, tokenizer, RATE, LoaderConfig(), shuffle=True, seed=0, augment=AugmentConfig(token_alpha=0.1))
