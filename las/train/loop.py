"""The training loop: batches in, better weights out.

RUN/log.jsonl                  a line every few updates and at every validation
RUN/checkpoints/000120.safetensors   weights of the best validations, to be averaged
RUN/attention/000120.png       where the speller looked in one fixed utterance
RUN/tensorboard/               the same figures for TensorBoard
RUN/state.pt                   all that `--resume` needs
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from las.batch import Batch
from las.checkpoint import write_state, write_weights
from las.data.loader import Loader
from las.errors import UserError
from las.ledger import Ledger
from las.model.las import LAS
from las.train.averaging import MovingAverage
from las.train.log import Log
from las.train.noise import weight_noise
from las.train.objectives import Losses, ObjectiveConfig, guide, losses
from las.train.optim import OptimizerConfig, Plateau, build_optimizer, rate_at
from las.train.picture import draw_attention
from las.train.span import check_span, is_on
from las.train.watch import Watch, measure

PRECISIONS = ("fp32", "bf16")
LOG_EVERY = 10  # updates
Item = TypeVar("Item")


@dataclass(frozen=True)
class TrainConfig:
    """How long and how to train."""

    epochs: int = 40  # passes over the training data
    accumulate: int = 1  # batches summed up for one update
    precision: str = "fp32"  # fp32, or bf16 for the matrix products
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    seed: int = 0  # of weights, order and masks
    validate_every: int = 1  # epochs from one validation to the next
    average: int = 5  # best validations whose weights are averaged in the end
    moving_average: float = 0.0  # decay an update, such as 0.999, of an exponential moving average (EMA) of the
    #                              weights, which is then what is validated and kept; 0: the weights themselves
    weight_noise: float = 0.0  # standard deviation of Gaussian noise on the weights while a gradient is taken
    weight_noise_start: int = 0  # first update with it
    weight_noise_end: int = 0  # first update without it again; 0: never
    aligned_by: int = 5000  # update after which attention that is not aligned yet is told of, once; 0: never
    save_minutes: float = 5.0  # between two savings of the state that --resume reads
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    def __post_init__(self) -> None:
        if min(self.epochs, self.accumulate, self.validate_every, self.average) < 1:
            raise UserError("train: epochs, accumulate, validate_every and average must be at least 1")
        if not 0 <= self.moving_average < 1 or self.weight_noise < 0 or self.aligned_by < 0:
            raise UserError(
                "train: moving_average must be at least 0 and below 1, weight_noise and aligned_by 0 or more"
            )
        check_span("train.weight_noise", self.weight_noise_start, self.weight_noise_end)
        if self.precision not in PRECISIONS:
            raise UserError(f"train.precision {self.precision!r}: wanted one of {', '.join(PRECISIONS)}")


@dataclass(frozen=True)
class Validation:
    """What a validation found; the lower `error_rate`, the better the weights."""

    loss: float  # per token, without smoothing
    error_rate: float  # words wrong / words
    weights: Tensor  # attention on the fixed utterance (L, S)
    pieces: list[str]  # L tokens of that utterance
    example: str  # what was recognised there


class Reporter(Protocol):
    """Tells a person how training goes."""

    def training(self, done: float, epoch: int, figures: dict[str, float]) -> None:
        """After an update: the share that is done and the latest figures."""

    def validated(self, epoch: int, update: int, validation: Validation) -> None:
        """After a validation."""

    def warned(self, message: str) -> None:
        """Something in the run is not as it should be."""


@dataclass
class Progress:
    """Where a run is. `best` holds (error rate, loss, update) of the validations whose weights are kept."""

    update: int = 0
    epoch: int = 0
    batch: int = 0  # the next one in this epoch
    seconds: float = 0.0  # of training so far, validations and earlier starts included
    audio: float = 0.0  # seconds trained on
    best: list[tuple[float, float, int]] = field(default_factory=list)
    plateau: Plateau = field(default_factory=Plateau)
    watch: Watch = field(default_factory=Watch)


class Trainer:
    """One run. `validate` judges the present weights; `begin` and `end` are the token ids of a sentence's ends.

    `shares` (V,) says how often each token comes in the training transcripts, for unigram label smoothing.
    """

    def __init__(
        self,
        model: LAS,
        loader: Loader,
        validate: Callable[[], Validation],
        config: TrainConfig,
        folder: Path,
        begin: int,
        end: int,
        reporter: Reporter,
        shares: Tensor | None = None,
    ):
        self.model, self.loader, self.validate, self.config, self.folder = model, loader, validate, config, folder
        self.begin, self.end, self.reporter = begin, end, reporter
        self.device = model.frontend.mean.device
        assert (config.objective.smoothing == "unigram") == (shares is not None)
        self.shares = shares if shares is None else shares.to(self.device)
        self.optimizer = build_optimizer(model, config.optimizer)
        self.moving = MovingAverage(model, config.moving_average)
        self.progress = Progress()
        self.ledger = Ledger()
        self.log = Log(folder)
        self.waited = 0.0  # s for the loader, since this start
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "attention").mkdir(exist_ok=True)

    def run(self) -> list[Path]:
        """Train to the end; the files of the best weights are returned. Raises `UserError` when interrupted."""
        self.log.take_back(self.progress.update)
        saved = time.perf_counter()
        started = saved - self.progress.seconds
        with stop_requested() as stop:
            for epoch in range(self.progress.epoch, self.config.epochs):
                plan = len(self.loader.plan(epoch))
                for group in _groups(self._batches(epoch), self.config.accumulate):
                    figures = self._update([batch for _, batch in group], plan)
                    self.progress.batch = group[-1][0]
                    self.progress.seconds = time.perf_counter() - started
                    share = (epoch + self.progress.batch / plan) / self.config.epochs
                    self.reporter.training(share, epoch, figures)
                    if self.progress.update % LOG_EVERY == 0:
                        self._log_training(epoch, figures)
                    if stop() or time.perf_counter() - saved > 60 * self.config.save_minutes:
                        saved = time.perf_counter()
                        self.save()
                    if stop():
                        raise UserError(f"interrupted at update {self.progress.update}; continue with --resume")
                self.progress.epoch, self.progress.batch = epoch + 1, 0
                if (epoch + 1) % self.config.validate_every == 0 or epoch + 1 == self.config.epochs:
                    self._validate()
                    self.progress.seconds = time.perf_counter() - started
                    self.save()
                    self._forget()
        return [self._weights(update) for *_, update in self.progress.best]

    def save(self) -> None:
        """Store all that `restore` needs."""
        state = {
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "moving": self.moving.state(),
            "chance": torch.get_rng_state(),
            "chance_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        write_state(self.folder / "state.pt", state)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `save` was called."""
        self.progress = Progress(**state["progress"])
        self.progress.best = [(rate, loss, update) for rate, loss, update in self.progress.best]
        self.progress.plateau = Plateau(**state["progress"]["plateau"])
        self.progress.watch = Watch(**state["progress"]["watch"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.moving.restore(state["moving"])
        torch.set_rng_state(state["chance"])
        if self.device.type == "cuda" and state["chance_cuda"] is not None:
            torch.cuda.set_rng_state(state["chance_cuda"], self.device)

    def _batches(self, epoch: int) -> Iterator[tuple[int, Batch]]:
        """Batches, each with the place in the epoch's plan that comes after it."""
        iterator = self.loader.batches(epoch, self.progress.batch)
        while True:
            asked = time.perf_counter()
            found = next(iterator, None)
            self.waited += time.perf_counter() - asked
            if found is None:
                return
            yield found

    def _update(self, group: list[Batch], plan: int) -> dict[str, float]:
        """One step of the optimiser on the sum of some batches; figures of it are returned."""
        config, progress = self.config, self.progress
        updates = config.epochs * -(-plan // config.accumulate)
        rate = rate_at(progress.update, updates, config.optimizer) * progress.plateau.share
        noisy = is_on(progress.update, config.weight_noise_start, config.weight_noise_end)
        for options in self.optimizer.param_groups:
            options["lr"] = rate
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        tokens = sum(int(batch.lengths.sum()) + len(batch) for batch in group)
        with weight_noise(self.model, config.weight_noise if noisy else 0.0):
            found = [self._backward(batch, tokens) for batch in group]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.clip or float("inf"))
        if not norm.isfinite():
            raise UserError(f"{self._where(group)}: the gradient is {norm.item()}; lower train.optimizer.rate")
        self.optimizer.step()
        self.moving.take_in(self.model)
        progress.update += 1
        progress.audio += sum(float(batch.samples.sum()) for batch in group) / self.model.config.frontend.sample_rate
        return {
            "loss": sum(one.speller.item() for one in found) / tokens,
            "ctc_loss": sum(one.ctc.item() for one in found) / tokens,
            "accuracy": sum(int(one.correct) for one in found) / tokens,
            "rate": rate,
            "gradient_norm": norm.item(),
        }

    def _backward(self, batch: Batch, tokens: int) -> Losses:
        objective, update = self.config.objective, self.progress.update
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            output = self.model(batch, self.begin)
        found = losses(output, batch, self.end, objective.smoothing_at(update), self.shares)
        for id in found.pathless:
            self.ledger.leave("fewer listener frames than its tokens need, trained without CTC", id)
        if update % LOG_EVERY == 0:
            self.progress.watch.take_in(measure(output.weights, batch.lengths + 1, output.listened.lengths))
        share = objective.ctc_weight_at(update) if output.ctc_logits is not None else 0.0
        total = ((1 - share) * found.speller + share * found.ctc) / tokens
        if weight := objective.guide_weight_at(update):
            total = total + weight * guide(output, batch, objective.guide_width) / tokens
        if not total.isfinite():
            raise UserError(
                f"{self._where([batch])}: the loss is {total.item()}; lower train.optimizer.rate or check the data"
            )
        total.backward()
        return found

    def _where(self, group: list[Batch]) -> str:
        ids = [id for batch in group for id in batch.ids]
        return f"update {self.progress.update + 1}, utterances {', '.join(ids)}"

    def _log_training(self, epoch: int, figures: dict[str, float]) -> None:
        seconds = max(self.progress.seconds, 1e-9)
        more = {"seconds": seconds, "speed": self.progress.audio / seconds, "waited": self.waited}
        self.log.write(self.progress.update, "train", {"epoch": epoch, **figures, **more})

    def _validate(self) -> None:
        """Judge the weights, keep them if they are among the best, and draw the attention."""
        progress = self.progress
        with self.moving.in_place(self.model):
            validation = self.validate()
            write_weights(self._weights(progress.update), self.model.state_dict())
        found = measure(validation.weights.unsqueeze(0), *torch.tensor(validation.weights.shape).unsqueeze(1))
        figures = {"loss": validation.loss, "wer": validation.error_rate, **progress.watch.figures(found)}
        self.log.write(progress.update, "valid", {"epoch": progress.epoch, **figures, "seconds": progress.seconds})
        picture = self.folder / "attention" / f"{progress.update:06d}.png"
        self.log.picture(progress.update, draw_attention(validation.weights, validation.pieces, picture))
        # where everything is wrong, an empty transcript is no better than a long one: then the loss decides
        rank = (min(validation.error_rate, 1.0), validation.loss, progress.update)
        progress.best = sorted([*progress.best, rank])[: self.config.average]
        progress.plateau.validated(*rank[:2], self.config.optimizer)
        self.reporter.validated(progress.epoch, progress.update, validation)
        if advice := progress.watch.advice(found, progress.update, self.config.aligned_by):
            self.reporter.warned(advice)

    def _forget(self) -> None:
        """Remove weights that are not among the best any more; after `save`, as its last state may need them."""
        kept = {self._weights(update) for *_, update in self.progress.best}
        for path in (self.folder / "checkpoints").glob("[0-9]*.safetensors"):
            if path not in kept:
                path.unlink()

    def _weights(self, update: int) -> Path:
        return self.folder / "checkpoints" / f"{update:06d}.safetensors"


def _groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    group: list[Item] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Within: whether Ctrl-C was pressed or SIGTERM came. A second Ctrl-C interrupts at once."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
