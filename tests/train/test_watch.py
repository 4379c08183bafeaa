from __future__ import annotations

import math

import pytest
import torch

from las.train.watch import Alignment, Watch, measure


def of(weights):
    return measure(weights.unsqueeze(0), torch.tensor([weights.shape[0]]), torch.tensor([weights.shape[1]]))


def peaks(places, frames=10):
    return torch.nn.functional.one_hot(torch.tensor(places), frames).float()


@pytest.mark.parametrize(
    ("places", "monotonic"),
    [
        ([0, 2, 3, 7, 9], 1.0),
        ([9, 7, 3, 2, 0], -1.0),
        ([4, 4, 4, 4, 4], 0.0),  # stuck
        ([0, 1, 1, 2, 2], 0.5),  # two tokens a frame
        ([0, 9, 0, 9, 0], 0.0),  # to and fro
        ([3], 0.0),
    ],
)
def test_monotonic_is_what_goes_forward(places, monotonic):
    assert of(peaks(places)) == Alignment(monotonic, 1.0)


def test_sharp_is_between_one_frame_and_all():
    assert of(torch.full((3, 8), 1 / 8)).sharp == pytest.approx(0, abs=1e-6)
    two = torch.zeros(1, 8)
    two[0, 2:4] = 0.5
    assert of(two).sharp == pytest.approx(1 - math.log(2) / math.log(8))
    assert of(two / 4).sharp == pytest.approx(1 - math.log(2) / math.log(8))  # rows that sum to less than 1
    assert of(torch.ones(2, 1)).sharp == 1


def test_padding_is_not_looked_at():
    """A batch gives the mean over its tokens and steps, whatever stands in its padding."""
    torch.manual_seed(0)
    short, long = peaks([0, 3], 4), torch.rand(6, 9).softmax(-1)
    padded = torch.rand(2, 6, 9)
    padded[0, :2, :4], padded[1] = short, long
    both = measure(padded, torch.tensor([2, 6]), torch.tensor([4, 9]))
    assert both.monotonic == pytest.approx((of(short).monotonic * 1 + of(long).monotonic * 5) / 6)
    assert both.sharp == pytest.approx((of(short).sharp * 2 + of(long).sharp * 6) / 8, abs=1e-6)


def test_where_no_frame_has_weight_there_is_nothing_to_measure():
    assert of(torch.zeros(3, 4)) is None
    assert measure(torch.zeros(()), torch.tensor([1]), torch.tensor([1])) is None
    assert measure(torch.rand(1, 3, 4), torch.tensor([0]), torch.tensor([4])) is None  # no tokens


def test_the_running_mean_begins_with_the_mean():
    watch = Watch()
    for sharp in (0.2, 0.4, 0.9):
        watch.take_in(Alignment(0.5, sharp))
    watch.take_in(None)
    assert (watch.sharp, watch.batches) == (pytest.approx(0.5), 3)
    for _ in range(200):
        watch.take_in(Alignment(0.5, 0.1))
    assert watch.sharp == pytest.approx(0.1)


def test_advice_comes_once_and_never_after_alignment():
    lost, good = Alignment(0.1, 0.1), Alignment(0.9, 0.9)
    watch = Watch()
    assert watch.advice(lost, 99, 100) is None
    assert "not aligned after 100 updates (monotonic 0.10, sharp 0.10; aligned" in watch.advice(lost, 100, 100)
    assert watch.advice(lost, 200, 100) is None
    watch = Watch()
    assert watch.advice(good, 50, 100) is None
    assert watch.advice(lost, 200, 100) is None
    watch = Watch()  # the fixed utterance is a hard one, the training batches are aligned
    watch.take_in(good)
    assert watch.advice(lost, 200, 100) is None
    assert Watch().advice(lost, 200, 0) is None
    assert Watch().advice(None, 200, 100) is None
