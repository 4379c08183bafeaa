"""A model of one weight, whose gradient one sees by eye, on a machine without memory."""

from __future__ import annotations

import pytest
import torch

from las.batch import Batch, pad
from las.train.pieces import in_pieces, is_out_of_memory

CPU = torch.device("cpu")


def batch(*lengths: int) -> Batch:
    """Utterances of ones, as long as this, with as many tokens; called by their place."""
    waves, samples = pad([torch.ones(length) for length in lengths])
    tokens, counts = pad([torch.full((length,), 7) for length in lengths])
    return Batch([str(place) for place in range(len(lengths))], waves, samples, tokens, counts)


def work_with(weight, room, late=False):
    """What adds the sum of a batch to the gradient; above `room` samples, padding counted, memory runs out."""

    def work(one: Batch) -> float:
        drawn = torch.rand(()).item()
        too_much = one.waves.numel() > room
        if too_much and not late:
            torch.empty(10**15)
        (weight * one.waves.sum()).backward()
        if too_much:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return drawn

    return work


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("start", [None, 100.0])
def test_the_gradients_of_pieces_add_up_to_that_of_the_batch(start, late):
    weight = torch.nn.Parameter(torch.zeros(()))
    weight.grad = start if start is None else torch.tensor(start)
    unused = torch.nn.Parameter(torch.zeros(()))
    found = in_pieces(batch(2, 3, 4, 5, 6), work_with(weight, 12, late), [weight, unused], CPU)
    assert weight.grad == 20 + (start or 0)
    assert unused.grad is None
    assert [one.ids for one, _ in found.done] == [["0", "1"], ["2"], ["3", "4"]]
    assert [one.ids for one in found.split] == [["0", "1", "2", "3", "4"], ["2", "3", "4"]]
    assert found.left == []
    assert [one.waves.numel() for one, _ in found.done] == [6, 4, 12]


def test_a_batch_that_fits_is_worked_through_at_once():
    weight = torch.nn.Parameter(torch.zeros(()))
    found = in_pieces(batch(2, 3), work_with(weight, 6), [weight], CPU)
    assert ([one.ids for one, _ in found.done], found.split, found.left) == ([["0", "1"]], [], [])


def test_an_utterance_that_does_not_fit_alone_is_left():
    weight = torch.nn.Parameter(torch.zeros(()))
    found = in_pieces(batch(2, 3, 9), work_with(weight, 6), [weight], CPU)
    assert [one.ids for one in found.left] == [["2"]]
    assert weight.grad == 5
    nothing = in_pieces(batch(9), work_with(weight, 6), [weight], CPU)
    assert (nothing.done, nothing.split, [one.ids for one in nothing.left]) == ([], [], [["0"]])
    assert weight.grad == 5


def test_what_is_drawn_does_not_hang_on_how_far_an_attempt_came():
    drawn = []
    for late in (False, True):
        torch.manual_seed(3)
        weight = torch.nn.Parameter(torch.zeros(()))
        found = in_pieces(batch(2, 3, 4, 5), work_with(weight, 7, late), [weight], CPU)
        drawn.append([one for _, one in found.done])
    torch.manual_seed(3)
    assert drawn[0] == drawn[1] == torch.rand(3).tolist()


def test_other_errors_are_not_taken_for_it():
    def work(_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        in_pieces(batch(2, 3), work, [], CPU)


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("expected scalar type Float"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_how_it_is_known(error, answer):
    assert is_out_of_memory(error) is answer
