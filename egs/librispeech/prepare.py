"""LibriSpeech -> manifests of training, development and test; the recordings stay where they are.

    python egs/librispeech/prepare.py [--corpus DIR] [--output DIR] [--train SUBSET ...] [--sets SUBSET ...]

Source: OpenSLR 12 (https://www.openslr.org/12/); its layout: las/data/librispeech.py.
"""

import argparse
import sys

from las.data.corpus import parser, run, write_sets
from las.data.download import local_corpus
from las.data.librispeech import LibriSpeech, check_speakers, join

MIRROR = "https://www.openslr.org/resources"
TRAIN = ("train-clean-100", "train-clean-360", "train-other-500")
SETS = ("dev-clean", "dev-other", "test-clean", "test-other")


def prepare(options: argparse.Namespace) -> None:
    archives = {name: f"{options.mirror}/12/{name}.tar.gz" for name in (*TRAIN, *SETS)}
    corpus = LibriSpeech(local_corpus(options.corpus, "LibriSpeech"), archives, options.output)
    corpus.check([*options.train, *options.sets])
    sets = {name: corpus.read(name) for name in options.sets}
    train = join(corpus.read(name) for name in options.train)
    check_speakers(train, sets)
    write_sets(options.output, {"train": train, **sets}, {"train": list(options.train)})


def main(arguments: list[str] | None = None) -> int:
    options = parser("Manifests of LibriSpeech (OpenSLR 12)", __file__, "LibriSpeech", MIRROR)
    options.add_argument("--train", nargs="+", metavar="SUBSET", default=TRAIN, help=f"default: {' '.join(TRAIN)}")
    options.add_argument("--sets", nargs="+", metavar="SUBSET", default=SETS, help=f"default: {' '.join(SETS)}")
    return run(options, arguments, prepare)


if __name__ == "__main__":
    sys.exit(main())
