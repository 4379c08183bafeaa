"""What training makes small: the speller's cross-entropy and the CTC loss, both in float32.

The objective is the mean over tokens of (1 - w) * cross-entropy + w * CTC (Kim et al. 2017, arXiv:1609.06773, eq. 11),
whose first part is minus the log-likelihood of Chan et al. 2015, eq. 12, with label smoothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from las.batch import Batch
from las.errors import UserError
from las.model.ctc import BLANK, frames_needed
from las.model.las import Output
from las.model.masking import valid_frames


@dataclass(frozen=True)
class ObjectiveConfig:
    """The parts of the loss."""

    ctc_weight: float = 0.3  # w, share of the CTC loss; the rest is the speller's
    label_smoothing: float = 0.1  # share of the target given to all tokens alike

    def __post_init__(self) -> None:
        if not 0 <= self.ctc_weight <= 1 or not 0 <= self.label_smoothing < 1:
            raise UserError("objective: ctc_weight must be between 0 and 1, label_smoothing at least 0 and below 1")


@dataclass(frozen=True)
class Losses:
    """Sums over a batch, so that they add up over batches."""

    speller: Tensor  # (), cross-entropy summed over the tokens and ends of sentence
    ctc: Tensor  # (), CTC loss summed over the utterances that have a path
    tokens: int  # ends of sentence included
    correct: Tensor  # (), next tokens that the speller finds most likely
    pathless: list[str]  # ids of utterances with fewer listener frames than a CTC path takes; their CTC weight is 0


def losses(output: Output, batch: Batch, end: int, smoothing: float) -> Losses:
    """Compare a model's output with the transcripts; `end` is the token id that ends a sentence."""
    with torch.autocast(output.logits.device.type, enabled=False):
        place = torch.arange(batch.tokens.shape[1] + 1, device=batch.tokens.device)
        target = functional.pad(batch.tokens, (0, 1)).masked_fill(place == batch.lengths.unsqueeze(1), end)  # (B, L+1)
        real = valid_frames(batch.lengths + 1, target.shape[1])  # (B, L+1)
        logits = output.logits.float()[real]  # (tokens, V)
        target = target[real]
        speller = functional.cross_entropy(logits, target, label_smoothing=smoothing, reduction="sum")
        correct = (logits.argmax(-1) == target).sum()
        ctc, pathless = _ctc(output, batch)
    return Losses(speller, ctc, len(target), correct, pathless)


def _ctc(output: Output, batch: Batch) -> tuple[Tensor, list[str]]:
    if output.ctc_logits is None:
        return output.logits.new_zeros(()).float(), []
    frames = output.listened.lengths
    fits = frames >= frames_needed(batch.tokens, batch.lengths)  # (B,)
    log_probabilities = output.ctc_logits.float().log_softmax(-1).transpose(0, 1)  # (S, B, V)
    each = functional.ctc_loss(
        log_probabilities, batch.tokens, frames, batch.lengths, blank=BLANK, reduction="none", zero_infinity=True
    )
    pathless = [id for id, fit in zip(batch.ids, fits.tolist(), strict=True) if not fit]
    return each.masked_fill(~fits, 0.0).sum(), pathless
