"""The tensors that data and model both know. Dimension letters: `las/model/las.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Some utterances, padded with zeros at the end. `tokens` hold neither begin nor end of sentence."""

    ids: list[str]  # B utterance ids
    waves: Tensor  # (B, N) float32 in [-1, 1]
    samples: Tensor  # (B,) int64, samples of each wave
    tokens: Tensor  # (B, L) int64
    lengths: Tensor  # (B,) int64, tokens of each utterance

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`."""
        tensors = {name: getattr(self, name).to(device) for name in ("waves", "samples", "tokens", "lengths")}
        return replace(self, **tensors)

    def rows(self, start: int, end: int) -> Batch:
        """The utterances from `start` to before `end`, padded only as far as the longest of these."""
        samples, lengths = self.samples[start:end], self.lengths[start:end]
        waves = self.waves[start:end, : int(samples.max())]
        return Batch(self.ids[start:end], waves, samples, self.tokens[start:end, : int(lengths.max())], lengths)

    def repeated(self, times: int) -> Batch:
        """All utterances, all of them again, and so on."""
        tensors = (self.waves, self.samples, self.tokens, self.lengths)
        return Batch(self.ids * times, *(torch.cat([one] * times) for one in tensors))


def pad(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack 1-D tensors of unequal length: (B, longest) padded with zeros, and their lengths (B,).

    >>> pad([torch.tensor([1, 2]), torch.tensor([3])])
    (tensor([[1, 2],
            [3, 0]]), tensor([2, 1]))
    """
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths
