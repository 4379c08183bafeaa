"""Speech Commands v0.02 -> manifests of training, development and test; the recordings stay where they are.

    python egs/speech_commands/prepare.py [--corpus DIR] [--output DIR]

Source: Warden 2018 (arXiv:1804.03209). WORD/SPEAKER_nohash_NUMBER.wav, a second each at 16 kHz; validation_list.txt and
testing_list.txt name the recordings of dev and test, the others are train; _background_noise_/ holds no words.
"""

import argparse
import sys
from pathlib import Path

from las.data.corpus import parser, run, write_sets
from las.data.download import corpus_folder
from las.data.transcripts import pair, read_lines

MIRROR = "http://download.tensorflow.org/data"
NAME = "speech_commands_v0.02"
LISTS = {"dev": "validation_list.txt", "test": "testing_list.txt"}


def prepare(options: argparse.Namespace) -> None:
    folder = corpus_folder(options.corpus, NAME, f"{options.mirror}/{NAME}.tar.gz", options.output)
    recordings = {f"{path.parent.name}/{path.stem}": path for path in folder.glob("[!_]*/*.wav")}
    named = {name: {line.removesuffix(".wav") for _, line in read_lines(folder / file)} for name, file in LISTS.items()}
    named["train"] = recordings.keys() - named["dev"] - named["test"]
    sets = {}
    for name in ("train", "dev", "test"):
        texts = {id: id.partition("/")[0] for id in named[name]}
        heard = {id: path for id, path in recordings.items() if id in texts}
        sets[name] = pair(folder, texts, heard, LISTS.get(name, "the corpus"), speaker)
    write_sets(options.output, sets)


def speaker(path: Path) -> str:
    """What the publisher made of whoever spoke.

    >>> speaker(Path("bed/0a7c2a8d_nohash_0.wav"))
    '0a7c2a8d'
    """
    return path.name.partition("_")[0]


def main(arguments: list[str] | None = None) -> int:
    return run(parser("Manifests of Speech Commands v0.02", __file__, NAME, MIRROR), arguments, prepare)


if __name__ == "__main__":
    sys.exit(main())
