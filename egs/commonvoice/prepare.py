"""A language of Common Voice, as fetched by hand -> manifests of training, development and test.

    python egs/commonvoice/prepare.py --archive cv-corpus-...-ko.tar.gz [--language ko] [--output DIR]
    python egs/commonvoice/prepare.py --corpus DIR [--language ko] [--output DIR]

Source: https://commonvoice.mozilla.org/datasets. RELEASE/LANGUAGE/ holds train.tsv, dev.tsv and test.tsv, which name
each clip's file, text and speaker (columns path, sentence, client_id), and clips/*.mp3.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from las.data.corpus import parser, run, write_sets
from las.data.download import local_corpus, unpack
from las.data.foreign import adopt, read
from las.data.manifest import Utterance
from las.data.transcripts import NOT_WHOLE
from las.errors import UserError
from las.ledger import Ledger
from las.text.normalize import normalize

SETS = ("train", "dev", "test")
LOST = 0.01  # share of clips that may be missing: releases before 25 listed some that they did not hold


def prepare(options: argparse.Namespace) -> None:
    folder = language(place(options), options.language)
    sets = {name: clips(folder, name, options.output) for name in SETS}
    write_sets(options.output, sets, {"release": folder.parent.name, "language": folder.name})


def place(options: argparse.Namespace) -> Path:
    """Where the corpus lies, unpacked."""
    if options.archive is not None:
        folder = options.output / "corpus" / options.archive.name.removesuffix(".tar.gz")
        return folder if folder.is_dir() else unpack(options.archive, folder)
    found = local_corpus(options.corpus, "commonvoice")
    if found is None:
        raise UserError(
            "Common Voice is published behind a form: fetch a language at https://commonvoice.mozilla.org/datasets, "
            "then name the file with --archive or the unpacked folder with --corpus"
        )
    return found


def language(folder: Path, name: str | None) -> Path:
    """The folder with the tables of `name`, in `folder` or below it; without a name the only one there is."""
    tables = [folder / "train.tsv", *sorted(folder.glob("*/train.tsv")), *sorted(folder.glob("*/*/train.tsv"))]
    found = [table.parent for table in tables if table.is_file()]
    fitting = [one for one in found if name in (None, one.resolve().name)]
    if len(fitting) == 1:
        return fitting[0].resolve()
    there = ", ".join(str(one) for one in found) or "none"
    raise UserError(f"{folder}: wanted one folder with train.tsv{f' called {name}' if name else ''}, found {there}; "
                    "name the language with --language, or give the release's own folder")  # fmt: skip


def clips(folder: Path, name: str, output: Path) -> list[Utterance]:
    """The clips of a table; texts without case and punctuation, which readers do not speak."""
    stretches = read(folder / f"{name}.tsv")
    ledger = Ledger()
    found = list(adopt(stretches, output / "audio", ledger))
    ledger.check(len(stretches), LOST, NOT_WHOLE)
    if len(ledger):
        print(f"{name}: left out: {ledger}", file=sys.stderr)
    return [replace(one, text=normalize(one.text, "basic")) for one in found]


def main(arguments: list[str] | None = None) -> int:
    options = parser("Manifests of a language of Common Voice", __file__, "commonvoice")
    options.add_argument("--archive", type=Path, help="the fetched .tar.gz, unpacked into OUTPUT/corpus")
    options.add_argument("--language", metavar="CODE", help="such as ko; not needed where there is only one")
    return run(options, arguments, prepare)


if __name__ == "__main__":
    sys.exit(main())
