"""Two passes over the same utterances, each with its own masks and dropout -> how far apart what they say is.

Consistency regularisation: of the CTC branch after Yao et al. 2025, CR-CTC (arXiv:2410.05101), section 3; of the
speller after Liang et al. 2021, R-Drop (arXiv:2106.14448), eq. 2. A recording that is known by heart is known by few
of its frames; that all are to say the same, whatever is hidden of them, keeps few speakers from being learnt so.
Another speed is another voice, too: tempo and pitch change together.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from las.batch import Batch, pad
from las.data.augment import change_speed
from las.model.las import Output
from las.model.masking import valid_frames
from las.train.objectives import exact


@dataclass(frozen=True)
class Disagreement:
    """Half the Kullback-Leibler divergence there and back, each with the other pass as a fixed target."""

    speller: Tensor  # (), summed over the tokens and ends of sentence
    ctc: Tensor  # (), summed over the listener's frames


def two_passes(batch: Batch, speeds: Sequence[float], rate: int, *seeds: object) -> Batch:
    """All utterances and then all of them again, each time at a speed that the seeds draw, if there are any."""
    if not speeds:
        return batch.repeated(2)
    chance = random.Random(repr(seeds))
    drawn = [chance.choice(speeds) for _ in range(2)]
    own = [wave[:length] for wave, length in zip(batch.waves, batch.samples.tolist(), strict=True)]
    waves, samples = pad([change_speed(wave, speed, rate) for speed in drawn for wave in own])
    return Batch(batch.ids * 2, waves, samples, batch.tokens.repeat(2, 1), batch.lengths.repeat(2))


def disagreement(output: Output, batch: Batch) -> Disagreement:
    """Of a batch that holds all its utterances and then all of them again; of CTC where both have the same frames."""
    half = len(batch) // 2
    with torch.autocast(output.logits.device.type, enabled=False):
        real = valid_frames(batch.lengths[:half] + 1, output.logits.shape[1])  # (B / 2, L + 1)
        speller = _divergence(output.logits, real)
        own, again = output.listened.lengths.chunk(2)
        if output.ctc_logits is None or not torch.equal(own, again):
            return Disagreement(speller, torch.zeros_like(speller))
        return Disagreement(speller, _divergence(output.ctc_logits, output.listened.valid[:half]))


def _divergence(logits: Tensor, real: Tensor) -> Tensor:
    """Logits (2B, L, V) of both passes, real (B, L) bool -> ()."""
    one, other = (exact(part[real]).log_softmax(-1) for part in logits.chunk(2))
    there = functional.kl_div(one, other.detach(), log_target=True, reduction="sum")
    back = functional.kl_div(other, one.detach(), log_target=True, reduction="sum")
    return (there + back) / 2
