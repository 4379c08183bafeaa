"""Zeroth-Korean -> manifests of training, development and test; the recordings stay where they are.

    python egs/zeroth_korean/prepare.py [--corpus DIR] [--output DIR]

Source: OpenSLR 40 (https://www.openslr.org/40/). train_data_01/ and test_data_01/ hold SCRIPT/SPEAKER/ with
SPEAKER_SCRIPT.trans.txt, a line `ID TEXT` for each recording, and the recordings ID.flac: 003/104/104_003_0019.flac.
"""

import argparse
import sys

from las.data.corpus import parser, run, write_sets
from las.data.download import corpus_folder
from las.data.transcripts import read_tree

MIRROR = "https://www.openslr.org/resources"
LAYOUT = "SCRIPT/SPEAKER/SPEAKER_SCRIPT.trans.txt"
DEV_EVERY = 20  # of the training speakers every twentieth is dev: the publisher gives no such set


def prepare(options: argparse.Namespace) -> None:
    url = f"{options.mirror}/40/zeroth_korean.tar.gz"
    folder = corpus_folder(options.corpus, "zeroth_korean", url, options.output)
    spoken = read_tree(folder / "train_data_01", LAYOUT)
    held_out = sorted({one.speaker or "" for one in spoken})[::DEV_EVERY]
    sets = {
        "train": [one for one in spoken if one.speaker not in held_out],
        "dev": [one for one in spoken if one.speaker in held_out],
        "test": read_tree(folder / "test_data_01", LAYOUT),
    }
    write_sets(options.output, sets, {"dev_speakers": held_out})


def main(arguments: list[str] | None = None) -> int:
    return run(parser("Manifests of Zeroth-Korean (OpenSLR 40)", __file__, "zeroth_korean", MIRROR), arguments, prepare)


if __name__ == "__main__":
    sys.exit(main())
