"""Attention weights -> how monotonic and how sharp they are, and advice where a run does not align.

A speller that has not found the diagonal only learns which words follow which: its loss falls, and no transcript gets
right. Chorowski et al. 2015 (arXiv:1506.07503) tell of it; a picture shows it, and these two figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from las.model.masking import valid_frames

MONOTONIC, SHARP = 0.8, 0.3  # least figures of attention that counts as aligned; fifteen kinds of it trained on digits:
# those that read at most 20% of words wrong have at least .94 and .43, those above fall short of one (egs/digits)
SHARE = 0.1  # of a new batch in the running means


@dataclass(frozen=True)
class Alignment:
    """Two figures of attention; both are 1 where each token looks at one frame, later than the one before."""

    monotonic: float  # share of the steps from token to token whose peak goes forward, less those that go back
    sharp: float  # 1 - entropy / its highest: 1 where one frame has all the weight, 0 where all have the same

    @property
    def found(self) -> bool:
        return self.monotonic >= MONOTONIC and self.sharp >= SHARP


@torch.no_grad()
def measure(weights: Tensor, tokens: Tensor, frames: Tensor) -> Alignment | None:
    """Figures of attention (B, L, S) over its real tokens (B,) and frames (B,); None where nothing has weight.

    The end of sentence is best left out of the tokens: where a speller looks for it, often back at a silence, says
    nothing of whether it listens.

    >>> measure(torch.eye(4).unsqueeze(0), torch.tensor([4]), torch.tensor([4]))
    Alignment(monotonic=1.0, sharp=1.0)
    """
    if weights.dim() != 3:
        return None
    heard = valid_frames(frames, weights.shape[2]).unsqueeze(1)  # (B, 1, S)
    spoken = valid_frames(tokens, weights.shape[1])  # (B, L)
    weights = weights.float().masked_fill(~heard, 0.0)
    total = weights.sum(2, keepdim=True)  # (B, L, 1), below 1 where attention may leave weight over
    weights = weights / total.clamp_min(1e-9)
    entropy = -torch.xlogy(weights, weights).sum(2)  # (B, L)
    sharp = 1 - entropy / frames.clamp_min(2).log().unsqueeze(1)
    moves = weights.argmax(2).diff(dim=1).sign()  # (B, L - 1)
    steps = spoken[:, 1:]
    figures = torch.stack([
        (moves * steps).sum() / steps.sum().clamp_min(1),
        (sharp * spoken).sum() / spoken.sum().clamp_min(1),
        (total.squeeze(2) * spoken).sum(),
    ])  # fmt: skip
    monotonic, mean_sharp, weight = figures.tolist()  # one wait for the device
    return Alignment(monotonic, mean_sharp) if weight else None


@dataclass
class Watch:
    """Running means over training batches, and whether all is said; a part of a run's state."""

    monotonic: float = 0.0
    sharp: float = 0.0
    batches: int = 0
    settled: bool = False  # aligned, or told that it is not

    def take_in(self, found: Alignment | None) -> None:
        """Count in a training batch."""
        if found is None:
            return
        self.batches += 1
        share = max(SHARE, 1 / self.batches)
        self.monotonic += share * (found.monotonic - self.monotonic)
        self.sharp += share * (found.sharp - self.sharp)

    def figures(self, found: Alignment | None) -> dict[str, float]:
        """For the log: attention on the fixed utterance, if there is any, and the running means."""
        if found is None:
            return {}
        fixed = {"monotonic": found.monotonic, "sharp": found.sharp}
        return fixed | {"train_monotonic": self.monotonic, "train_sharp": self.sharp} if self.batches else fixed

    def advice(self, found: Alignment | None, update: int, wanted_by: int) -> str | None:
        """At a validation: what to tell when attention should be aligned by now and never was; only once."""
        if found is None or self.settled:
            return None
        if found.found or (self.batches and Alignment(self.monotonic, self.sharp).found):
            self.settled = True
            return None
        if wanted_by == 0 or update < wanted_by:
            return None
        self.settled = True
        figures = f"monotonic {found.monotonic:.2f}, sharp {found.sharp:.2f}"
        return (
            f"attention is not aligned after {update} updates ({figures}; aligned it has more than {MONOTONIC} and "
            f"{SHARP}): the speller does not listen yet. What helps: a lower train.optimizer.rate, smaller batches "
            "(data.batch_utterances), "
            "data.sorted_first=true, a higher train.objective.ctc_weight, train.objective.guide_weight=1, "
            "model.speller.attention.kind=location, fewer listener frames (model.listener.reduce), init= from a model "
            "that is aligned"
        )
