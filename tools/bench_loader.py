"""How many times real time the loader goes alone: shards in, batches out, nothing trained on them.

    python tools/bench_loader.py [--rounds 5] [--workers 0]

200 Opus recordings of $LAS_CORPORA/LibriSpeech, 16 kHz, or as many that are generated (noise in syllables, 2 to 16 s),
are written as two sets of shards, FLAC and Opus. The contestants take turns over whole epochs, in one process with one
thread: others' load hits them alike. Reported are medians: seconds of audio per second of CPU time, in which others'
load shows least, and per second of wall-clock time, which is the figure to go by where nothing else is at work.

--workers N: reading is done by N processes beside this one, as `data.workers` says; the CPU time is that of all.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch

from las.data.augment import AugmentConfig
from las.data.loader import Loader, LoaderConfig
from las.data.manifest import Utterance
from las.data.sharding import write_shards
from las.data.shards import read_index
from las.text.tokenizer import Tokenizer, train_tokenizer

RATE = 16_000  # Hz
RECORDINGS = 200
OPUS_COMPRESSION = 0.95  # of what is generated: some 17 kbit/s, as in the corpus
SPEEDS = (0.9, 1.0, 1.1)
CONTESTANTS = {
    "FLAC": ("flac", AugmentConfig()),
    "FLAC, speed": ("flac", AugmentConfig(speeds=SPEEDS)),
    "Opus": ("opus", AugmentConfig()),
    "FLAC, noise and reverberation": ("flac", AugmentConfig(noise="generated", reverberation="generated")),
    "FLAC, all of these": ("flac", AugmentConfig(speeds=SPEEDS, noise="generated", reverberation="generated")),
}


def recordings(folder: Path) -> Iterator[Utterance]:
    """Opus files: those of a corpus, or encoded here."""
    corpora = os.environ.get("LAS_CORPORA")
    found = sorted(Path(corpora, "LibriSpeech").rglob("*.opus")) if corpora else []
    for number in range(RECORDINGS):
        if found:
            path = found[number * len(found) // RECORDINGS]
        else:
            path = folder / f"{number}.opus"
            soundfile.write(
                path, speech_like(number), RATE, format="OGG", subtype="OPUS", compression_level=OPUS_COMPRESSION
            )
        yield Utterance(str(number), str(path), "one two three four five six seven eight nine ten " * 3, None)


def speech_like(number: int) -> np.ndarray:
    """Noise below 4 kHz that comes and goes four times a second, with pauses; (N,) float32."""
    chance = np.random.default_rng(number)
    time = np.arange(chance.integers(2 * RATE, 16 * RATE)) / RATE  # s
    noise = np.convolve(chance.standard_normal(len(time)), np.hanning(9) / 4, "same")
    return (0.1 * noise * np.maximum(0, np.sin(2 * np.pi * 4 * time)) * (time % 3 < 2.5)).astype(np.float32)


def prepare(folder: Path) -> Tokenizer:
    """FOLDER/flac and FOLDER/opus, the same recordings; a tokenizer for their texts."""
    found = list(recordings(folder))
    write_shards(found, folder / "flac", encode="flac")
    write_shards(found, folder / "opus", encode="original")
    return train_tokenizer([one.text for one in found], 20, "char", folder / "tokenizer.model")


def spent() -> float:
    """Seconds of CPU time so far, of this process and of those it has waited for."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


def turn(loader: Loader, epoch: int) -> tuple[float, float]:
    """Times real time, by CPU time and by the clock."""
    cpu, clock = spent(), time.perf_counter()
    utterances = sum(len(batch) for batch in loader.epoch(epoch))
    assert utterances == RECORDINGS, loader.ledger
    return loader.seconds / (spent() - cpu), loader.seconds / (time.perf_counter() - clock)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        tokenizer = prepare(Path(name))
        config = LoaderConfig(workers=options.workers, longest=40.0)
        loaders = {
            title: Loader(read_index(Path(name, kind)), tokenizer, RATE, config, shuffle=True, seed=0, augment=augment)
            for title, (kind, augment) in CONTESTANTS.items()
        }
        turns = {title: [turn(loader, 0)][:0] for title, loader in loaders.items()}  # once to warm up
        for epoch in range(1, 1 + options.rounds):
            for title, loader in loaders.items():
                turns[title].append(turn(loader, epoch))
    print(f"{loader.seconds / 60:.0f} min of audio, {options.workers} workers, medians of {options.rounds}\n")
    print("| x real time | by CPU time | by the clock |\n|---|---|---|")
    for title, found in turns.items():
        cpu, clock = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"| {title} | {cpu:,.0f} | {clock:,.0f} |")


if __name__ == "__main__":
    main()
