"""Beam search of one utterance as las/search/beam.py defines it, over lists: slow, and without a tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from las.search.beam import SearchConfig

Tokens = tuple[int, ...]
Score = Callable[[Tokens], list[float]]  # tokens so far -> score of each next token
NEVER = -math.inf


class Found(NamedTuple):
    """A transcript, as `Hypothesis`."""

    tokens: Tokens
    score: float
    log_probability: float
    complete: bool


def reference_search(
    parts: Sequence[tuple[Score, float]],
    limit: int,
    config: SearchConfig,
    end: int,
    best: int,
    least: int = 0,
    refine: Sequence[tuple[Score, float]] = (),
    finish: Callable[[Tokens], float] = lambda tokens: 0.0,
) -> list[Found]:
    """`finish` is what is added to the score of a transcript that ends."""
    living: list[tuple[Tokens, float]] = [((), 0.0)]
    ended: list[Found] = []
    most = config.ctc_candidates if refine else config.beam
    for length in range(limit + 1):
        continuations = []
        for tokens, total in living:  # the earlier parent first
            lead = parts[0][0](tokens)
            together = [weighted_sum(tokens, token, parts) for token in range(len(lead))]
            for token in range(len(lead)):
                if token == end:
                    rivals = [one for rival, one in enumerate(lead) if rival != end]
                    early = length < least or (
                        config.end_threshold and not lead[end] > config.end_threshold * max(rivals, default=NEVER)
                    )
                    allowed = length == limit or not early
                else:
                    allowed = length < limit and not repeats((*tokens, token), config.no_repeat)
                together[token] = together[token] if allowed else NEVER
            others = sorted((token for token in range(len(lead)) if token != end), key=lambda one: -together[one])
            for token in sorted([*others[:most], end]):  # then the smaller token
                value = weighted_sum(tokens, token, refine, together[token])
                value += config.token_reward if token != end else 0.0
                if total + value > NEVER:
                    continuations.append(((*tokens, token), total + value))
        continuations.sort(key=lambda one: -one[1])  # stable: equals stay in order
        living = []
        for tokens, total in continuations[: config.beam]:
            if tokens[-1] == end:
                score = total / (length + 1) ** config.length_exponent + finish(tokens[:-1])
                ended.append(Found(tokens[:-1], score, total, length < limit))
            else:
                living.append((tokens, total))
        if config.patience and len(ended) >= config.patience * config.beam:
            break
    return sorted(ended, key=lambda one: -one.score)[:best]


def weighted_sum(tokens: Tokens, token: int, parts: Sequence[tuple[Score, float]], first: float | None = None) -> float:
    """Of the parts' scores of a token; what is impossible for one of them is so for all."""
    for score, weight in parts:
        one = score(tokens)[token]
        one = one * weight if one > NEVER else NEVER
        first = one if first is None else first + one
    return first if first is not None else 0.0


def repeats(tokens: Tokens, run: int) -> bool:
    """Whether the last `run` tokens were said before."""
    runs = [tokens[place : place + run] for place in range(len(tokens) - run + 1)]
    return run > 0 and len(runs) > 1 and runs[-1] in runs[:-1]
