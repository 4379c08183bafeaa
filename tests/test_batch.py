"""Batches of padded tensors."""

import torch

from las.batch import Batch, pad


def batch() -> Batch:
    waves, samples = pad([torch.ones(3), torch.ones(1)])
    tokens, lengths = pad([torch.tensor([7]), torch.tensor([8, 9])])
    return Batch(["하나", "b"], waves, samples, tokens, lengths)


def test_rows_are_padded_with_zeros_at_the_end():
    one = batch()
    assert one.waves.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert one.tokens.tolist() == [[7, 0], [8, 9]]
    assert (one.samples.tolist(), one.lengths.tolist()) == ([3, 1], [1, 2])
    assert one.samples.dtype == one.lengths.dtype == one.tokens.dtype == torch.int64
    assert one.waves.dtype == torch.float32


def test_an_empty_row_is_all_padding():
    padded, lengths = pad([torch.tensor([], dtype=torch.int64), torch.tensor([5])])
    assert padded.tolist() == [[0], [5]]
    assert lengths.tolist() == [0, 1]


def test_length_of_a_batch_is_its_number_of_utterances():
    assert len(batch()) == 2


def test_to_moves_every_tensor_and_keeps_the_ids():
    one = batch().to("meta")
    assert one.ids == ["하나", "b"]
    assert {tensor.device.type for tensor in (one.waves, one.samples, one.tokens, one.lengths)} == {"meta"}


def test_some_rows_are_padded_as_far_as_they_need():
    last = batch().rows(1, 2)
    assert last.ids == ["b"]
    assert last.waves.tolist() == [[1]]
    assert last.tokens.tolist() == [[8, 9]]
    first = batch().rows(0, 1)
    assert (first.waves.tolist(), first.tokens.tolist()) == ([[1, 1, 1]], [[7]])
    assert (first.samples.tolist(), first.lengths.tolist()) == ([3], [1])


def test_a_batch_may_hold_all_its_utterances_again():
    once, thrice = batch(), batch().repeated(3)
    assert thrice.ids == ["하나", "b"] * 3
    for number in range(3):
        again = thrice.rows(2 * number, 2 * number + 2)
        for name in ("waves", "samples", "tokens", "lengths"):
            assert torch.equal(getattr(again, name), getattr(once, name))
