"""Tokens in, a better language model out: the loop for -sum log Pr(x_{t+1} | x_1..t) (Graves 2013, arXiv:1308.0850).

Sentences stand alone, from BOS and a state of zeros to EOS, as the search will ask for them. The files of a run are
those of `las/train/loop.py` but for the pictures.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from las.checkpoint import write_state, write_weights
from las.data.token_store import TextConfig, TokenBatch, TokenStore
from las.errors import UserError
from las.model.language_model import LanguageModel
from las.text.perplexity import Perplexity
from las.text.tokenizer import BLANK
from las.train.averaging import MovingAverage
from las.train.log import Log
from las.train.loop import LOG_EVERY, PRECISIONS, stop_requested
from las.train.optim import OptimizerConfig, Plateau, build_optimizer, rate_at
from las.train.pieces import in_pieces
from las.train.run_folder import STATE, WEIGHTS, forget_weights


@dataclass(frozen=True)
class LanguageModelTrainConfig:
    """How long and how to train."""

    epochs: int = 5  # passes over the training text
    precision: str = "fp32"  # fp32, or bf16 for the matrix products
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    seed: int = 0  # of weights, order and masks
    validate_every: int = 1000  # updates from one validation to the next
    average: int = 3  # best validations whose weights are averaged in the end
    moving_average: float = 0.0  # decay an update of an exponential moving average of the weights; 0: none
    save_minutes: float = 5.0  # between two savings of the state that --resume reads
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        if min(self.epochs, self.validate_every, self.average) < 1:
            raise UserError("train: epochs, validate_every and average must be at least 1")
        if not 0 <= self.moving_average < 1:
            raise UserError(f"train.moving_average {self.moving_average} must be at least 0 and below 1")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"train.seed {self.seed}: wanted 0 or more, in 64 bits")
        if self.precision not in PRECISIONS:
            raise UserError(f"train.precision {self.precision!r}: wanted one of {', '.join(PRECISIONS)}")


class LanguageModelReporter(Protocol):
    """Tells a person how training goes."""

    def training(self, done: float, epoch: int, figures: dict[str, float]) -> None:
        """After an update: the share that is done and the latest figures."""

    def foretold(self, epoch: int, update: int, found: Perplexity) -> None:
        """After a validation."""

    def warned(self, message: str) -> None:
        """Something in the run is not as it should be."""


@dataclass
class LanguageModelProgress:
    """Where a run is. `best` holds (loss, update) of the validations whose weights are kept."""

    update: int = 0
    epoch: int = 0
    batch: int = 0  # the next one in this epoch
    seconds: float = 0.0  # of training so far, validations and earlier starts included
    tokens: int = 0  # trained on
    validated: int = -1  # update of the last validation
    best: list[tuple[float, int]] = field(default_factory=list)
    plateau: Plateau = field(default_factory=Plateau)


class LanguageModelTrainer:
    """One run. `validate` judges the present weights."""

    def __init__(
        self,
        model: LanguageModel,
        store: TokenStore,
        validate: Callable[[], Perplexity],
        config: LanguageModelTrainConfig,
        text: TextConfig,
        folder: Path,
        reporter: LanguageModelReporter,
    ):
        self.model, self.store, self.validate, self.config, self.text = model, store, validate, config, text
        self.folder, self.reporter = folder, reporter
        self.device = model.embedding.weight.device
        self.plan = sum(1 for _ in store.groups(text.batch_tokens, text.pool, (config.seed, 0)))  # batches an epoch
        self.optimizer = build_optimizer(model, config.optimizer)
        self.moving = MovingAverage(model, config.moving_average)
        self.progress = LanguageModelProgress()
        self.parameters = list(model.parameters())
        self.split_told = False  # whether this start has told of a batch that did not fit into memory
        self.needed: deque[set[Path]] = deque(maxlen=2)  # weights that the last two states name
        self.log = Log(folder)
        (folder / WEIGHTS).mkdir(exist_ok=True)

    def run(self) -> list[Path]:
        """Train to the end; the files of the best weights are returned. Raises `UserError` when interrupted."""
        self.log.take_back(self.progress.update)
        progress, config, size, pool = self.progress, self.config, self.text.batch_tokens, self.text.pool
        saved = time.perf_counter()
        started = saved - progress.seconds
        with stop_requested() as stop:
            for epoch in range(progress.epoch, config.epochs):
                for batch in self.store.batches(size, progress.batch, pool, (config.seed, epoch)):
                    figures = self._update(batch)
                    progress.batch += 1
                    progress.seconds = time.perf_counter() - started
                    share = min(1.0, (epoch + progress.batch / self.plan) / config.epochs)
                    self.reporter.training(share, epoch, figures)
                    if progress.update % LOG_EVERY == 0:
                        speed = progress.tokens / max(progress.seconds, 1e-9)
                        more = {"epoch": epoch + 1, "seconds": progress.seconds, "speed": speed}
                        self.log.write(progress.update, "train", figures | more)
                    if progress.update % config.validate_every == 0:
                        self._validate(epoch)
                        progress.seconds = time.perf_counter() - started
                    if stop() or time.perf_counter() - saved > 60 * config.save_minutes:
                        saved = time.perf_counter()
                        self.save()
                    if stop():
                        raise UserError(f"interrupted at update {progress.update}; continue with --resume")
                progress.epoch, progress.batch = epoch + 1, 0
            if progress.validated < progress.update:
                self._validate(config.epochs - 1)
            self.save()
        return [self._weights(update) for _, update in progress.best]

    def save(self) -> None:
        """Store all that `restore` needs, then remove weights that are not among the best any more."""
        state = {
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "moving": self.moving.state(),
            "chance": torch.get_rng_state(),
            "chance_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        write_state(self.folder / STATE, state)
        self.needed.append({self._weights(update) for _, update in self.progress.best})
        forget_weights(self.folder, set().union(*self.needed))

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `save` was called."""
        self.progress = LanguageModelProgress(**state["progress"])
        self.progress.best = [(loss, update) for loss, update in self.progress.best]
        self.progress.plateau = Plateau(**state["progress"]["plateau"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.moving.restore(state["moving"])
        self.needed.append({self._weights(update) for _, update in self.progress.best})
        torch.set_rng_state(state["chance"])
        if self.device.type == "cuda" and state["chance_cuda"] is not None:
            torch.cuda.set_rng_state(state["chance_cuda"], self.device)

    def _update(self, batch: TokenBatch) -> dict[str, float]:
        """One step of the optimiser; figures of it are returned."""
        config, progress = self.config, self.progress
        rate = rate_at(progress.update, config.epochs * self.plan, config.optimizer) * progress.plateau.share
        for options in self.optimizer.param_groups:
            options["lr"] = rate
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        tokens = int((batch.targets != BLANK).sum())
        loss = self._gradient(batch, tokens)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, config.optimizer.clip or float("inf"))
        if not norm.isfinite():
            raise UserError(f"update {progress.update + 1}: the gradient is {norm.item()}; lower train.optimizer.rate")
        self.optimizer.step()
        self.moving.take_in(self.model)
        progress.update += 1
        progress.tokens += tokens
        return {"loss": loss, "rate": rate, "gradient_norm": norm.item()}

    def _gradient(self, batch: TokenBatch, tokens: int) -> float:
        """Put the gradient of a batch of so many tokens in place; the loss per token is returned."""

        def backward(piece: TokenBatch) -> Tensor:
            piece = piece.to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                logits = self.model(piece.inputs)
            loss = nats(logits, piece.targets) / tokens
            loss.backward()
            return loss.detach()

        found, update = in_pieces(batch, backward, self.parameters, self.device), self.progress.update + 1
        if found.left:
            raise UserError(
                f"update {update}: a sentence of {len(found.left[0].targets[0])} tokens does not fit into memory; "
                "lower data.longest, or train where there is more memory"
            )
        if found.split:
            self._tell_memory(update, found.split)
        return sum(loss.item() for _, loss in found.done)

    def _tell_memory(self, update: int, split: Sequence[TokenBatch]) -> None:
        """A batch that did not fit into memory: each in the log, the first also to the user."""
        tokens = split[0].targets.numel()
        self.log.write(update, "memory", {"splits": len(split), "tokens": tokens})
        if not self.split_told:
            self.split_told = True
            self.reporter.warned(
                f"update {update}: a batch of {tokens} tokens did not fit into memory and was split in two, which "
                f"takes time (log.jsonl tells of each); lower data.batch_tokens ({self.text.batch_tokens})"
            )

    def _validate(self, epoch: int) -> None:
        """Judge the weights and keep them if they are among the best."""
        progress = self.progress
        with self.moving.in_place(self.model):
            found = self.validate()
            write_weights(self._weights(progress.update), self.model.state_dict())
        figures = {"loss": found.loss, "per_token": found.per_token, "per_word": found.per_word}
        more = {"epoch": epoch + 1, "seconds": progress.seconds}
        self.log.write(progress.update, "valid", figures | more)
        progress.best = sorted([*progress.best, (found.loss, progress.update)])[: self.config.average]
        progress.plateau.validated(found.loss, found.loss, self.config.optimizer)
        progress.validated = progress.update
        self.reporter.foretold(epoch, progress.update, found)

    def _weights(self, update: int) -> Path:
        return self.folder / WEIGHTS / f"{update:06d}.safetensors"


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """-sum log Pr of the targets (B, L) under logits (B, L, V); padding costs nothing."""
    return cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=BLANK, reduction="sum")


@torch.no_grad()
def perplexity(model: LanguageModel, store: TokenStore, batch_tokens: int) -> Perplexity:
    """How well a model foretells a text."""
    model.eval()
    device = model.embedding.weight.device
    total = 0.0
    for batch in store.batches(batch_tokens):
        batch = batch.to(device)
        total += float(nats(model(batch.inputs), batch.targets))
    held = store.contents
    return Perplexity(total, held.tokens, held.words, held.sentences, held.unknown)
