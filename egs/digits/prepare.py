"""FSDD's single digits -> connected digit strings: train, dev and test manifests with their audio and word times.

    python egs/digits/prepare.py [--corpus DIR] [--output DIR] [--held-out SPEAKER] [--train-strings N] [--synthetic N]

Source: Free Spoken Digit Dataset v1.0.10, `{digit}_{speaker}_{index}.wav`, 8 kHz
(https://github.com/Jakobovski/free-spoken-digit-dataset). The README beside this file states the split.
"""

import argparse
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import torch
from rich.console import Console
from rich.progress import track

from las.audio import load
from las.data.corpus import parser, run
from las.data.download import corpus_folder
from las.data.manifest import Utterance, write_manifest
from las.data.voices import VOICES, speak
from las.errors import UserError

MIRROR = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags"
VERSION = "v1.0.10"
UNPACKED = "free-spoken-digit-dataset-1.0.10"  # the folder inside the archive
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
INDICES = range(50)  # recordings of a digit by a speaker
TEST = range(5)  # of these: FSDD's own test set
DEV = range(45, 50)  # of these: training recordings on which settings are chosen
TEST_TIMES = {"FSDD": 4, "synthetic": 2}  # how often each test recording comes: 1,200 words either way
RATE = 8_000  # Hz
LONGEST = 7  # words in a string; in training where nothing else is asked for
PAUSE = (0.05, 0.5)  # s, between words
EDGE = (0.05, 0.25)  # s, before the first word and after the last
FLOOR = 200  # samples, 25 ms: the quietest window of a recording is taken for its noise floor
FLOOR_LEVEL = (-10.0, 6.0)  # dB, pause noise against that floor


@dataclass(frozen=True)
class Clip:
    """One recording of one digit."""

    digit: int
    speaker: str
    index: int


@dataclass(frozen=True)
class String:
    """Digits of one speaker to be joined, or with `rate` to be said by a synthetic voice in one breath."""

    id: str
    clips: tuple[Clip, ...]
    gaps: tuple[float, ...]  # s, before each clip and after the last
    noise: float | None = None  # dB against the recording's own floor in the gaps; None is digital silence
    gain: float = 0.0  # dB
    rate: int | None = None  # words per minute; None joins the clips
    pitch: int = 50

    @property
    def text(self) -> str:
        return " ".join(WORDS[clip.digit] for clip in self.clips)


@dataclass(frozen=True)
class Corpus:
    """Who speaks, and clip -> samples (N,) float32 at 8 kHz."""

    source: str  # "FSDD" or "synthetic"
    place: str
    speakers: tuple[str, ...]
    wave: Callable[[Clip], np.ndarray]

    def clips(self, speaker: str, indices: range) -> list[Clip]:
        return [Clip(digit, speaker, index) for digit in range(10) for index in indices]


def find_corpus(given: Path | None, output: Path, offline: bool, mirror: str = MIRROR) -> Corpus:
    """FSDD from `given`, else $LAS_CORPORA/fsdd, else the published archive; synthetic voices where no network is."""
    try:
        folder = corpus_folder(given, "fsdd", f"{mirror}/{VERSION}.tar.gz", output, offline=offline)
    except UserError as error:
        reason = str(error)
    else:
        return recordings(folder)
    print(f"FSDD is not here ({reason}): SYNTHETIC voices take its place, and results are of them", file=sys.stderr)
    return Corpus("synthetic", "espeak-ng", VOICES[:12], say)


def recordings(folder: Path) -> Corpus:
    """FSDD in `folder` or its recordings/ or as unpacked; all 3,000 files must be there, others are not read."""
    below = [folder / UNPACKED / "recordings", folder / "recordings"]
    place = next((one for one in below if one.is_dir()), folder)
    wanted = {f"{digit}_{speaker}_{index}.wav" for digit in range(10) for speaker in SPEAKERS for index in INDICES}
    found = {path.name for path in place.iterdir()} if place.is_dir() else set()
    missing = sorted(wanted - found)
    if missing:
        raise UserError(
            f"{place}: {len(wanted) - len(missing)} of FSDD's {len(wanted)} recordings found, {missing[0]} is missing; "
            "give --corpus the folder that holds {digit}_{speaker}_{index}.wav"
        )

    @cache
    def wave(clip: Clip) -> np.ndarray:
        return load(place / f"{clip.digit}_{clip.speaker}_{clip.index}.wav", RATE).numpy()

    return Corpus("FSDD", str(place), SPEAKERS, wave)


@cache
def say(clip: Clip) -> np.ndarray:
    """The synthetic stand-in for a recording: `speaker` is a voice, and the index draws its rate and pitch."""
    generator = random.Random(f"{clip.speaker} {clip.index}")
    return utter(WORDS[clip.digit], clip.speaker, generator.randint(120, 240), generator.randint(20, 80))


def utter(text: str, voice: str, rate: int, pitch: int) -> np.ndarray:
    """Synthetic speech at 8 kHz without the silence at both ends (below 1% of the peak), as FSDD's recordings are."""
    wave, hertz = speak(text, voice, rate, pitch)
    padded = torch.nn.functional.pad(wave, (0, -len(wave) % 8192))  # few lengths: torch prepares a filter for each
    samples = load((padded, hertz), RATE).numpy()
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1]


def plan(corpus: Corpus, options: argparse.Namespace) -> dict[str, list[String]]:
    """Split -> strings. Test and dev depend on the speakers alone, so they are the same in every run."""
    held_out = options.held_out
    if held_out is not None and held_out not in corpus.speakers:
        raise UserError(f"--held-out {held_out}: no such speaker; there are {', '.join(corpus.speakers)}")
    speakers = [speaker for speaker in corpus.speakers if speaker != held_out]
    first = TEST.stop if held_out is None else 0  # a held-out speaker leaves the others' test recordings for training
    training = range(first, INDICES.stop if options.train_all else DEV.start)
    test: list[String] = []
    for speaker in speakers if held_out is None else [held_out]:
        indices, times = (TEST, TEST_TIMES[corpus.source]) if held_out is None else (INDICES, 2)
        test += cover(corpus.clips(speaker, indices), times, "test")
    dev = [string for speaker in speakers for string in cover(corpus.clips(speaker, DEV), 2, "dev")]
    clips = {speaker: corpus.clips(speaker, training) for speaker in speakers}
    train = list(draw(clips, options.train_strings, f"train-{options.seed}", options.level, options.longest))
    if corpus.source != "synthetic":
        clips = {voice: corpus.clips(voice, INDICES) for voice in VOICES}
    extra = draw(clips, options.synthetic, f"synthetic-{options.seed}", options.level, options.longest, True)
    return {"train": train + list(extra), "dev": dev, "test": test}


def cover(clips: list[Clip], times: int, split: str) -> list[String]:
    """Plain strings of one speaker in which every clip comes exactly `times`: seed 0, digital silence in the gaps."""
    speaker = clips[0].speaker
    generator = random.Random(f"0 {split} {speaker}")
    strings: list[String] = []
    for _ in range(times):
        order = generator.sample(clips, len(clips))
        while order:
            count = min(generator.randint(1, LONGEST), len(order))
            chosen, order = tuple(order[:count]), order[count:]
            strings.append(String(f"{split}-{speaker}-{len(strings):03d}", chosen, gaps(count, generator)))
    return strings


def draw(
    clips: dict[str, list[Clip]], count: int, name: str, level: float, longest: int, one_breath: bool = False
) -> Iterator[String]:
    """`count` training strings, speakers in turn; a speaker's clips all come once before any comes again.

    Half have digital silence in the gaps and half noise like the recording's own; the level is up to `level` dB up or
    down. With `one_breath` every second string is said by a synthetic voice as a whole, with no gap inside.
    """
    generator = random.Random(name)
    bags: dict[str, list[Clip]] = {speaker: [] for speaker in clips}
    for number in range(count):
        speaker = list(clips)[number % len(clips)]
        length = generator.randint(1, longest)
        if len(bags[speaker]) < length:
            bags[speaker] += generator.sample(clips[speaker], len(clips[speaker]))
        chosen = tuple(bags[speaker].pop(0) for _ in range(length))
        noise = generator.uniform(*FLOOR_LEVEL) if generator.random() < 0.5 else None
        whole = one_breath and number // len(clips) % 2 == 1
        yield String(
            f"{name}-{speaker}-{number:05d}",
            chosen,
            gaps(length, generator),
            noise,
            gain=generator.uniform(-level, level),
            rate=generator.randint(120, 240) if whole else None,
            pitch=generator.randint(20, 80),
        )


def gaps(words: int, generator: random.Random) -> tuple[float, ...]:
    """Seconds before each of `words` words and after the last."""
    between = [generator.uniform(*PAUSE) for _ in range(words - 1)]
    return (generator.uniform(*EDGE), *between, generator.uniform(*EDGE))


def render(string: String, corpus: Corpus) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Samples (N,) int16 and the first and one-past-last sample of every word; none for a string said in one breath."""
    speaker = string.clips[0].speaker
    if string.rate is not None:
        words = [utter(string.text, speaker, string.rate, string.pitch)]
        pauses: tuple[float, ...] = (string.gaps[0], string.gaps[-1])
    else:
        wave = corpus.wave if speaker in corpus.speakers else say
        words, pauses = [wave(clip) for clip in string.clips], string.gaps
    generator = np.random.default_rng(list(string.id.encode()))
    pieces, spans, position = [], [], 0
    for seconds, word in zip(pauses, [*words, None], strict=True):
        pieces.append(pause(round(seconds * RATE), words[0], string.noise, generator))
        position += len(pieces[-1])
        if word is not None:
            pieces.append(word)
            spans.append((position, position + len(word)))
            position += len(word)
    joined = np.concatenate(pieces)
    joined = joined * min(10 ** (string.gain / 20), max(1.0, 0.99 / max(np.abs(joined).max(), 1e-9)))
    samples = np.clip(np.round(joined * 32768), -32768, 32767).astype(np.int16)
    return samples, spans if string.rate is None else []


def pause(samples: int, wave: np.ndarray, level: float | None, generator: np.random.Generator) -> np.ndarray:
    """(samples,) of digital silence, or of noise with the spectrum of the quietest 25 ms of `wave`, `level` dB from it.

    White noise convolved with a window has the window's spectrum; its mean is taken out first.
    """
    if level is None or len(wave) < FLOOR:
        return np.zeros(samples, np.float32)
    windows = wave[: len(wave) // FLOOR * FLOOR].reshape(-1, FLOOR)
    quiet = windows[windows.var(axis=1).argmin()]
    white = generator.standard_normal(samples + FLOOR - 1, dtype=np.float32)
    noise = np.convolve(white, quiet - quiet.mean(), mode="valid") / np.sqrt(FLOOR)
    return (noise * 10 ** (level / 20)).astype(np.float32)


def write(strings: dict[str, list[String]], corpus: Corpus, output: Path, facts: dict[str, object]) -> None:
    """Audio first, then the manifests: a manifest that is there is whole."""
    ready, partial = output / "audio", output / "audio.part"
    for name in ("train.jsonl", "dev.jsonl", "test.jsonl", "boundaries.jsonl", "corpus.json"):
        (output / name).unlink(missing_ok=True)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    utterances: dict[str, list[Utterance]] = {split: [] for split in strings}
    boundaries = []
    console = Console(stderr=True)
    for split, planned in strings.items():
        for string in track(planned, split, console=console, disable=not console.is_terminal):
            samples, spans = render(string, corpus)
            file = f"{string.id}.flac"
            soundfile.write(partial / file, samples, RATE, subtype="PCM_16")
            audio = str(ready.absolute() / file)
            speaker = string.clips[0].speaker
            utterances[split].append(Utterance(string.id, audio, string.text, len(samples) / RATE, speaker))
            if spans:
                words = zip(string.text.split(), spans, strict=True)
                record = [{"word": word, "start": start / RATE, "end": end / RATE} for word, (start, end) in words]
                boundaries.append(json.dumps({"id": string.id, "words": record}) + "\n")
    shutil.rmtree(ready, ignore_errors=True)
    os.replace(partial, ready)
    replace(output / "boundaries.jsonl", "".join(boundaries))
    for split, listed in utterances.items():
        write_manifest(output / f"{split}.jsonl", listed)
        seconds, count = sum(u.seconds or 0 for u in listed), sum(len(u.text.split()) for u in listed)
        facts = facts | {split: {"strings": len(listed), "words": count, "seconds": round(seconds, 1)}}
        print(f"{output / split}.jsonl: {len(listed)} strings, {count} words, {seconds / 60:.1f} min")
    replace(output / "corpus.json", json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def replace(path: Path, text: str) -> None:
    """Writes under another name, then renames."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def prepare(options: argparse.Namespace) -> None:
    if not 1 <= options.longest <= len(INDICES):
        raise UserError(f"--longest {options.longest}: a training string has 1 to {len(INDICES)} words at most")
    corpus = find_corpus(options.corpus, options.output, options.offline, options.mirror)
    facts: dict[str, object] = {"source": corpus.source, "corpus": corpus.place, "speakers": list(corpus.speakers)}
    names = ("held_out", "train_strings", "longest", "train_all", "synthetic", "level", "seed")
    facts |= {name: getattr(options, name) for name in names}
    write(plan(corpus, options), corpus, options.output, facts)


def options() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    options = parser("Connected digit strings from the Free Spoken Digit Dataset", __file__, "fsdd", MIRROR)
    options.add_argument("--held-out", metavar="SPEAKER", help="test on all of this speaker, train on the others")
    options.add_argument("--train-strings", type=int, default=4000, metavar="N", help="default: 4000")
    options.add_argument("--longest", type=int, default=LONGEST, metavar="N", help=f"words of them; default: {LONGEST}")
    options.add_argument("--train-all", action="store_true", help="train on dev's recordings too (in other strings)")
    options.add_argument("--synthetic", type=int, default=0, metavar="N", help="training strings by synthetic voices")
    options.add_argument("--level", type=float, default=10.0, metavar="DB", help="training level +- this; default: 10")
    options.add_argument("--seed", type=int, default=0, help="of the training strings alone; default: 0")
    options.add_argument("--offline", action="store_true", help="no download: synthetic voices where FSDD is not here")
    return options


def main(arguments: list[str] | None = None) -> int:
    return run(options(), arguments, prepare)


if __name__ == "__main__":
    torch.set_num_threads(1)  # waves of a second: more threads only wait for each other
    sys.exit(main())
