"""Error counts of utterances -> how far they can be trusted: intervals, and tests of one system against another.

Bootstrap: Efron 1979; for recognition Bisani and Ney 2004 (ICASSP, "Bootstrap estimates for confidence intervals in ASR
performance evaluation"). What is drawn again are speakers where all are known: the errors of one speaker are alike, so
that utterances drawn one by one give intervals which are too narrow for speakers one has not heard.
Matched pairs: Gillick and Cox 1989 (ICASSP, "Some statistical issues in the comparison of speech recognition
algorithms"), known from NIST's sc_stats as MAPSSWE.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from las.evaluate.score import UtteranceScore
from las.text.alignment import Alignment

DRAWS = 10_000  # replications of a bootstrap
SEED = 0
LEVEL, BOUNDS = 0.95, (0.025, 0.975)
BLOCK = 1 << 20  # units drawn at once, which bounds the memory
CORRECT = 2  # words right in both systems that part two segments, as in sc_stats
FEW_UNITS, FEW_SEGMENTS = 10, 30  # below these a figure comes with a word of caution


@dataclass(frozen=True)
class Units:
    """What a bootstrap draws: speakers, or utterances where a speaker is unknown or there is only one."""

    kind: str  # "speaker" or "utterance"
    numbers: np.ndarray  # (utterances,) which unit each belongs to, from 0
    count: int

    @classmethod
    def of(cls, speakers: Sequence[str | None]) -> Units:
        """From the speaker of each utterance.

        >>> [Units.of(speakers).kind for speakers in (["a", "b", "a"], ["a", "a"], ["a", "b", None])]
        ['speaker', 'utterance', 'utterance']
        """
        names = {name: number for number, name in enumerate(dict.fromkeys(speakers))}
        if None in names or len(names) < 2:
            return cls("utterance", np.arange(len(speakers)), len(speakers))
        return cls("speaker", np.array([names[name] for name in speakers]), len(names))

    def summed(self, figures: np.ndarray) -> np.ndarray:
        """Figures of utterances (utterances, C) -> of units (count, C)."""
        sums = np.zeros((self.count, figures.shape[1]), dtype=np.int64)
        np.add.at(sums, self.numbers, figures)
        return sums

    def __str__(self) -> str:
        return f"{self.count} {self.kind}{'s' * (self.count != 1)}"


def redrawn(figures: np.ndarray) -> np.ndarray:
    """Sums of `count` units drawn with replacement, (count, C) int64 -> (DRAWS, C) int64.

    Drawn with numpy's RandomState, whose numbers stay the same with every version and on every machine (NEP 19).
    """
    count = len(figures)
    chance = np.random.RandomState(SEED)
    rows = max(1, BLOCK // count)
    sums = np.empty((DRAWS, figures.shape[1]), dtype=np.int64)
    for start in range(0, DRAWS, rows):
        drawn = (chance.random_sample((min(rows, DRAWS - start), count)) * count).astype(np.intp)
        for column, values in enumerate(figures.T):
            sums[start : start + rows, column] = np.ascontiguousarray(values)[drawn].sum(1)
    return sums


def middle_of(rates: np.ndarray) -> tuple[float, float] | None:
    """The bounds that hold `LEVEL` of the drawn rates; those that are undefined (no words drawn) are left out."""
    rates = rates[np.isfinite(rates)]
    if len(rates) == 0:
        return None
    low, high = np.quantile(rates, BOUNDS)
    return float(low), float(high)


def ratio(errors: np.ndarray, of: np.ndarray) -> np.ndarray:
    """errors / of, nan where there is nothing to divide by."""
    return np.divide(errors, of, out=np.full(len(of), np.nan), where=of > 0)


# ---------------------------------------------------------------------------------------------------- A against B


@dataclass(frozen=True)
class PairedBootstrap:
    """The difference of two error rates on the same units drawn, B - A."""

    difference: float | None
    interval: tuple[float, float] | None
    better: float  # share of the draws in which B makes fewer errors than A; in a draw where both make as many, half
    p: float  # two-sided


def paired_bootstrap(figures: np.ndarray, units: Units) -> PairedBootstrap:
    """Two systems by errors of A, errors of B and words of the same utterances, (utterances, 3) int.

    p is twice the share of draws on the far side of no difference, ties counted with it, and never 0.
    """
    sums = redrawn(units.summed(figures))
    change = sums[:, 1] - sums[:, 0]
    tail = min(int((change >= 0).sum()), int((change <= 0).sum()))
    errors_a, errors_b, words = (int(total) for total in figures.sum(0))
    return PairedBootstrap(
        (errors_b - errors_a) / words if words else None,
        middle_of(ratio(change, sums[:, 2])),
        float((change < 0).mean() + (change == 0).mean() / 2),
        min(1.0, 2 * (tail + 1) / (DRAWS + 1)),
    )


@dataclass(frozen=True)
class MatchedPairs:
    """MAPSSWE: do the errors of B and A in the same segments differ by 0 in the mean?"""

    segments: int
    mean: float  # errors of B - errors of A, a segment
    z: float  # standard normal where there is no difference
    p: float  # two-sided


def matched_pairs(pairs: Sequence[tuple[UtteranceScore, UtteranceScore]]) -> MatchedPairs:
    """The test on the utterances of A and B, which have the same references.

    Where all segments differ alike, so that they have no variance about their mean, that about 0 stands in for it.
    """
    differences = np.array([b - a for one in pairs for a, b in segments(one[0].alignment, one[1].alignment)])
    count = len(differences)
    if not differences.any():
        return MatchedPairs(count, 0.0, 0.0, 1.0)
    mean = float(differences.mean())
    spread = float(differences.std(ddof=1)) if count > 1 else 0.0
    z = mean / ((spread or abs(mean)) / math.sqrt(count))
    return MatchedPairs(count, mean, z, math.erfc(abs(z) / math.sqrt(2)))


def segments(a: Alignment, b: Alignment) -> list[tuple[int, int]]:
    """Errors of A and B in each stretch with errors that two words right in both, or the utterance's ends, bound.

    As sc_stats cuts: recognisers that look at a few words before have found their way again by then, so
    that one stretch's errors say nothing of the next one's. A stretch without any error is no segment.
    """
    found: list[tuple[int, int]] = []
    right = CORRECT
    for (put_in_a, wrong_a), (put_in_b, wrong_b) in zip(_places(a), _places(b), strict=True):
        for errors_a, errors_b, is_word in ((put_in_a, put_in_b, False), (wrong_a, wrong_b, True)):
            if errors_a or errors_b:
                if right >= CORRECT:
                    found.append((0, 0))
                found[-1] = (found[-1][0] + errors_a, found[-1][1] + errors_b)
                right = 0
            elif is_word:
                right += 1
    return found


def _places(alignment: Alignment) -> list[tuple[int, int]]:
    """For each reference word, and for the end behind the last: words put in before it, 1 where it is wrong."""
    places, put_in = [], 0
    for pair in alignment.pairs:
        if pair.operation == "insertion":
            put_in += 1
        else:
            places.append((put_in, int(pair.operation != "equal")))
            put_in = 0
    return [*places, (put_in, 0)]


def holm(values: Sequence[float]) -> list[float]:
    """p-values of several comparisons, made larger so that all together err in no more than their share (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda one: values[one])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = largest
    return adjusted
