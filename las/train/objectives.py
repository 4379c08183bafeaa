"""What training makes small: the speller's cross-entropy and the CTC loss, both at least in float32.

The objective is the mean over tokens of (1 - w) * cross-entropy + w * CTC (Kim et al. 2017, arXiv:1609.06773, eq. 11),
whose first part is minus the log-likelihood of Chan et al. 2015, eq. 12, with label smoothing; beside it, on request,
a loss that guides attention to the diagonal (Tachibana et al. 2017, arXiv:1710.08969, eq. 8), and how far apart two
passes over the same batch are (`las/train/consistency.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from las.batch import Batch
from las.errors import UserError
from las.model.ctc import BLANK, frames_needed
from las.model.las import Output
from las.model.masking import valid_frames
from las.train.span import check_span, is_on

SMOOTHINGS = ("uniform", "unigram")


@dataclass(frozen=True)
class ObjectiveConfig:
    """The parts of the loss."""

    ctc_weight: float = 0.3  # w, share of the CTC loss; the rest is the speller's
    ctc_weight_to: float | None = None  # w goes straight from ctc_weight to this; null: it stays
    ctc_weight_over: int = 0  # updates that it takes for that
    label_smoothing: float = 0.1  # share of the target that is given to other tokens than the right one
    smoothing: str = "uniform"  # whom it is given to: uniform, all tokens alike; unigram, as often as they come in the
    #                             training transcripts
    smoothing_start: int = 0  # first update with it
    smoothing_end: int = 0  # first update without it again; 0: never
    guide_weight: float = 0.0  # weight of the guided attention loss beside the others, such as 1; 0: not guided
    guide_width: float = 0.2  # g, how far from the diagonal attention may go, as a share of the utterance
    guide_over: int = 0  # updates over which guide_weight goes straight to 0; 0: it stays
    ctc_consistency: float = 0.0  # weight of how far apart two passes over a batch are in their CTC branches, such as
    #                               0.2; takes twice the time; 0 here and below: one pass
    speller_consistency: float = 0.0  # the same of the speller, such as 1
    pass_speeds: tuple[float, ...] = ()  # such as [0.9,1.0,1.1]: one is drawn for each of the two passes, and CTC
    #                                      branches are compared where both draw the same; with augment.speeds [1.0]

    def __post_init__(self) -> None:
        if not 0 <= self.ctc_weight <= 1 or not 0 <= self.label_smoothing < 1:
            raise UserError("objective: ctc_weight must be between 0 and 1, label_smoothing at least 0 and below 1")
        if self.ctc_weight_to is not None and (not 0 <= self.ctc_weight_to <= 1 or self.ctc_weight_over < 1):
            raise UserError("objective: ctc_weight_to must be between 0 and 1, and ctc_weight_over at least 1 with it")
        if self.ctc_weight_to is None and self.ctc_weight_over:
            raise UserError("objective.ctc_weight_over: says how fast, not where to; set objective.ctc_weight_to")
        if self.smoothing not in SMOOTHINGS:
            raise UserError(f"objective.smoothing {self.smoothing!r}: wanted one of {', '.join(SMOOTHINGS)}")
        check_span("objective.smoothing", self.smoothing_start, self.smoothing_end)
        if self.guide_weight < 0 or self.guide_width <= 0 or self.guide_over < 0:
            raise UserError("objective: guide_weight and guide_over must be 0 or more, guide_width above 0")
        if min(self.ctc_consistency, self.speller_consistency) < 0:
            raise UserError("objective: ctc_consistency and speller_consistency must be 0 or more")
        if not all(0.5 <= speed <= 2 for speed in self.pass_speeds):
            raise UserError(f"objective.pass_speeds {list(self.pass_speeds)}: each between 0.5 and 2")
        if self.pass_speeds and not self.speller_consistency:
            raise UserError("objective.pass_speeds without speller_consistency: passes that nothing compares")

    @property
    def passes(self) -> int:
        """How often each batch is heard for one gradient."""
        return 2 if self.ctc_consistency or self.speller_consistency else 1

    def ctc_weight_at(self, update: int) -> float:
        """w at an update, counted from 0.

        >>> config = ObjectiveConfig(ctc_weight=0.5, ctc_weight_to=0.1, ctc_weight_over=4)
        >>> [round(config.ctc_weight_at(update), 3) for update in (0, 1, 2, 4, 9)]
        [0.5, 0.4, 0.3, 0.1, 0.1]
        """
        if self.ctc_weight_to is None:
            return self.ctc_weight
        way = min(1.0, update / self.ctc_weight_over)
        return (1 - way) * self.ctc_weight + way * self.ctc_weight_to

    def smoothing_at(self, update: int) -> float:
        """The share of the target that other tokens get at an update."""
        return self.label_smoothing if is_on(update, self.smoothing_start, self.smoothing_end) else 0.0

    def guide_weight_at(self, update: int) -> float:
        """The weight of the guided attention loss at an update."""
        return self.guide_weight * (max(0.0, 1 - update / self.guide_over) if self.guide_over else 1.0)


@dataclass(frozen=True)
class Losses:
    """Sums over a batch, so that they add up over batches."""

    speller: Tensor  # (), cross-entropy summed over the tokens and ends of sentence
    ctc: Tensor  # (), CTC loss summed over the utterances that have a path
    tokens: int  # ends of sentence included
    correct: Tensor  # (), next tokens that the speller finds most likely
    pathless: list[str]  # ids of utterances with fewer listener frames than a CTC path takes; their CTC weight is 0
    expected_errors: Tensor | None = None  # (), of words, summed over the utterances; where train.mwer is on

    def a_pass(self, passes: int) -> Losses:
        """Of a batch that holds each utterance so many times: as once."""
        speller, ctc, correct = (value / passes for value in (self.speller, self.ctc, self.correct))
        pathless = list(dict.fromkeys(self.pathless))
        return replace(self, speller=speller, ctc=ctc, tokens=self.tokens // passes, correct=correct, pathless=pathless)


def losses(output: Output, batch: Batch, end: int, smoothing: float, shares: Tensor | None = None) -> Losses:
    """Compare a model's output with the transcripts; `end` is the token id that ends a sentence.

    `smoothing` is the share of the target that is given to all tokens, alike or as `shares` (V,) says.
    """
    with torch.autocast(output.logits.device.type, enabled=False):
        target, real = next_tokens(batch.tokens, batch.lengths, end)  # (B, L + 1)
        logits = exact(output.logits)[real]  # (tokens, V)
        target = target[real]
        speller = _cross_entropy(logits, target, smoothing, shares)
        correct = (logits.argmax(-1) == target).sum()
        ctc, pathless = _ctc(output, batch)
    return Losses(speller, ctc, len(target), correct, pathless)


def next_tokens(tokens: Tensor, lengths: Tensor, end: int) -> tuple[Tensor, Tensor]:
    """What comes after the begin of sentence and each token, and which of it is real: (B, L), (B,) -> (B, L + 1) each.

    >>> next_tokens(torch.tensor([[7, 8], [9, 0]]), torch.tensor([2, 1]), end=3)[0]
    tensor([[7, 8, 3],
            [9, 3, 0]])
    """
    place = torch.arange(tokens.shape[1] + 1, device=tokens.device)
    target = functional.pad(tokens, (0, 1)).masked_fill(place == lengths.unsqueeze(1), end)
    return target, valid_frames(lengths + 1, len(place))


def token_shares(texts: Iterable[Sequence[int]], vocabulary: int, end: int) -> Tensor:
    """How often each token comes in some texts and their ends of sentence, as shares (V,) that sum to 1.

    >>> token_shares([[4, 5], [4]], vocabulary=6, end=3)
    tensor([0.0000, 0.0000, 0.0000, 0.4000, 0.4000, 0.2000])
    """
    counts = torch.zeros(vocabulary)
    for ids in texts:
        counts += torch.bincount(torch.tensor([*ids, end]), minlength=vocabulary)
    return counts / counts.sum()


def guide(output: Output, batch: Batch, width: float) -> Tensor:
    """What attention loses by its distance from the diagonal, between 0 and 1 a token, summed over the real tokens.

    At token l of L and frame s of S, 1 - exp(-(l / L - s / S)^2 / 2g^2), counted in the middles of both.
    """
    with torch.autocast(output.logits.device.type, enabled=False):
        weights = exact(output.weights)  # (B, L + 1, S)
        lengths, frames = batch.lengths + 1, output.listened.lengths  # (B,)
        token = torch.arange(weights.shape[1], device=weights.device) + 0.5
        frame = torch.arange(weights.shape[2], device=weights.device) + 0.5
        spoken = (token / lengths.unsqueeze(1)).unsqueeze(2)  # (B, L + 1, 1)
        heard = (frame / frames.unsqueeze(1)).unsqueeze(1)  # (B, 1, S)
        penalty = 1 - torch.exp(-((spoken - heard) ** 2) / (2 * width**2))
        real = valid_frames(lengths, weights.shape[1]).unsqueeze(2) & output.listened.valid.unsqueeze(1)
        return (weights * penalty).masked_fill(~real, 0.0).sum()


def exact(tensor: Tensor) -> Tensor:
    """In float32, or what it is in where that is more."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _cross_entropy(logits: Tensor, target: Tensor, smoothing: float, shares: Tensor | None) -> Tensor:
    """Summed over the tokens: (tokens, V), (tokens,) -> ()."""
    if shares is None:
        return functional.cross_entropy(logits, target, label_smoothing=smoothing, reduction="sum")
    right = functional.cross_entropy(logits, target, reduction="sum")
    return (1 - smoothing) * right - smoothing * (logits.log_softmax(-1) @ shares.to(logits)).sum()


def _ctc(output: Output, batch: Batch) -> tuple[Tensor, list[str]]:
    if output.ctc_logits is None:
        return exact(output.logits.new_zeros(())), []
    frames = output.listened.lengths
    fits = frames >= frames_needed(batch.tokens, batch.lengths)  # (B,)
    log_probabilities = exact(output.ctc_logits).log_softmax(-1).transpose(0, 1)  # (S, B, V)
    each = functional.ctc_loss(
        log_probabilities, batch.tokens, frames, batch.lengths, blank=BLANK, reduction="none", zero_infinity=True
    )
    pathless = [id for id, fit in zip(batch.ids, fits.tolist(), strict=True) if not fit]
    return each.masked_fill(~fits, 0.0).sum(), pathless
