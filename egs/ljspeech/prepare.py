"""LJ Speech -> manifests of training, development and test; the recordings stay where they are.

    python egs/ljspeech/prepare.py [--corpus DIR] [--output DIR]

Source: https://keithito.com/LJ-Speech-Dataset/. LJSpeech-1.1/ holds metadata.csv, lines `ID|TEXT|TEXT in full words`,
and wavs/ID.wav, 22,050 Hz: one voice.
"""

import argparse
import sys
from pathlib import Path

from las.data.corpus import parser, run, write_sets
from las.data.download import corpus_folder
from las.data.transcripts import by_stem, pair, read_lines
from las.errors import UserError
from las.text.normalize import normalize

MIRROR = "https://data.keithito.com/data/speech"
UNPACKED = "LJSpeech-1.1"  # the folder inside the archive
EVERY = 25  # of the lines every 25th is dev, and every one in the middle between two of these is test


def prepare(options: argparse.Namespace) -> None:
    found = corpus_folder(options.corpus, UNPACKED, f"{options.mirror}/{UNPACKED}.tar.bz2", options.output)
    folder = found / UNPACKED if (found / UNPACKED).is_dir() else found
    recordings = by_stem((folder / "wavs").glob("*"))
    utterances = pair(folder, read_metadata(folder / "metadata.csv"), recordings, "metadata.csv", lambda _: "lj")
    dev, test = utterances[::EVERY], utterances[EVERY // 2 :: EVERY]
    taken = {one.id for one in dev + test}
    write_sets(options.output, {"train": [o for o in utterances if o.id not in taken], "dev": dev, "test": test})


def read_metadata(path: Path) -> dict[str, str]:
    """Id -> text, numbers and abbreviations in full words, without case and punctuation."""
    texts: dict[str, str] = {}
    for where, line in read_lines(path):
        cells = line.split("|")
        if len(cells) != 3 or not normalize(cells[2], "basic"):
            raise UserError(f"{where}: wanted ID|TEXT|TEXT in full words, found {line[:60]!r}")
        if cells[0] in texts:
            raise UserError(f"{where}: the id {cells[0]} was there already; remove one of its lines")
        texts[cells[0]] = normalize(cells[2], "basic")
    return texts


def main(arguments: list[str] | None = None) -> int:
    return run(parser("Manifests of LJ Speech", __file__, UNPACKED, MIRROR), arguments, prepare)


if __name__ == "__main__":
    sys.exit(main())
