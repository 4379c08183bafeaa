"""Language models, built and connected: training, n-grams, perplexity and samples; what `las lm` does.

A folder that `las lm train` makes, language_model/, holds config.yaml, model.safetensors, tokenizer.model, README.md.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from las import checkpoint
from las import config as settings
from las.data.sentences import read_sentences
from las.data.token_store import TextConfig, TokenStore, check_unknown, fingerprint, write_store
from las.errors import UserError
from las.evaluate.report import command, hardware, program
from las.model.device import choose_device
from las.model.language_model import LanguageModel, LanguageModelConfig
from las.search.arpa import write_arpa
from las.search.language_model import sample, sentence_scores
from las.search.scorers import Scorer
from las.text.normalize import style_named
from las.text.perplexity import Perplexity
from las.text.tokenizer import BLANK, BOS, EOS, UNK, Tokenizer
from las.train import run_folder
from las.train.language_model import (
    LanguageModelReporter,
    LanguageModelTrainConfig,
    LanguageModelTrainer,
    perplexity,
)
from las.train.ngram import estimate
from las.transcribe.language_model import check_tokens, open_scorer, read_language_model

UNCUT = 100_000  # tokens of a sentence that is scored, at most
SCORED_TOKENS = 8192  # in a batch
LONGEST_SAMPLE = 200  # tokens
LEAST_TEMPERATURE = 0.01  # of a sample; hardly anything but the likeliest token is drawn, and nothing overflows
TOKENIZED = "tokenized.part"  # in a run's folder; no name that somebody's text may have
NO_TEXT = (BLANK, UNK, BOS)  # tokens that no transcript and no sample holds


@dataclass(frozen=True)
class LanguageModelRunConfig:
    """All settings of a language model's run; its folder keeps them."""

    init: str = ""  # folder of a language model to start from, with the same tokens and sizes; empty: random weights
    style: str = "basic"  # how the text is normalised; it must look like the transcripts of the recogniser
    model: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    data: TextConfig = field(default_factory=TextConfig)
    train: LanguageModelTrainConfig = field(default_factory=LanguageModelTrainConfig)

    def __post_init__(self) -> None:
        style_named(self.style)


def read_tokenizer(path: str | Path) -> Tokenizer:
    """The tokens of a model file or of a model folder."""
    path = Path(path)
    return Tokenizer.load(path / checkpoint.TOKENIZER if path.is_dir() else path)


def train(config: LanguageModelRunConfig, folder: Path, resume: bool, reporter: LanguageModelReporter) -> Path:
    """Train as `config` says in the run folder `folder`; the folder of the language model is returned.

    A folder that holds a run is refused, or with `resume` continued with the same config; a finished one stays as it
    is. The text is tokenized once, into `folder`/tokenized.part, which a run that was resumed reads again and a
    finished one leaves no trace of.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("las lm train works in one process; start it without torchrun")
    state = run_folder.opened(config, folder, resume, free=("train.device", "train.save_minutes"))
    for name in ("train", "valid", "tokenizer"):
        if not getattr(config.data, name):
            raise UserError(f"data.{name} is not set: give it in the config or as data.{name}=PATH")
    made = folder / "language_model"
    if run_folder.is_finished(state, config.train.epochs, made):
        return made
    device = choose_device(config.train.device)
    tokenizer = read_tokenizer(config.data.tokenizer)
    torch.manual_seed(config.train.seed)
    model = LanguageModel(config.model, tokenizer.size).to(device)
    if state is None and config.init:
        known, own, _ = read_language_model(config.init)
        check_tokens(own, tokenizer, f"init={config.init}")
        checkpoint.load_weights(model, known.state_dict(), f"init={config.init}")
    with run_folder.held(folder):
        valid = _store(folder / TOKENIZED / "valid", config.data.valid, config, tokenizer, resume)
        store = _store(folder / TOKENIZED / "train", config.data.train, config, tokenizer, resume)
        validate = partial(perplexity, model, valid, config.data.batch_tokens)
        if state is None:
            validate()  # what cannot work should fail now
            run_folder.claim(config, folder, resume)
        trainer = LanguageModelTrainer(model, store, validate, config.train, config.data, folder, reporter)
        if state is not None:
            trainer.restore(state)
        with closing(trainer.log):
            best = trainer.run()
            checkpoint.load_weights(model, checkpoint.average(best), folder)
            final = validate()
            figures = {"loss": final.loss, "per_token": final.per_token, "per_word": final.per_word}
            trainer.log.write(trainer.progress.update, "averaged", figures)
        text = settings.to_yaml(config)
        card = _card(folder, config, trainer, final)
        checkpoint.write_model(made, text, model.state_dict(), tokenizer.to_bytes(), tokenizer.size, card)
        shutil.rmtree(folder / TOKENIZED)
        return made


def _store(
    folder: Path, paths: Sequence[str], config: LanguageModelRunConfig, tokenizer: Tokenizer, resume: bool
) -> TokenStore:
    if resume and (folder / "store.json").exists():
        store = TokenStore(folder)
        if store.contents.tokenizer != fingerprint(tokenizer):
            raise UserError(
                f"{config.data.tokenizer}: not what the run was started with; put it back, or start another run"
            )
        return store
    return write_store(folder, read_sentences(paths, config.style), tokenizer, config.data.longest)


def _card(folder: Path, config: LanguageModelRunConfig, trainer: LanguageModelTrainer, final: Perplexity) -> str:
    held, progress = trainer.store.contents, trainer.progress
    size = sum(value.numel() for value in trainer.model.parameters())
    names = ", ".join(Path(path).name for path in config.data.train)
    return f"""# {folder.name}

An LSTM language model with {size / 1e6:.2f} million parameters, made by {program()}.

| | |
|---|---|
| trained on | {names}: {held.sentences} sentences, {held.words} words, {held.tokens} tokens |
| validation | {final.words} words, perplexity per word {final.per_word:.1f}, per token {final.per_token:.2f} |
| training | {config.train.epochs} epochs, {progress.update} updates: {progress.seconds / 60:.1f} min on {hardware()} |
| command | `{command()}` |

Only for recognisers with the same tokens. Licence and limits: those of its text.
"""


def estimate_ngrams(
    texts: Sequence[str | Path], tokenizer: Tokenizer, style: str, order: int, cutoffs: Sequence[int], output: Path
) -> list[int]:
    """Count n-grams of some texts and write an ARPA file; how many of each order it holds is returned."""
    orders = estimate(_encoded(texts, tokenizer, style), tokenizer.size, order, cutoffs)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_arpa(output, orders, tokenizer)
    return [len(ngrams.scores) for ngrams in orders]


def _encoded(texts: Sequence[str | Path], tokenizer: Tokenizer, style: str) -> Iterator[list[int]]:
    """Tokens of all sentences; raises `UserError` at their end where too many were unknown."""
    tokens = unknown = 0
    first_unknown = ""
    for sentence in read_sentences(texts, style):
        ids = tokenizer.encode(sentence)
        tokens += len(ids)
        if UNK in ids:
            unknown, first_unknown = unknown + ids.count(UNK), first_unknown or sentence
        yield ids
    check_unknown(unknown, tokens, first_unknown, tokenizer)


@dataclass(frozen=True)
class OpenLanguageModel:
    """Either kind of language model, ready to score and to sample."""

    tokenizer: Tokenizer
    style: str
    device: torch.device
    scorer: Callable[[int], Scorer[Any]]

    def perplexity(self, texts: Sequence[str | Path], on_progress: Callable[[int, int], None]) -> Perplexity:
        """How well it foretells some texts; `on_progress` gets tokens done and in all."""
        total, done = 0.0, 0
        with tempfile.TemporaryDirectory(prefix="las-") as folder:
            sentences = read_sentences(texts, self.style)
            store = write_store(Path(folder) / "text", sentences, self.tokenizer, UNCUT)
            for batch in store.batches(SCORED_TOKENS):
                batch = batch.to(self.device)
                scores = sentence_scores(self.scorer(len(batch.inputs)), batch.inputs, batch.targets, BLANK)
                total, done = total - float(scores.sum()), done + int((batch.targets != BLANK).sum())
                on_progress(done, store.contents.tokens)
            held = store.contents
            return Perplexity(total, held.tokens, held.words, held.sentences, held.unknown)

    def sample(self, sentences: int, temperature: float, seed: int) -> Iterator[str]:
        """Draw some sentences; the same seed draws the same."""
        if not LEAST_TEMPERATURE <= temperature < math.inf or sentences < 1:
            raise UserError(
                f"a sample needs a finite temperature of {LEAST_TEMPERATURE:g} or more, and a sentence or more"
            )
        if not 0 <= seed < 1 << 64:
            raise UserError(f"seed {seed}: wanted 0 to 2^64 - 1")
        chance = torch.Generator(self.device).manual_seed(seed)
        drawn = sample(self.scorer(sentences), sentences, BOS, EOS, LONGEST_SAMPLE, temperature, chance)
        yield from map(self.tokenizer.decode, drawn)


def open_language_model(
    path: str | Path,
    tokenizer: Tokenizer | None = None,
    style: str | None = None,
    device: str = "auto",
    never: tuple[int, ...] = (),
) -> OpenLanguageModel:
    """A language model's folder, or an ARPA file with the tokenizer that it was made with; `style` is its own, or
    basic, unless another is named."""
    if not Path(path).exists():
        raise UserError(f"{path}: no such language model; wanted a folder made by las lm train, or an ARPA file")
    place = choose_device(device)
    if Path(path).is_dir():
        _, own, own_style = read_language_model(path)
        tokenizer, style = tokenizer or own, style or own_style
    if tokenizer is None:
        raise UserError(f"{path}: an ARPA file says nothing of how text becomes tokens; name the --tokenizer")
    style = style or "basic"
    style_named(style)
    return OpenLanguageModel(tokenizer, style, place, open_scorer(path, tokenizer, never, place))
