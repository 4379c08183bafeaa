"""Beam search over utterances and beams at once.

As in Sutskever et al. 2014 (arXiv:1409.3215): of all continuations of an utterance's beams the best K stay, and one
that ends leaves the beam. A beam of 1 is greedy search. One step, of each utterance by itself:

1. The scorers give every token of every beam its scores; a token that one of them gives -inf is out. So is the end of
   sentence before the least length and where `end_threshold` forbids it, a token that would repeat an n-gram, and at
   the greatest length all but the end.
2. Of each beam the end and the C other tokens whose weighted sums are highest are its candidates; C is the beam, or
   `ctc_candidates` where there are candidate scorers. These score the candidates alone.
3. The K best of all beams' candidates stay, by everything added up since the beginning.

Equal scores: the earlier parent beam, then the smaller token id, comes first. An utterance is done as soon as none of
its beams can still reach its n-best, whatever comes: that is known from the most that each scorer can add.
tests/search/reference.py says the same without tensors.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from las.errors import UserError
from las.search.scorers import Part

QUICK_TOPK = 64  # on a CPU torch 2.11 finds the k highest of n five times as fast where n is at least 64 k
CROWDED = 7 / 8  # utterances that are done leave the batch when no more than this share is left: copies cost time


@dataclass(frozen=True)
class SearchConfig:
    """How transcripts are searched for."""

    beam: int = 8  # K, partial transcripts kept for each utterance; 1: greedy
    length_exponent: float = 0.6  # a transcript's log-probability is divided by its length to this power; 0: not at all
    ctc_weight: float = (
        0.3  # share of the CTC branch in the log-probability, where the model has one; the rest is the speller's
    )
    ctc_candidates: int = 20  # tokens of each beam that CTC is asked about, those the speller likes best
    longest: float = 1.0  # most tokens of a transcript for each listener frame
    whole: float = 0.0  # s; a longer recording is decoded in pieces, cut at pauses; 0: the model's longest training
    # utterance, at least 3 and at most 30, which training writes here; where it did not, 30
    piece: float = 0.0  # s, the most that a piece holds; 0: what nine in ten training utterances fit in, the same way
    shortest: float = 0.0  # fewest tokens of a transcript for each listener frame
    token_reward: float = 0.0  # added to the log-probability for each token
    coverage: float = 0.0  # weight of GNMT's coverage penalty for frames that attention left out; not divided by length
    end_threshold: float = 0.0  # a transcript may end only where the speller's log-probability of the end is above this
    # times that of the best other token; 1.5 is usual, 0: anywhere
    no_repeat: int = 0  # tokens; no run of so many comes twice in a transcript; 0: repeats are free
    temperature: float = 1.0  # the speller's logits are divided by it
    language_model: str = ""  # folder of `las lm train` or ARPA file of `las lm ngram`; empty: the model folder's own
    # language_model/, where it has one
    language_weight: float = 0.3  # weight of the language model's log-probability, which is added
    source_model: str = ""  # a language model of the training transcripts, the same way; empty: none
    source_weight: float = 0.1  # weight of what it says, which is subtracted (density ratio, McDermott et al. 2019)
    rescore: int = 0  # transcripts of each utterance that language models rank after a search without them; 0: they
    # take part in the search
    internal_weight: float = 0.0  # weight of what the speller says when it hears nothing, which is subtracted
    other_speeds: tuple[float, ...] = ()  # such as [0.9,1.1]: each recording is heard at these too, and the search goes
    # by the mean of what the model says; as much work again for each. Validation in training does without
    hot_word_bonus: float = 1.5  # added to the log-probability for each token of a hot word
    bfloat16: bool = False  # compute listener, speller and CTC in bfloat16 when a model is opened; on a CPU with
    # AVX512-BF16 or AMX two to three times as fast, scores differ by rounding
    patience: float = 0.0  # an utterance is done when patience x beam transcripts ended; 0: when no other can win, but
    # as 1 with hot words, internal_weight or a token_reward above 0, with which almost any could

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"search.{name} {value} must be a finite number")
        if self.beam < 1 or self.ctc_candidates < 1:
            name = "beam" if self.beam < 1 else "ctc_candidates"
            raise UserError(f"search.{name} {getattr(self, name)} must be at least 1")
        if not 0 <= self.ctc_weight < 1:
            raise UserError(f"search.ctc_weight {self.ctc_weight} must be at least 0 and below 1")
        if self.length_exponent < 0 or self.longest <= 0:
            raise UserError("search: length_exponent must be 0 or more, longest above 0")
        if not 0 <= self.shortest <= self.longest:
            raise UserError(f"search.shortest {self.shortest} must be at least 0 and at most longest {self.longest}")
        if not self.temperature > 0:
            raise UserError(f"search.temperature {self.temperature} must be above 0")
        if self.whole < 0 or self.piece < 0 or 0 < self.whole < self.piece:
            raise UserError(f"search.piece {self.piece} must be 0 or more, and whole {self.whole} not less, or 0")
        if not all(0.5 <= speed <= 2 and speed != 1 for speed in self.other_speeds):
            raise UserError(f"search.other_speeds {list(self.other_speeds)}: each between 0.5 and 2, and not 1")
        weights = ("language_weight", "source_weight", "internal_weight", "rescore")
        for name in (*weights, "coverage", "end_threshold", "no_repeat", "hot_word_bonus", "patience"):
            if not getattr(self, name) >= 0:
                raise UserError(f"search.{name} {getattr(self, name)} must be 0 or more")


@dataclass(frozen=True)
class Hypothesis:
    """A transcript in tokens, without begin and end of sentence.

    score = log_probability / (len(tokens) + 1) ** length_exponent, and what parts add at the end.
    """

    tokens: tuple[int, ...]
    score: float  # what hypotheses are ranked by
    log_probability: float  # weighted sum of the parts' scores of the tokens and the end of sentence, with the reward
    complete: bool  # False: it was ended because it reached the greatest length
    scores: dict[str, float] = field(default_factory=dict)  # what each part gives it, and what is added at the end; all
    # without weights


def beam_search(
    parts: Sequence[Part],
    limits: Tensor,
    config: SearchConfig,
    begin: int,
    end: int,
    best: int = 1,
    least: Tensor | None = None,
    refine: Sequence[Part] = (),
) -> list[list[Hypothesis]]:
    """The `best` hypotheses of each utterance, best first.

    `parts` score all tokens, `refine` are candidate scorers. `end_threshold` asks the first part, the other settings
    that concern models (weights, candidates apart) are the caller's to put into parts. `limits` (B,) are the greatest
    numbers of tokens, end of sentence not counted, `least` (B,) the fewest. An utterance whose every continuation has
    log-probability -inf has no hypothesis.

    Raises `UserError` when a score is not a number and when parts know different numbers of tokens.
    """
    batch = len(limits)
    if batch == 0:
        return []
    beams = _start(parts, refine, batch, begin, limits.device)
    found = [_Found(best, config) for _ in range(batch)]
    least = torch.zeros_like(limits) if least is None else torch.minimum(least, limits)
    for length in range(int(limits.max()) + 1):
        at_limit = limits[beams.active] <= length  # (B')
        may_end = least[beams.active] <= length
        scored = _step(parts, refine, beams, config, end, at_limit, may_end)
        chosen = _choose(scored, parts, refine, beams, config, end)
        ends = (chosen.tokens == end) & chosen.totals.isfinite()
        history = beams.history.gather(1, chosen.parents.unsqueeze(2).expand(-1, -1, length))
        _keep(found, beams, history, chosen, ends, at_limit, parts, refine)
        totals = chosen.totals.masked_fill(ends, -torch.inf)
        gain = max(config.token_reward, 0.0) + sum(part.gain for part in (*parts, *refine))
        open_ = _still_open(found, beams.active, totals, length + 1, limits, gain, config)
        rows = open_.nonzero().squeeze(1)
        if len(rows) == 0:
            break
        if len(rows) > CROWDED * len(open_):
            totals = totals.masked_fill(~open_.unsqueeze(1), -torch.inf)
            rows = torch.arange(len(open_), device=rows.device)
        beams = _Beams(
            beams.active[rows],
            chosen.tokens[rows],
            totals[rows],
            chosen.sums[rows],
            torch.cat([history, chosen.tokens.unsqueeze(2)], 2)[rows],
            _select(parts, beams.states, rows, chosen.parents[rows]),
            _select(refine, beams.refine_states, rows, chosen.parents[rows]),
        )
    return [one.best(best) for one in found]


@dataclass
class _Beams:
    """The beams of the utterances that are still searched, after a step."""

    active: Tensor  # numbers of the utterances (B',)
    last: Tensor  # last tokens (B', K)
    totals: Tensor  # log-probabilities (B', K), -inf for a beam that holds nothing
    sums: Tensor  # the parts' own, without weights (B', K, parts)
    history: Tensor  # tokens (B', K, steps)
    states: list[Any]  # of the parts
    refine_states: list[Any]


@dataclass
class _Scored:
    """What the parts say of all next tokens."""

    together: Tensor  # weighted, -inf where not allowed (B', K, V)
    single: list[Tensor]  # of each part (B', K, V)


@dataclass
class _Chosen:
    """The continuations that stay, best first, (B', K) each."""

    totals: Tensor
    sums: Tensor  # (B', K, parts)
    parents: Tensor
    tokens: Tensor


def _start(parts: Sequence[Part], refine: Sequence[Part], batch: int, begin: int, device: torch.device) -> _Beams:
    totals = torch.zeros(batch, 1, device=device, dtype=torch.float64)
    return _Beams(
        torch.arange(batch, device=device),
        torch.full((batch, 1), begin, device=device),
        totals,
        totals.unsqueeze(2).expand(-1, -1, len(parts) + len(refine)),
        torch.zeros(batch, 1, 0, dtype=torch.int64, device=device),
        [part.scorer.start() for part in parts],
        [part.scorer.start() for part in refine],
    )


def _select(parts: Sequence[Part], states: list[Any], rows: Tensor, parents: Tensor) -> list[Any]:
    return [part.scorer.select(state, rows, parents) for part, state in zip(parts, states, strict=True)]


def _step(
    parts: Sequence[Part],
    refine: Sequence[Part],
    beams: _Beams,
    config: SearchConfig,
    end: int,
    at_limit: Tensor,
    may_end: Tensor,
) -> _Scored:
    """Ask the parts, whose states in `beams` move on; leave out what is not allowed."""
    single = []
    for place, part in enumerate(parts):
        scores, beams.states[place] = part.scorer.step(beams.last, beams.states[place])
        single.append(scores)
    _check_sizes(parts, refine, single)
    first, *others = (_weighted(scores, part.weight) for scores, part in zip(single, parts, strict=True))
    together = sum(others, first)
    if config.no_repeat:
        together = together.masked_fill(_repeats(beams.history, together.shape[2], config.no_repeat), -torch.inf)
    if config.end_threshold:
        lead = single[0]
        other = torch.cat([lead[..., :end], lead[..., end + 1 :]], 2).amax(2) if lead.shape[2] > 1 else -torch.inf
        may_end = may_end.unsqueeze(1) & (lead[..., end] > config.end_threshold * other)  # (B', K)
    else:
        may_end = may_end.unsqueeze(1)
    may_end = may_end | at_limit.unsqueeze(1)
    not_end = torch.arange(together.shape[2], device=together.device) != end
    together = together.masked_fill(at_limit[:, None, None] & not_end, -torch.inf)
    together[..., end] = together[..., end].masked_fill(~may_end, -torch.inf)
    return _Scored(together, single)


def _check_sizes(parts: Sequence[Part], refine: Sequence[Part], scores: Sequence[Tensor]) -> None:
    sizes = [one.shape[2] for one in scores] + [part.scorer.vocabulary for part in refine]
    if len(set(sizes)) > 1:
        known = ", ".join(f"{part.name} {size}" for part, size in zip((*parts, *refine), sizes, strict=True))
        raise UserError(f"search: the parts know different numbers of tokens ({known}); they need the same tokenizer")


def _weighted(scores: Tensor, weight: float) -> Tensor:
    """A new tensor; what is impossible stays so when it is subtracted."""
    return scores * weight if weight > 0 else scores.masked_fill(scores.isneginf(), torch.inf) * weight


def _repeats(history: Tensor, vocabulary: int, run: int) -> Tensor:
    """Tokens that would make a run of that many come a second time: (B, K, steps) -> (B, K, V) bool."""
    batch, beams, steps = history.shape
    mask = torch.zeros(batch, beams, vocabulary + 1, dtype=torch.bool, device=history.device)
    if steps >= run:
        runs = history.unfold(2, run, 1)  # (B, K, runs, run)
        same = (runs[..., :-1] == history[:, :, None, steps - run + 1 :]).all(3)
        mask.scatter_(2, runs[..., -1].masked_fill(~same, vocabulary), True)
    return mask[..., :vocabulary]


def _propose(scores: Tensor, number: int, end: int) -> Tensor:
    """Of each beam the end and `number` other tokens, those with the highest scores: (B, K, V) -> (B, K, C), rising."""
    batch, beams, vocabulary = scores.shape
    if number >= vocabulary - 1:
        return torch.arange(vocabulary, device=scores.device).expand(batch, beams, -1)
    wanted = number + 1  # one more shows whether equal scores lie across the edge
    room = max(0, QUICK_TOPK * wanted - vocabulary + 1)
    fill = scores.new_full((batch, beams, room), -torch.inf)
    others = torch.cat([scores[..., :end], scores[..., end + 1 :], fill], 2)
    values, chosen = others.topk(wanted)
    if bool((values[..., -2] == values[..., -1]).any()):
        chosen = _first_best(others[..., : vocabulary - 1], number)  # topk leaves open which of equals it takes
    chosen = chosen[..., :number]
    ends = torch.full((batch, beams, 1), end, device=scores.device)
    return torch.cat([chosen + (chosen >= end), ends], 2).sort(2).values


def _first_best(scores: Tensor, number: int) -> Tensor:
    """The places of the `number` highest of (B, K, N), of equals the first: (B, K, number), rising."""
    scores = scores.masked_fill(scores.isnan(), torch.inf)
    edge = scores.topk(number).values[..., -1:]
    above, level = scores > edge, scores == edge
    room = number - above.sum(2, keepdim=True)
    taken = above | (level & (level.cumsum(2) <= room))
    return taken.nonzero()[:, 2].view(*scores.shape[:2], number)


def _choose(
    scored: _Scored, parts: Sequence[Part], refine: Sequence[Part], beams: _Beams, config: SearchConfig, end: int
) -> _Chosen:
    """The best candidates; the states of `refine` in `beams` move on."""
    number = config.ctc_candidates if refine else config.beam
    candidates = _propose(scored.together, number, end)  # (B', K, C)
    values = scored.together.gather(2, candidates)
    single = []
    for place, part in enumerate(refine):
        scores, beams.refine_states[place] = part.scorer.step(beams.last, candidates, beams.refine_states[place])
        single.append(scores)
        values = values + _weighted(scores, part.weight)
    if config.token_reward:
        values = values + (candidates != end).double() * config.token_reward
    values = beams.totals.unsqueeze(2) + values
    values = values.masked_fill(beams.totals.isneginf().unsqueeze(2), -torch.inf)  # whatever scorers say of those
    if not bool((values < torch.inf).all()):
        raise UserError("search: the model gives scores that are not numbers; its weights may be damaged")
    totals, places = values.flatten(1).sort(dim=1, descending=True, stable=True)
    totals, places = totals[:, : config.beam], places[:, : config.beam]  # (B', K)
    parents = places // values.shape[2]
    tokens = candidates.flatten(1).gather(1, places)
    whole = parents * scored.together.shape[2] + tokens
    added = [scores.flatten(1).gather(1, whole) for scores in scored.single]
    added += [scores.flatten(1).gather(1, places) for scores in single]
    sums = beams.sums.gather(1, parents.unsqueeze(2).expand(-1, -1, len(added))) + torch.stack(added, 2)
    return _Chosen(totals, sums, parents, tokens)


def _keep(
    found: list[_Found],
    beams: _Beams,
    history: Tensor,
    chosen: _Chosen,
    ends: Tensor,
    at_limit: Tensor,
    parts: Sequence[Part],
    refine: Sequence[Part],
) -> None:
    """Hand the transcripts that end to their utterances."""
    places = ends.nonzero()
    if len(places) == 0:
        return
    rows, ranks = places.unbind(1)
    names = [part.name for part in (*parts, *refine)]
    sums = chosen.sums[rows, ranks]  # (ended, parts)
    added = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    for part, state in zip(parts, beams.states, strict=True):
        if part.ending is not None:
            finish = part.scorer.finish(state)[rows, chosen.parents[rows, ranks]].double()
            added += part.ending.weight * finish
            sums = torch.cat([sums, finish.unsqueeze(1)], 1)
            names.append(part.ending.name)
    columns = (
        beams.active[rows].tolist(),
        history[rows, ranks].tolist(),
        chosen.totals[rows, ranks].tolist(),
        added.tolist(),
        at_limit[rows].tolist(),
        sums.tolist(),
    )
    for number, tokens, total, extra, cut, single in zip(*columns, strict=True):
        found[number].add(tokens, total, extra, not cut, dict(zip(names, single, strict=True)))


class _Found:
    """The complete hypotheses of one utterance, the best `room` of them."""

    def __init__(self, room: int, config: SearchConfig):
        self.room = room
        self.exponent = config.length_exponent
        self.enough = config.patience * config.beam or float("inf")
        self.heap: list[tuple[float, int, Hypothesis]] = []  # worst first; the earlier of equals counts as better
        self.count = 0

    def add(self, tokens: list[int], total: float, extra: float, complete: bool, scores: dict[str, float]) -> None:
        score = total / (len(tokens) + 1) ** self.exponent + extra
        self.count += 1
        push = heapq.heappushpop if len(self.heap) >= self.room else heapq.heappush
        push(self.heap, (score, -self.count, Hypothesis(tuple(tokens), score, total, complete, scores)))

    def least(self) -> float:
        """The score that a new hypothesis must beat to be kept."""
        if self.count >= self.enough:
            return torch.inf
        return self.heap[0][0] if len(self.heap) >= self.room else -torch.inf

    def best(self, number: int) -> list[Hypothesis]:
        return [hypothesis for _, _, hypothesis in sorted(self.heap, reverse=True)][:number]


def _still_open(
    found: list[_Found],
    active: Tensor,
    totals: Tensor,
    length: int,
    limits: Tensor,
    gain: float,
    config: SearchConfig,
) -> Tensor:
    """False for utterances whose kept hypotheses no beam can reach any more: (B',) bool.

    A beam of `length` tokens may gain at most `gain` with each token and the end. Its log-probability is divided by a
    power of its final length + 1: where it is below 0 the greatest is the best for it, else the present one.
    """
    limit = limits[active].double()
    reachable = totals.amax(1)  # (B')
    reachable = torch.where(reachable.isneginf(), reachable, reachable + gain * (limit - length + 1).clamp(min=1.0))
    final = torch.where(reachable < 0, limit, length) + 1
    reachable = reachable / final**config.length_exponent
    least = torch.tensor([found[number].least() for number in active.tolist()], dtype=torch.float64)
    return ~reachable.isneginf() & (reachable.cpu() > least).to(totals.device)
