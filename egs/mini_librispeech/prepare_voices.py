"""Training transcripts -> short phrases said by synthetic voices: what a recogniser can learn its letters from.

    python egs/mini_librispeech/prepare_voices.py [--output DIR] [--phrases N] [--seed S]

Utterances of LibriSpeech are long (14 s is usual), and six hours of them leave CTC and attention on the plateau of the
loss for thousands of updates; phrases of one to five words do not. So a recogniser is first trained on what espeak-ng
says of DIR/train.jsonl's words, and then on the recordings (`init=`). Each phrase: a voice, a rate, a pitch, a
loudness and a little white noise, drawn by seed. DIR/voices/ gets the audio and train.jsonl, valid.jsonl.
"""

import argparse
import os
import random
import shutil
import sys
from collections.abc import Iterator
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
from las.data.voices import VOICES, speak
from las.errors import UserError

RATE = 16_000  # Hz
WORDS = (1, 5)  # fewest and most words of a phrase
PACE = (130, 230)  # words a minute
PITCH = (20, 80)  # of espeak-ng's 0 to 99
LEVEL = (-20.0, -3.0)  # dB of full scale, of the loudest sample
NOISE = (-75.0, -45.0)  # dB of full scale, white
BEFORE, AFTER = 800, 1600  # samples kept before the first and after the last loud one
VALID = 300  # phrases kept for validation


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
        yield Phrase(
            f"voices-{number:06d}",
            " ".join(words[first : first + length]),
            chance.choice(VOICES),
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
    texts = [words for one in read_manifest(output / "train.jsonl", check_audio=False) if (words := one.text.split())]
    if not texts or count <= VALID:
        raise UserError(f"{output / 'train.jsonl'}: wanted transcripts, and more than {VALID} phrases of them")
    place = output / "voices"
    shutil.rmtree(place, ignore_errors=True)
    (place / "audio").mkdir(parents=True)
    phrases = list(draw(texts, count, seed))
    console = Console(stderr=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(write, phrases, [place.resolve() / "audio"] * count, chunksize=20)
        shown = track(made, "voices", total=count, console=console, disable=not console.is_terminal)
        utterances = list(shown)
    for name, some in (("valid", utterances[:VALID]), ("train", utterances[VALID:])):
        write_manifest(place / f"{name}.jsonl", some)
        hours = sum(one.seconds or 0 for one in some) / 3600
        print(f"{place / name}.jsonl: {len(some)} phrases, {hours:.2f} h")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Short phrases by synthetic voices, to begin training with")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "data", help="where train.jsonl lies")
    parser.add_argument("--phrases", type=int, default=9000, metavar="N", help="default: 9000, about 2.5 h")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        with sole_writer(options.output):
            prepare(options.output, options.phrases, options.seed)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
