"""A corpus one can hear the answer of: every letter is a tone. Small enough to train on within a second."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch

from las import checkpoint
from las import config as settings
from las.data.manifest import Utterance, write_manifest
from las.data.sharding import write_shards
from las.model.las import LAS
from las.recipe.config import RunConfig
from las.recipe.training import train
from las.text.tokenizer import Tokenizer, train_tokenizer
from las.transcribe.verdict import Thresholds, write_thresholds

RATE = 8_000  # Hz
TONES = {"a": 400.0, "b": 900.0, "c": 1600.0, " ": 0.0}  # Hz
TEXTS = ("ab", "ba ab", "cab", "bac a", "cc b", "a b c", "abc", "bb")
TINY = (  # words of this language may be one tone, of which nothing is left without the recording's mean
    "model.frontend.sample_rate=8000", "model.frontend.mel_bins=16", "model.listener.width=16",
    "model.frontend.utterance_mean=false",
    "model.listener.reduce=[1,2]", "model.speller.width=16", "model.speller.embedding=8",
    "model.speller.attention.width=8", "data.batch_seconds=1.5", "data.workers=0", "train.device=cpu",
    "train.optimizer.warmup=2", "train.optimizer.rate=0.01", "search.beam=2",
)  # fmt: skip


class Quiet:
    """A reporter that keeps what it is told."""

    def __init__(self, during=None):
        self.losses: list[float] = []
        self.shares: list[float] = []
        self.validations: list = []
        self.warnings: list[str] = []
        self.during = during  # called with the number of updates so far

    def training(self, done, epoch, figures):
        self.losses.append(figures["loss"])
        self.shares.append(done)
        if self.during is not None:
            self.during(len(self.losses))

    def validated(self, epoch, update, validation):
        self.validations.append((epoch, update, validation))

    def warned(self, message):
        self.warnings.append(message)


def sing(text: str, seed: int = 0) -> torch.Tensor:
    """0.12 s of a tone for each letter, with a little noise: (N,)."""
    chance = torch.Generator().manual_seed(seed)
    time = torch.arange(int(0.12 * RATE)) / RATE
    tones = [0.5 * torch.sin(2 * math.pi * TONES[letter] * time) for letter in text]
    wave = torch.cat(tones)
    return wave + 0.01 * torch.randn(len(wave), generator=chance)


def write_wav(path: Path, wave: torch.Tensor, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave.numpy(), rate, subtype="PCM_16")
    return path


@pytest.fixture(scope="session")
def tools():
    """The functions and constants above, for the tests of several files."""

    class Tools:
        rate, tiny, texts, quiet = RATE, TINY, TEXTS, Quiet
        sing, write_wav = staticmethod(sing), staticmethod(write_wav)

    return Tools


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """train.jsonl valid.jsonl wav/ shards/train shards/valid tokenizer.model; eight utterances each."""
    folder = tmp_path_factory.mktemp("corpus")
    for part, first in (("train", 0), ("valid", 100)):
        utterances = []
        for number, text in enumerate(TEXTS):
            wave = sing(text, first + number)
            path = write_wav(folder / "wav" / f"{part}-{number}.wav", wave)
            utterances.append(Utterance(f"{part}-{number}", str(path), text, len(wave) / RATE))
        write_manifest(folder / f"{part}.jsonl", utterances)
        write_shards(utterances, folder / "shards" / part)
    train_tokenizer(TEXTS, 20, "char", folder / "tokenizer.model")
    return folder


@pytest.fixture(scope="session")
def run_config(corpus):
    """A function from `key=value` words to the settings of a tiny run on the corpus."""

    def make(*words: str) -> RunConfig:
        data = (f"train={corpus}/shards/train", f"valid={corpus}/shards/valid", f"tokenizer={corpus}/tokenizer.model")
        return settings.load(RunConfig, None, [*TINY, *(f"data.{word}" for word in data), *words])

    return make


@pytest.fixture(scope="session")
def trained(run_config, tmp_path_factory) -> Path:
    """A run folder whose model makes no error on the corpus. Tests read it and write nothing there."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    words = ("train.epochs=40", "train.validate_every=10", "train.average=2", "model.speller.width=32",
             "model.listener.width=24", "model.listener.dropout=0", "model.speller.dropout=0",
             "model.spec_augment.time_masks=0", "model.spec_augment.frequency_masks=0",
             "train.objective.label_smoothing=0", "train.optimizer.rate=0.02", "data.batch_seconds=0.7")  # fmt: skip
    train(run_config(*words), folder, False, Quiet())
    write_thresholds(folder / "model", replace(Thresholds(), speech=-50.0), {})  # here tones are speech
    return folder


@pytest.fixture
def random_model(run_config, corpus, tmp_path) -> Path:
    """A model folder with random weights."""
    torch.manual_seed(0)
    config = run_config()
    tokenizer = Tokenizer.load(corpus / "tokenizer.model")
    model = LAS(config.model, tokenizer.size)
    folder = tmp_path / "random"
    text = settings.to_yaml(config)
    checkpoint.write_model(folder, text, model.state_dict(), tokenizer.to_bytes(), tokenizer.size, "# random\n")
    return folder
