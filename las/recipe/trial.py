"""A config -> some updates as a run would make them, on its device, the largest batch first: how long, how much memory.

Nothing is kept: the run folder is a temporary one, and the weights are random. What an update does halfway through the
run is what is done here, so that layers that join later, noise and sampled tokens count. Memory is that of the device
(torch.cuda.max_memory_allocated), on a CPU what the process has resident more than before (Linux, proc(5)).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from las.batch import Batch
from las.data.loader import Loader
from las.data.shards import Entry, read_index
from las.errors import UserError
from las.model.device import choose_device
from las.model.las import LAS
from las.recipe.plan import Plan
from las.recipe.training import build_trainer
from las.text.tokenizer import Tokenizer
from las.train.distributed import World
from las.train.loop import Trainer, Validation
from las.transcribe.recognizer import Recognizer

UPDATES = 8  # that are timed, evenly spread over an epoch
SECONDS = 60.0  # after which no more are


@dataclass(frozen=True)
class Trial:
    """What some updates took."""

    device: torch.device
    longest: float  # s, of the update with the largest batch
    seconds: float  # s an update, on average
    tried: int  # updates that this is the average of
    peak: int  # bytes, more than before there was a model
    warnings: tuple[str, ...]  # what training said

    def render(self, updates: int) -> str:
        """For a person to read; `updates` are those of the whole run."""
        minutes = self.seconds * updates / 60
        whole = f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
        return "\n".join([
            f"tried on {self.device}: {self.longest:.2f} s for the update with the largest batch, {self.seconds:.2f} s "
            f"on average ({self.tried} updates), {self.peak / 1e6:,.0f} MB at most",
            f"so the run takes about {whole}, validations and reading of data not counted",
            *self.warnings,
        ])  # fmt: skip


@dataclass
class _Quiet:
    """A reporter that keeps the warnings."""

    warnings: list[str] = field(default_factory=list)

    def training(self, done: float, epoch: int, figures: dict[str, float]) -> None: ...

    def validated(self, epoch: int, update: int, validation: Validation) -> None: ...

    def warned(self, message: str) -> None:
        self.warnings.append(message)


def attempt(plan: Plan, progress: Callable[[float, float], None]) -> Trial:
    """Make some updates of the run that `plan` is of. Raises `UserError` where its data is not there."""
    config = plan.config
    if plan.data is None:
        raise UserError(f"--try needs the data: {'; '.join(plan.missing)}")
    device = choose_device(config.train.device)
    before = _start(device)
    torch.manual_seed(config.train.seed)
    tokenizer = Tokenizer.load(config.data.tokenizer)
    loader = Loader(
        read_index(config.data.train, config.data.cache), tokenizer, config.model.frontend.sample_rate,
        replace(config.data, leave_out=1.0), shuffle=True, seed=config.train.seed, augment=config.augment,
    )  # fmt: skip
    recognizer = Recognizer(LAS(config.model, tokenizer.size).to(device), tokenizer, config.search)
    reporter = _Quiet()

    def validate() -> Validation:
        raise AssertionError("a trial does not come to a validation")

    with TemporaryDirectory() as folder:
        trainer = build_trainer(config, recognizer, loader, validate, Path(folder), reporter, World())
        with closing(trainer.log):
            trainer.progress.update = max(config.train.epochs * plan.updates // 2, *config.train.growth, 0)
            first, *others = _groups(plan.data.plan, plan.data.largest, config.train.accumulate)
            _timed(trainer, loader, first, plan)  # makes what is made once, such as the optimizer's state
            longest, *times = _times(trainer, loader, [first, *others], plan, progress)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")
    times = times or [longest]
    return Trial(device, longest, sum(times) / len(times), len(times), max(0, peak - before), tuple(reporter.warnings))


def _groups(plan: list[list[Entry]], largest: list[Entry], accumulate: int) -> list[list[list[Entry]]]:
    """The batches of updates: first of that with the largest batch, then of some that are spread over the epoch."""
    groups = [plan[start : start + accumulate] for start in range(0, len(plan), accumulate)]
    first = next(group for group in groups if largest in group)
    stride = max(1, len(groups) // UPDATES)
    return [first, *groups[::stride][:UPDATES]]


def _times(
    trainer: Trainer,
    loader: Loader,
    groups: list[list[list[Entry]]],
    plan: Plan,
    progress: Callable[[float, float], None],
) -> list[float]:
    started, times = time.perf_counter(), []
    for done, group in enumerate(groups, start=1):
        times.append(_timed(trainer, loader, group, plan))
        progress(done, len(groups))
        if time.perf_counter() - started > SECONDS:
            break
    return times


def _timed(trainer: Trainer, loader: Loader, group: list[list[Entry]], plan: Plan) -> float:
    """Seconds of an update, without those of reading its batches."""
    assert plan.data is not None
    read = [loader.reader.batch(entries, 0)[0] for entries in group]
    batches: list[Batch] = [batch for batch in read if batch is not None]
    started = time.perf_counter()
    trainer.update(batches, len(plan.data.plan))
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
    return time.perf_counter() - started


def _start(device: torch.device) -> int:
    """Bytes that are in use now; the highest that will be is counted from here."""
    if device.type == "cuda":
        torch.cuda.init()  # statistics are there only then
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
    return _status("VmRSS")


def _status(name: str) -> int:
    """A size of this process, in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None, f"/proc/self/status has no {name}"
    return 1024 * int(found[1])
