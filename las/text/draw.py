"""A text in pieces -> another way to write it in pieces, drawn: subword regularisation.

SentencePiece can draw too, but what it draws does not follow its seed from one process to the next (0.2.3), and a run
could not be repeated. The ways are those of its own models: unigram (Kudo 2018, arXiv:1804.10959) and bpe with merges
left out (Provilkov et al. 2020, arXiv:1910.13267).
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Mapping, Sequence

TINY = 1e-150  # below it, and above its inverse, the weights of all ways are scaled, that no float runs out


def draw_way(text: str, scores: Mapping[str, float], alpha: float, chance: random.Random) -> list[str]:
    """One of all the ways to write `text` in pieces, in proportion to exp(alpha * the sum of its pieces' scores).

    Forward filtering, backward sampling over the lattice of pieces. `text` must be writable, as by single characters.

    >>> scores = {"a": -1.0, "b": -1.0, "ab": -3.0}
    >>> drawn = [tuple(draw_way("ab", scores, 1.0, random.Random(seed))) for seed in range(1000)]
    >>> drawn.count(("ab",))    # exp(-3) of exp(-2) + exp(-3): 269 of 1000
    285
    """
    longest = max(map(len, scores))
    sums = [1.0]  # of the weights of all ways to write the text up to each place
    arcs: list[list[tuple[int, float]]] = [[]]  # where the last piece may begin there, and the weight of such ways
    for end in range(1, len(text) + 1):
        first = max(0, end - longest)
        found = [
            (start, sums[start] * math.exp(alpha * score))
            for start in range(first, end)
            if (score := scores.get(text[start:end])) is not None
        ]
        arcs.append(found)
        sums.append(sum(weight for _, weight in found))
        if not TINY < sums[-1] < 1 / TINY:
            sums[first:] = [weight / sums[-1] for weight in sums[first:]]
    pieces = []
    end = len(text)
    while end:
        starts, shares = zip(*arcs[end], strict=True)
        (start,) = chance.choices(starts, shares)
        pieces.append(text[start:end])
        end = start
    return pieces[::-1]


def choose_way(
    ways: Sequence[list[str]], scores: Mapping[str, float], alpha: float, chance: random.Random
) -> list[str]:
    """One of some ways, in the same proportion."""
    totals = [alpha * sum(scores[piece] for piece in way) for way in ways]
    return chance.choices(ways, [math.exp(total - max(totals)) for total in totals])[0]


def drop_merges(text: str, scores: Mapping[str, float], alpha: float, chance: random.Random) -> list[str]:
    """What bpe writes where each merge is left out with probability `alpha`; with 0 what it always writes.

    Neighbours merge to a piece, that of the highest score first, of equal ones the leftmost.

    >>> scores = {"a": 0.0, "b": 0.0, "ab": -1.0, "abab": -2.0}
    >>> drop_merges("abab", scores, 0.0, random.Random(0)), drop_merges("abab", scores, 1.0, random.Random(0))
    (['abab'], ['a', 'b', 'a', 'b'])
    """
    pieces = list(text)  # empty where a piece has become part of the one before
    after = list(range(1, len(pieces) + 1))  # place of the next piece
    before = list(range(-1, len(pieces) - 1))
    pairs: list[tuple[float, int, str]] = []  # the best first; its pieces may have merged otherwise since

    def add(left: int) -> None:
        if left >= 0 and after[left] < len(pieces):
            merged = pieces[left] + pieces[after[left]]
            if merged in scores:
                heapq.heappush(pairs, (-scores[merged], left, merged))

    for left in range(len(pieces) - 1):
        add(left)
    while pairs:
        _, left, merged = heapq.heappop(pairs)
        right = after[left] if pieces[left] else len(pieces)
        if right == len(pieces) or pieces[left] + pieces[right] != merged or chance.random() < alpha:
            continue
        pieces[left], pieces[right] = merged, ""
        after[left] = after[right]
        if after[left] < len(pieces):
            before[after[left]] = left
        add(before[left])
        add(left)
    return [piece for piece in pieces if piece]
