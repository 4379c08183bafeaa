"""Waveforms -> normalised log-mel features, on the model's device.

Whole windows only, nothing centred or reflected, and no frame knows of another utterance, so a padded batch gives what
single utterances give. The mean of each window is taken out of it, as Kaldi does (remove-dc-offset): a constant below
a recording, which cheap microphones add, is not heard. The mean over the utterance is taken out of every mel bin (Atal
1974, there of cepstra): how loud it is, and what microphone and room do to all of it alike, is not heard either, which
tells speakers apart more than words. SpecAugment after Park et al. 2019 (arXiv:1904.08779), with the adaptive masks of
Park et al. 2020 (arXiv:1912.05533).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from las.batch import Batch
from las.errors import UserError
from las.model.masking import valid_frames

LONGEST_WINDOW, MOST_BINS = 1 << 16, 1024  # samples and mel bins; a stranger's config cannot take all memory by more


@dataclass(frozen=True)
class FrontendConfig:
    """How a waveform becomes log-mel features."""

    sample_rate: int = 16_000  # Hz; audio at another rate is resampled to it
    window: float = 0.025  # s, a Hann window
    hop: float = 0.010  # s, from one window to the next
    mel_bins: int = 80  # F
    low: float = 20.0  # Hz, lower edge of the first mel filter
    high: float = 0.0  # Hz, upper edge of the last one; 0: half the sample rate
    floor: float = 1e-6  # power below which the logarithm is cut off; rounding noise of 16 bits lies below it
    utterance_mean: bool = True  # take the utterance's own mean out of each mel bin, not only the training data's

    def __post_init__(self) -> None:
        if self.hop > self.window:
            raise UserError(f"frontend.hop {self.hop} s exceeds frontend.window {self.window} s: samples are skipped")
        if min(self.sample_rate, self.hop, self.mel_bins, self.floor) <= 0:
            raise UserError("frontend: sample_rate, hop, mel_bins and floor must be above 0")
        if self.window_samples > LONGEST_WINDOW or self.mel_bins > MOST_BINS:
            raise UserError(
                f"frontend: {self.mel_bins} mel_bins of windows of {self.window_samples} samples; "
                f"at most {MOST_BINS} of {LONGEST_WINDOW}"
            )
        if self.hop_samples < 1:
            raise UserError(f"frontend.hop {self.hop} s is less than one sample at {self.sample_rate} Hz")
        if not 0 <= self.low < (self.high or self.sample_rate / 2) <= self.sample_rate / 2:
            raise UserError(
                f"frontend: low {self.low} Hz and high {self.high} Hz must be in order and within half the sample "
                f"rate, {self.sample_rate / 2:g} Hz"
            )

    @property
    def window_samples(self) -> int:
        """Samples of one window."""
        return round(self.window * self.sample_rate)

    @property
    def hop_samples(self) -> int:
        """Samples from one window to the next."""
        return round(self.hop * self.sample_rate)


@dataclass(frozen=True)
class SpecAugmentConfig:
    """Masks over features in training; the mean of the data, 0, is written into them.

    Sizes that hang on the utterance alone, as in Park et al. 2020, with p_M = p_S = 0.04: time_masks 20,
    time_masks_per_frame 0.04, time_width 100000, time_share 0.04.
    """

    frequency_masks: int = 2  # masks over mel bins in each utterance; 0: none
    frequency_width: int = 15  # mel bins, the widest frequency mask
    time_masks: int = 2  # masks over time in each utterance, or the most of them (time_masks_per_frame); 0: none
    time_masks_per_frame: float = 0.0  # adaptive masks: their number is this share of the utterance's frames, such as
    #                                    0.04, up to time_masks; 0: time_masks of them in every utterance
    time_width: int = 40  # frames, the widest time mask
    time_share: float = 0.1  # the widest time mask as a share of the utterance
    time_warp: int = 0  # frames by which a point in the middle of an utterance is moved at most, and what lies on its
    #                     sides stretched and squeezed; utterances of at most twice as many stay; 0: none

    def __post_init__(self) -> None:
        if min(self.frequency_masks, self.frequency_width, self.time_masks, self.time_width, self.time_warp) < 0:
            raise UserError("spec_augment: masks, widths and time_warp must be 0 or more")
        if not 0 <= self.time_share <= 1:
            raise UserError(f"spec_augment.time_share {self.time_share} must lie between 0 and 1")
        if not 0 <= self.time_masks_per_frame <= 1:
            raise UserError(
                f"spec_augment.time_masks_per_frame {self.time_masks_per_frame} must lie between 0 and 1, such as 0.04"
            )


def frame_count(samples: int, window: int, hop: int) -> int:
    """Number of whole windows in a signal, all three in samples; a signal shorter than a window counts as one.

    >>> frame_count(16_000, window=400, hop=160)    # 1 s at 16 kHz, 25 ms windows every 10 ms
    98
    """
    return 1 + max(0, samples - window) // hop


class Frontend(nn.Module):
    """Log-mel features with the utterance's mean and the training data's mean and variance taken out.

    Shapes: waves (B, N), samples (B,) -> features (B, T, F), frames (B,). Padded frames are exactly 0.
    """

    window: Tensor
    filters: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, config: FrontendConfig):
        super().__init__()
        self.config = config
        size = config.window_samples
        self.fft_size = 2 ** math.ceil(math.log2(size))
        with torch.device("cpu"):  # looked at below, so real also in a model that is only planned, on the meta device
            filters = melscale_fbanks(
                n_freqs=self.fft_size // 2 + 1,
                f_min=config.low,
                f_max=config.high or config.sample_rate / 2,
                n_mels=config.mel_bins,
                sample_rate=config.sample_rate,
                norm=None,
                mel_scale="htk",
            )
        if empty := int((filters.sum(0) == 0).sum()):
            raise UserError(
                f"frontend.mel_bins {config.mel_bins}: {empty} filters fall between two frequencies of the "
                f"{self.fft_size}-point spectrum; use fewer bins or a longer window"
            )
        self.register_buffer("window", torch.hann_window(size, periodic=False), persistent=False)
        self.register_buffer("filters", filters, persistent=False)  # (fft/2+1, F)
        self.register_buffer("mean", torch.zeros(config.mel_bins))  # (F,)
        self.register_buffer("deviation", torch.ones(config.mel_bins))  # (F,)

    def forward(self, waves: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        features, valid, frames = self._relative(waves, samples)
        features = (features - self.mean) / self.deviation
        return features.masked_fill(~valid.unsqueeze(-1), 0.0), frames

    def _relative(self, waves: Tensor, samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-mel power (B, T, F) less the utterance's mean, where that is wanted; real frames (B, T); frames (B,)."""
        features, frames = self.log_mel(waves, samples)
        valid = valid_frames(frames, features.shape[1])
        if self.config.utterance_mean:
            total = features.masked_fill(~valid.unsqueeze(-1), 0.0).sum(1, keepdim=True)  # (B, 1, F)
            features = features - total / frames.view(-1, 1, 1)
        return features, valid, frames

    def log_mel(self, waves: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Natural logarithm of mel power, before means and variance: (B, T, F), frames (B,); padding is not masked."""
        size, hop = self.config.window_samples, self.config.hop_samples
        frames = 1 + (samples - size).clamp(min=0) // hop  # (B,)
        longest = 1 + max(0, waves.shape[1] - size) // hop
        missing = (longest - 1) * hop + size - waves.shape[1]
        # an utterance shorter than a window is heard together with what follows it: that must be silence
        waves = waves.masked_fill(~valid_frames(samples, waves.shape[1]), 0.0)
        if missing > 0:  # shorter than one window
            waves = nn.functional.pad(waves, (0, missing))
        with torch.autocast(waves.device.type, enabled=False):
            windows = waves.to(self.window.dtype).unfold(1, size, hop)  # (B, T, window)
            windows = (windows - windows.mean(-1, keepdim=True)) * self.window
            power = torch.fft.rfft(windows, n=self.fft_size).abs().square()  # (B, T, fft/2+1)
            return (power @ self.filters).clamp(min=self.config.floor).log(), frames

    @torch.no_grad()
    def fit(self, batches: Iterable[Batch]) -> int:
        """Set mean and deviation of every mel bin from the frames of `batches`; their number is returned."""
        count = 0
        total = torch.zeros(self.config.mel_bins, dtype=torch.float64)
        square = torch.zeros_like(total)
        for batch in batches:
            features, valid, _ = self._relative(batch.waves.to(self.mean.device), batch.samples.to(self.mean.device))
            rows = features[valid].double().cpu()  # (frames, F)
            count += len(rows)
            total += rows.sum(0)
            square += rows.square().sum(0)
        if count == 0:
            raise UserError("no frames to take the mean and variance of the features from")
        mean = total / count
        deviation = (square / count - mean.square()).clamp(min=1e-4).sqrt()
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)
        return count


class SpecAugment(nn.Module):
    """Warp time, then mask random bands of mel bins and stretches of time, each utterance by itself, in training only.

    Widths are uniform from 0 to the configured widest; a time mask is also at most `time_share` of its utterance.
    What is drawn comes from torch's global generator of the features' device.
    Shapes: features (B, T, F), frames (B,) -> (B, T, F).
    """

    def __init__(self, config: SpecAugmentConfig):
        super().__init__()
        self.config = config

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        config = self.config
        if not self.training:
            return features
        if config.time_warp:
            features = warp_time(features, frames, config.time_warp)
        masks = torch.full_like(frames, config.time_masks)  # (B,)
        if config.time_masks_per_frame:
            masks = (frames * config.time_masks_per_frame).floor().clamp(max=config.time_masks)
        widest = (frames * config.time_share).floor().clamp(max=config.time_width)  # (B,)
        widest = widest.unsqueeze(1) * valid_frames(masks, config.time_masks)  # (B, masks)
        hidden = _stripes(widest, frames, features.shape[1]).unsqueeze(2)  # (B, T, 1)
        bins = torch.full_like(frames, features.shape[2])
        widest = bins.clamp(max=config.frequency_width).unsqueeze(1).expand(-1, config.frequency_masks)
        hidden = hidden | _stripes(widest, bins, features.shape[2]).unsqueeze(1)
        return features.masked_fill(hidden, 0.0)


def warp_time(features: Tensor, frames: Tensor, furthest: int) -> Tensor:
    """Move a random frame of each utterance by at most `furthest` frames, W, and all others in proportion.

    Park et al. 2020, section 2: of T frames one in [W, T - W) moves by up to W either way; what lies before and what
    lies behind it is stretched or squeezed evenly, here by linear interpolation. The first and the last frame stay,
    and it stays between them. Padding and utterances of at most 2W frames are left as they are.
    Shapes: features (B, T, F), frames (B,) -> (B, T, F).
    """
    last = frames.unsqueeze(1) - 1  # (B, 1)
    chance = torch.rand(2, len(frames), 1, device=features.device)
    start = furthest + (chance[0] * (last + 1 - 2 * furthest)).floor()  # w_0 (B, 1)
    end = start - furthest + (chance[1] * (2 * furthest + 1)).floor()  # w_0 + w (B, 1)
    end = torch.minimum(end, last - 1).clamp(min=1)
    place = torch.arange(features.shape[1], device=features.device, dtype=features.dtype)  # (T,)
    before = place * (start / end)  # (B, T), the frame that comes to each place
    behind = last - (last - place) * ((last - start) / (last - end))
    source = torch.where(place < end, before, behind)
    source = torch.where((place > last) | (last < 2 * furthest), place, source)
    lower = source.long()
    upper = (lower + 1).clamp(max=features.shape[1] - 1)  # of the last frame: padding, with no weight
    left, right = (features.gather(1, one.unsqueeze(2).expand_as(features)) for one in (lower, upper))
    return left.lerp(right, (source - lower).unsqueeze(2))


def _stripes(widest: Tensor, lengths: Tensor, size: int) -> Tensor:
    """Random stripes at most as wide as `widest` (B, masks), inside the first `lengths` of `size` places: (B, size)."""
    width = (torch.rand(widest.shape, device=lengths.device) * (widest + 1)).floor()  # (B, masks)
    width = torch.minimum(width, widest)
    start = (torch.rand(widest.shape, device=lengths.device) * (lengths.unsqueeze(1) - width + 1)).floor()
    place = torch.arange(size, device=lengths.device).view(1, 1, size)
    return ((place >= start.unsqueeze(2)) & (place < (start + width).unsqueeze(2))).any(1)
