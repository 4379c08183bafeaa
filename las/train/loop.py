"""The training loop: batches in, better weights out.

RUN/log.jsonl                  a line every few updates, at every validation, and where memory was short
RUN/checkpoints/000120.safetensors   weights of the best validations, to be averaged
RUN/attention/000120.png       where the speller looked in one fixed utterance
RUN/tensorboard/               the same figures for TensorBoard
RUN/state.pt                   all that `--resume` needs; the one before it is state.earlier.pt
"""

from __future__ import annotations

import hashlib
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor

from las.batch import Batch
from las.checkpoint import write_state, write_weights
from las.data.loader import Loader
from las.errors import Interrupted, UserError
from las.ledger import Ledger
from las.model.las import LAS
from las.train.averaging import MovingAverage
from las.train.consistency import disagreement, two_passes
from las.train.distributed import World
from las.train.gradients import GradientSum
from las.train.growth import layers_at
from las.train.log import Log
from las.train.mwer import Mwer, MwerConfig
from las.train.noise import weight_noise
from las.train.objectives import Losses, ObjectiveConfig, guide, losses
from las.train.optim import OptimizerConfig, Plateau, build_optimizer, rate_at
from las.train.picture import draw_attention
from las.train.pieces import Pieces, in_pieces
from las.train.run_folder import STATE, WEIGHTS, forget_weights
from las.train.sampling import SamplingConfig
from las.train.span import check_span, is_on
from las.train.sums import Asked, Sums
from las.train.watch import Watch, measure

PRECISIONS = ("fp32", "bf16")
LOG_EVERY = 10  # updates
ALONE = World()
MEMORY_WAY_OUT = "lower data.longest, or train where there is more memory"


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
    growth: tuple[int, ...] = ()  # updates at which one more layer of the listener joins, such as [300,600]: it begins
    #                               with that many fewer, pools what they would join, and ends whole; []: begins whole
    aligned_by: int = 5000  # update after which attention that is not aligned yet is told of, once; 0: never
    save_minutes: float = 5.0  # between two savings of the state that --resume reads
    lost_minutes: float = 10.0  # of silence after which another rank counts as lost and the run ends
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    mwer: MwerConfig = field(default_factory=MwerConfig)

    def __post_init__(self) -> None:
        if min(self.epochs, self.accumulate, self.validate_every, self.average) < 1:
            raise UserError("train: epochs, accumulate, validate_every and average must be at least 1")
        if not 0 <= self.moving_average < 1 or self.weight_noise < 0 or self.aligned_by < 0:
            raise UserError(
                "train: moving_average must be at least 0 and below 1, weight_noise and aligned_by 0 or more"
            )
        if list(self.growth) != sorted(set(self.growth)) or min(self.growth, default=1) < 1:
            raise UserError(f"train.growth {list(self.growth)}: updates in rising order, the first at least 1")
        if not -(2**63) <= self.seed < 2**63:
            raise UserError(f"train.seed {self.seed}: wanted a number of 64 bits")
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
    ranks: int = 0  # that this epoch was planned for; 0: not begun
    heard: int = 0  # utterances trained on in this epoch, by all ranks
    left: int = 0  # utterances left out of it
    seconds: float = 0.0  # of training so far, validations and earlier starts included
    audio: float = 0.0  # seconds trained on
    best: list[tuple[float, float, int]] = field(default_factory=list)
    plateau: Plateau = field(default_factory=Plateau)
    watch: Watch = field(default_factory=Watch)


class Trainer:
    """One run. `validate` judges the present weights; `begin` and `end` are the token ids of a sentence's ends.

    `shares` (V,) says how often each token comes in the training transcripts, for unigram label smoothing. `mwer` finds
    the word errors of hypotheses, where `config.mwer` is on. `world` names the other ranks that train the same model:
    every rank has a `Trainer`, the leading one writes.
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
        mwer: Mwer | None = None,
        world: World = ALONE,
    ):
        self.model, self.loader, self.validate, self.config, self.folder = model, loader, validate, config, folder
        self.begin, self.end, self.reporter = begin, end, reporter
        self.device = model.frontend.mean.device
        self.rate = model.config.frontend.sample_rate  # Hz
        assert (config.objective.smoothing == "unigram") == (shares is not None)
        self.shares = shares if shares is None else shares.to(self.device)
        assert (config.mwer.hypotheses > 0) == (mwer is not None)
        self.mwer = mwer
        self.world = world
        self.optimizer = build_optimizer(model, config.optimizer)
        self.moving = MovingAverage(model, config.moving_average)
        self.progress = Progress()
        self.needed: deque[set[Path]] = deque(maxlen=2)  # weights that the last two states name
        self.ledger = Ledger()
        self.data = fingerprint(loader)
        self.log = Log(folder, silent=not world.leads)
        self.parameters = list(model.parameters())
        self.gradients = GradientSum(self.parameters, world, config.lost_minutes)
        self.waited = 0.0  # s for the loader, since this start
        self.before = 0.0  # s of training before it
        self.saved = 0.0  # when the state was stored last
        self.asked: Asked = False, False  # whether, as of the last update, any rank asks to stop, and to save
        self.split_told = False  # whether this start has told of a batch that did not fit
        for part in (WEIGHTS, "attention") if world.leads else ():
            (folder / part).mkdir(exist_ok=True)

    def run(self) -> list[Path]:
        """Train to the end; the files of the best weights are returned. Raises `UserError` when interrupted."""
        self.log.take_back(self.progress.update, within=self.progress.batch > 0)
        self.waited, self.before = 0.0, self.progress.seconds
        self.saved = time.perf_counter()
        started = self.saved - self.progress.seconds
        with stop_requested() as stop:

            def ask() -> Asked:
                return stop(), self.world.leads and time.perf_counter() - self.saved > 60 * self.config.save_minutes

            for epoch in range(self.progress.epoch, self.config.epochs):
                self.progress.ranks = self.progress.ranks or self.world.size  # resumed by others: the plan stays
                plan = self.loader.plan(epoch, self.progress.ranks)
                for end, group, missing in self._groups(epoch, plan):
                    figures = self.update(group, len(plan), missing, ask)
                    self.progress.batch = end
                    self.progress.seconds = time.perf_counter() - started
                    self._tell(epoch, len(plan), figures)
                    stopped, due = ask() if self.world.size == 1 else self.asked  # alone: what came up just now, too
                    if stopped or due:
                        self.save()
                    if stopped:
                        raise Interrupted(f"interrupted at update {self.progress.update}; continue with --resume")
                self._check_epoch(epoch)
                if (epoch + 1) % self.config.validate_every == 0 or epoch + 1 == self.config.epochs:
                    self._validate()
                    self.progress.seconds = time.perf_counter() - started
                    self.save()
        return [self._weights(update) for *_, update in self.progress.best]

    def save(self) -> None:
        """Store all that `restore` needs."""
        self.saved = time.perf_counter()
        cuda = self.device.type == "cuda"
        state = {
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "moving": self.moving.state(),
            "data": self.data,
            "ledgers": [self.world.gather_text(one.lines(), self.device) for one in self._ledgers()],
            "chance": self.world.gather(torch.get_rng_state(), self.device),
            "chance_cuda": self.world.gather(torch.cuda.get_rng_state(self.device), self.device) if cuda else None,
        }
        if self.world.leads:
            write_state(self.folder / STATE, state)
            self.needed.append({self._weights(update) for *_, update in self.progress.best})
            forget_weights(self.folder, set().union(*self.needed))

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `save` was called."""
        self.progress = Progress(**state["progress"])
        if self.progress.batch and not self.progress.ranks:  # a state of before that was noted
            self.progress.ranks = len(state["chance"])
        if state.get("data", self.data) != self.data:
            raise UserError(
                f"{self.folder}: the tokens or the training data are not those that the run was started with; put "
                "them back (data.leave_out may be raised), or start another run"
            )
        self.progress.best = [(rate, loss, update) for rate, loss, update in self.progress.best]
        self.progress.plateau = Plateau(**state["progress"]["plateau"])
        self.progress.watch = Watch(**state["progress"]["watch"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.moving.restore(state["moving"])
        self.needed.append({self._weights(update) for *_, update in self.progress.best})
        for ledger, ranks in zip(self._ledgers(), state["ledgers"], strict=True):
            for lines in ranks if self.world.leads else ():
                ledger.take(lines)
        if len(state["chance"]) != self.world.size:  # masks are drawn anew; what is trained on stays the same
            if self.world.leads:
                self.reporter.warned(f"saved by {len(state['chance'])} ranks, resumed by {self.world.size}")
            return
        torch.set_rng_state(state["chance"][self.world.rank])
        if self.device.type == "cuda" and state["chance_cuda"] is not None:
            torch.cuda.set_rng_state(state["chance_cuda"][self.world.rank], self.device)

    def _ledgers(self) -> tuple[Ledger, Ledger]:
        return self.loader.ledger, self.ledger

    def _groups(self, epoch: int, plan: Sequence[Sequence[object]]) -> Iterator[tuple[int, list[Batch], int]]:
        """The batches of each update that are this rank's, with the place in the plan that comes after the update and
        the number of utterances that were left out of them."""
        world, skip = self.world, self.progress.batch
        batches = self.loader.batches(epoch, skip, world.rank, world.size, self.progress.ranks)
        size = self.config.accumulate * world.size
        for start in range(skip, len(plan), size):
            end = min(start + size, len(plan))
            asked = time.perf_counter()
            group = [next(batches) for _ in range(start + world.rank, end, world.size)]
            self.waited += time.perf_counter() - asked
            found = [batch for _, batch in group if batch is not None]
            yield end, found, sum(len(plan[place]) for place, _ in group) - sum(map(len, found))

    def _check_epoch(self, epoch: int) -> None:
        """Every utterance was trained on once or is in a ledger, over all ranks; then the next epoch begins."""
        progress = self.progress
        assert progress.heard + progress.left == len(self.loader.entries), (progress, len(self.loader.entries))
        heard = {"utterances": progress.heard, "left": progress.left}
        self.log.write(progress.update, "epoch", {"epoch": epoch + 1, **heard})
        total = len(self.loader.index)
        left = progress.left + total - len(self.loader.entries)  # those that are too long are in no batch
        if self.world.size > 1 and left > self.loader.config.leave_out * total:  # each loader judged its own alone
            raise UserError(
                f"{left} of {total} utterances left out in epoch {epoch + 1}, by all ranks: "
                f"more than {self.loader.config.leave_out:.1%} (data.leave_out); each rank's message names its own"
            )
        progress.epoch, progress.batch, progress.ranks, progress.heard, progress.left = epoch + 1, 0, 0, 0, 0

    def update(
        self, group: list[Batch], plan: int, missing: int = 0, ask: Callable[[], Asked] = lambda: (False, False)
    ) -> dict[str, float]:
        """One step of the optimiser on the sum of some batches of every rank; figures of it are returned.

        `plan` is the number of batches in the epoch, `missing` of utterances that could not be read. `ask` tells late
        in the update what this rank asks for; `asked` is then what any rank does. No figures where nothing is left to
        train on. The ranks wait for each other once: every further time would cost what the slowest is slower by.
        """
        config, progress = self.config, self.progress
        size = config.accumulate * self.world.size
        updates = -(-plan // size)  # in an epoch
        place = progress.epoch * updates + progress.batch // size  # by the data: ranks may have been more or fewer
        rate = rate_at(place, config.epochs * updates, config.optimizer) * progress.plateau.share
        noisy = is_on(progress.update, config.weight_noise_start, config.weight_noise_end)
        for options in self.optimizer.param_groups:
            options["lr"] = rate
        self.model.train()
        self.model.listener.running = self._layers_at(progress.update)
        if progress.update in config.growth:
            self.moving.forget()
        self.optimizer.zero_grad(set_to_none=True)
        with weight_noise(self.model, config.weight_noise if noisy else 0.0):
            found = [self._fitting(batch) for batch in group]
        sums = Sums.of(found, missing, ask(), self.rate, self.gradients.add)
        self.asked = sums.asked
        self._tell_memory(sums)
        progress.heard, progress.left = progress.heard + sums.heard, progress.left + sums.left
        if not sums.tokens:
            return {}
        gradients = [value.grad for value in self.parameters if value.grad is not None]
        torch._foreach_div_(gradients, float(sums.tokens))
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, config.optimizer.clip or float("inf"))
        if not norm.isfinite():
            raise UserError(f"{self._where(group)}: the gradient is {norm.item()}; lower train.optimizer.rate")
        self.optimizer.step()
        self.moving.take_in(self.model)
        progress.update += 1
        self.progress.audio += sums.seconds
        return {**sums.figures(self.mwer is not None), "rate": rate, "gradient_norm": norm.item()}

    def _fitting(self, batch: Batch) -> Pieces[Batch, Losses]:
        """The gradient of a batch, in pieces where memory is short; an utterance too long for it is left out."""
        found = in_pieces(batch, self._backward, self.parameters, self.device)
        for one in found.left:
            self.loader.ledger.leave("does not fit into memory", one.ids[0], f"{one.waves.numel() / self.rate:.1f} s")
        if found.left:
            self.loader.ledger.check(len(self.loader.index), self.loader.config.leave_out, MEMORY_WAY_OUT)
        return found

    def _tell_memory(self, sums: Sums) -> None:
        """Batches that did not fit into memory: every update that had some in the log, the first also to the user."""
        if not sums.splits or not self.world.leads:
            return
        update, seconds = self.progress.update + 1, sums.split_seconds / sums.splits
        self.log.write(update, "memory", {"splits": sums.splits, "seconds": seconds})
        if not self.split_told:
            self.split_told = True
            self.reporter.warned(
                f"update {update}: a batch of {seconds:.1f} s of padded audio did not fit into memory and was split in "
                "two, which takes time (log.jsonl tells of each); lower data.batch_seconds "
                f"({self.loader.config.batch_seconds:g}), or data.batch_grid for long transcripts"
            )

    def _backward(self, batch: Batch) -> Losses:
        objective, update = self.config.objective, self.progress.update
        passes = objective.passes
        if passes == 2:
            batch = two_passes(batch, objective.pass_speeds, self.rate, self.config.seed, update)
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            output = self.model(batch, self.begin, self.config.sampling.share_at(update))
            expected = self.mwer(self.model, output.listened, batch) if self.mwer is not None else None
        found = losses(output, batch, self.end, objective.smoothing_at(update), self.shares).a_pass(passes)
        for id in found.pathless:
            self.ledger.leave("fewer listener frames than its tokens need, trained without CTC", id)
        share = objective.ctc_weight_at(update) if output.ctc_logits is not None else 0.0
        total = (1 - share) * found.speller + share * found.ctc  # a sum over the tokens
        if weight := objective.guide_weight_at(update):
            total = total + weight * guide(output, batch, objective.guide_width) / passes
        if passes == 2:
            apart = disagreement(output, batch)
            total = total + (1 - share) * objective.speller_consistency * apart.speller
            total = total + share * objective.ctc_consistency * apart.ctc
        if expected is not None:
            total = expected.loss + self.config.mwer.objective_weight * total
            found = replace(found, expected_errors=expected.errors)
        if not total.isfinite():
            raise UserError(
                f"{self._where([batch])}: the loss is {total.item()}; lower train.optimizer.rate or check the data"
            )
        total.backward()
        if update % LOG_EVERY == 0:
            self.progress.watch.take_in(measure(output.weights, batch.lengths, output.listened.lengths))
        # the figures alone: a loss holds its graph, and that the frames and the weights made ready for the speller
        return replace(found, speller=found.speller.detach(), ctc=found.ctc.detach())

    def _layers_at(self, update: int) -> int:
        return layers_at(update, self.config.growth, len(self.model.listener.layers))

    def _stage(self) -> dict[str, float]:
        """For the log, where the listener grows: the layers that run."""
        return {"layers": self.model.listener.running} if self.config.growth else {}

    def _where(self, group: list[Batch]) -> str:
        ids = dict.fromkeys(id for batch in group for id in batch.ids)
        return f"update {self.progress.update + 1}, utterances {', '.join(ids)}"

    def _tell(self, epoch: int, plan: int, figures: dict[str, float]) -> None:
        """The reporter and the log, after an update; there are no figures where nothing was left to train on."""
        if not figures or not self.world.leads:
            return
        self.reporter.training((epoch + self.progress.batch / plan) / self.config.epochs, epoch, figures)
        if self.progress.update % LOG_EVERY == 0:
            self._log_training(epoch, figures)

    def _log_training(self, epoch: int, figures: dict[str, float]) -> None:
        seconds = max(self.progress.seconds, 1e-9)
        waited = self.waited / max(self.progress.seconds - self.before, 1e-9)  # share of the time, for the loader
        more = {"seconds": seconds, "speed": self.progress.audio / seconds, "waited": waited}
        self.log.write(self.progress.update, "train", {"epoch": epoch + 1, **figures, **more, **self._stage()})

    def _validate(self) -> None:
        """Judge the weights, keep them if they are among the best, and draw the attention."""
        progress = self.progress
        self.model.listener.running = layers = self._layers_at(progress.update - 1)  # as in the last update
        with self.moving.in_place(self.model):
            validation = self.validate()
            if self.world.leads:
                write_weights(self._weights(progress.update), self.model.state_dict())
        tokens, frames = validation.weights.shape
        found = measure(validation.weights.unsqueeze(0), torch.tensor([tokens - 1]), torch.tensor([frames]))
        figures = {"loss": validation.loss, "wer": validation.error_rate, **progress.watch.figures(found)}
        more = {"seconds": progress.seconds, **self._stage()}
        self.log.write(progress.update, "valid", {"epoch": progress.epoch, **figures, **more})
        if self.world.leads:
            picture = self.folder / "attention" / f"{progress.update:06d}.png"
            self.log.picture(progress.update, draw_attention(validation.weights, validation.pieces, picture))
        # where everything is wrong, an empty transcript is no better than a long one: then the loss decides
        rank = (min(validation.error_rate, 1.0), validation.loss, progress.update)
        if any(self._layers_at(update - 1) != layers for *_, update in progress.best):
            # the listener has grown: weights that ran with fewer layers are not averaged with those of more
            progress.best, progress.plateau = [], Plateau(progress.plateau.share)
        progress.best = sorted([*progress.best, rank])[: self.config.average]
        progress.plateau.validated(*rank[:2], self.config.optimizer)
        if not self.world.leads:
            return
        self.reporter.validated(progress.epoch, progress.update, validation)
        if advice := progress.watch.advice(found, progress.update, self.config.aligned_by):
            self.reporter.warned(advice)

    def _weights(self, update: int) -> Path:
        return self.folder / WEIGHTS / f"{update:06d}.safetensors"


def fingerprint(loader: Loader) -> str:
    """Tells the tokens and the utterances that a loader reads from others."""
    found = hashlib.sha256(loader.reader.tokenizer.to_bytes())
    for entry in loader.entries:
        found.update(f"{entry.id} {entry.seconds} {entry.characters}\n".encode("utf-8", "surrogatepass"))
    return found.hexdigest()


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
