"""A CTC branch beside the speller: listened frames -> a token or blank for every frame.

Graves et al. 2006; joint training with attention after Kim et al. 2017 (arXiv:1609.06773).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BLANK = 0  # the token id that stands for "nothing new"; SentencePiece's padding id (las/text/tokenizer.py)


class CtcBranch(nn.Module):
    """Listened frames (B, S, H) -> logits (B, S, V)."""

    def __init__(self, frame_width: int, vocabulary: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(frame_width, vocabulary)

    def forward(self, frames: Tensor) -> Tensor:
        return self.output(self.dropout(frames))


def frames_needed(tokens: Tensor, lengths: Tensor) -> Tensor:
    """Listener frames that a CTC path of each utterance takes: its tokens and a blank between equal neighbours.

    Shapes: (B, L), (B,) -> (B,).

    >>> frames_needed(torch.tensor([[5, 5, 6]]), torch.tensor([3]))
    tensor([4])
    """
    place = torch.arange(tokens.shape[1], device=tokens.device)[1:]
    repeats = (tokens[:, 1:] == tokens[:, :-1]) & (place < lengths.unsqueeze(1))
    return lengths + repeats.sum(1)


def ctc_greedy(logits: Tensor, frames: Tensor) -> list[list[int]]:
    """The best token of each frame, repeats joined, blanks dropped: (B, S, V), (B,) -> token ids of each utterance."""
    best = logits.argmax(-1)
    return [
        [token for token in torch.unique_consecutive(row[:length]).tolist() if token != BLANK]
        for row, length in zip(best, frames.tolist(), strict=True)
    ]
