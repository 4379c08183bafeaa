from __future__ import annotations

import pytest
import torch

from las.errors import UserError
from las.train.optim import OptimizerConfig, build_optimizer, rate_at


def rates(updates=100, **settings):
    config = OptimizerConfig(rate=1.0, **settings)
    return [rate_at(update, updates, config) for update in range(updates)]


def test_the_rate_rises_to_its_highest_over_the_warmup():
    assert rates(warmup=4, decay="none")[:6] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert rates(warmup=0)[0] == 1.0


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_it_falls_from_there_to_its_final_share(decay):
    found = rates(warmup=10, decay=decay, final=0.1)
    assert found[10:] == sorted(found[10:], reverse=True)
    assert found[-1] == pytest.approx(0.1, abs=0.011)
    assert found[55] == pytest.approx(0.55)  # half way
    assert rate_at(10_000, 100, OptimizerConfig(rate=1.0, decay=decay, final=0.1)) == pytest.approx(0.1)


def test_without_decay_it_stays():
    assert set(rates(warmup=0, decay="none")) == {1.0}


def test_a_warmup_longer_than_the_run_only_rises():
    found = rates(updates=10, warmup=500)
    assert found == sorted(found)
    assert found[-1] == 10 / 500


def test_matrices_decay_and_vectors_do_not():
    model = torch.nn.Linear(3, 2)
    optimizer = build_optimizer(model, OptimizerConfig(rate=0.1, weight_decay=0.5))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for value in model.parameters():
        value.grad = torch.zeros_like(value)
    optimizer.step()
    assert torch.allclose(model.weight, before["weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(model.bias, before["bias"])


def test_frozen_parameters_are_left_alone():
    model = torch.nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerConfig())
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": "cosin"}, "optimizer.decay 'cosin': wanted one of cosine, linear, none"),
        ({"rate": 0.0}, "rate must be above 0"),
        ({"warmup": -1}, "warmup and clip 0 or more"),
        ({"clip": -1.0}, "warmup and clip 0 or more"),
        ({"momentum": 1.0}, "momentum and memory must be at least 0 and below 1"),
        ({"memory": 1.5}, "momentum and memory must be at least 0 and below 1"),
        ({"weight_decay": -0.1}, "weight_decay must be 0 or more"),
        ({"final": 2.0}, "final between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        OptimizerConfig(**settings)
