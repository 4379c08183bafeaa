from __future__ import annotations

import pytest
import torch

from las.train.noise import weight_noise


def test_noise_has_its_deviation_and_leaves_no_trace():
    torch.manual_seed(0)
    model = torch.nn.Linear(100, 100)
    model.bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with weight_noise(model, 0.05):
        change = model.weight.detach() - before["weight"]
        assert change.std().item() == pytest.approx(0.05, rel=0.05)
        assert change.mean().item() == pytest.approx(0, abs=0.002)
        assert torch.equal(model.bias, before["bias"])  # frozen
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_noise_is_taken_away_after_an_error():
    model = torch.nn.Linear(2, 2)
    before = model.weight.detach().clone()
    with pytest.raises(KeyboardInterrupt), weight_noise(model, 1.0):
        raise KeyboardInterrupt
    assert torch.equal(model.weight, before)


def test_the_gradient_is_that_of_the_noisy_weights():
    model = torch.nn.Linear(1, 1, bias=False)
    with weight_noise(model, 1.0):
        noisy = model.weight.item()
        model(torch.ones(1, 1)).square().sum().backward()
    assert model.weight.grad.item() == pytest.approx(2 * noisy)


def test_no_noise_draws_no_chance():
    model, before = torch.nn.Linear(1, 1), torch.get_rng_state()
    with weight_noise(model, 0.0):
        pass
    assert torch.equal(torch.get_rng_state(), before)
