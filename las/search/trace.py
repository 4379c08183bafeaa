"""A transcript that was found -> where in the recording its tokens are: by attention and by CTC.

Attention is asked again with the transcript given, which costs one pass for all tokens and keeps search free of it.
CTC's answer is the best of all alignments (Graves et al. 2006, with Viterbi's maximum in place of the sum). Where the
same words are said twice and written once, CTC alone cannot tell which of the two was written: attention can, so a
frame far from where a token's attention was costs the alignment something.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from las.model.memory import Memory
from las.model.speller import Speller

FAR_COST = 0.5  # taken from the log-probability of a token in a frame that its attention was far from


@dataclass(frozen=True)
class Trace:
    """Where one transcript's tokens are, in listener frames counted from 0."""

    weights: Tensor  # attention while each token and the end was spelled (L + 1, S), real frames only, on the CPU
    spans: list[tuple[int, int]] | None  # first and last frame of each token by CTC; None: no alignment, or no CTC
    spoken: list[float]  # log-probability of each token by the speller
    heard: list[float] | None  # that of each token by CTC, where in its span it is highest; None as `spans`

    @property
    def peaks(self) -> list[int]:
        """The frame that each token's attention looked at most."""
        return self.weights[:-1].argmax(1).tolist() if self.weights.shape[1] else []

    @property
    def means(self) -> list[float]:
        """The mean frame of each token's attention."""
        weights = self.weights[:-1].double()
        places = torch.arange(weights.shape[1], dtype=torch.float64, device=weights.device)
        return ((weights @ places) / weights.sum(1).clamp(min=torch.finfo(weights.dtype).tiny)).tolist()


def trace(
    transcripts: Sequence[Sequence[int]],
    speller: Speller,
    memory: Memory,
    lengths: Tensor,
    begin: int,
    ctc: Tensor | None = None,
    blank: int = 0,
    near: float = math.inf,
) -> list[Trace]:
    """Traces of one transcript for each utterance, with (B,) real frames; `ctc` are log-probabilities (B, S, V).

    Frames further than `near` from a token's mean attention cost the alignment `FAR_COST`.
    """
    device = memory.frames.device
    longest = max(map(len, transcripts), default=0)
    read = torch.full((len(transcripts), longest + 1), begin, device=device)  # begin, then the tokens
    for row, tokens in enumerate(transcripts):
        read[row, 1 : len(tokens) + 1] = torch.tensor(list(tokens), dtype=torch.int64)
    logits, weights = speller(read, memory)  # (B, L + 1, V), (B, L + 1, S)
    spoken = logits.float().log_softmax(-1).cpu()
    weights = weights.cpu()
    ctc = None if ctc is None else ctc.cpu()
    traces = []
    for row, (tokens, frames) in enumerate(zip(transcripts, lengths.tolist(), strict=True)):
        own = Trace(weights[row, : len(tokens) + 1, :frames], None, [], None)
        looked = bool((own.weights > 0).any())  # some spellers have no attention
        spans = heard = None
        if ctc is not None:
            spans = ctc_spans(ctc[row, :frames], tokens, blank, own.means if looked else None, near)
        if ctc is not None and spans is not None:
            table = ctc[row, :frames]
            heard = [
                float(table[first : last + 1, token].max()) for token, (first, last) in zip(tokens, spans, strict=True)
            ]
        said = spoken[row, range(len(tokens)), list(tokens)].tolist()
        traces.append(Trace(own.weights, spans, said, heard))
    return traces


def ctc_spans(
    log_probabilities: Tensor,
    tokens: Sequence[int],
    blank: int,
    places: Sequence[float] | None = None,
    near: float = math.inf,
) -> list[tuple[int, int]] | None:
    """First and last frame of each token in the best alignment of log-probabilities (S, V); None: there is none.

    Of equal alignments the one that stays longest in what was said before. With `places`, frames of the tokens as
    attention has them, a token costs `FAR_COST` in each frame further than `near` from its own.

    >>> certain = torch.tensor([[0.1, 0.9], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9]]).log()
    >>> ctc_spans(certain, [1, 1], blank=0)
    [(0, 1), (3, 3)]
    """
    path = np.full(2 * len(tokens) + 1, blank)  # blanks around the tokens
    path[1::2] = tokens
    spoken = log_probabilities.cpu().double().numpy()[:, path]  # (S, 2L + 1)
    if places is not None:
        away = np.abs(np.arange(len(spoken))[:, None] - np.array(places))  # (S, L)
        spoken[:, 1::2] -= FAR_COST * (away > near)
    skips = np.zeros(len(path), dtype=bool)  # whether a place can be reached from two before it
    skips[3::2] = path[3::2] != path[1:-2:2]
    ways = np.full((3, len(path)), -np.inf)  # staying, from the place before, from two before
    best = ways[0].copy()
    best[0] = 0.0  # before the first frame: as if a blank had been
    came = np.zeros(spoken.shape, dtype=np.int8)
    for frame, said in enumerate(spoken):
        ways[0] = best
        ways[1, 1:] = best[:-1]
        ways[2, 2:] = np.where(skips[2:], best[:-2], -np.inf)
        came[frame] = ways.argmax(0)
        best = ways.max(0) + said
    place = len(path) - 1
    if len(path) > 1 and not best[place] > best[place - 1]:
        place -= 1
    if np.isneginf(best[place]):
        return None
    spans: dict[int, tuple[int, int]] = {}
    for frame in range(len(came) - 1, -1, -1):
        if place % 2:
            spans[place // 2] = (frame, spans.get(place // 2, (frame, frame))[1])
        place -= int(came[frame, place])
    return [spans[number] for number in range(len(tokens))]
