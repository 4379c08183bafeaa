"""A product that every step of a loop takes with the same matrix: the matrix's gradient is one product after the loop.

With the few rows of a step, most of a loop's backward pass goes into making a gradient as large as the matrix at every
step and adding it up. Here a step only notes what it read and the gradient of what it gave; when autograd has all of
them behind it, they are multiplied at once. For the weights of a recurrent layer and for the frames attention reads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from las.model.lstm import pack, packed_product

MANY = 32  # steps for which it pays to bring a weight into the order that suits products of few rows
Notes = list[tuple[Tensor, Tensor]]  # what each step read, and the gradient of what it gave


class StepwiseProduct:
    """`read @ right + bias` for the steps of one pass, in the type of autocast where that is on.

    Shapes: right (N, M), bias (M,), reads (..., N) -> (..., M); or right (B, N, M), reads (B, K, N) -> (B, K, M).
    `steps` says how many of them a pass has.
    """

    def __init__(self, right: Tensor, bias: Tensor | None = None, steps: int = 1):
        device = right.device.type
        self.notes: Notes = []
        with torch.enable_grad():  # whether a step learns is for the step to say: the first may be one of a search
            if torch.is_autocast_enabled(device) and right.dtype != torch.float64:
                right = right.to(torch.get_autocast_dtype(device))
            self._right = _AllSteps.apply(right, self.notes)
            self._bias = None if bias is None else bias.to(right.dtype)
        self._many = steps >= MANY and right.dim() == 2
        self._packed: dict[bool, tuple[Tensor, bool]] = {}

    def __call__(self, read: Tensor) -> Tensor:
        result = _OneStep.apply(read.to(self._right.dtype), self._right, self)
        return result if self._bias is None else result + self._bias

    def multiply(self, read: Tensor, right: Tensor, turned: bool) -> Tensor:
        """`read @ right`, or `read @ right.T`, for the right-hand side of this pass."""
        right = right.transpose(-1, -2) if turned else right
        if not self._many:
            return read @ right
        rows = read.flatten(0, -2)
        if turned not in self._packed:
            self._packed[turned] = pack(right.t(), len(rows))
        return packed_product(rows, *self._packed[turned]).unflatten(0, read.shape[:-1])


class _OneStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, read: Tensor, right: Tensor, product: StepwiseProduct) -> Tensor:
        ctx.save_for_backward(read, right)
        ctx.product = product
        return product.multiply(read, right, turned=False)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        read, right = ctx.saved_tensors
        if ctx.needs_input_grad[1]:
            ctx.product.notes.append((read.detach(), grad))
        return ctx.product.multiply(grad, right, turned=True) if ctx.needs_input_grad[0] else None, None, None


class _AllSteps(torch.autograd.Function):
    """Hands the right-hand side to the steps; autograd comes back here when all of them are done."""

    @staticmethod
    def forward(ctx: Any, right: Tensor, notes: Notes) -> Tensor:
        ctx.notes, ctx.flat = notes, right.dim() == 2
        ctx.set_materialize_grads(False)
        return right.view_as(right)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, nothing: None) -> tuple[Tensor | None, None]:
        if not ctx.notes:
            return None, None
        read, grad = (
            torch.cat([one.flatten(0, -2) for one in part] if ctx.flat else part, dim=-2)
            for part in zip(*ctx.notes, strict=True)
        )
        ctx.notes.clear()
        return read.transpose(-1, -2) @ grad, None
