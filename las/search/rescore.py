"""N-best lists -> the same transcripts, scored by one more part and ranked anew, without another search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from las.search.beam import Hypothesis, SearchConfig
from las.search.scorers import Part

CPU = torch.device("cpu")


def rescore(
    found: Sequence[Sequence[Hypothesis]],
    part: Part,
    config: SearchConfig,
    begin: int,
    end: int,
    device: torch.device = CPU,
) -> list[list[Hypothesis]]:
    """The n-best of each utterance with what `part`, a scorer of all tokens for these utterances, says of them too.

    They are ranked by log-probability + weight x its score, as `config` normalises lengths; equals stay in order.
    """
    scores = score_transcripts([[one.tokens for one in row] for row in found], part, begin, end, device)
    ranked = []
    for row, own in zip(found, scores, strict=True):
        changed = []
        for one, score in zip(row, own, strict=True):
            length = (len(one.tokens) + 1) ** config.length_exponent
            added = part.weight * score
            total = one.log_probability + added
            changed.append(
                replace(
                    one,
                    score=one.score + added / length,
                    log_probability=total,
                    scores={**one.scores, part.name: score},
                )
            )
        ranked.append(sorted(changed, key=lambda one: -one.score))
    return ranked


def score_transcripts(
    transcripts: Sequence[Sequence[tuple[int, ...]]], part: Part, begin: int, end: int, device: torch.device = CPU
) -> list[list[float]]:
    """The sum of a part's scores, without its weight, of each transcript of each utterance and its end.

    `device` is that of the scorer.
    """
    most = max((len(row) for row in transcripts), default=0)
    if most == 0:
        return [[] for _ in transcripts]
    longest = max(len(tokens) for row in transcripts for tokens in row)
    shape = (len(transcripts), most)
    table = torch.full((*shape, longest + 1), end)  # what comes after the end is not counted
    counts = torch.full(shape, -1)
    for number, row in enumerate(transcripts):
        for place, tokens in enumerate(row):
            table[number, place, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
            counts[number, place] = len(tokens)
    table, counts = table.to(device), counts.to(device)
    state = part.scorer.start()
    last = torch.full((len(transcripts), 1), begin, device=device)
    total = torch.zeros(shape, dtype=torch.float64, device=device)
    everyone = torch.arange(len(transcripts), device=device)
    for step, now in enumerate(table.unbind(2)):
        scores, state = part.scorer.step(last, state)
        if step == 0:  # one beam for each utterance becomes one for each transcript
            parents = torch.zeros(shape, dtype=torch.int64, device=device)
            scores, state = scores.expand(-1, most, -1), part.scorer.select(state, everyone, parents)
        of_tokens = scores.gather(2, now.unsqueeze(2)).squeeze(2).double()
        total += of_tokens.masked_fill(counts < step, 0.0)
        last = now
    return [sums[: len(row)] for sums, row in zip(total.tolist(), transcripts, strict=True)]
