"""Token sequences -> an n-gram model, by interpolated modified Kneser-Ney.

Kneser & Ney 1995; Chen & Goodman 1999, "An empirical study of smoothing techniques for language modeling", section 3:

    p(w | h) = (a(hw) - D(a(hw))) / sum_v a(hv) + g(h) p(w | h'),   g(h) = sum_v D(a(hv)) / sum_v a(hv)

where h' is h without its oldest token and p of the empty context is interpolated with 1 / (number of tokens that can
come). At the highest order a is the count; below, it is the number of different tokens that come before hw, except
where h begins a sentence and nothing can. D is D1, D2, D3+ for a = 1, 2, 3 and more, from how many n-grams of the
order have a = 1..4; where one of these numbers is 0, as in small texts, or a discount falls outside its range, the
order takes (0.5, 1, 1.5). n-grams that come too seldom can be left out: what they had goes to the shorter context.

All of it is sorting: an n-gram is one number with the tokens as digits to the base V, so that those which share a
context lie side by side. The text is read in pieces; memory grows with the number of different n-grams.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from las.errors import UserError
from las.search.arpa import NEVER, Ngrams
from las.text.tokenizer import BLANK, BOS, EOS

ORDERS = range(2, 9)
PIECE = 20_000_000  # tokens counted at once
FALLBACK = (0.5, 1.0, 1.5)  # discounts where the text gives none


@dataclass(frozen=True)
class Counts:
    """How often each n-gram of one order comes."""

    keys: np.ndarray  # (G) int64, rising; the oldest token is the highest digit
    counts: np.ndarray  # (G) int64


def estimate(
    sentences: Iterable[Sequence[int]], vocabulary: int, order: int, cutoffs: Sequence[int] = ()
) -> list[Ngrams]:
    """The orders 1 to `order` of a model of sentences of token ids, without BOS and EOS.

    `cutoffs`: n-grams of the orders 2, 3, ... that come this often or less are left out; the last one holds for higher
    orders too. Raises `UserError` for an order or cut-offs that cannot be, and where there is no text.
    """
    if order not in ORDERS:
        raise UserError(f"order {order} of an n-gram model: wanted {ORDERS[0]} to {ORDERS[-1]}")
    if vocabulary**order >= 2**63:
        raise UserError(f"{order}-grams of {vocabulary} tokens are too many to be numbered; take a lower order")
    least = (*cutoffs, *[cutoffs[-1] if cutoffs else 0] * order)[: order - 1]
    if list(least) != sorted(least) or min(least) < 0:
        raise UserError(
            f"cut-offs {','.join(map(str, cutoffs))}: wanted numbers of 0 or more that do not fall with the order"
        )
    raw = count(sentences, vocabulary, order)
    if not raw or not len(raw[0].keys):
        raise UserError("no text to count n-grams in: no sentence with a word in it")
    return _smooth(raw, vocabulary, (0, *least))


def count(sentences: Iterable[Sequence[int]], vocabulary: int, order: int) -> list[Counts]:
    """Counts of all n-grams of the orders 1 to `order` within BOS sentence EOS."""
    totals: list[Counts] = []
    for flat, places in _pieces(sentences):
        keys = np.zeros_like(flat)
        for number in range(order):
            keys = np.concatenate([[0], keys[:-1]]) * vocabulary + flat if number else flat
            found = Counts(*np.unique(keys[places >= number], return_counts=True))
            if number == len(totals):
                totals.append(found)
            else:
                totals[number] = _add(totals[number], found)
    return totals


def _pieces(sentences: Iterable[Sequence[int]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Tokens one after another with BOS and EOS, and each one's place in its sentence, in pieces of some size."""
    flat, lengths = array("i"), array("i")

    def piece() -> tuple[np.ndarray, np.ndarray]:
        sizes = np.array(lengths)
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        return np.array(flat, dtype=np.int64), np.arange(len(flat)) - starts

    for sentence in sentences:
        if not sentence:
            continue
        flat.append(BOS)
        flat.extend(sentence)
        flat.append(EOS)
        lengths.append(len(sentence) + 2)
        if len(flat) > PIECE:
            yield piece()
            flat, lengths = array("i"), array("i")
    if flat:
        yield piece()


def _add(one: Counts, other: Counts) -> Counts:
    keys = np.concatenate([one.keys, other.keys])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = _firsts(keys)
    return Counts(keys[first], np.add.reduceat(np.concatenate([one.counts, other.counts])[order], first))


def _firsts(values: np.ndarray) -> np.ndarray:
    """Where a new value begins among rising ones."""
    return np.flatnonzero(np.diff(values, prepend=-1))


def _smooth(raw: list[Counts], vocabulary: int, cutoffs: Sequence[int]) -> list[Ngrams]:
    """From counts of all orders to the model."""
    keys, probabilities, backoffs = _unigrams(raw, vocabulary)
    found = []
    for order in range(2, len(raw) + 1):
        counts, adjusted = raw[order - 1], _adjusted(raw, order, vocabulary)
        discounts = _discounts(adjusted)[np.minimum(adjusted, 3)]
        kept = counts.counts > cutoffs[order - 1]
        contexts = counts.keys // vocabulary
        first = _firsts(contexts)
        sizes = np.diff(np.append(first, len(contexts)))
        totals = np.add.reduceat(adjusted, first)
        weights = np.add.reduceat(np.where(kept, discounts, adjusted), first) / totals  # g(h)
        listed = np.isin(contexts[first], keys, assume_unique=True)
        backoffs[np.searchsorted(keys, contexts[first[listed]])] = weights[listed]
        found.append(_as_ngrams(keys, probabilities, backoffs, order - 1, vocabulary))
        shorter = probabilities[np.searchsorted(keys, counts.keys[kept] % vocabulary ** (order - 1))]
        share = ((adjusted - discounts) / np.repeat(totals, sizes))[kept]
        keys, probabilities = counts.keys[kept], share + np.repeat(weights, sizes)[kept] * shorter
        backoffs = np.ones(len(keys))
    return [*found, _as_ngrams(keys, probabilities, backoffs, len(raw), vocabulary)]


def _unigrams(raw: list[Counts], vocabulary: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys, probabilities and weights (1) of all tokens but BLANK; BOS never comes."""
    adjusted = np.zeros(vocabulary, dtype=np.int64)
    adjusted[raw[0].keys] = _adjusted(raw, 1, vocabulary)
    tokens = np.delete(np.arange(vocabulary), BLANK)
    adjusted[BOS] = 0
    discounts = np.where(adjusted > 0, _discounts(adjusted)[np.minimum(adjusted, 3)], 0.0)
    total = adjusted.sum()
    probabilities = (adjusted - discounts) / total + discounts.sum() / total / (len(tokens) - 1)
    probabilities[BOS] = 10.0**NEVER
    return tokens, probabilities[tokens], np.ones(len(tokens))


def _adjusted(raw: list[Counts], order: int, vocabulary: int) -> np.ndarray:
    """a of all n-grams of an order."""
    counts = raw[order - 1]
    if order == len(raw):
        return counts.counts
    adjusted = counts.counts.copy()  # what stays are n-grams that begin with BOS
    later, befores = np.unique(raw[order].keys % vocabulary**order, return_counts=True)
    adjusted[np.searchsorted(counts.keys, later)] = befores
    return adjusted


def _discounts(adjusted: np.ndarray) -> np.ndarray:
    """D for a = 0, 1, 2, 3 and more."""
    ones, twos, threes, fours = (int((adjusted == times).sum()) for times in (1, 2, 3, 4))
    if min(ones, twos, threes, fours) > 0:
        share = ones / (ones + 2 * twos)
        found = (1 - 2 * share * twos / ones, 2 - 3 * share * threes / twos, 3 - 4 * share * fours / threes)
        if all(0 < discount <= times for times, discount in enumerate(found, start=1)):
            return np.array([0.0, *found])
    return np.array([0.0, *FALLBACK])


def _as_ngrams(
    keys: np.ndarray, probabilities: np.ndarray, backoffs: np.ndarray, order: int, vocabulary: int
) -> Ngrams:
    digits = [keys // vocabulary**place % vocabulary for place in reversed(range(order))]
    return Ngrams(np.stack(digits, axis=1).astype(np.int32), np.log10(probabilities), np.log10(backoffs))
