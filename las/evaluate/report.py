"""Scored sets -> lines for people and rows of RESULTS.md, each figure with its command, commit and machine."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from las.evaluate.score import SetScore, format_counts

COLUMNS = ("set", "WER (S/D/I/N)", "decoding", "RTF", "model", "command", "commit", "hardware")


@dataclass(frozen=True)
class SetResult:
    """One evaluated set."""

    name: str
    score: SetScore
    references: dict[str, str]  # utterance id -> transcript
    hypotheses: dict[str, str]  # utterance id -> text as recognised
    audio_seconds: float
    seconds: float  # of decoding, reading the audio included
    model: str
    decoding: str  # the search's settings

    @property
    def real_time_factor(self) -> float:
        """Seconds of work for a second of audio."""
        return self.seconds / self.audio_seconds

    def summary(self) -> str:
        """One line for people: the set's name, WER with its counts, real-time factor."""
        counts = format_counts(self.score.counts)
        return f"{self.name}\tWER {counts}\t{self.audio_seconds / 60:.1f} min\tRTF {self.real_time_factor:.3f}"

    def lines(self) -> str:
        """JSON lines of id, text as recognised and reference; `las score` reads the texts back by id."""
        records = ({"id": id, "text": text, "reference": self.references[id]} for id, text in self.hypotheses.items())
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)

    def row(self) -> str:
        """A row of RESULTS.md, under `COLUMNS`."""
        counts = format_counts(self.score.counts)
        factor = f"{self.real_time_factor:.3f}"
        cells = (self.name, counts, self.decoding, factor, self.model, f"`{command()}`", commit(), hardware())
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def append_rows(path: Path, rows: list[str]) -> None:
    """Add rows to the end of a file of results, with the table's head where the file does not end in such a table."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    head = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    last_table = text.rstrip("\n").split("\n\n")[-1]
    if not last_table.startswith(head[0]):
        text = text.rstrip("\n") + "\n\n" * bool(text.strip()) + "\n".join(head) + "\n"
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text.rstrip("\n") + "\n" + "\n".join(rows) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def command() -> str:
    """The command line of this process, as one would type it."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return shlex.join(
        "las" if place == 0 and word in ("__main__.py", "las") else word for place, word in enumerate(words)
    )


def commit() -> str:
    """The commit of the checkout that las runs from, with + where it was changed; the version where there is none."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # installed; a git above that folder would be another project's
        return program()
    git = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return program()


def program() -> str:
    """The package with its version."""
    try:
        return f"las {version('las')}"
    except PackageNotFoundError:
        return "las, not installed"


def hardware() -> str:
    """Processor and threads, or the GPU."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{torch.get_num_threads()} x {name}"
