"""Scored sets -> lines for people and rows of RESULTS.md, each figure with its command, commit and machine."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from las.evaluate.breakdown import Record, format_interval, set_record
from las.evaluate.score import SetScore, format_counts, score, with_missing
from las.evaluate.texts import read_pair
from las.files import write_text

COLUMNS = ("set", "WER (S/D/I/N)", "CER", "decoding", "RTF", "model", "command", "commit", "hardware")


@dataclass(frozen=True)
class SetResult:
    """One evaluated set. Lengths and speakers are by id, as far as they are known."""

    name: str
    score: SetScore
    references: dict[str, str]  # utterance id -> transcript
    hypotheses: dict[str, str]  # utterance id -> text as recognised
    lengths: dict[str, float]  # s, of the recordings
    seconds: float | None  # of decoding, reading the audio included; None where texts were scored
    model: str  # or where the hypotheses came from
    decoding: str  # the search's settings; empty where texts were scored
    speakers: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()  # ids without hypothesis, whose words were counted as deleted
    verdicts: dict[str, str] = field(default_factory=dict)  # on the hypotheses, as far as they are known
    reliability: Record | None = None  # confidence of words against truth, in bins, where it was asked for

    @cached_property
    def record(self) -> Record:
        """The set in plain values, as report.json holds it."""
        return {
            "name": self.name,
            "model": self.model,
            "decoding": self.decoding,
            "audio_seconds": self.audio_seconds,
            "seconds": self.seconds,
            "real_time_factor": self.real_time_factor,
            "missing": list(self.missing),
            "reliability": self.reliability,
            **set_record(self.score, self.speakers, self.lengths, self.verdicts),
        }

    @property
    def audio_seconds(self) -> float | None:
        """Of the whole set; None where a length is unknown."""
        known = len(self.lengths) == len(self.references)
        return sum(self.lengths.values()) if known else None

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of work for a second of audio."""
        return self.seconds / self.audio_seconds if self.seconds and self.audio_seconds else None

    def summary(self) -> str:
        """One line for people: the set's name, WER with counts and interval, CER, real-time factor."""
        parts = [self.name, f"WER {format_counts(self.score.counts)}", self._interval()]
        parts.append(f"CER {format_counts(self.score.characters)}")
        if self.audio_seconds:
            parts.append(f"{self.audio_seconds / 60:.1f} min")
        if self.real_time_factor:
            parts.append(f"RTF {self.real_time_factor:.3f}")
        return "\t".join(parts)

    def _interval(self) -> str:
        return f"95% {format_interval(self.record['wer'])} ({self.record['interval_over']})"

    def lines(self) -> str:
        """JSON lines of id, text, reference, speaker, seconds and verdict; `las score` and `las compare` read them."""
        lines = []
        for id, text in self.hypotheses.items():
            record: Record = {"id": id, "text": text, "reference": self.references[id]}
            extra: Record = {"speaker": self.speakers.get(id), "seconds": self.lengths.get(id)}
            extra["verdict"] = self.verdicts.get(id)
            record |= {name: value for name, value in extra.items() if value is not None}
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
        return "".join(lines)

    def row(self) -> str:
        """A row of RESULTS.md, under `COLUMNS`."""
        errors = f"{format_counts(self.score.counts)}, {self._interval()}"
        factor = f"{self.real_time_factor or 0:.3f}"
        letters = format_counts(self.score.characters)
        cells = (self.name, errors, letters, self.decoding, factor, self.model, f"`{command()}`", commit(), hardware())
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def scored_files(reference: Path, hypothesis: Path, style: str, allow_missing: bool) -> SetResult:
    """Score two files, called by the hypotheses' name. Raises UserError as `read_pair` and `score` do."""
    references, hypotheses = read_pair(reference, hypothesis)
    texts, missing = with_missing(references.texts, hypotheses.texts) if allow_missing else (hypotheses.texts, [])
    found = score(references.texts, texts, style)
    lengths = {**hypotheses.seconds, **references.seconds}
    speakers = {**hypotheses.speakers, **references.speakers}
    return SetResult(
        hypothesis.stem, found, references.texts, texts, lengths, None, str(hypothesis), "", speakers,
        tuple(missing),
    )  # fmt: skip


def append_rows(path: Path, rows: list[str]) -> None:
    """Add rows to the end of a file of results, with the table's head where the file does not end in such a table."""
    text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
    head = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    last_table = text.rstrip("\n").split("\n\n")[-1]
    if not last_table.startswith(head[0]):
        text = text.rstrip("\n") + "\n\n" * bool(text.strip()) + "\n".join(head) + "\n"
    write_text(path, text.rstrip("\n") + "\n" + "\n".join(rows) + "\n")


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
    """Processor and threads, or the GPU, of this process and how many there are like it."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    others = f"{ranks} processes, each " if ranks > 1 else ""
    if torch.cuda.is_available():
        return others + torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{others}{torch.get_num_threads()} x {name}"
