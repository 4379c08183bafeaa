"""One layer of a forward LSTM, (B, T, input) -> (B, T, width), for training in bf16 on a CPU.

Hochreiter & Schmidhuber 1997, with the loops of `las/model/lstm.py`, which says how and why they are as they are. That
file gives each direction a thread and a core; here each half of the batch gets one. Padding may follow a sequence: what
comes later changes nothing before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from las.model import lstm as loops


def one_way(layer: nn.LSTM, frames: Tensor) -> Tensor:
    """Outputs of a layer from a state of zeros: torch's own, but for training under bf16 autocast on a CPU."""
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    own = autocast and frames.device.type == "cpu" and torch.is_grad_enabled() and torch.backends.mkldnn.is_available()
    if not own:
        return layer(frames)[0]
    return OneWayLoops.apply(frames.float(), *(value.float() for value in layer.parameters()))


class OneWayLoops(torch.autograd.Function):
    """The layer written out: matrix products in bf16, all else in fp32."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, *weights: Tensor) -> Tensor:
        input_weight, hidden_weight, input_bias, hidden_bias = weights
        batch, time, size = frames.shape
        width = hidden_weight.shape[1]
        read = frames.new_empty((time, batch, size), dtype=torch.bfloat16).copy_(frames.transpose(0, 1))
        bias = loops.double_new(input_bias + hidden_bias).bfloat16()
        shares = nn.functional.linear(read, loops.double_new(input_weight).bfloat16(), bias)
        shares = shares.view(time, batch, 4, width).transpose(1, 2)  # (T, 4, B, width)
        output = frames.new_empty((batch, time, width))
        parts = _parts(batch)

        def run(number: int) -> tuple[Tensor, ...]:
            part = parts[number]
            rows = part.stop - part.start
            gates = frames.new_empty((time, 4, rows, width)).copy_(shares[:, :, part])
            cells = frames.new_empty((time + 1, rows, width))
            hidden = frames.new_empty((time + 1, rows, width), dtype=torch.bfloat16)
            cells[0].zero_()
            hidden[0].zero_()
            weight, packed = loops.pack(loops.double_new(hidden_weight).bfloat16(), rows)
            loops.forward_loop(gates, cells, hidden, output[part], weight, packed, False)
            return gates, cells, hidden

        states = _side_by_side(run, len(parts))
        ctx.save_for_backward(read, input_weight, hidden_weight, *(one for state in states for one in state))
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        read, input_weight, hidden_weight, *saved = ctx.saved_tensors
        time, batch, size = read.shape
        width = hidden_weight.shape[1]
        parts = _parts(batch)
        states = [saved[3 * number : 3 * number + 3] for number in range(len(parts))]

        def run(number: int) -> Tensor:
            gates, cells, _ = states[number]
            part = parts[number]
            slopes = read.new_empty((time, part.stop - part.start, 4 * width))
            weight, packed = loops.pack(hidden_weight.t().bfloat16(), part.stop - part.start)
            loops.backward_loop(gates, cells, grad[part], slopes, weight, packed, False, loops.SPAN)
            return slopes

        found = _side_by_side(run, len(parts))
        hidden_grad = sum(
            slopes.flatten(0, 1).t() @ hidden[:-1].flatten(0, 1)
            for slopes, (_, _, hidden) in zip(found, states, strict=True)
        )
        slopes = torch.cat(found, dim=1).flatten(0, 1)  # (T * B, 4 * width)
        bias = slopes.sum(0).to(grad.dtype)
        weight_grad = (slopes.t() @ read.flatten(0, 1)).to(grad.dtype)
        frames_grad = None
        if ctx.needs_input_grad[0]:
            products = (slopes @ input_weight.bfloat16()).view(time, batch, size)
            frames_grad = grad.new_empty((batch, time, size)).copy_(products.transpose(0, 1))
        return frames_grad, weight_grad, hidden_grad.to(grad.dtype), bias, bias


def _parts(batch: int) -> list[slice]:
    """The rows of a batch for each core: halves, or all of them where there is one core or one row."""
    if torch.get_num_threads() == 1 or batch == 1:
        return [slice(0, batch)]
    return [slice(0, batch // 2), slice(batch // 2, batch)]


def _side_by_side(task: Callable[[int], Any], count: int) -> list[Any]:
    if count == 1:
        with torch.no_grad():
            return [task(0)]
    return loops.in_two_threads(task)
