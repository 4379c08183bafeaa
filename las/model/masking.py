"""Which frames of a padded batch are real."""

from __future__ import annotations

import torch
from torch import Tensor


def valid_frames(lengths: Tensor, longest: int) -> Tensor:
    """True where a frame lies within its utterance: (B,) -> (B, longest) bool.

    >>> valid_frames(torch.tensor([1, 3]), 3)
    tensor([[ True, False, False],
            [ True,  True,  True]])
    """
    return torch.arange(longest, device=lengths.device) < lengths.unsqueeze(1)
