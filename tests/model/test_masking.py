"""Which frames are real."""

import torch

from las.model.masking import valid_frames


def test_by_eye():
    assert valid_frames(torch.tensor([2, 0, 3]), 4).int().tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]]


def test_as_many_as_the_lengths_say():
    lengths = torch.arange(10)
    assert torch.equal(valid_frames(lengths, 9).sum(1), lengths)


def test_no_utterances():
    assert valid_frames(torch.zeros(0, dtype=torch.int64), 3).shape == (0, 3)
