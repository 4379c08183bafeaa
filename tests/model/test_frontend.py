"""Log-mel features against a slow independent computation of single frames, and what masks may cover."""

import math
from dataclasses import replace

import numpy
import pytest
import torch
from torch import Tensor

from las.batch import Batch, pad
from las.errors import UserError
from las.model.frontend import Frontend, FrontendConfig, SpecAugment, SpecAugmentConfig, frame_count, warp_time

SMALL = FrontendConfig(  # 200 and 80 samples
    sample_rate=8000, window=0.025, hop=0.010, mel_bins=12, low=50.0, utterance_mean=False
)
RELATIVE = replace(SMALL, utterance_mean=True)


def slow_frame(samples: numpy.ndarray, config: FrontendConfig) -> numpy.ndarray:
    """Log-mel power of one window (window,) -> (F,), from the textbook."""
    size = len(samples)
    samples = samples - samples.mean()
    spectrum = 1
    while spectrum < size:
        spectrum *= 2
    place = numpy.arange(size)
    windowed = samples * (0.5 - 0.5 * numpy.cos(2 * math.pi * place / (size - 1)))
    top = config.high or config.sample_rate / 2
    mel = numpy.linspace(2595 * math.log10(1 + config.low / 700), 2595 * math.log10(1 + top / 700), config.mel_bins + 2)
    corners = 700 * (10 ** (mel / 2595) - 1)  # Hz
    powers = numpy.zeros(config.mel_bins)
    for k in range(spectrum // 2 + 1):
        power = abs((windowed * numpy.exp(-2j * math.pi * k * place / spectrum)).sum()) ** 2
        frequency = k * config.sample_rate / spectrum
        for number, (left, middle, right) in enumerate(zip(corners, corners[1:], corners[2:], strict=False)):
            powers[number] += power * max(
                0.0, min((frequency - left) / (middle - left), (right - frequency) / (right - middle))
            )
    return numpy.log(numpy.maximum(powers, config.floor))


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, window=0.016, low=200.0, high=3000.0, mel_bins=5)])
def test_equals_slow_log_mel_of_single_frames(config):
    wave = torch.randn(1000, dtype=torch.float64, generator=torch.manual_seed(0))
    frontend = Frontend(config).double()
    size, hop = config.window_samples, config.hop_samples
    features, frames = frontend(wave[None], torch.tensor([1000]))
    assert frames.item() == features.shape[1] == frame_count(1000, size, hop)
    for t in (0, 1, int(frames) - 1):
        expected = slow_frame(wave[t * hop : t * hop + size].numpy(), config)
        numpy.testing.assert_allclose(features[0, t].numpy(), expected, atol=1e-4)  # filters are made in float32


def test_whole_windows_only():
    frontend = Frontend(SMALL)
    for samples in [1, 50, 199, 200, 201, 279, 280, 281, 359, 360, 1000]:
        whole = len([start for start in range(0, samples, 80) if start + 200 <= samples])
        features, frames = frontend(torch.zeros(1, samples), torch.tensor([samples]))
        assert features.shape == (1, max(1, whole), 12)
        assert frames.item() == frame_count(samples, 200, 80) == max(1, whole)


def test_a_tail_shorter_than_a_hop_is_not_heard():
    frontend = Frontend(SMALL)
    wave = torch.randn(1, 439)
    louder = wave.clone()
    louder[:, 360:] *= 100  # windows end at 200, 280, 360
    both = [frontend(one, torch.tensor([439]))[0] for one in (wave, louder)]
    assert torch.equal(*both)


def test_audio_shorter_than_a_window_is_padded_with_zeros():
    frontend = Frontend(SMALL).double()
    wave = torch.randn(1, 77, dtype=torch.float64)
    padded = torch.nn.functional.pad(wave, (0, 123))
    torch.testing.assert_close(
        frontend(wave, torch.tensor([77]))[0], frontend(padded, torch.tensor([200]))[0], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("filling", [1e4, math.nan, math.inf])
def test_padding_is_zero_and_its_content_does_not_matter(filling):
    frontend = Frontend(SMALL)
    frontend.mean.fill_(-3.0)
    samples = torch.tensor([1000, 500, 199, 1])
    waves = torch.randn(4, 1100)
    past = torch.arange(1100) >= samples.unsqueeze(1)
    clean, frames = frontend(waves.masked_fill(past, 0.0), samples)
    dirty, _ = frontend(waves.masked_fill(past, filling), samples)
    assert torch.equal(clean, dirty)
    assert frames.tolist() == [11, 4, 1, 1]
    for row, count in zip(clean, frames.tolist(), strict=True):
        assert (row[count:] == 0).all()
        assert (row[:count] != 0).all()


@pytest.mark.parametrize("hertz", [1000.0, 250.0, 3000.0])
def test_a_tone_lights_the_bin_around_it(hertz):
    config = FrontendConfig(utterance_mean=False)
    wave = (2 * math.pi * hertz * torch.arange(16_000) / 16_000).sin()
    features, _ = Frontend(config)(wave[None], torch.tensor([16_000]))
    mel = 2595 * math.log10(1 + hertz / 700)
    low, high = (2595 * math.log10(1 + edge / 700) for edge in (config.low, 8000.0))
    nearest = round((mel - low) / (high - low) * (config.mel_bins + 1)) - 1  # the filter whose middle is nearest
    assert set(features[0].argmax(1).tolist()) == {nearest}


def test_the_mean_of_each_utterance_is_taken_out_of_every_bin():
    waves, samples = torch.randn(3, 1000, dtype=torch.float64), torch.tensor([1000, 640, 150])
    waves[1] *= 0.01
    plain, frames = Frontend(SMALL).double()(waves, samples)
    relative, _ = Frontend(RELATIVE).double()(waves, samples)
    for row, own, count in zip(plain, relative, frames.tolist(), strict=True):
        torch.testing.assert_close(own[:count], row[:count] - row[:count].mean(0), rtol=0, atol=1e-9)
        assert (own[count:] == 0).all()


def test_loudness_and_the_colour_of_a_microphone_are_not_heard():
    frontend = Frontend(RELATIVE).double()
    wave = torch.randn(1, 4000, dtype=torch.float64, generator=torch.manual_seed(0))
    wave[:, 2000:] *= 0.1  # what changes within the utterance is heard
    samples = torch.tensor([4000])
    plain = frontend(wave, samples)[0]
    torch.testing.assert_close(frontend(0.05 * wave, samples)[0], plain, rtol=0, atol=1e-9)
    dull = torch.nn.functional.conv1d(wave.unsqueeze(1), torch.tensor([[[0.7, 1.0]]]).double(), padding=1)[:, 0, :-1]
    with_colour = Frontend(SMALL).double()
    apart = (with_colour(dull, samples)[0] - with_colour(wave, samples)[0]).abs().mean()
    assert (frontend(dull, samples)[0] - plain).abs().mean() < 0.1 * apart
    assert plain[0, :20].mean() > plain[0, -20:].mean() + 3


@pytest.mark.parametrize("config", [SMALL, RELATIVE])
def test_alone_or_in_a_batch_is_the_same(config):
    frontend = Frontend(config).double()
    waves, samples = torch.randn(3, 1000, dtype=torch.float64), torch.tensor([1000, 640, 150])
    together, frames = frontend(waves, samples)
    for wave, count, row, own in zip(waves, samples.tolist(), together, frames.tolist(), strict=True):
        alone = frontend(wave[None, :count], torch.tensor([count]))[0][0]
        torch.testing.assert_close(row[:own], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("constant", [0.02, -0.3])
def test_a_constant_is_not_heard(constant):
    frontend = Frontend(SMALL).double()
    wave = torch.randn(2, 1000, dtype=torch.float64) * 0.01
    wave[:, 400:700] = 0.0  # digital silence: there a constant was all that there was
    samples = torch.tensor([1000, 640])  # and padding is none of it
    plain, shifted = frontend(wave, samples)[0], frontend(wave + constant, samples)[0]
    torch.testing.assert_close(shifted, plain, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        frontend.float()((wave + constant).float(), samples)[0], plain.float(), rtol=0, atol=1e-3
    )


def batches() -> list[Batch]:
    generator = torch.manual_seed(0)
    waves = [torch.randn(samples, generator=generator) * 0.1 for samples in (900, 2000, 150, 441)]
    empty = torch.zeros(2, 0, dtype=torch.int64)
    return [Batch(["a", "b"], *pad(pair), empty, torch.zeros(2, dtype=torch.int64)) for pair in (waves[:2], waves[2:])]


def frames_of(frontend: Frontend) -> Tensor:
    rows = []
    for batch in batches():
        features, frames = frontend(batch.waves, batch.samples)
        rows += [row[:count] for row, count in zip(features, frames.tolist(), strict=True)]
    return torch.cat(rows)


@pytest.mark.parametrize("config", [SMALL, RELATIVE])
def test_fit_gives_mean_0_and_variance_1(config):
    frontend = Frontend(config)
    before = frames_of(frontend)
    assert frontend.fit(batches()) == len(before) == 9 + 23 + 1 + 4
    after = frames_of(frontend)
    torch.testing.assert_close(after.mean(0), torch.zeros(12), rtol=0, atol=1e-4)
    torch.testing.assert_close(after.var(0, unbiased=False), torch.ones(12), rtol=0, atol=1e-3)
    saved = Frontend(config)
    saved.load_state_dict(frontend.state_dict())
    assert torch.equal(frames_of(saved), after)


def test_fit_on_silence_stays_finite():
    frontend = Frontend(SMALL)
    silence = torch.zeros(1, 1000)
    none = torch.zeros(1, 0, dtype=torch.int64)
    frontend.fit([Batch(["a"], silence, torch.tensor([1000]), none, torch.zeros(1, dtype=torch.int64))])
    features, _ = frontend(silence, torch.tensor([1000]))
    assert features.abs().max() < 1e-3


def test_fit_on_nothing_is_refused():
    with pytest.raises(UserError, match="no frames to take the mean and variance"):
        Frontend(SMALL).fit([])


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
def test_too_many_mel_bins_are_refused():
    with pytest.raises(UserError, match=r"mel_bins 200: \d+ filters fall between two frequencies of the 256-point"):
        Frontend(replace(SMALL, mel_bins=200))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hop": 0.03}, "hop 0.03 s exceeds frontend.window 0.025 s"),
        ({"hop": 0.0}, "must be above 0"),
        ({"mel_bins": 0}, "must be above 0"),
        ({"mel_bins": 2000}, "2000 mel_bins of windows of 400 samples; at most 1024 of 65536"),
        ({"window": 10.0}, "80 mel_bins of windows of 160000 samples; at most 1024 of 65536"),
        ({"floor": 0.0}, "must be above 0"),
        ({"sample_rate": 0}, "must be above 0"),
        ({"low": -1.0}, "must be in order"),
        ({"low": 5000.0, "high": 4000.0}, "must be in order"),
        ({"high": 9000.0}, "within half the sample rate, 8000 Hz"),
        ({"hop": 1e-5}, "hop 1e-05 s is less than one sample"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        FrontendConfig(**settings)


FRAMES = torch.tensor([98, 57, 5, 1]).repeat(300)
ONLY_TIME = SpecAugmentConfig(frequency_masks=0, time_masks=1, time_width=8, time_share=0.1)
ONLY_FREQUENCY = SpecAugmentConfig(frequency_masks=1, frequency_width=4, time_masks=0)


def hidden_by(config: SpecAugmentConfig, time: int = 110, bins: int = 10) -> Tensor:
    """Where masks fell: (B, T, F) bool, for the utterances of FRAMES."""
    torch.manual_seed(0)
    return SpecAugment(config)(torch.ones(len(FRAMES), time, bins), FRAMES) == 0


def runs(row: list[bool]) -> list[int]:
    """Lengths of the stretches of True."""
    return [len(part) for part in "".join("x" if one else " " for one in row).split()]


@pytest.mark.parametrize(("width", "share"), [(8, 0.1), (40, 0.1), (40, 1.0), (0, 1.0), (3, 0.333)])
def test_time_masks_lie_within_the_utterance_and_its_share(width, share):
    hidden = hidden_by(replace(ONLY_TIME, time_width=width, time_share=share))
    assert torch.equal(hidden.any(2), hidden.all(2))  # whole frames
    widths: dict[int, set[int]] = {}
    for row, frames in zip(hidden.any(2).tolist(), FRAMES.tolist(), strict=True):
        assert not any(row[frames:])
        assert len(runs(row)) <= 1
        widths.setdefault(frames, set()).add(sum(row))
    for frames, seen in widths.items():
        assert seen == set(range(min(width, math.floor(share * frames)) + 1))


def test_frequency_masks_have_every_width_and_place():
    hidden = hidden_by(ONLY_FREQUENCY)
    assert torch.equal(hidden.any(1), hidden.all(1))  # whole bins
    rows = hidden.any(1)
    assert {sum(row) for row in rows.tolist()} == {0, 1, 2, 3, 4}
    assert all(len(runs(row)) <= 1 for row in rows.tolist())
    assert rows.any(0).all()


def test_masks_wider_than_the_features_are_clipped():
    assert hidden_by(replace(ONLY_FREQUENCY, frequency_width=99)).any(1).sum(1).max() == 10


def test_several_masks_differ_between_utterances():
    hidden = hidden_by(SpecAugmentConfig(time_masks=3, frequency_masks=2, frequency_width=3, time_share=0.3))
    assert hidden.any(0).all(1)[:98].any()
    assert len({tuple(row.flatten().tolist()) for row in hidden[::4][:50]}) > 45


def test_no_masks_outside_of_training_or_where_none_are_asked_for():
    features = torch.randn(2, 9, 4)
    masks = SpecAugment(SpecAugmentConfig(time_share=1.0))
    assert masks.eval()(features, torch.tensor([9, 4])) is features
    nothing = SpecAugment(SpecAugmentConfig(frequency_masks=0, time_masks=0))
    assert torch.equal(nothing(features, torch.tensor([9, 4])), features)


def test_adaptive_masks_are_as_many_and_as_wide_as_the_utterance_allows():
    """One mask for every 20 frames, each of one frame at most in 20: what is hidden tells both."""
    config = SpecAugmentConfig(frequency_masks=0, time_masks=4, time_masks_per_frame=0.05, time_share=0.05)
    hidden = hidden_by(config).all(2)
    most: dict[int, int] = {}
    for row, frames in zip(hidden.tolist(), FRAMES.tolist(), strict=True):
        assert not any(row[frames:])
        most[frames] = max(most.get(frames, 0), sum(row))
        assert all(run <= min(4, frames // 20) ** 2 for run in runs(row))
    assert most[98] in (14, 15, 16)  # four masks of at most four frames
    assert most[57] == 4  # two of two
    assert most[5] == most[1] == 0


def test_the_number_of_adaptive_masks_has_a_limit():
    config = SpecAugmentConfig(frequency_masks=0, time_masks=3, time_masks_per_frame=1.0, time_width=1, time_share=1.0)
    hidden = hidden_by(config).all(2)
    counts = {frames: set(hidden[frames == FRAMES].sum(1).tolist()) for frames in (98, 57, 5, 1)}
    assert counts == {98: {0, 1, 2, 3}, 57: {0, 1, 2, 3}, 5: {0, 1, 2, 3}, 1: {0, 1}}


def test_adaptive_masks_up_to_their_limit_are_a_fixed_number():
    """All utterances but the shortest two reach it, and those are too short for a mask anyway."""
    fixed = SpecAugmentConfig(time_masks=3, time_share=0.1)
    assert torch.equal(hidden_by(fixed), hidden_by(replace(fixed, time_masks_per_frame=1.0)))


def ramp(furthest: int, frames: Tensor = FRAMES, time: int = 110) -> Tensor:
    """Where each place comes from, (B, T): features that are their frame's number, warped."""
    torch.manual_seed(0)
    features = torch.arange(time, dtype=torch.float64).expand(len(frames), time)
    features = features.masked_fill(torch.arange(time) >= frames.unsqueeze(1), 0.0)
    return warp_time(features.unsqueeze(2).expand(-1, -1, 3), frames, furthest)[..., 0]


@pytest.mark.parametrize("furthest", [1, 5, 28])
def test_a_warped_ramp_rises_from_end_to_end_with_one_bend(furthest):
    bends = set()
    for row, frames in zip(ramp(furthest), FRAMES.tolist(), strict=True):
        assert not row[frames:].any()  # padding stays
        row = row[:frames]
        if frames <= 2 * furthest:
            assert row.tolist() == list(range(frames))
            continue
        assert row[0] == 0
        assert row[-1] == frames - 1  # both to the bit
        steps = row.diff()
        assert (steps > 0).all()
        steps = steps.round(decimals=3)
        moved = int((steps == steps[0]).cumprod(0).sum())  # the place of the bend
        assert len(set(steps[moved + 1 :].tolist())) <= 1
        bends.add((frames, round(float(row[moved])), moved))
    starts = {start for frames, start, moved in bends if frames == 98 and start != moved}
    assert min(starts) >= furthest
    assert max(starts) < 98 - furthest
    ways = {moved - start for frames, start, moved in bends if frames == 98 and moved < 97}
    assert {-furthest, furthest} <= ways <= set(range(-furthest, furthest + 1))


@pytest.mark.parametrize(
    ("chance", "expected"),
    [
        ((0.5, 0.0), [0, 2, 4, 4 + 4 / 6, 4 + 8 / 6, 6, 6 + 4 / 6, 6 + 8 / 6, 8]),  # frame 4 moves to 2
        ((0.5, 0.5), [0, 1, 2, 3, 4, 5, 6, 7, 8]),  # it stays
        ((0.5, 0.99), [0, 4 / 6, 8 / 6, 2, 2 + 4 / 6, 2 + 8 / 6, 4, 6, 8]),  # to 6
        ((0.0, 0.0), [0, *(2 + step * 6 / 7 for step in range(8))]),  # frame 2 to 1: the first stays before it
    ],
)
def test_a_warp_that_one_can_work_out(monkeypatch, chance, expected):
    monkeypatch.setattr(torch, "rand", lambda *size, device: torch.tensor(chance).view(2, 1, 1))
    found = ramp(2, torch.tensor([9]), 12)[0].tolist()
    assert found == pytest.approx([*expected, 0, 0, 0], abs=1e-6)


def test_a_warp_does_not_see_the_padding():
    features, frames = torch.randn(4, 60, 5), torch.tensor([60, 41, 10, 1])
    found = []
    for longer, filling in ((0, 0.0), (40, 0.0), (40, 1e6)):
        torch.manual_seed(1)
        padded = torch.nn.functional.pad(features, (0, 0, 0, longer))
        padded = padded.masked_fill((torch.arange(60 + longer) >= frames.unsqueeze(1)).unsqueeze(2), filling)
        found.append(warp_time(padded, frames, 4))
    for row, count in enumerate(frames.tolist()):
        assert torch.equal(found[0][row, :count], found[1][row, :count])
        assert torch.equal(found[0][row, :count], found[2][row, :count])
        assert (found[2][row, count:] == 1e6).all()
    assert not torch.equal(found[0][0], features[0])
    assert torch.equal(found[0][3, :1], features[3, :1])


def test_time_is_warped_in_training_alone_and_by_the_seed():
    features, frames = torch.randn(2, 30, 4), torch.tensor([30, 30])
    warping = SpecAugment(SpecAugmentConfig(frequency_masks=0, time_masks=0, time_warp=5))
    torch.manual_seed(0)
    first, other = warping(features, frames), warping(features, frames)
    torch.manual_seed(0)
    assert torch.equal(warping(features, frames), first)
    assert not torch.equal(first, other)
    assert first.shape == features.shape
    assert warping.eval()(features, frames) is features


def test_without_a_warp_nothing_is_drawn_for_it():
    torch.manual_seed(0)
    SpecAugment(SpecAugmentConfig(frequency_masks=0, time_masks=0, time_warp=0))(torch.randn(2, 30, 4), FRAMES[:2])
    after = torch.rand(1)
    torch.manual_seed(0)
    torch.randn(2, 30, 4)
    assert torch.equal(after, torch.rand(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time_masks": -1}, "masks, widths and time_warp must be 0 or more"),
        ({"time_warp": -1}, "masks, widths and time_warp must be 0 or more"),
        ({"time_share": 1.5}, "time_share 1.5 must lie between 0 and 1"),
        ({"time_masks_per_frame": 4.0}, "time_masks_per_frame 4.0 must lie between 0 and 1, such as 0.04"),
    ],
)
def test_masks_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        SpecAugmentConfig(**settings)
