from __future__ import annotations

import torch

from las.train.averaging import MovingAverage


def line(value=0.0):
    model = torch.nn.Linear(1, 1)
    for weight in model.parameters():
        torch.nn.init.constant_(weight, value)
    return model


def test_it_is_the_sum_one_writes_by_hand():
    model, by_hand = line(1.0), 1.0
    moving = MovingAverage(model, 0.5)
    for update, value in enumerate([2.0, 4.0, -1.0, 0.5, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]):
        torch.nn.init.constant_(model.weight, value)
        moving.take_in(model)
        decay = min(0.5, (1 + update) / (10 + update))
        by_hand = decay * by_hand + (1 - decay) * value
    assert torch.allclose(moving.weights["weight"], torch.tensor(by_hand))


def test_weights_that_stand_still_are_their_own_average():
    model = line(0.3)
    moving = MovingAverage(model, 0.999)
    for _ in range(50):
        moving.take_in(model)
    assert torch.equal(moving.weights["weight"], model.weight)


def test_it_is_in_place_only_within():
    model = line(1.0)
    moving = MovingAverage(model, 0.9)
    torch.nn.init.constant_(model.weight, 7.0)
    before = model.weight.detach().clone()
    try:
        with moving.in_place(model):
            assert model.weight.item() == 1.0
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert torch.equal(model.weight, before)


def test_without_decay_and_for_frozen_weights_it_holds_nothing():
    model = line(1.0)
    assert MovingAverage(model, 0.0).weights == {}
    model.bias.requires_grad_(False)
    assert list(MovingAverage(model, 0.9).weights) == ["weight"]


def test_restored_it_goes_on_to_the_bit():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 3)
    one, other = MovingAverage(model, 0.9), MovingAverage(torch.nn.Linear(3, 3), 0.9)
    for update in range(20):
        torch.nn.init.normal_(model.weight)
        if update == 10:
            other.restore(one.state())
        one.take_in(model)
        if update >= 10:
            other.take_in(model)
    assert torch.equal(one.weights["weight"], other.weights["weight"])
