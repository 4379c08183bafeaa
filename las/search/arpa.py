"""Back-off n-gram models as ARPA files (Jurafsky & Martin, section 3.4; SRILM's ngram-format(5)), .gz too.

The words of the file are a tokenizer's pieces, `<unk>`, `<s>` and `</s>`; log-probabilities and back-off weights are
to the base of 10. No piece holds white space, so that any piece can stand in a line as it is.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from las.errors import UserError
from las.text.tokenizer import BOS, EOS, SPECIAL_PIECES, UNK, Tokenizer

NEVER = -99.0  # what ARPA files give as log-probability of the begin of sentence
BLOCK = 100_000  # n-grams turned into lines at once
NAMED = 8  # tokens that a message shows
DIGITS = 15  # of a number of n-grams, at most


@dataclass(frozen=True)
class Ngrams:
    """All n-grams of one order k, in the order of their tokens."""

    tokens: np.ndarray  # (G, k) int32, oldest first
    scores: np.ndarray  # (G) float64, log10 of the last token's probability after the others
    backoffs: np.ndarray  # (G) float64, log10 of the weight of shorter contexts after these tokens


def words_of(tokenizer: Tokenizer) -> list[str]:
    """How each token is written in an ARPA file (V); BLANK never is."""
    return [*SPECIAL_PIECES, *tokenizer.pieces(range(len(SPECIAL_PIECES), tokenizer.size))]


def write_arpa(path: Path, orders: Sequence[Ngrams], tokenizer: Tokenizer) -> None:
    """Write a model of n orders, whole or not at all."""
    words = words_of(tokenizer)
    temporary = path.with_name(path.name + ".part")
    with _open(temporary, "wt", path.suffix == ".gz") as file:
        file.write("\\data\\\n")
        for order, ngrams in enumerate(orders, start=1):
            file.write(f"ngram {order}={len(ngrams.scores)}\n")
        for order, ngrams in enumerate(orders, start=1):
            file.write(f"\n\\{order}-grams:\n")
            for first in range(0, len(ngrams.scores), BLOCK):
                block = slice(first, first + BLOCK)
                texts = [" ".join([words[token] for token in row]) for row in ngrams.tokens[block].tolist()]
                scores, backoffs = ngrams.scores[block].tolist(), ngrams.backoffs[block].tolist()
                if order == len(orders):
                    lines = [f"{score:.7g}\t{text}\n" for score, text in zip(scores, texts, strict=True)]
                else:
                    together = zip(scores, texts, backoffs, strict=True)
                    lines = [f"{score:.7g}\t{text}\t{backoff:.7g}\n" for score, text, backoff in together]
                file.writelines(lines)
        file.write("\n\\end\\\n")
    os.replace(temporary, path)


def read_arpa(path: str | Path, tokenizer: Tokenizer) -> list[Ngrams]:
    """The orders of a model, 1 to n, sorted. Its words must be pieces of the tokenizer.

    Raises `UserError` naming file and line where it is cut short or says what no ARPA file says, and for words that
    are no tokens.
    """
    path = Path(path)
    try:
        with _open(path, "rt", path.suffix == ".gz") as file:
            return _Reader(path, file, tokenizer).read()
    except (EOFError, zlib.error):
        raise UserError(f"{path}: compressed data that is cut short or damaged; copy or make it again") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{path}: cannot be read as an ARPA file: {reason}") from None


def _open(path: Path, mode: str, compressed: bool) -> IO[str]:
    if compressed:
        return gzip.open(path, mode, compresslevel=4, encoding="utf-8", newline="\n")  # type: ignore[return-value]
    return path.open(mode.replace("t", ""), encoding="utf-8", newline="\n")


class _Reader:
    def __init__(self, path: Path, file: IO[str], tokenizer: Tokenizer):
        self.path = path
        self.lines = self._counted(file)
        self.number = 0  # of the line read last
        self.words = words_of(tokenizer)
        self.ids = {word: number for number, word in enumerate(self.words) if number}

    def _counted(self, file: IO[str]) -> Iterator[str]:
        for line in file:
            self.number += 1
            yield line

    def _fail(self, message: str) -> UserError:
        return UserError(f"{self.path}, line {self.number}: {message}")

    def read(self) -> list[Ngrams]:
        if not any(line.strip() == "\\data\\" for line in self.lines):
            raise UserError(f"{self.path}: no line \\data\\ in {self.number} lines, so it is no ARPA file")
        counts = self._counts()
        orders = []
        for order, count in enumerate(counts, start=1):
            orders.append(self._section(order, count, last=order == len(counts)))
            self._expect(f"\\{order + 1}-grams:" if order < len(counts) else "\\end\\")
        return orders

    def _counts(self) -> list[int]:
        counts: list[int] = []
        for line in self.lines:
            if match := re.fullmatch(r"ngram\s+(\d+)\s*=\s*(\d+)", line.strip()):
                if match[1] != str(len(counts) + 1) or len(match[2]) > DIGITS:
                    raise self._fail(f"{line.strip()[:60]!r}, wanted the number of {len(counts) + 1}-grams")
                counts.append(int(match[2]))
            elif line.strip() == "\\1-grams:" and counts:
                return counts
            elif line.strip():
                raise self._fail(f"{line.strip()[:60]!r}, wanted ngram {len(counts) + 1}=COUNT or \\1-grams:")
        raise self._fail("the file ends before the first n-gram; it was cut short: copy or make it again")

    def _expect(self, wanted: str) -> None:
        for line in self.lines:
            if line.strip() == wanted:
                return
            if line.strip():
                raise self._fail(f"{line.strip()[:60]!r}, wanted {wanted} after as many n-grams as \\data\\ says")
        raise self._fail(f"the file ends where {wanted} should come; it was cut short: copy or make it again")

    def _section(self, order: int, count: int, last: bool) -> Ngrams:
        """The n-grams of one order, in the order of the file's own lines."""
        ids, first = self.ids, self.number + 1
        tokens, scores, backoffs = [], [], []
        unknown: list[str] = []
        for line in islice(self.lines, count):
            fields = line.split()
            try:
                scores.append(float(fields[0]))
                backoffs.append(float(fields[order + 1]) if len(fields) > order + 1 else 0.0)
                tokens.append([ids[word] for word in fields[1 : order + 1]])
                whole = order < len(fields) <= order + 2 - last
            except KeyError as error:
                if order > 1:
                    raise self._fail(f"the word {error.args[0]!r} is not among the 1-grams") from None
                unknown.append(fields[1])
                whole = True
            except (ValueError, IndexError):
                whole = False
            if not whole:
                raise self._fail(f"{line.strip()[:60]!r} is no {order}-gram with its log-probability")
        if self.number < first + count - 1:
            found = self.number - first + 1
            raise self._fail(f"the file ends after {found} of {count} {order}-grams; it was cut short: copy it again")
        if unknown:
            raise self._mismatch(unknown, count)
        ngrams = Ngrams(
            np.array(tokens, dtype=np.int32).reshape(count, order), np.array(scores), np.array(backoffs)
        )  # fmt: skip
        self._check(ngrams, first)
        return ngrams

    def _check(self, ngrams: Ngrams, first: int) -> None:
        wrong = ~(ngrams.scores <= 0) | ~np.isfinite(ngrams.backoffs)
        if wrong.any():
            self.number = first + int(wrong.argmax())
            raise self._fail("the log-probability must be 0 or less, the back-off weight a number")
        if ngrams.tokens.shape[1] > 1:
            return
        listed = set(ngrams.tokens[:, 0].tolist())
        for token in (BOS, EOS):
            if token not in listed:
                raise UserError(f"{self.path}: {self.words[token]} is not among its 1-grams")
        missing = [self.words[token] for token in range(EOS + 1, len(self.words)) if token not in listed]
        if missing and UNK not in listed:
            raise UserError(
                f"{self.path}: neither <unk> nor {len(missing)} of the model's {len(self.words)} tokens "
                f"({_some(missing)}) are among its 1-grams; estimate it with the model's own tokenizer"
            )

    def _mismatch(self, unknown: list[str], count: int) -> UserError:
        own = _some(self.words[len(SPECIAL_PIECES) :])
        return UserError(
            f"{self.path}: {len(unknown)} of its {count} words are no tokens of the model: {_some(unknown)} (the "
            f"model's are {own}); estimate it with the model's own tokenizer: las lm ngram --tokenizer"
        )


def _some(words: Sequence[str]) -> str:
    return " ".join(words[:NAMED]) + (" ..." if len(words) > NAMED else "")
