"""A bidirectional LSTM over padded utterances: frames (B, T, F) -> (B, T, 2 * width), exactly 0 at padding.

Hochreiter & Schmidhuber 1997. Parameters, gates and their order are those of `nn.LSTM`, so that a checkpoint is plain.
On a CPU the two directions run in two threads, one core each. What a direction does there:
- fp32: oneDNN's LSTM, forward and backward;
- bf16 autocast without gradients: oneDNN's LSTM in bf16;
- bf16 autocast in training: the loops of this file. Matrix products take bf16 and add up in fp32; gates, cells and
  their derivatives are fp32. Whatever does not pass from step to step is one large product for all steps.
Everything else (CUDA, float64) is a packed `nn.LSTM`. tools/README.md has the figures behind this.
"""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

SHUT = -1e4  # before the sigmoid: a gate that is exactly 0, as all gates of padded frames are
SPAN = 32  # steps whose derivatives are prepared together: few enough to stay in the cache
Result = TypeVar("Result")


class BiLSTM(nn.Module):
    """One layer of both directions; the backward one starts at each utterance's own last frame.

    Shapes: frames (B, T, F), lengths (B,), each from 1 to T -> (B, T, 2 * width). Padding is 0 and has no influence.

    >>> BiLSTM(80, 256)(torch.zeros(2, 9, 80), torch.tensor([9, 4])).shape
    torch.Size([2, 9, 512])
    """

    def __init__(self, input_size: int, width: int):
        super().__init__()
        self.lstm = nn.LSTM(input_size, width, batch_first=True, bidirectional=True)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        ends = ("l0", "l0_reverse")
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = [getattr(self.lstm, f"{kind}_{end}") for end in ends for kind in kinds]
        if not torch.is_grad_enabled():
            frames, weights = (
                frames.detach(),
                [weight.detach() for weight in weights],
            )  # else oneDNN prepares for training
        product = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else frames.dtype
        fast = (
            frames.device.type == "cpu" and torch.backends.mkldnn.is_available() and weights[0].dtype == torch.float32
        )
        if fast and product == torch.bfloat16 and torch.is_grad_enabled():
            return OwnLoops.apply(frames.float(), lengths.cpu(), product, *weights)
        if fast and product in (torch.bfloat16, torch.float32):
            return LibraryLoops.apply(frames, lengths.cpu(), product, *weights)
        packed = pack_padded_sequence(frames, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=frames.shape[1])[0]


class LibraryLoops(torch.autograd.Function):
    """Each direction is torch's own one-directional LSTM in products of type `product`; the result is fp32."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, lengths: Tensor, product: torch.dtype, *weights: Tensor) -> Tensor:
        batch, time, _ = frames.shape
        width = weights[1].shape[1]
        order = _reversal(lengths, time)
        zeros = frames.new_zeros((1, batch, width), dtype=product)
        wanted = ctx.needs_input_grad
        frames = frames.to(product)

        def run(direction: int) -> tuple[list[Tensor], Tensor, Tensor]:
            first = 4 * direction
            read = _turn(frames, order) if direction else frames.detach()
            leaves = [read, *(weight.detach().to(product) for weight in weights[first : first + 4])]
            for leaf, want in zip(leaves, wanted[:1] + wanted[3 + first : 7 + first], strict=True):
                leaf.requires_grad_(want)
            with torch.set_grad_enabled(any(wanted)):
                heard = torch.lstm(leaves[0], (zeros, zeros), leaves[1:], True, 1, 0.0, False, False, True)[0]
            return leaves, heard, _turn(heard.detach(), order) if direction else heard.detach()

        runs = _in_two_threads(run)
        ctx.order, ctx.padding = order, _padding(lengths, time)
        ctx.runs = runs if any(wanted) else None
        output = torch.cat([heard for _, _, heard in runs], dim=2).float()
        return output.masked_fill_(ctx.padding.unsqueeze(2), 0.0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad.masked_fill(ctx.padding.unsqueeze(2), 0.0)

        def run(direction: int) -> list[Tensor | None]:
            leaves, heard, _ = ctx.runs[direction]
            half = grad.chunk(2, dim=2)[direction]
            half = _turn(half, ctx.order) if direction else half
            wanted = [leaf for leaf in leaves if leaf.requires_grad]
            found = iter(torch.autograd.grad(heard, wanted, half.to(heard.dtype), retain_graph=True))
            grads = [next(found) if leaf.requires_grad else None for leaf in leaves]
            if direction and grads[0] is not None:
                grads[0] = _turn(grads[0], ctx.order)
            return grads

        (ahead, *ahead_weights), (back, *back_weights) = _in_two_threads(run)
        both = None if ahead is None or back is None else ahead + back
        return both, None, None, *ahead_weights, *back_weights


class OwnLoops(torch.autograd.Function):
    """The LSTM written out, with matrix products in `product` and all else in the type of the frames.

    At padded frames every gate is shut: input, forget and output gate are exactly 0, so are output, cell and all
    derivatives, and the backward direction arrives at the last real frame with the state it would start from.
    """

    @staticmethod
    def forward(ctx: Any, frames: Tensor, lengths: Tensor, product: torch.dtype, *weights: Tensor) -> Tensor:
        batch, time, size = frames.shape
        width = weights[1].shape[1]
        read = frames.new_empty((time, batch, size), dtype=product).copy_(frames.transpose(0, 1))
        rows = read.view(time * batch, size)
        padding = _padding(lengths, time).t().flatten().nonzero().squeeze(1)
        rows.index_fill_(0, padding, 0.0)
        output = frames.new_empty((batch, time, 2 * width))

        def project(direction: int) -> Tensor:
            input_weight, _, input_bias, hidden_bias = weights[4 * direction : 4 * direction + 4]
            bias = _double_new(input_bias + hidden_bias).to(product)
            gates = nn.functional.linear(rows, _double_new(input_weight).to(product), bias).to(frames.dtype)
            return gates.index_fill_(0, padding, SHUT).view(time, batch, 4 * width)

        gates = [project(0), project(1)]

        def run(direction: int) -> tuple[Tensor, ...]:
            cells = frames.new_empty((time + 1, batch, width))
            tanhs = frames.new_empty((time, batch, width))
            hidden = frames.new_empty((time + 1, batch, width), dtype=product)
            start = time if direction else 0
            cells[start].zero_()
            hidden[start].zero_()
            weight, packed = _pack(_double_new(weights[4 * direction + 1]).to(product), batch)
            half = output.chunk(2, dim=2)[direction]
            _forward_loop(gates[direction], cells, tanhs, hidden, half, weight, packed, bool(direction))
            return gates[direction], cells, tanhs, hidden

        ahead, back = _in_two_threads(run)
        ctx.save_for_backward(read, *weights, *ahead, *back)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        read, *saved = ctx.saved_tensors
        time, batch, size = read.shape
        weights, states = saved[:8], (saved[8:12], saved[12:])
        width = weights[1].shape[1]

        def run(direction: int) -> Tensor:
            gates, cells, tanhs, _ = states[direction]
            slopes = read.new_empty((time, batch, 4 * width))
            weight, packed = _pack(weights[4 * direction + 1].t().to(read.dtype), batch)
            half = grad.chunk(2, dim=2)[direction]
            _backward_loop(gates, cells, tanhs, half, slopes, weight, packed, bool(direction), SPAN)
            return slopes.view(time * batch, 4 * width)

        grads, frames_grad = [], None
        for direction, slopes in enumerate(_in_two_threads(run)):
            hidden = states[direction][3]
            before = (hidden[1:] if direction else hidden[:-1]).view(time * batch, width)
            bias = slopes.sum(0, dtype=grad.dtype)
            input_weight = slopes.t() @ read.view(time * batch, size)
            grads += [input_weight.to(grad.dtype), (slopes.t() @ before).to(grad.dtype), bias, bias]
            if ctx.needs_input_grad[0]:
                part = slopes @ weights[4 * direction].to(read.dtype)
                frames_grad = part if frames_grad is None else frames_grad.add_(part)
        if frames_grad is not None:
            frames_grad = grad.new_empty((batch, time, size)).copy_(frames_grad.view(time, batch, size).transpose(0, 1))
        return frames_grad, None, None, *grads


def _forward_loop(
    gates: Tensor,
    cells: Tensor,
    tanhs: Tensor,
    hidden: Tensor,
    output: Tensor,
    weight: Tensor,
    packed: bool,
    back: bool,
) -> None:
    """Fill what the steps leave, in place. The new-value gate's input is doubled: tanh x = 2 sigmoid(2 x) - 1,
    since torch's sigmoid is six times as fast as its tanh.

    gates (T, B, 4 * width): the frames' share of the gates' inputs -> gates i, f, g, o. cells and hidden
    (T + 1, B, width): a step finds the one before it beside its own. tanhs (T, B, width). output (B, T, width).
    """
    time, width = tanhs.size(0), tanhs.size(2)
    now = 0 if back else 1
    for step in range(time):
        t = time - 1 - step if back else step
        gate = gates[t]
        if packed:
            gate.add_(torch.ops.mkldnn._linear_pointwise(hidden[t + 1 - now], weight, None, "none", [], ""))
        else:
            gate.addmm_(hidden[t + 1 - now], weight)
        gate.sigmoid_()
        new = gate.narrow(1, 2 * width, width).mul_(2.0).sub_(1.0)
        cell, tanh, heard = cells[t + now], tanhs[t], output.select(1, t)
        torch.mul(gate.narrow(1, width, width), cells[t + 1 - now], out=cell)
        cell.addcmul_(gate.narrow(1, 0, width), new)
        torch.mul(cell, 2.0, out=tanh)
        tanh.sigmoid_().mul_(2.0).sub_(1.0)
        torch.mul(gate.narrow(1, 3 * width, width), tanh, out=heard)
        hidden[t + now].copy_(heard)


def _backward_loop(
    gates: Tensor,
    cells: Tensor,
    tanhs: Tensor,
    grad: Tensor,
    slopes: Tensor,
    weight: Tensor,
    packed: bool,
    back: bool,
    span: int,
) -> None:
    """From the gradient of the output (B, T, width) to `slopes`, that of the gates' inputs (T, B, 4 * width).

    The factors between the gradient of a cell (or output) and those of its gates do not pass from step to step:
    they are made for `span` steps at once.
    """
    time, batch, width = tanhs.size(0), tanhs.size(1), tanhs.size(2)
    now = 0 if back else 1
    factors = torch.empty([span, batch, 4, width], dtype=gates.dtype)
    to_cell = torch.empty([span, batch, width], dtype=gates.dtype)
    from_output, from_cell = torch.zeros_like(to_cell[0]), torch.zeros_like(to_cell[0])
    passed = torch.zeros_like(from_output)
    done = 0
    while done < time:
        steps = min(span, time - done)
        first = done if back else time - done - steps
        i, f, g, o = gates[first : first + steps].view(steps, batch, 4, width).unbind(2)
        tanh, before = tanhs[first : first + steps], cells[first + 1 - now : first + 1 - now + steps]
        part = factors[:steps]
        torch.ops.aten.sigmoid_backward(g, i, grad_input=part.select(2, 0))
        torch.ops.aten.sigmoid_backward(before, f, grad_input=part.select(2, 1))
        torch.ops.aten.tanh_backward(i, g, grad_input=part.select(2, 2))
        torch.ops.aten.sigmoid_backward(tanh, o, grad_input=part.select(2, 3))
        torch.ops.aten.tanh_backward(o, tanh, grad_input=to_cell[:steps])
        for step in range(steps):
            at = step if back else steps - 1 - step
            torch.add(grad.select(1, first + at), passed, out=from_output)
            from_cell.addcmul_(from_output, to_cell[at])
            factor = factors[at]
            factor.narrow(1, 0, 3).mul_(from_cell.unsqueeze(1))
            factor.select(1, 3).mul_(from_output)
            from_cell.mul_(f[at])
            slope = slopes[first + at]
            slope.copy_(factor.view(batch, 4 * width))
            if packed:
                passed = torch.ops.mkldnn._linear_pointwise(slope, weight, None, "none", [], "")
            else:
                passed = torch.mm(slope, weight)
        done += steps


with warnings.catch_warnings():
    # As TorchScript the loops hold no Python lock: only so can two threads run them side by side. Compiled at import,
    # because compiling reads this file. TorchScript is deprecated; its replacement needs a C++ compiler at run time.
    warnings.simplefilter("ignore", DeprecationWarning)
    if torch.backends.mkldnn.is_available():
        _forward_loop, _backward_loop = torch.jit.script(_forward_loop), torch.jit.script(_backward_loop)


def _pack(weight: Tensor, batch: int) -> tuple[Tensor, bool]:
    """A weight (out, in) as the loops' products read it, and whether that is oneDNN's own layout (bf16 only)."""
    if weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), batch), True
    return weight.t().contiguous(), False


def _double_new(weight: Tensor) -> Tensor:
    """A weight or bias (4 * width, ...) with the rows of the new-value gate doubled."""
    i, f, g, o = weight.chunk(4)
    return torch.cat([i, f, 2 * g, o])


def _padding(lengths: Tensor, time: int) -> Tensor:
    """Lengths (B,) -> (B, T), True past an utterance's last frame."""
    return torch.arange(time) >= lengths.unsqueeze(1)


def _reversal(lengths: Tensor, time: int) -> Tensor:
    """Where to find, among B * T rows, the rows of the utterances reversed; padding stays where it is."""
    place = torch.arange(time).expand(len(lengths), time)
    turned = torch.where(_padding(lengths, time), place, lengths.unsqueeze(1) - 1 - place)
    return (turned + time * torch.arange(len(lengths)).unsqueeze(1)).flatten()


def _turn(frames: Tensor, order: Tensor) -> Tensor:
    return frames.reshape(len(order), -1).index_select(0, order).view_as(frames)


def _in_two_threads(task: Callable[[int], Result]) -> list[Result]:
    """Do task(0) and task(1) side by side, without gradients, each with one core for its tensor operations."""

    def run(direction: int) -> Result:
        with torch.no_grad():
            return task(direction)

    return [future.result() for future in [_threads().submit(run, direction) for direction in (0, 1)]]


@functools.cache
def _threads() -> ThreadPoolExecutor:
    cores = torch.get_num_threads()
    threads = ThreadPoolExecutor(2, "las-lstm", initializer=torch.set_num_threads, initargs=(1,))
    both_started = threading.Barrier(2)
    for future in [threads.submit(both_started.wait) for _ in range(2)]:
        future.result()
    torch.set_num_threads(cores)  # set_num_threads also sets what later threads start with
    return threads


os.register_at_fork(after_in_child=_threads.cache_clear)  # a forked process has none of its parent's threads
