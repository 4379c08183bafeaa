"""Search weights chosen on a development set: it is decoded once, then its n-best lists are ranked again and again.

What a hypothesis got from each part of the search is kept with it (`Hypothesis.scores`), so that its score under other
weights is a sum. That is exact for the hypotheses in the lists, and blind to those that other weights would have found:
the lists should be long, and `las evaluate` says what the chosen weights are worth.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from las import audio, checkpoint
from las import config as settings
from las.data.shards import Entry, Index, holds_shards, read_index, read_sample
from las.errors import UserError
from las.recipe.config import RunConfig
from las.recipe.models import find_model, open_model
from las.search.beam import SearchConfig
from las.text.alignment import align
from las.text.normalize import normalize
from las.transcribe.recognizer import Recognizer

GRIDS = {  # what is tried of each setting
    "ctc_weight": tuple(np.round(np.arange(0.0, 0.95, 0.1), 2)),
    "language_weight": tuple(np.round(np.arange(0.0, 1.25, 0.1), 2)),
    "source_weight": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
    "internal_weight": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
    "length_exponent": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    "token_reward": (0.0, 0.25, 0.5, 1.0, 1.5, 2.0),
}
PARTS = {"ctc_weight": "ctc", "language_weight": "language model", "source_weight": "source model",
         "internal_weight": "internal"}  # fmt: skip
BATCH_SECONDS = 120.0  # padded audio that is decoded at once


@dataclass(frozen=True)
class Lists:
    """N-best lists of U utterances, N hypotheses each; where there are fewer, the rest has speller scores of -inf."""

    scores: dict[str, np.ndarray]  # what each part gave, without weight (U, N)
    lengths: np.ndarray  # tokens (U, N)
    errors: np.ndarray  # wrong words (U, N)
    words: int  # in the references
    left_out: tuple[str, ...] = ()  # ids of recordings that are read in pieces, and so have no list

    def wer(self, search: SearchConfig) -> float:
        """Word errors over words where each list is ranked with these weights; the earlier of equals is the best."""
        share = search.ctc_weight if "ctc" in self.scores else 0.0
        total = (1 - share) * self.scores["speller"] + search.token_reward * self.lengths
        signed = {
            "ctc": share,
            "language model": search.language_weight,
            "source model": -search.source_weight,
            "internal": -search.internal_weight,
        }
        for part, weight in signed.items():
            if part in self.scores and weight:
                total = total + weight * self.scores[part]
        ranked = total / (self.lengths + 1) ** search.length_exponent
        if "coverage" in self.scores:
            ranked = ranked + search.coverage * self.scores["coverage"]
        best = ranked.argmax(1)
        return float(np.take_along_axis(self.errors, best[:, None], 1).sum() / self.words)

    @property
    def oracle(self) -> float:
        """The least WER that any ranking could reach."""
        return float(self.errors.min(1).sum() / self.words)


@dataclass(frozen=True)
class Tuned:
    """What tuning found: every setting that was tried with its WER, best first."""

    tried: list[tuple[float, SearchConfig]]
    before: float  # WER with the settings of before
    oracle: float
    names: list[str]  # the settings that were varied
    left_out: tuple[str, ...] = ()  # ids of recordings that were not decoded, since they are read in pieces

    @property
    def best(self) -> SearchConfig:
        return self.tried[0][1]


@torch.no_grad()
def decode(
    recognizer: Recognizer, index: Index, style: str, hypotheses: int, progress: Callable[[float, float], None]
) -> Lists:
    """Decode a set once; `recognizer.search` must give every part that is to be weighed a weight."""
    search = replace(recognizer.search, beam=max(hypotheses, recognizer.search.beam))
    kept: list[tuple[list[dict[str, float]], list[int], list[int]]] = []
    words, done = 0, 0.0
    whole = [entry for entry in index.entries if entry.seconds <= recognizer.whole]
    left_out = tuple(entry.id for entry in index.entries if entry.seconds > recognizer.whole)
    if not whole:
        raise UserError(
            f"{index.root}: all recordings are longer than {recognizer.whole:g} s, so they are read in pieces and have "
            "no lists; tune on shorter ones"
        )
    seconds = sum(entry.seconds for entry in whole)
    for entries in _batches(whole):
        samples = [read_sample(index, entry) for entry in entries]
        waves = [audio.load(sample.audio_bytes, recognizer.rate) for sample in samples]
        lists = recognizer.spell(recognizer.hear(waves, search), search, hypotheses)
        for sample, found in zip(samples, lists, strict=True):
            reference = normalize(sample.text, style)
            words += len(reference.split())
            texts = [normalize(recognizer.tokenizer.decode(list(one.tokens)), style) for one in found]
            wrong = [align(reference, text).counts.errors for text in texts] or [len(reference.split())]
            kept.append(([one.scores for one in found], [len(one.tokens) for one in found] or [0], wrong))
        done += sum(entry.seconds for entry in entries)
        progress(done, seconds)
    if not words:
        raise UserError(f"{index.root}: no words to tune on")
    return replace(_lists(kept, words), left_out=left_out)


def _batches(entries: Sequence[Entry]) -> list[list[Entry]]:
    batches: list[list[Entry]] = []
    for entry in sorted(entries, key=lambda entry: entry.seconds):
        if not batches or (len(batches[-1]) + 1) * entry.seconds > BATCH_SECONDS:
            batches.append([])
        batches[-1].append(entry)
    return batches


def _lists(kept: Sequence[tuple[list[dict[str, float]], list[int], list[int]]], words: int) -> Lists:
    most = max(len(errors) for *_, errors in kept)
    names = sorted({name for scores, *_ in kept for one in scores for name in one} | {"speller"})

    def table(rows: list[list[float]], fill: float) -> np.ndarray:
        return np.array([row + [fill] * (most - len(row)) for row in rows])

    scores = {
        name: table([[one[name] for one in scores] for scores, *_ in kept], -np.inf if name == "speller" else 0.0)
        for name in names
    }
    lengths = table([list(map(float, lengths)) for _, lengths, _ in kept], 0.0)
    errors = table([list(map(float, errors)) for *_, errors in kept], np.inf)
    return Lists(scores, lengths, errors, words)


def search_for_lists(search: SearchConfig, names: Sequence[str]) -> SearchConfig:
    """The settings to decode with, in which every part that is to be weighed has a weight."""
    usual = {"ctc_weight": 0.3, "language_weight": 0.3, "source_weight": 0.1, "internal_weight": 0.1}
    return _changed(search, {name: usual[name] for name in names if name in usual and not getattr(search, name)})


def _changed(search: SearchConfig, values: Mapping[str, float]) -> SearchConfig:
    return replace(search, **values)  # type: ignore[arg-type]


def tune(lists: Lists, search: SearchConfig, names: Sequence[str]) -> Tuned:
    """Try all settings of the grids of `names`; among equals the one nearest to `search` is the best.

    Settings of parts that the lists do not hold are left as they are; `UserError` where that is all of them.
    """
    varied = [name for name in names if PARTS.get(name, "speller") in lists.scores]
    if not varied:
        raise UserError(f"--vary {','.join(names)}: nothing to choose, this search has none of these parts")
    grids = [GRIDS[name] for name in varied]
    points = (dict(zip(varied, map(float, point), strict=True)) for point in itertools.product(*grids))

    def distance(one: SearchConfig) -> float:
        return sum(abs(getattr(one, name) - getattr(search, name)) for name in varied)

    tried = sorted(
        ((lists.wer(one), one) for one in (_changed(search, point) for point in points)),
        key=lambda found: (found[0], distance(found[1])),
    )
    return Tuned(tried, lists.wer(search), lists.oracle, varied, lists.left_out)


def surface(tuned: Tuned) -> str:
    """The best WER for each value of the first two settings, whatever the others are."""
    across, down = (tuned.names + tuned.names[:1])[:2]
    cells: dict[tuple[float, float], float] = {}
    for wer, one in tuned.tried:
        cells.setdefault((getattr(one, down), getattr(one, across)), wer)
    columns = sorted({column for _, column in cells})
    lines = [f"{down} \\ {across}".ljust(34) + "".join(f"{column:>8g}" for column in columns)]
    for row in sorted({row for row, _ in cells}):
        rates = (f"{100 * cells[row, column]:7.2f}%" if (row, column) in cells else " " * 8 for column in columns)
        lines.append(f"{row:<34g}" + "".join(rates))
    return "\n".join(lines)


def summary(tuned: Tuned) -> str:
    """What was found, in words."""
    wer, best = tuned.tried[0]
    chosen = " ".join(f"search.{name}={getattr(best, name):g}" for name in tuned.names)
    left = ""
    if tuned.left_out:
        left = f"left out: {len(tuned.left_out)} recordings that are read in pieces (first: {tuned.left_out[0]})\n"
    return (
        f"{len(tuned.tried)} settings tried on lists whose best choice would be {tuned.oracle:.2%}\n"
        f"{left}before {tuned.before:.2%}\nbest {wer:.2%} with {chosen}"
    )


def tune_model(
    name: str,
    path: str | Path,
    names: Sequence[str],
    hypotheses: int,
    device: str,
    overrides: Sequence[str],
    progress: Callable[[float, float], None],
) -> Tuned:
    """Tune the settings `names` of a model on the shards at `path`.

    Raises `UserError` for a setting that has no grid, and as reading and decoding do.
    """
    if unknown := [one for one in names if one not in GRIDS]:
        raise UserError(f"--vary {unknown[0]}: wanted some of {', '.join(GRIDS)}")
    if not holds_shards(path):
        raise UserError(f"{path}: wanted a folder of shards; `las shard` makes one of a manifest")
    _, config = open_model(name, device, overrides)
    search = search_for_lists(config.search, names)
    weights = [f"search.{one}={getattr(search, one):g}" for one in PARTS]
    recognizer, _ = open_model(name, device, [*overrides, *weights])
    return tune(decode(recognizer, read_index(path), config.style, hypotheses, progress), config.search, names)


def write_search(name: str, tuned: Tuned, overrides: Sequence[str]) -> None:
    """Put the best settings, and those that they were found under, into the config of a model."""
    found = checkpoint.read_model(find_model(name))
    words = [*overrides, *(f"search.{one}={getattr(tuned.best, one):g}" for one in tuned.names)]
    config = settings.from_mapping(RunConfig, found.config, str(found.path / checkpoint.CONFIG), words)
    models = {name: getattr(config.search, name) for name in ("language_model", "source_model")}
    places = {name: os.path.abspath(path) for name, path in models.items() if path}  # it is read from any folder
    config = replace(config, search=replace(config.search, **places))
    checkpoint.write_config(found.path, settings.to_yaml(config), found.vocabulary)
