"""The stepwise product against the plain one."""

import pytest
import torch
from torch import Tensor

from las.model.stepwise import MANY, StepwiseProduct

STEPS = 3


def gradients(product, reads: list[Tensor], learned: list[Tensor]) -> tuple[Tensor, ...]:
    """Of a loop in which every step reads what the one before gave, too."""
    last, total = torch.zeros(()), torch.zeros(())
    for read in reads:
        last = product(read + last.sum()).tanh()
        total = total + last.square().sum()
    return torch.autograd.grad(total, learned + reads)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("steps", [STEPS, MANY])
@pytest.mark.parametrize(
    ("right_shape", "read_shape"), [((3, 5), (2, 4, 3)), ((3, 5), (2, 1, 3)), ((2, 3, 5), (2, 4, 3))]
)
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_gradients_are_those_of_plain_products(right_shape, read_shape, dtype, near, steps, biased):
    torch.manual_seed(0)
    right = torch.randn(right_shape, dtype=dtype, requires_grad=True)
    bias = torch.randn(5, dtype=dtype, requires_grad=True)
    reads = [torch.randn(read_shape, dtype=dtype, requires_grad=True) for _ in range(STEPS)]
    learned = [right, bias] if biased else [right]
    ours = gradients(StepwiseProduct(right, bias if biased else None, steps), reads, learned)
    plain = gradients(lambda read: read @ right + (bias if biased else 0.0), reads, learned)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=near, atol=near)


@pytest.mark.parametrize("steps", [STEPS, MANY])
def test_under_autocast_it_is_a_product_in_bfloat16(steps):
    torch.manual_seed(0)
    right, read = torch.randn(30, 50, requires_grad=True), torch.randn(4, 1, 30)
    with torch.autocast("cpu", torch.bfloat16):
        ours, plain = StepwiseProduct(right, None, steps)(read), read @ right
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours, plain, rtol=0.01, atol=0.01)
    of_ours, of_plain = (torch.autograd.grad(result.float().sum(), right)[0] for result in (ours, plain))
    assert of_ours.dtype == torch.float32
    torch.testing.assert_close(of_ours, of_plain, rtol=0.01, atol=0.01)


def test_what_is_backed_through_twice_gives_the_same_twice():
    right = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    product = StepwiseProduct(right)
    total = (product(torch.ones(2, 3, dtype=torch.float64)) + product(torch.ones(1, 3, dtype=torch.float64))).sum()
    first, second = (torch.autograd.grad(total, right, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, torch.full((3, 5), 4.0, dtype=torch.float64))
    assert torch.equal(first, second)


def test_an_unused_product_leaves_no_gradient():
    right = torch.randn(3, 5, requires_grad=True)
    read = torch.randn(2, 3, requires_grad=True)
    StepwiseProduct(right)
    with torch.no_grad():
        StepwiseProduct(right)(read)
    (right.sum() + read.sum()).backward()
    assert torch.equal(right.grad, torch.ones(3, 5))


@pytest.mark.parametrize("autocast", [False, True])
def test_what_was_made_without_gradients_learns_in_later_steps(autocast):
    """As the memory of frames that were searched first and then trained on."""
    right = torch.randn(2, 3, 5, requires_grad=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        product = StepwiseProduct(right)
        assert not product(torch.ones(2, 1, 3)).requires_grad
    product(torch.ones(2, 1, 3)).float().sum().backward()
    assert torch.equal(right.grad, torch.ones(2, 3, 5))


def test_frames_that_do_not_learn_pass_the_gradient_on():
    right, read = torch.randn(2, 3, 5), torch.randn(2, 1, 3, requires_grad=True)
    product = StepwiseProduct(right)
    product(read).sum().backward()
    torch.testing.assert_close(read.grad, right.sum(2).unsqueeze(1))
    assert product.notes == []
