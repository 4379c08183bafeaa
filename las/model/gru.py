"""A bidirectional GRU over padded utterances: frames (B, T, F) -> (B, T, 2 * width), exactly 0 at padding.

Cho et al. 2014 (arXiv:1406.1078), section 2.3, as torch has it; stands where `las.model.lstm.BiLSTM` stands.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class BiGRU(nn.Module):
    """One layer of both directions; the backward one starts at each utterance's own last frame.

    Shapes: frames (B, T, F), lengths (B,), each from 1 to T -> (B, T, 2 * width). Padding is 0 and has no influence.
    """

    def __init__(self, input_size: int, width: int):
        super().__init__()
        self.gru = nn.GRU(input_size, width, batch_first=True, bidirectional=True)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(frames, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=frames.shape[1])[0]
