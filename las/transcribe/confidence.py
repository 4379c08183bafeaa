"""How the search and the parts judged a word -> the probability that the word is right.

Three things are asked of each word: the speller's probability of its tokens, the probability of its least certain token
by CTC where that token is heard best, and the share of the n-best transcripts, weighed by their probabilities, that
have the word too. Their log-odds, weighted and added up, are the log-odds of the word being right: logistic regression,
as in Platt 1999 for one score. The map is fitted on transcripts whose truth is known (`las calibrate`) and lies in the
model folder, in `calibration.json`; without one, confidence is the speller's probability as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from las.errors import UserError
from las.search.trace import Trace
from las.text.alignment import align
from las.transcribe.fitted import FILE, read_section, write_section
from las.transcribe.timing import Spelled, units

SECTION = "confidence"  # of calibration.json
FEATURES = ("speller", "ctc", "agreement")
LEAST = 1e-3  # a probability counts as at least this far from 0 and 1
AGREEMENT = 8  # transcripts that are asked for agreement
SHRINKAGE = 1e-3  # of the fit's weights towards 0, for each word
BINS = 10  # of confidences, for the reliability table


@dataclass(frozen=True)
class ConfidenceMap:
    """Log-odds of a word being right = bias + weights . log-odds of `FEATURES`."""

    weights: tuple[float, ...] = (1.0, 0.0, 0.0)
    bias: float = 0.0

    def __call__(self, features: Sequence[float]) -> float:
        """
        >>> round(ConfidenceMap()((0.9, 0.2, 1.0)), 3)
        0.9
        """
        odds = self.bias + sum(w * log_odds(value) for w, value in zip(self.weights, features, strict=True))
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, odds))))


UNFITTED = ConfidenceMap()


def word_features(
    words: Sequence[Spelled], found: Trace, others: Sequence[tuple[str, float]]
) -> list[tuple[float, ...]]:
    """`FEATURES` of each word; `others` are texts of the n-best with their log-probabilities, the best first."""
    top = max((value for _, value in others), default=0.0)
    shares = [math.exp(value - top) for _, value in others]
    agreed = np.zeros(len(words))
    for (other, _), share in zip(others, shares, strict=True):
        agreed += share * np.array(right_words([word.text for word in words], other), dtype=float)
    features: list[tuple[float, ...]] = []
    for word, agreement in zip(words, agreed / (sum(shares) or 1.0), strict=True):
        tokens = range(int(word.first), int(word.last) + 1)
        speller = math.exp(sum(found.spoken[token] for token in tokens))
        ctc = speller if found.heard is None else math.exp(min(found.heard[token] for token in tokens))
        features.append((speller, ctc, float(agreement)))
    return features


def right_words(words: Sequence[str], reference: str) -> list[bool]:
    """Whether each word of a transcript has its match in a reference; words of both are those of `timing.units`."""
    wanted = " ".join(unit for word in reference.split() for unit in units(word))
    pairs = align(wanted, " ".join(words)).pairs
    return [pair.operation == "equal" for pair in pairs if pair.operation != "deletion"]


def fit(features: np.ndarray, right: np.ndarray) -> ConfidenceMap:
    """The map that makes `right` (words,) likeliest given `features` (words, 3), by Newton's steps.

    Raises `UserError` where all words are right, or all wrong: that shows nothing.
    """
    if right.all() or not right.any():
        kind = "right" if len(right) and right.all() else "wrong"
        raise UserError(
            f"all {len(right)} words are {kind}: confidence cannot be fitted; give recordings that the model makes "
            "some errors in, such as speakers it has not heard"
        )
    weights = logistic(np.vectorize(log_odds)(features), right)
    return ConfidenceMap(tuple(weights[:-1].tolist()), float(weights[-1]))


def logistic(inputs: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Weights and, last, bias (F + 1,) of inputs (N, F) that make `right` (N,) likeliest, shrunk a little towards 0."""
    inputs = np.hstack([inputs, np.ones((len(inputs), 1))])
    shrinkage = SHRINKAGE * len(inputs) * np.diag([1.0] * (inputs.shape[1] - 1) + [0.0])
    weights = np.zeros(inputs.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(inputs @ weights, -50, 50)))
        slope = inputs.T @ (chance - right) + shrinkage @ weights
        curve = (inputs * (chance * (1 - chance))[:, None]).T @ inputs + shrinkage + 1e-9 * np.eye(len(weights))
        weights = weights - np.linalg.solve(curve, slope)
    return weights


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv:1706.04599): over bins, how far confidence is from truth.

    >>> calibration_error(np.array([0.9, 0.9, 0.2, 0.2]), np.array([1, 1, 0, 0]))
    0.15
    """
    rows = reliability(confidence, right)
    return round(sum(count * abs(mean - share) for count, mean, share in rows if count) / max(1, len(right)), 12)


def reliability(confidence: np.ndarray, right: np.ndarray) -> list[tuple[int, float, float]]:
    """Of each bin: words, mean confidence, share of right ones."""
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = []
    for place in range(BINS):
        own = places == place
        count = int(own.sum())
        rows.append((count, float(confidence[own].mean()), float(right[own].mean())) if count else (0, 0.0, 0.0))
    return rows


def separation(confidence: np.ndarray, right: np.ndarray) -> float:
    """AUC: the chance that a right word has more confidence than a wrong one, equals counted half; NaN without both.

    >>> separation(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0]))
    0.875
    """
    good, bad = confidence[right > 0], np.sort(confidence[right == 0])
    if not len(good) or not len(bad):
        return math.nan
    below = np.searchsorted(bad, good, "left") + np.searchsorted(bad, good, "right")
    return float(below.mean() / 2 / len(bad))


def read_map(folder: Path) -> ConfidenceMap:
    """The map of a model folder; where it has none, the speller's probability as it is."""
    record = read_section(folder, SECTION)
    if record is None:
        return UNFITTED
    try:
        found = ConfidenceMap(tuple(float(record["weights"][name]) for name in FEATURES), float(record["bias"]))
        if not all(map(math.isfinite, (*found.weights, found.bias))):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{folder / FILE}: {SECTION} is no map of `las calibrate`; fit it again") from None
    return found


def write_map(folder: Path, fitted: ConfidenceMap, facts: dict[str, object]) -> None:
    """Put a map into a model folder, with `facts` on how it was fitted."""
    weights = dict(zip(FEATURES, fitted.weights, strict=True))
    write_section(folder, SECTION, {"weights": weights, "bias": fitted.bias, **facts})


def log_odds(probability: float) -> float:
    """Of a probability, which counts as at least `LEAST` from 0 and 1."""
    kept = min(max(probability, LEAST), 1 - LEAST)
    return math.log(kept / (1 - kept))
