"""Text files of any size -> sentences, one after another.

.txt, .gz and .xz hold a sentence a line, .jsonl files are manifests.
"""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from las.data.manifest import read_manifest
from las.errors import UserError
from las.text.normalize import style_named

LONGEST_LINE = 1 << 20  # characters; what is longer is no sentence


def read_sentences(paths: Iterable[str | Path], style: str) -> Iterator[str]:
    """All sentences of some files in a named style, those without a character left out.

    Raises `UserError` naming the file, and the line where there is one, for what cannot be read.
    """
    normalized = style_named(style)
    for path in paths:
        for line in _lines(Path(path)):
            if sentence := normalized(line):
                yield sentence


def _lines(path: Path) -> Iterator[str]:
    if path.suffix == ".jsonl":
        yield from (utterance.text for utterance in read_manifest(path, check_audio=False))
        return
    number = 0
    try:
        with _open(path) as file:
            while line := file.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise UserError(f"{path}, line {number}: over {LONGEST_LINE} characters; wanted a sentence a line")
                yield line
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path}: after line {number} the compressed data is cut short or damaged: {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: after line {number} the text is not UTF-8: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")
