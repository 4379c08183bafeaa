"""Listen, Attend and Spell: a waveform goes in, the logits of its tokens come out.

Dimension letters, the same in every file:
    B batch   N samples   T input frames   S listener frames   L tokens   K beams   Q questions to attention
    F mel bins   H listener width   D speller width   A attention width   V vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from las.batch import Batch
from las.errors import UserError
from las.model.ctc import CtcBranch
from las.model.frontend import Frontend, FrontendConfig, SpecAugment, SpecAugmentConfig, frame_count
from las.model.listener import Listener, ListenerConfig
from las.model.masking import valid_frames
from las.model.memory import Memory
from las.model.speller import Speller, SpellerConfig


@dataclass(frozen=True)
class ModelConfig:
    """The whole model."""

    frontend: FrontendConfig = field(default_factory=FrontendConfig)
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    listener: ListenerConfig = field(default_factory=ListenerConfig)
    speller: SpellerConfig = field(default_factory=SpellerConfig)
    ctc: bool = True  # a CTC branch beside the speller

    def listener_frames(self, samples: int) -> int:
        """S for N samples."""
        frontend = self.frontend
        return self.listener.frames_out(frame_count(samples, frontend.window_samples, frontend.hop_samples))


@dataclass(frozen=True)
class Listened:
    """Utterances as the listener leaves them."""

    frames: Tensor  # h (B, S, H)
    lengths: Tensor  # (B,) real frames of each
    valid: Tensor  # (B, S) bool

    def part(self, first: Tensor, lengths: Tensor) -> Listened:
        """So many frames (B,) of each utterance, from its frame `first` (B,) on."""
        valid = valid_frames(lengths, int(lengths.max()))
        place = (first.unsqueeze(1) + torch.arange(valid.shape[1], device=first.device)).clamp(
            max=self.frames.shape[1] - 1
        )
        frames = self.frames.gather(1, place.unsqueeze(2).expand(-1, -1, self.frames.shape[2]))
        return Listened(frames.masked_fill(~valid.unsqueeze(2), 0.0), lengths, valid)


@dataclass(frozen=True)
class Output:
    """What training compares with the transcripts."""

    logits: Tensor  # (B, L + 1, V), the last real one is for end of sentence
    weights: Tensor  # attention (B, L + 1, S)
    ctc_logits: Tensor | None  # (B, S, V)
    listened: Listened


class LAS(nn.Module):
    """Frontend, listener and speller, with a CTC branch if the config has one."""

    def __init__(self, config: ModelConfig, vocabulary: int):
        super().__init__()
        if vocabulary < 1:
            raise UserError(f"a vocabulary of {vocabulary} tokens")
        self.config = config
        self.vocabulary = vocabulary
        self.frontend = Frontend(config.frontend)
        self.spec_augment = SpecAugment(config.spec_augment)
        self.listener = Listener(config.listener, config.frontend.mel_bins)
        self.speller = Speller(config.speller, self.listener.width, vocabulary)
        self.ctc = CtcBranch(self.listener.width, vocabulary, config.listener.dropout) if config.ctc else None

    @property
    def precision(self) -> torch.dtype:
        """What listener and speller compute in."""
        return self.speller.output.weight.dtype

    def to_bfloat16(self) -> LAS:
        """The same model with all weights behind the frontend in bfloat16, changed in place."""
        for part in (self.listener, self.speller, self.ctc):
            if part is not None:
                part.bfloat16()
        return self

    def listen(self, waves: Tensor, samples: Tensor) -> Listened:
        """Waves (B, N), samples (B,) -> listened frames."""
        features, frames = self.frontend(waves, samples)  # (B, T, F)
        features = self.spec_augment(features, frames).to(self.precision)
        listened, lengths = self.listener(features, frames)  # (B, S, H)
        return Listened(listened, lengths, valid_frames(lengths, listened.shape[1]))

    def remember(self, listened: Listened) -> Memory:
        """What the speller's steps read of the listened frames."""
        return self.speller.remember(listened.frames, listened.valid)

    def forward(self, batch: Batch, begin: int, sampled: float = 0.0) -> Output:
        """Teacher-forced logits of a batch; `begin` is the token id that begins a sentence.

        `sampled` is the share of the tokens that the speller reads from itself: scheduled sampling.
        """
        listened = self.listen(batch.waves, batch.samples)
        before = nn.functional.pad(batch.tokens, (1, 0), value=begin)  # (B, L + 1)
        logits, weights = self.speller(before, self.remember(listened), sampled)
        return Output(logits, weights, self.ctc(listened.frames) if self.ctc else None, listened)
