"""AISHELL-1 -> manifests of training, development and test; the recordings stay where they are.

    python egs/aishell/prepare.py [--corpus DIR] [--output DIR]

Source: OpenSLR 33 (https://www.openslr.org/33/). data_aishell/ holds transcript/aishell_transcript_v0.8.txt, a line
`ID WORDS` for each text, and wav/SPEAKER.tar.gz for each speaker, in which lie train|dev|test/SPEAKER/ID.wav.
"""

import argparse
import sys
import unicodedata
from pathlib import Path

from las.data.corpus import parser, run, write_sets
from las.data.download import corpus_folder, unpack
from las.data.transcripts import by_stem, pair, read_transcripts
from las.errors import UserError
from las.ledger import Ledger

MIRROR = "https://www.openslr.org/resources"
LISTING = "transcript/aishell_transcript_v0.8.txt"
SETS = ("train", "dev", "test")
SILENT = 0.01  # share of the recordings that may have no text; some 300 of 141,925 have none


def prepare(options: argparse.Namespace) -> None:
    found = corpus_folder(options.corpus, "aishell", f"{options.mirror}/33/data_aishell.tgz", options.output)
    folder = found / "data_aishell" if (found / "data_aishell").is_dir() else found
    texts = {id: together(text) for id, text in read_transcripts(folder / LISTING).items()}
    recordings = by_stem(wav for place in places(folder / "wav", options.output) for wav in place.rglob("*.wav"))
    ledger = Ledger()
    for id in recordings.keys() - texts.keys():
        ledger.leave("no text", id)
    ledger.check(len(recordings), SILENT, f"wanted a line for each in {folder / LISTING}: fetch it again")
    if len(ledger):
        print(f"left out: {ledger}", file=sys.stderr)
    heard = {id: path for id, path in recordings.items() if id in texts}
    utterances = pair(folder, texts, heard, LISTING, lambda path: path.parent.name)
    sets = {name: [one for one in utterances if Path(one.audio).parts[-3] == name] for name in SETS}
    if sum(map(len, sets.values())) < len(utterances):
        raise UserError(f"{folder}: recordings that lie in none of {', '.join(SETS)}; fetch or unpack it again")
    write_sets(options.output, sets)


def places(wav: Path, output: Path) -> list[Path]:
    """Where recordings lie: in `wav` once it is unpacked, else in OUTPUT/corpus/speakers/SPEAKER for each archive."""
    if any((wav / name).is_dir() for name in SETS):
        return [wav]
    found = []
    for archive in sorted(wav.glob("*.tar.gz")):
        folder = output / "corpus" / "speakers" / archive.name.removesuffix(".tar.gz")
        found.append(folder if folder.is_dir() else unpack(archive, folder))
    return found


def together(text: str) -> str:
    """Characters without spaces: words are no more than one way to cut Chinese. Letters of full width become plain.

    >>> together("而 对 楼市 成交 Ｔ 恤")
    '而对楼市成交t恤'
    """
    return unicodedata.normalize("NFKC", text).replace(" ", "").lower()


def main(arguments: list[str] | None = None) -> int:
    return run(parser("Manifests of AISHELL-1 (OpenSLR 33)", __file__, "aishell", MIRROR), arguments, prepare)


if __name__ == "__main__":
    sys.exit(main())
