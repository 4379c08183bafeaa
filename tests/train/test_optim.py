from __future__ import annotations

import itertools
import math

import pytest
import torch

from las.errors import UserError
from las.train.optim import OptimizerConfig, Plateau, build_optimizer, rate_at


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


def test_ramp_hold_and_exponential_decay_are_those_of_spec_augment():
    """Park et al. 2019: up to s_r, constant to s_i, down to 1/100 at s_f by a constant factor, constant after it."""
    found = rates(updates=60, warmup=5, hold=10, decay="exponential", until=35, final=0.01)
    assert found[4:16] == [1.0] * 12
    assert found[25] == pytest.approx(0.1)  # half way from 15 to 35
    assert found[35:] == pytest.approx([0.01] * 25)
    factors = [after / before for before, after in itertools.pairwise(found[15:36])]
    assert factors == pytest.approx([factors[0]] * 20)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_the_other_curves_hold_and_end_too(decay):
    found = rates(warmup=5, hold=10, decay=decay, until=35, final=0.1)
    assert found[4:16] == [1.0] * 12
    assert found[25] == pytest.approx(0.55)
    assert found[35:] == pytest.approx([0.1] * 65)


def test_noam_is_the_formula_of_the_transformer():
    warmup = 20
    formula = [min((update + 1) ** -0.5, (update + 1) * warmup**-1.5) for update in range(100)]
    found = rates(warmup=warmup, decay="noam")
    assert found == pytest.approx([value * warmup**0.5 for value in formula])  # 1 at its highest
    assert max(found) == found[warmup - 1] == 1.0
    assert rates(warmup=0, decay="noam")[3] == 0.5


def test_a_plateau_lowers_the_rate_after_patience():
    config = OptimizerConfig(decay="plateau", patience=2, plateau_factor=0.5, final=0.2)
    plateau = Plateau()
    found = [plateau.validated(rate, 1.0, config) for rate in (0.9, 0.8, 0.85, 0.8, 0.8, 0.7, 0.7, 0.7, 0.7, 0.7)]
    assert found == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2]  # never below final
    assert set(rates(warmup=0, decay="plateau")) == {1.0}


def test_a_lower_loss_is_a_new_best_where_the_error_rate_stays():
    config = OptimizerConfig(decay="plateau", patience=1)
    plateau = Plateau()
    assert [plateau.validated(1.0, loss, config) for loss in (3.0, 2.5, 2.0)] == [1.0, 1.0, 1.0]


def test_other_decays_look_at_no_validation():
    plateau = Plateau()
    assert [plateau.validated(0.5, 1.0, OptimizerConfig()) for _ in range(9)] == [1.0] * 9


def test_adadelta_steps_as_zeiler_wrote():
    model = torch.nn.Linear(1, 1, bias=False)
    config = OptimizerConfig(kind="adadelta", rate=1.0, memory=0.9, epsilon=1e-6, weight_decay=0.0)
    optimizer = build_optimizer(model, config)
    weight, gradients, steps = model.weight.item(), 0.0, 0.0
    for gradient in (0.5, -2.0, 0.1):
        model.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        gradients = 0.9 * gradients + 0.1 * gradient**2
        step = (steps + 1e-6) ** 0.5 / (gradients + 1e-6) ** 0.5 * gradient
        steps = 0.9 * steps + 0.1 * step**2
        weight -= step
    assert model.weight.item() == pytest.approx(weight, rel=1e-5)


def test_adamw_steps_as_loshchilov_and_hutter_wrote():
    """Algorithm 2, three steps of one weight with its gradients given; the decay passes the moments by."""
    model = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.constant_(model.weight, 2.0)
    config = OptimizerConfig(rate=0.1, weight_decay=0.5, momentum=0.8, memory=0.9, epsilon=1e-3)
    optimizer = build_optimizer(model, config)
    weight, first, second = 2.0, 0.0, 0.0
    for step, gradient in enumerate((1.0, -3.0, 0.5), start=1):
        model.weight.grad = torch.full((1, 1), gradient, dtype=torch.float64)
        optimizer.step()
        first, second = 0.8 * first + 0.2 * gradient, 0.9 * second + 0.1 * gradient**2
        mean, square = first / (1 - 0.8**step), second / (1 - 0.9**step)
        weight -= 0.1 * (mean / (math.sqrt(square) + 1e-3) + 0.5 * weight)
        assert model.weight.item() == pytest.approx(weight, rel=1e-9)


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
        ({"decay": "cosin"}, "optimizer.decay 'cosin': wanted one of cosine, linear, exponential, noam, plateau, none"),
        ({"kind": "adam"}, "optimizer.kind 'adam': wanted one of adamw, adadelta"),
        ({"hold": -1}, "warmup, clip, hold and until 0 or more"),
        ({"epsilon": 0.0}, "rate and epsilon must be above 0"),
        ({"decay": "exponential", "final": 0.0}, "an exponential decay never reaches a final of 0; give a final above"),
        ({"until": 500}, "optimizer.until 500: the rate only begins to fall at 500"),
        ({"patience": 0}, "patience must be at least 1, plateau_factor between 0 and 1"),
        ({"plateau_factor": 1.0}, "patience must be at least 1, plateau_factor between 0 and 1"),
        ({"rate": 0.0}, "rate and epsilon must be above 0"),
        ({"warmup": -1}, "warmup, clip, hold and until 0 or more"),
        ({"clip": -1.0}, "warmup, clip, hold and until 0 or more"),
        ({"momentum": 1.0}, "momentum and memory must be at least 0 and below 1"),
        ({"memory": 1.5}, "momentum and memory must be at least 0 and below 1"),
        ({"weight_decay": -0.1}, "weight_decay must be 0 or more"),
        ({"final": 2.0}, "final between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        OptimizerConfig(**settings)
