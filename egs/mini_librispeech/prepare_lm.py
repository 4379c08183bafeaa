"""Novels -> sentences that look like LibriSpeech's transcripts, for language models.

    python egs/mini_librispeech/prepare_lm.py [--text FILE] [--output DIR]

Source: any English text, a paragraph a line (.txt, .gz, .xz); by default $LAS_CORPORA/lm/novels.txt.xz. Paragraphs are
cut into sentences; titles are written as they are read (Mr. -> mister), accents go, and what still holds a figure or
a foreign letter is left out, as the transcripts have none. Nothing of the validation set may be learnt: a sentence
that shares eight words in a row with one of its transcripts is left out, and many such sentences are an error.
"""

import argparse
import gzip
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from las.data.download import local_corpus
from las.data.sentences import read_sentences
from las.errors import UserError
from las.text.normalize import basic

SHARED = 8  # words in a row that tell that two texts are the same
SHARED_LIMIT = 20  # sentences that share them; more: the book of a validation speaker is among the text
TITLES = {"mr": "mister", "mrs": "missus", "dr": "doctor", "st": "saint"}
# a full stop ends a sentence unless a title or an initial stands before it; quotation marks may follow
NO_END = "".join(rf"(?<!\b{before}\.)" for before in ("[A-Z]", "Mr", "Mrs", "Dr", "St"))
ENDS = re.compile(NO_END + r"(?<=[.!?])[”’\"')\]]*\s+(?=[“‘\"'(\[]*[A-Z])")
LIGATURES = str.maketrans({"æ": "ae", "œ": "oe", "Æ": "Ae", "Œ": "Oe"})
READABLE = re.compile(r"[a-z' ]+")


def sentences(paragraph: str) -> Iterator[str]:
    """The sentences of a paragraph as a transcript would have them.

    >>> list(sentences("“My dear Mr. Bennet,” said she. “It is près of No. 9!” It was."))
    ['my dear mister bennet said she', 'it is pres of no 9', 'it was']
    """
    plain = unicodedata.normalize("NFKD", paragraph.translate(LIGATURES))
    plain = "".join(sign for sign in plain if unicodedata.category(sign) != "Mn")
    for sentence in ENDS.split(plain):
        words = [TITLES.get(word, word) for word in basic(sentence).split()]
        if words:
            yield " ".join(words)


def runs(text: str) -> Iterator[tuple[str, ...]]:
    """All runs of SHARED words in a text."""
    words = text.split()
    for first in range(len(words) - SHARED + 1):
        yield tuple(words[first : first + SHARED])


def choose(found: Iterable[str], known: set[tuple[str, ...]], left_out: dict[str, list[str]]) -> Iterator[str]:
    """Sentences that may be learnt from; the others are put into `left_out` by cause."""
    for sentence in found:
        if not READABLE.fullmatch(sentence):
            left_out["figures or foreign letters"].append(sentence)
        elif any(run in known for run in runs(sentence)):
            left_out["of the validation set"].append(sentence)
        else:
            yield sentence


def prepare(text: Path, valid: Path, output: Path) -> int:
    """Write the sentences of a text; how many is returned, and what was left out is told on stderr."""
    known = {run for sentence in read_sentences([valid], "basic") for run in runs(sentence)}
    if not known:
        raise UserError(f"{valid}: no transcript of {SHARED} words, so it cannot be told whether the text holds them")
    left_out: dict[str, list[str]] = {"figures or foreign letters": [], "of the validation set": []}
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(output.name + ".part")
    count = 0
    with gzip.open(partial, "wt", compresslevel=3, encoding="utf-8") as file:
        paragraphs = read_sentences([text], "verbatim")
        for sentence in choose((one for line in paragraphs for one in sentences(line)), known, left_out):
            file.write(sentence + "\n")
            count += 1
    for cause, cases in left_out.items():
        if cases:
            print(f"{text}: left out {len(cases)} sentences, {cause} (first: {cases[0][:80]!r})", file=sys.stderr)
    if len(left_out["of the validation set"]) > SHARED_LIMIT:
        raise UserError(f"{text}: it holds a book of {valid}; take that out")
    os.replace(partial, output)
    return count


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Sentences for language models")
    parser.add_argument("--text", type=Path, help="default: $LAS_CORPORA/lm/novels.txt.xz")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "data", help="default: data/ here")
    options = parser.parse_args(arguments)
    try:
        corpus = None if options.text else local_corpus(None, "lm")
        if not (options.text or corpus):
            raise UserError("no text: name one with --text, or set LAS_CORPORA to a folder with lm/novels.txt.xz")
        text = options.text or corpus / "novels.txt.xz"
        path = options.output / "lm.txt.gz"
        print(f"{path}: {prepare(text, options.output / 'dev.jsonl', path)} sentences")
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
