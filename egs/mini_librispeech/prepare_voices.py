"""Training transcripts -> short phrases said by synthetic voices: what a recogniser can learn its letters from.

    python egs/mini_librispeech/prepare_voices.py [--output DIR] [--phrases N | --sentences N] [--seed S]

Utterances of LibriSpeech are long (14 s is usual), and six hours of them leave CTC and attention on the plateau of the
loss for thousands of updates; phrases of one to five words do not. So a recogniser is first trained on what espeak-ng
says of DIR/train.jsonl's words, and then on the recordings (`init=`). Each phrase: a voice, a rate, a pitch, a
loudness and a little white noise, drawn by seed. DIR/voices/ gets the audio and train.jsonl, valid.jsonl.

With --sentences whole sentences of DIR/lm.txt.gz (prepare_lm.py) are said instead, by more voices, to be trained on
together with the recordings. DIR/sentences/ gets the audio, and DIR/mix.jsonl tells of both, for `las shard`.
"""

import argparse
import os
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from rich.console import Console
from rich.progress import track

from las.audio import load
from las.data.corpus import sole_writer
from las.data.manifest import Utterance, read_manifest, write_manifest
from las.data.sentences import read_sentences
from las.data.voices import VOICES, installed, speak
from las.errors import UserError

RATE = 16_000  # Hz
WORDS = (1, 5)  # fewest and most words of a phrase
PACE = (130, 230)  # words a minute
PITCH = (20, 80)  # of espeak-ng's 0 to 99
LEVEL = (-20.0, -3.0)  # dB of full scale, of the loudest sample
NOISE = (-75.0, -45.0)  # dB of full scale, white
BEFORE, AFTER = 800, 1600  # samples kept before the first and after the last loud one
VALID = 300  # phrases kept for validation
SENTENCE = (4, 30)  # fewest and most words of a sentence
ACCENTS = ("en-us",) * 4 + ("en-gb", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-029")
ODD = ("robo", "anikaRobot", "UniRobot", "whisper", "Demonic", "Storm", "fast", "RicishayMax", "announcer", "Mr ")


@dataclass(frozen=True)
class Phrase:
    """What is said, by whom and how."""

    id: str
    text: str
    voice: str
    pace: int  # words a minute
    pitch: int
    level: float  # dB
    noise: float  # dB


def draw(texts: list[list[str]], count: int, seed: int) -> Iterator[Phrase]:
    """`count` phrases of one to five neighbouring words of some texts."""
    chance = random.Random(seed)
    for number in range(count):
        words = chance.choice(texts)
        length = min(chance.randint(*WORDS), len(words))
        first = chance.randint(0, len(words) - length)
        yield told(f"voices-{number:06d}", words[first : first + length], VOICES, chance)


def draw_sentences(texts: list[list[str]], count: int, seed: int) -> Iterator[Phrase]:
    """`count` of the texts that are as long as a sentence, none twice."""
    chance = random.Random(seed)
    fitting = [words for words in texts if SENTENCE[0] <= len(words) <= SENTENCE[1]]
    if len(fitting) < count:
        raise UserError(f"{len(fitting)} sentences of {SENTENCE[0]} to {SENTENCE[1]} words; wanted {count}")
    voices = [f"{accent}+{variant}" for accent in ACCENTS for variant in variants()]
    for number, words in enumerate(chance.sample(fitting, count)):
        yield told(f"sentences-{number:06d}", words, voices, chance)


def variants() -> list[str]:
    """espeak-ng's voices that sound like a person."""
    folder = installed()[1] / "voices/!v"
    return sorted(one.name for one in folder.iterdir() if not one.name.startswith(ODD))


def told(id: str, words: Sequence[str], voices: Sequence[str], chance: random.Random) -> Phrase:
    """A text by a voice and in a way that chance draws."""
    return Phrase(
        id,
        " ".join(words),
        chance.choice(voices),
        chance.randint(*PACE),
        chance.randint(*PITCH),
        chance.uniform(*LEVEL),
        chance.uniform(*NOISE),
    )


def say(phrase: Phrase) -> np.ndarray:
    """Samples (N,) float32 at 16 kHz, without the silence at both ends."""
    wave, hertz = speak(phrase.text, phrase.voice, phrase.pace, phrase.pitch)
    padded = torch.nn.functional.pad(wave, (0, -len(wave) % 8192))  # few lengths: torch prepares a filter for each
    samples = load((padded, hertz), RATE).numpy()
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    samples = samples[max(0, loud[0] - BEFORE) : loud[-1] + AFTER]
    noise = np.random.default_rng(list(phrase.id.encode())).standard_normal(len(samples), dtype=np.float32)
    return samples * (10 ** (phrase.level / 20) / np.abs(samples).max()) + noise * np.float32(10 ** (phrase.noise / 20))


def write(phrase: Phrase, folder: Path) -> Utterance:
    torch.set_num_threads(1)  # short waves: more threads only wait for each other
    samples = say(phrase)
    path = folder / f"{phrase.id}.flac"
    soundfile.write(path, np.clip(samples, -1, 1), RATE, subtype="PCM_16")
    return Utterance(phrase.id, str(path), phrase.text, len(samples) / RATE, phrase.voice)


def prepare(output: Path, count: int, seed: int) -> None:
    """Phrases of the training transcripts, some of them for validation."""
    texts = [words for one in read_manifest(output / "train.jsonl", check_audio=False) if (words := one.text.split())]
    if not texts or count <= VALID:
        raise UserError(f"{output / 'train.jsonl'}: wanted transcripts, and more than {VALID} phrases of them")
    utterances = speak_all(list(draw(texts, count, seed)), output / "voices")
    keep(utterances[:VALID], output / "voices/valid.jsonl")
    keep(utterances[VALID:], output / "voices/train.jsonl")


def prepare_sentences(output: Path, count: int, seed: int) -> None:
    """Sentences of the language model's text, all to train on, beside the recordings."""
    path = output / "lm.txt.gz"
    if not path.exists():
        raise UserError(f"{path}: not there; prepare_lm.py --output {output} makes it")
    recordings = read_manifest(output / "train.jsonl")
    texts = [line.split() for line in read_sentences([path], "verbatim")]
    sentences = speak_all(list(draw_sentences(texts, count, seed)), output / "sentences")
    keep([*recordings, *sentences], output / "mix.jsonl")


def speak_all(phrases: list[Phrase], place: Path) -> list[Utterance]:
    """Audio of every phrase in place/audio, by all processors."""
    shutil.rmtree(place, ignore_errors=True)
    (place / "audio").mkdir(parents=True)
    console = Console(stderr=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(write, phrases, [place.resolve() / "audio"] * len(phrases), chunksize=20)
        return list(track(made, "voices", total=len(phrases), console=console, disable=not console.is_terminal))


def keep(utterances: list[Utterance], path: Path) -> None:
    """Write a manifest and say what it holds."""
    write_manifest(path, utterances)
    hours = sum(one.seconds or 0 for one in utterances) / 3600
    print(f"{path}: {len(utterances)} utterances, {hours:.2f} h")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Phrases by synthetic voices, to begin training with, or sentences")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "data", help="where train.jsonl lies")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--phrases", type=int, default=9000, metavar="N", help="default: 9000, about 2.5 h")
    which.add_argument("--sentences", type=int, metavar="N", help="of DIR/lm.txt.gz instead; 7000 are about 6 h")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        with sole_writer(options.output):
            if options.sentences is None:
                prepare(options.output, options.phrases, options.seed)
            else:
                prepare_sentences(options.output, options.sentences, options.seed)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
