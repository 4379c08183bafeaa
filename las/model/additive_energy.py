"""Keys and queries -> the energies of additive attention, e = w . tanh(W s + V h + ...), by sigmoids.

The energies of an utterance come out larger by one number, the sum of w, which the softmax does not see: without it
tanh x = 2 sigmoid(2 x) - 1 is a sigmoid, which costs a tenth of a tanh (torch 2.11 on a CPU; tools/README.md).
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor

CACHED = 1 << 20  # numbers that energies are made of at a time, on a CPU


def squash(mixed: Tensor) -> Tensor:
    """(tanh x + 1) / 2, in the memory of x."""
    return mixed.mul_(2).sigmoid_()


def energies(
    keys: Tensor, query: Tensor, energy: Tensor, seen: Tensor | None = None, place: Tensor | None = None
) -> Tensor:
    """The energies (B, Q, S) of keys (B, S, A) and queries (B, Q, A), with w (1, A).

    `seen` (B, Q, S, C) is what else is known of each frame, such as how much of it was read, and `place` (A, C) is its
    matrix: w . tanh(query + key + place seen).
    """
    return _Energies.apply(seen, keys, query, place, energy, torch.is_grad_enabled())


class _Energies(torch.autograd.Function):
    """`energies` and their gradient, written out.

    All sigmoids are kept for the gradient; where none is wanted, on a CPU, one utterance and a stretch of its frames
    at a time use the same memory, which then stays in the cache.
    """

    @staticmethod
    def forward(
        ctx: Any, seen: Tensor | None, keys: Tensor, query: Tensor, place: Tensor | None, energy: Tensor, keep: bool
    ) -> Tensor:
        (batch, asked, width), frames = query.shape, keys.shape[1]
        whole = keep or keys.device.type != "cpu"
        step, stretch = (batch, frames) if whole else (1, max(1, CACHED // (asked * width)))
        room = keys.new_empty(step * asked * min(stretch, frames) * width)
        energy = energy.to(keys.dtype)
        place = None if place is None else place.to(keys.dtype)
        found = keys.new_empty(batch, asked, frames)
        for first, begin in product(range(0, batch, step), range(0, frames, stretch)):
            part, span = slice(first, first + step), slice(begin, begin + stretch)
            count = min(stretch, frames - begin)
            mixed = room[: step * asked * count * width].view(step, asked, count, width)
            torch.add(keys[part, span].unsqueeze(1), query[part].unsqueeze(2), out=mixed)
            rows = mixed.view(-1, width)
            if seen is None or place is None:
                squash(rows)
            else:
                rows.addmm_(seen[part, :, span].reshape(len(rows), -1), place.t(), beta=2.0, alpha=2.0).sigmoid_()
            found[part, :, span] = torch.mv(rows, 2 * energy[0]).view(step, asked, -1)
        if keep:
            ctx.save_for_backward(seen, rows, place, energy)
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        seen, squashed, place, energy = ctx.saved_tensors
        slopes = grad.reshape(-1, 1) @ (4 * energy)  # (B * Q * S, A)
        torch.ops.aten.sigmoid_backward(slopes, squashed, grad_input=slopes)
        mixed = slopes.view(*grad.shape, -1)  # (B, Q, S, A)
        return (
            None if seen is None else (slopes @ place).view(seen.shape),
            mixed.sum(1) if mixed.shape[1] > 1 else mixed.squeeze(1),  # the sum of one thing is slow
            mixed.sum(2),
            None if seen is None else (seen.reshape(len(slopes), -1).t() @ slopes).t(),
            2 * (grad.reshape(1, -1) @ squashed),
            None,
        )
