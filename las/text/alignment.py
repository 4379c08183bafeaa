"""Reference against hypothesis -> which words are right, replaced, left out or put in, and their counts.

The alignment is one of those with the fewest errors, each substitution, deletion and insertion costing 1 (Wagner and
Fischer 1974), and where several have as few, the one that kaldialign and meeteval find: it has more words right, and
S, D and I are counted as they count them. (Of texts of thousands of words it is jiwer's, which takes less memory and
counts as many errors, but may tell S from D and I otherwise.) Counts are frozen values that add up: the rate of a set
is the sum of its errors over the sum of its reference words, never a mean of rates.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import jiwer
import numpy as np
from rich.cells import cell_len

from las.errors import UserError
from las.text.normalize import nfc

Unit = Literal["word", "character"]
Operation = Literal["equal", "substitution", "deletion", "insertion"]
OPERATIONS: dict[str, Operation] = {      # what jiwer calls them
    "equal": "equal", "substitute": "substitution", "delete": "deletion", "insert": "insertion",
}  # fmt: skip
SPLIT_ON_SPACES = jiwer.Compose([jiwer.ReduceToListOfListOfWords()])  # jiwer's own transforms change the text
LARGEST = 1 << 22  # steps times steps of an alignment; above it is jiwer's
NEVER = 1 << 30  # the cost of a step that would leave the texts
LETTERS: dict[Operation, str] = {"equal": "", "substitution": "S", "deletion": "D", "insertion": "I"}


@dataclass(frozen=True)
class ErrorCounts:
    """Errors against `reference` units (words or characters). Adds up with `+` and `sum`.

    >>> sum([ErrorCounts(substitutions=1, reference=10), ErrorCounts(insertions=2, reference=20)])
    ErrorCounts(substitutions=1, deletions=0, insertions=2, reference=30)
    """

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference: int = 0  # units in the reference

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float | None:
        """Errors per reference unit: 0.0 is perfect, above 1.0 is possible; None where the reference has no unit."""
        return self.errors / self.reference if self.reference else None

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.reference + other.reference,
        )

    def __radd__(self, zero: int) -> "ErrorCounts":
        assert zero == 0, f"error counts add up with error counts, not with {zero!r}"  # `sum` starts at 0
        return self


class Pair(NamedTuple):
    """One step of an alignment; the missing side of a deletion or insertion is ""."""

    operation: Operation
    reference: str
    hypothesis: str


@dataclass(frozen=True)
class Alignment:
    """Counts and steps from left to right; as a string, three lines to be read in a terminal.

    >>> print(align("the cat sat down today", "a cat down today please"))
    REF:  the cat sat down today ******
    HYP:  a   cat *** down today please
    EVAL: S       D              I
    """

    counts: ErrorCounts
    pairs: tuple[Pair, ...]

    def __str__(self) -> str:
        lines = ["REF:  ", "HYP:  ", "EVAL: "]
        for operation, reference, hypothesis in self.pairs:
            width = max(cell_len(reference), cell_len(hypothesis))  # in columns: 한 takes two
            reference, hypothesis = reference or "*" * width, hypothesis or "*" * width
            for row, word in enumerate((reference, hypothesis, LETTERS[operation])):
                lines[row] += word + " " * (width - cell_len(word) + 1)
        return "\n".join(line.rstrip() for line in lines)


def align(reference: str, hypothesis: str, unit: Unit = "word") -> Alignment:
    """Align two texts by words (split at white space, nothing else is changed) or by characters without spaces.

    A character is a code point of the NFC text. An empty hypothesis is all deletions, an empty reference all
    insertions. Raises UserError for an unknown unit.

    >>> align("one two three", "one too").counts
    ErrorCounts(substitutions=1, deletions=1, insertions=0, reference=3)
    >>> align("", "uh").counts.rate is None     # errors, but no word to count them against
    True
    """
    if unit not in get_args(Unit):
        raise UserError(f"unknown unit {unit!r} for error counts; wanted was one of: {', '.join(get_args(Unit))}")
    reference, hypothesis = nfc(reference), nfc(hypothesis)
    if unit == "character":
        left, right = list(reference.replace(" ", "")), list(hypothesis.replace(" ", ""))
    else:
        left, right = reference.split(), hypothesis.split()
    if left == right:
        pairs = tuple(Pair("equal", word, word) for word in left)
    else:
        pairs = tuple((_pairs if len(left) * len(right) <= LARGEST else _pairs_of_long)(left, right))
    counts = Counter(pair.operation for pair in pairs)
    return Alignment(ErrorCounts(counts["substitution"], counts["deletion"], counts["insertion"], len(left)), pairs)


def _pairs(left: list[str], right: list[str]) -> Iterator[Pair]:
    """The steps from left to right. From the end a step goes over both only where that is better than any other."""
    cost = _costs(left, right)
    row, column = len(left), len(right)
    steps = []
    while row or column:
        both = cost[row - 1, column - 1] + (left[row - 1] != right[column - 1]) if row and column else NEVER
        deletion = cost[row - 1, column] + 1 if row else NEVER
        insertion = cost[row, column - 1] + 1 if column else NEVER
        if both < min(deletion, insertion):
            row, column = row - 1, column - 1
            spoken, heard = left[row], right[column]
            steps.append(Pair("equal" if spoken == heard else "substitution", spoken, heard))
        elif deletion < insertion:
            row -= 1
            steps.append(Pair("deletion", left[row], ""))
        else:
            column -= 1
            steps.append(Pair("insertion", "", right[column]))
    return reversed(steps)


def _costs(left: list[str], right: list[str]) -> np.ndarray:
    """The fewest errors between the first words of both sides, (words left + 1, words right + 1).

    A row at a time: words put in one after another cost 1 each, which makes the way along a row a running minimum.
    """
    numbers = {word: number for number, word in enumerate(dict.fromkeys([*left, *right]))}
    heard = np.array([numbers[word] for word in right], dtype=np.int32)
    steps = np.arange(len(right) + 1, dtype=np.int32)
    cost = np.empty((len(left) + 1, len(right) + 1), dtype=np.int32)
    cost[0] = steps
    for row, word in enumerate(left, start=1):
        above = cost[row - 1]
        cost[row] = above + 1
        np.minimum(cost[row, 1:], above[:-1] + (heard != numbers[word]), out=cost[row, 1:])
        cost[row] = np.minimum.accumulate(cost[row] - steps) + steps
    return cost


def _pairs_of_long(left: list[str], right: list[str]) -> Iterator[Pair]:
    """jiwer's alignment (rapidfuzz)."""
    (chunks,) = jiwer.process_words(" ".join(left), " ".join(right), SPLIT_ON_SPACES, SPLIT_ON_SPACES).alignments
    for chunk in chunks:
        spoken = left[chunk.ref_start_idx : chunk.ref_end_idx]
        heard = right[chunk.hyp_start_idx : chunk.hyp_end_idx]
        length = max(len(spoken), len(heard))  # one side of a deletion or insertion is empty
        spoken, heard = spoken or [""] * length, heard or [""] * length
        yield from (Pair(OPERATIONS[chunk.type], *words) for words in zip(spoken, heard, strict=True))
