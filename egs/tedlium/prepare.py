"""TED-LIUM, release 2 or 3 -> manifests of training, development and test, each segment cut to a file of its own.

    python egs/tedlium/prepare.py [--release 3] [--corpus DIR] [--output DIR]

Source: OpenSLR 19 (release 2) and 51 (release 3; Hernandez et al. 2018, arXiv:1805.04699). A set's folder holds
sph/TALK.sph, NIST SPHERE, and stm/TALK.stm, lines `TALK CHANNEL SPEAKER START END <LABEL> WORDS`, times in seconds.
"""

import argparse
import re
import sys
from pathlib import Path

from las.data.corpus import parser, run, write_sets
from las.data.download import corpus_folder
from las.data.foreign import Stretch, adopt
from las.data.manifest import Utterance
from las.data.transcripts import NOT_WHOLE, read_lines, some
from las.errors import UserError
from las.ledger import Ledger

MIRROR = "https://www.openslr.org/resources"
ARCHIVES = {2: "19/TEDLIUM_release2.tar.gz", 3: "51/TEDLIUM_release-3.tgz"}
FOLDERS = {2: "TEDLIUM_release2", 3: "TEDLIUM_release-3/legacy"}  # in the archive; release 3 splits in another way too
SETS = ("train", "dev", "test")
UNUSABLE = 0.01  # share of segments that may end beyond their talk
NOT_SPOKEN = "ignore_time_segment_in_scoring"
MARKS = re.compile(r"\{[^}]*\}|<[^>]*>|\(\d+\)|\([^()\s]*\)$")  # noises, <sil>, which pronunciation, the segment's name
SUFFIX = re.compile(r" '(?=(s|d|m|t|ll|re|ve)\b)")  # written apart: it 's


def prepare(options: argparse.Namespace) -> None:
    url = f"{options.mirror}/{ARCHIVES[options.release]}"
    found = corpus_folder(options.corpus, FOLDERS[options.release].partition("/")[0], url, options.output)
    below = [found / FOLDERS[options.release], found / "legacy", found]
    folder = next(one for one in below if one.is_dir() or one == found)
    sets = {name: segments(folder / name, options.output / "audio" / name) for name in SETS}
    write_sets(options.output, sets, {"release": options.release})


def segments(folder: Path, audio: Path) -> list[Utterance]:
    """The segments of a set as files in `audio`; all talks must be there."""
    listings = sorted((folder / "stm").glob("*.stm"))
    missing = [one.stem for one in listings if not (folder / "sph" / f"{one.stem}.sph").is_file()]
    if not listings or missing:
        what = f"no sph/{some(missing)}.sph" if missing else "no stm/*.stm"
        raise UserError(f"{folder}: {what}; {NOT_WHOLE}")
    stretches = [stretch for listing in listings for stretch in read_talk(listing)]
    ledger = Ledger()
    utterances = list(adopt(stretches, audio, ledger))
    ledger.check(len(stretches), UNUSABLE, NOT_WHOLE)
    if len(ledger):
        print(f"{folder.name}: left out: {ledger}", file=sys.stderr)
    return utterances


def read_talk(listing: Path) -> list[Stretch]:
    """The segments of a talk in which something is said."""
    stretches = []
    for where, line in read_lines(listing):
        if line.startswith(";;"):
            continue
        cells = line.split(maxsplit=6)
        try:
            start, end = float(cells[3]), float(cells[4])
        except (IndexError, ValueError):
            raise UserError(
                f"{where}: wanted TALK CHANNEL SPEAKER START END <LABEL> WORDS, found {line[:60]!r}"
            ) from None
        text = spoken(cells[6]) if len(cells) == 7 else ""
        if text:
            id = f"{listing.stem}-{round(start * 100):07d}-{round(end * 100):07d}"
            audio = listing.parents[1] / "sph" / f"{listing.stem}.sph"
            stretches.append(Stretch(id, audio, text, cells[2], start, end - start))
    return stretches


def spoken(words: str) -> str:
    """What is said, without the marks; empty where the segment is none.

    >>> spoken("it 's all around {BREATH} the world(2) <sil> {NOISE} i 'd say")
    "it's all around the world i'd say"
    """
    text = " ".join(MARKS.sub(" ", words).split())
    return "" if text == NOT_SPOKEN else SUFFIX.sub("'", text)


def main(arguments: list[str] | None = None) -> int:
    options = parser("Manifests of TED-LIUM (OpenSLR 19 and 51)", __file__, "TEDLIUM_release-3", MIRROR)
    options.add_argument("--release", type=int, choices=sorted(ARCHIVES), default=3, help="default: 3")
    return run(options, arguments, prepare)


if __name__ == "__main__":
    sys.exit(main())
