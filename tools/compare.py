"""One config with a line or some changed at a time: each change is trained and evaluated, and tables say what came out.

    python tools/compare.py CONF CHANGES.yaml -o OUT --sets NAME=SHARDS ... [--seeds 0 1 2] [--jobs 2] [KEY=VALUE ...]

CHANGES.yaml maps names to settings, such as `dot: model.speller.attention.kind=dot`; KEY=VALUE words hold for all.
A run lies in OUT/NAME-SEED. What is done there is not done again and a training that was cut short is resumed, so the
same command goes on where it was stopped. `--decode NAME:KEY=VALUE` (joint: the config's own) decodes with other search
settings. Every process has one thread and `--jobs` of them run side by side; the time given is processor time of
training, which a busy machine lengthens less than the clock.

Where several changes share a setting, as in a factorial design, a further table holds the runs with it against those
without it. There a change may name its own train.seed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import nan
from pathlib import Path
from statistics import mean

import yaml

from las.checkpoint import read_model
from las.text.alignment import ErrorCounts, align

LAS = (sys.executable, "-m", "las")


@dataclass(frozen=True)
class Run:
    """One training and its evaluations."""

    name: str
    settings: list[str]
    seed: int
    folder: Path
    conf: Path
    sets: list[str]
    decodings: dict[str, list[str]]

    def complete(self) -> None:
        """Do what is not done yet; processor seconds of every part of the training go into `seconds`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        run, model = self.folder / "run", self.folder / "run" / "model"
        if not (model / "config.yaml").exists():
            resume = ["--resume"] if (run / "config.yaml").exists() else []
            words = [str(self.conf), f"train.seed={self.seed}", *self.settings, "-o", str(run), *resume]
            self._las("train", *words, counted=True)
        for decoding, search in self.decodings.items():
            texts = self.folder / decoding
            if not all((texts / f"{one.partition('=')[0]}.jsonl").exists() for one in self.sets):
                self._las("evaluate", *self.sets, *search, "--model", str(model), "-o", str(texts))
        print(f"{self.folder.name}: {self.summary()}", flush=True)

    def _las(self, *words: str, counted: bool = False) -> None:
        """Run `las WORDS` with its output in the folder's log; `counted`: its processor seconds go into `seconds`."""
        with open(self.folder / "log", "a", encoding="utf-8") as log:
            one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen([*LAS, *words], stdout=log, stderr=log, env=one_thread)
            _, status, used = os.wait4(process.pid, 0)
        if counted:  # what was cut short took its time as well
            with open(self.folder / "seconds", "a", encoding="ascii") as file:
                file.write(f"{used.ru_utime + used.ru_stime:.1f}\n")
        if status:
            raise SystemExit(f"las {' '.join(words)}: failed; see {self.folder / 'log'}")

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Every set with every decoding."""
        return [(one.partition("=")[0], decoding) for one in self.sets for decoding in self.decodings]

    def seconds(self) -> float:
        path = self.folder / "seconds"  # not there where this script ended before the training that it started
        return sum(map(float, path.read_text().split())) if path.exists() else nan

    def parameters(self) -> int:
        weights = read_model(self.folder / "run" / "model").weights
        return sum(weight.numel() for name, weight in weights.items() if not name.startswith("frontend."))

    def errors(self, decoding: str, name: str) -> Iterator[tuple[int, ErrorCounts]]:
        """Of each utterance, the number of words in its reference and the errors."""
        for line in (self.folder / decoding / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            yield len(record["reference"].split()), align(record["reference"], record["text"]).counts

    def rate(self, decoding: str, name: str) -> float:
        counts = sum((counts for _, counts in self.errors(decoding, name)), ErrorCounts())
        assert counts.rate is not None
        return counts.rate

    def summary(self) -> str:
        names = [one.partition("=")[0] for one in self.sets]
        figures = [f"{name} {key} {self.rate(key, name):.2%}" for key in self.decodings for name in names]
        return ", ".join([*figures, f"{self.seconds():.0f} s"])


def table(runs: list[Run], changes: dict[str, list[str]]) -> str:
    """A row for each change: WER of every set and decoding, its mean over the seeds and in brackets its ends."""
    columns = runs[0].columns
    head = ["", "parameters", "training", *(f"{name}, {decoding}" for name, decoding in columns), "changed"]
    lines = [_row(head), _row(["---"] * len(head))]
    for change, settings in changes.items():
        own = [run for run in runs if run.name == change]
        cells = [change, f"{own[0].parameters() / 1e6:.2f} M", f"{mean(run.seconds() for run in own):.0f} s"]
        for name, decoding in columns:
            rates = [run.rate(decoding, name) for run in own]
            ends = f" ({min(rates):.2%} to {max(rates):.2%})" if len(rates) > 1 else ""
            cells.append(f"{mean(rates):.2%}{ends}")
        lines.append(_row([*cells, f"`{' '.join(settings)}`" if settings else ""]))
    return "\n".join(lines)


def table_by_length(runs: list[Run], changes: dict[str, list[str]], name: str, decoding: str) -> str:
    """WER of one set by the number of words in the reference, seeds together."""
    lengths = sorted({words for run in runs for words, _ in run.errors(decoding, name) if words})
    lines = [_row([f"{name}, {decoding}: words", *map(str, lengths)]), _row(["---"] * (1 + len(lengths)))]
    for change in changes:
        counts = dict.fromkeys(lengths, ErrorCounts())
        for run in runs:
            for words, errors in run.errors(decoding, name) if run.name == change else ():
                if words:  # silence has no rate
                    counts[words] += errors
        lines.append(_row([change, *(f"{one.errors / one.reference:.2%}" for one in counts.values())]))
    return "\n".join(lines)


def table_by_setting(runs: list[Run], changes: dict[str, list[str]]) -> str:
    """For settings that several changes share: mean WER of all runs with them against that of all others.

    Settings that always come together are one. Empty where no setting is shared.
    """
    columns = runs[0].columns
    shared: dict[frozenset[str], list[str]] = {}
    for word in dict.fromkeys(word for settings in changes.values() for word in settings):
        owners = frozenset(change for change, settings in changes.items() if word in settings)
        if 1 < len(owners) < len(changes):
            shared.setdefault(owners, []).append(word)
    if not shared:
        return ""
    head = ["setting", "runs with, without", *(f"{name}, {decoding}: with, without" for name, decoding in columns)]
    lines = [_row(head), _row(["---"] * len(head))]
    for owners, words in shared.items():
        having = [run for run in runs if run.name in owners]
        others = [run for run in runs if run.name not in owners]
        cells = [f"`{' '.join(words)}`", f"{len(having)}, {len(others)}"]
        for name, decoding in columns:
            own, other = (mean(run.rate(decoding, name) for run in group) for group in (having, others))
            cells.append(f"{own:.2%}, {other:.2%} ({100 * (own - other):+.2f})")
        lines.append(_row(cells))
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _settings(value: str | list[str] | None) -> list[str]:
    return value.split() if isinstance(value, str) else value or []


def parser_of_words() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("conf", type=Path, help="config of `las train`")
    parser.add_argument("changes", type=Path, help="YAML: name -> settings")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the runs and table.md")
    parser.add_argument("--sets", nargs="+", required=True, metavar="NAME=SHARDS", help="what is evaluated")
    parser.add_argument("--decode", nargs="+", default=["joint:"], metavar="NAME:KEY=VALUE,...", help="how")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="runs side by side")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of the changes, these")
    return parser


def main() -> None:
    parser = parser_of_words()
    arguments, common = parser.parse_known_args()
    if strange := [word for word in common if word.startswith("-") or "=" not in word]:
        parser.error(f"{strange[0]}: wanted KEY=VALUE")
    changes = {name: _settings(one) for name, one in yaml.safe_load(arguments.changes.read_text()).items()}
    if unknown := [name for name in arguments.only or () if name not in changes]:
        parser.error(f"--only {unknown[0]}: no such change in {arguments.changes}")
    changes = {name: changes[name] for name in arguments.only or changes}
    decodings = {}
    for word in arguments.decode:
        name, colon, search = word.partition(":")
        if not colon:  # KEY=VALUE behind --decode, which takes all words that come
            parser.error(f"--decode {word}: wanted NAME:KEY=VALUE,...; words for all runs come before the options")
        decodings[name] = [one for one in search.split(",") if one]
    runs = [
        Run(name, [*common, *own], seed, arguments.output / f"{name}-{seed}", arguments.conf, arguments.sets, decodings)
        for seed in arguments.seeds
        for name, own in changes.items()
    ]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(Run.complete, runs))
    found = [table(runs, changes), *filter(None, [table_by_setting(runs, changes)])]
    for one in arguments.sets:
        found += [table_by_length(runs, changes, one.partition("=")[0], decoding) for decoding in decodings]
    text = "\n\n".join(found) + "\n"
    (arguments.output / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
