"""Progress on stderr, where that is a terminal: bars, and a line for every validation of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from las.text.perplexity import Perplexity
    from las.train.loop import Validation


class _Speed(ProgressColumn):
    """Seconds of audio done in a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.0f}x real time")


def _progress(speed: bool = False) -> Progress:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        *([_Speed()] if speed else []),
        TimeElapsedColumn(),
        TextColumn("left"),
    )
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)


@contextmanager
def progress_bar(title: str, total: float | None, speed: bool = False) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr where that is a terminal; called with what is done, and perhaps what there is in all.

    With `speed` what is done is seconds of audio, and the bar says how fast they go by.
    """
    with _progress(speed) as progress:
        task = progress.add_task(title, total=total)

        def move(done: float, of: float | None = None) -> None:
            progress.update(task, completed=done, total=of or total)

        yield move


class TrainingBar:
    """Shows how far training is, and a line for every validation."""

    def __init__(self, epochs: int):
        self.epochs = epochs
        self.progress = _progress()
        self.task = self.progress.add_task("training", total=1.0)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def training(self, done: float, epoch: int, figures: dict[str, float]) -> None:
        title = f"epoch {epoch + 1}/{self.epochs} loss {figures['loss']:.3f}"
        self.progress.update(self.task, completed=done, description=title)

    def validated(self, epoch: int, update: int, validation: Validation) -> None:
        line = f"epoch {epoch} update {update}: loss {validation.loss:.4f} WER {validation.error_rate:.2%}"
        self.progress.console.print(f"{line} | {validation.example}", markup=False, highlight=False, soft_wrap=True)

    def warned(self, message: str) -> None:
        self.progress.console.print(f"las: {message}", markup=False, highlight=False, soft_wrap=True)


class LanguageModelBar(TrainingBar):
    """The same for a language model."""

    def foretold(self, epoch: int, update: int, found: Perplexity) -> None:
        line = (
            f"epoch {epoch + 1} update {update}: perplexity per token {found.per_token:.3f} word {found.per_word:.2f}"
        )
        self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
