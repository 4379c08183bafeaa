"""LibriSpeech folders -> manifests of training and validation; the recordings stay where they are.

    python egs/mini_librispeech/prepare.py [--corpus DIR] [--output DIR] [--train SUBSET ...] [--valid SUBSET]

Source: OpenSLR 31 (https://www.openslr.org/31/), laid out as LibriSpeech is: see las/data/librispeech.py.
"""

import argparse
import sys

from las.data.corpus import parser, run, write_sets
from las.data.download import local_corpus
from las.data.librispeech import LibriSpeech, check_speakers, join

MIRROR = "https://www.openslr.org/resources"
ARCHIVES = ("train-clean-5", "dev-clean-2")  # subsets that OpenSLR 31 publishes
TRAIN = ("train-clean-5", "train-clean-100")  # those of them that are there
VALID = ("dev-clean", "dev-clean-2")  # the first that is there
GLANCE_EVERY = 8  # of the validation utterances every eighth is enough to watch a short training run


def prepare(options: argparse.Namespace) -> None:
    archives = {name: f"{options.mirror}/31/{name}.tar.gz" for name in ARCHIVES}
    corpus = LibriSpeech(local_corpus(options.corpus, "LibriSpeech"), archives, options.output)
    train = options.train or [name for name in TRAIN if name in corpus.subsets] or [TRAIN[0]]
    valid = options.valid or next((name for name in VALID if name in corpus.subsets), VALID[0])
    corpus.check([*train, valid])
    sets = {"train": join(corpus.read(name) for name in train), "dev": corpus.read(valid)}
    check_speakers(sets["train"], {valid: sets["dev"]})
    sets["glance"] = sets["dev"][::GLANCE_EVERY]
    write_sets(options.output, sets, {"train": train, "valid": valid})


def main(arguments: list[str] | None = None) -> int:
    options = parser("Manifests of Mini LibriSpeech (OpenSLR 31) or of LibriSpeech", __file__, "LibriSpeech", MIRROR)
    options.add_argument("--train", nargs="+", metavar="SUBSET", help=f"default: those there of {' '.join(TRAIN)}")
    options.add_argument("--valid", metavar="SUBSET", help=f"default: the first there of {' '.join(VALID)}")
    return run(options, arguments, prepare)


if __name__ == "__main__":
    sys.exit(main())
