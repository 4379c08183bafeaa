"""waves_yesno -> train, dev and test manifests; the recordings stay where they are.

    python egs/yesno/prepare.py [--corpus DIR] [--output DIR]

Source: OpenSLR 1 (https://www.openslr.org/1/), 60 files `1_0_1_1_1_0_1_0.wav` of eight Hebrew words, 1 yes and 0 no,
by one speaker, 8 kHz. Sorted by name, the first, third, ... train and the second, fourth, ... test, as in lhotse.
"""

import argparse
import re
import sys
from pathlib import Path

from las.audio import probe
from las.data.corpus import parser, run, write_sets
from las.data.download import corpus_folder
from las.data.manifest import Utterance
from las.errors import UserError

MIRROR = "https://www.openslr.org/resources"
UNPACKED = "waves_yesno"  # the folder inside the archive
RECORDINGS = 60
NAME = re.compile(r"[01](_[01]){7}\.wav")
WORDS = {"0": "NO", "1": "YES"}
DEV_EVERY = 5  # of the 30 training recordings every fifth is dev


def recordings(folder: Path) -> list[Path]:
    """The 60 files of `folder` or its waves_yesno/, sorted by name; any other number is a UserError."""
    folder = folder / UNPACKED if (folder / UNPACKED).is_dir() else folder
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [path for path in found if NAME.fullmatch(path.name)]
    if len(files) != RECORDINGS:
        raise UserError(
            f"{folder}: {len(files)} recordings named like 0_1_1_0_0_1_1_0.wav found, waves_yesno has {RECORDINGS}; "
            "give --corpus the folder that holds them all"
        )
    return files


def utterance(path: Path) -> Utterance:
    """The file name is the text."""
    text = " ".join(WORDS[digit] for digit in path.stem.split("_"))
    return Utterance(path.stem, str(path.absolute()), text, probe(path).seconds, "yesno")


def split(files: list[Path]) -> dict[str, list[Path]]:
    """Name of the manifest -> its files: train (30), of which fit (24) and dev (6), and test (30).

    >>> {name: len(part) for name, part in split([Path(str(number)) for number in range(60)]).items()}
    {'train': 30, 'fit': 24, 'dev': 6, 'test': 30}
    """
    train = files[::2]
    dev = train[DEV_EVERY - 1 :: DEV_EVERY]
    return {"train": train, "fit": [path for path in train if path not in dev], "dev": dev, "test": files[1::2]}


def prepare(options: argparse.Namespace) -> None:
    corpus = corpus_folder(options.corpus, "waves_yesno", f"{options.mirror}/1/waves_yesno.tar.gz", options.output)
    files = split(recordings(corpus))
    write_sets(options.output, {name: [utterance(path) for path in part] for name, part in files.items()})


def main(arguments: list[str] | None = None) -> int:
    return run(parser("Manifests of waves_yesno (OpenSLR 1)", __file__, "waves_yesno", MIRROR), arguments, prepare)


if __name__ == "__main__":
    sys.exit(main())
