"""A bidirectional LSTM over padded utterances: frames (B, T, F) -> (B, T, 2 * width), exactly 0 at padding.

Hochreiter & Schmidhuber 1997. Parameters, gates and their order are those of `nn.LSTM`, so that a checkpoint is plain.
On a CPU, training under bf16 autocast takes the loops of this file, each direction in a thread and on a core of its
own: matrix products read bf16 and add up in fp32; gates, cells and their derivatives are fp32; whatever does not pass
from step to step is one large product for all steps. All else is torch's own LSTM: of padded frames on a CPU, which
reaches oneDNN, of packed ones on CUDA. tools/README.md has the figures behind this.
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
        lengths = lengths.cpu()
        if frames.device.type != "cpu":
            return self._packed(frames, lengths)
        autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        single = self.lstm.weight_ih_l0.dtype == torch.float32
        if autocast and single and torch.is_grad_enabled() and torch.backends.mkldnn.is_available():
            return OwnLoops.apply(frames.float(), lengths, torch.bfloat16, *self._weights(0), *self._weights(1))
        return self._padded(frames, lengths).to(frames.dtype)

    def _weights(self, direction: int) -> list[Tensor]:
        end = "_reverse" if direction else ""
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [getattr(self.lstm, f"{kind}_l0{end}") for kind in kinds]

    def _packed(self, frames: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=frames.shape[1])[0]

    def _padded(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """With torch's LSTM of padded frames: of packed ones it is 3 to 30 times as slow on a CPU (torch 2.11)."""
        batch, time, _ = frames.shape
        if int(lengths.min()) == time:
            return self.lstm(frames)[0]
        padding = _padding(lengths, time).unsqueeze(2)
        frames = frames.masked_fill(padding, 0.0)
        order = _reversal(lengths, time)
        zeros = frames.new_zeros((1, batch, self.lstm.hidden_size))

        def run(read: Tensor, direction: int) -> Tensor:
            return torch.lstm(read, (zeros, zeros), self._weights(direction), True, 1, 0.0, False, False, True)[0]

        heard = [run(frames, 0), _turn(run(_turn(frames, order), 1), order)]
        return torch.cat(heard, dim=2).masked_fill(padding, 0.0)


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
            bias = double_new(input_bias + hidden_bias).to(product)
            shares = nn.functional.linear(rows, double_new(input_weight).to(product), bias)
            shares = shares.index_fill_(0, padding, SHUT).view(time, batch, 4, width)
            return frames.new_empty((time, 4, batch, width)).copy_(shares.transpose(1, 2))

        gates = [project(0), project(1)]

        def run(direction: int) -> tuple[Tensor, ...]:
            cells = frames.new_empty((time + 1, batch, width))
            hidden = frames.new_empty((time + 1, batch, width), dtype=product)
            start = time if direction else 0
            cells[start].zero_()
            hidden[start].zero_()
            weight, packed = pack(double_new(weights[4 * direction + 1]).to(product), batch)
            half = output.chunk(2, dim=2)[direction]
            forward_loop(gates[direction], cells, hidden, half, weight, packed, bool(direction))
            return gates[direction], cells, hidden

        ahead, back = in_two_threads(run)
        ctx.save_for_backward(read, *weights, *ahead, *back)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        read, *saved = ctx.saved_tensors
        time, batch, size = read.shape
        weights, states = saved[:8], (saved[8:11], saved[11:])
        width = weights[1].shape[1]

        def run(direction: int) -> Tensor:
            gates, cells, _ = states[direction]
            slopes = read.new_empty((time, batch, 4 * width))
            weight, packed = pack(weights[4 * direction + 1].t().to(read.dtype), batch)
            half = grad.chunk(2, dim=2)[direction]
            backward_loop(gates, cells, half, slopes, weight, packed, bool(direction), SPAN)
            return slopes.view(time * batch, 4 * width)

        grads, frames_grad = [], None
        for direction, slopes in enumerate(in_two_threads(run)):
            hidden = states[direction][2]
            before = (hidden[1:] if direction else hidden[:-1]).view(time * batch, width)
            bias = slopes.sum(0).to(grad.dtype)
            input_weight = slopes.t() @ read.view(time * batch, size)
            grads += [input_weight.to(grad.dtype), (slopes.t() @ before).to(grad.dtype), bias, bias]
            if ctx.needs_input_grad[0]:
                part = slopes @ weights[4 * direction].to(read.dtype)
                frames_grad = part if frames_grad is None else frames_grad.add_(part)
        if frames_grad is not None:
            frames_grad = grad.new_empty((batch, time, size)).copy_(frames_grad.view(time, batch, size).transpose(0, 1))
        return frames_grad, None, None, *grads


def forward_loop(
    gates: Tensor, cells: Tensor, hidden: Tensor, output: Tensor, weight: Tensor, packed: bool, back: bool
) -> None:
    """Take all steps, in place.

    gates (T, 4, B, width): the frames' share of the gates' inputs -> i, f, s, o, all sigmoids. Since torch's sigmoid
    is six times as fast as its tanh, and a number costs a step more than a tensor, tanh x = 2 sigmoid(2 x) - 1 is
    spread thus: the new-value gate's input is doubled, its sigmoid is s, and what a step keeps is twice the cell,
    2 c = f 2 c' + i (4 s - 2). cells, hidden (T + 1, B, width): a step finds the one before it beside its own.
    output (B, T, width).
    """
    time, batch, width = gates.size(0), gates.size(2), gates.size(3)
    now = 0 if back else 1
    squashed = torch.empty_like(cells[0])
    for step in range(time):
        t = time - 1 - step if back else step
        gate, cell, heard = gates[t], cells[t + now], output.select(1, t)
        recurrent = packed_product(hidden[t + 1 - now], weight, packed)
        gate.add_(recurrent.view(batch, 4, width).transpose(0, 1)).sigmoid_()
        i, f, s, o = gate.unbind(0)
        torch.mul(f, cells[t + 1 - now], out=cell)
        cell.addcmul_(i, s, value=4.0).sub_(i, alpha=2.0)
        torch.sigmoid(cell, out=squashed)
        torch.mul(o, squashed, out=heard)
        heard.add_(heard).sub_(o)  # o tanh c
        hidden[t + now].copy_(heard)


def backward_loop(
    gates: Tensor, cells: Tensor, grad: Tensor, slopes: Tensor, weight: Tensor, packed: bool, back: bool, span: int
) -> None:
    """From the gradient of the output (B, T, width) to `slopes`, that of the gates' inputs (T, B, 4 * width).

    The factors between the gradient of a cell (or output) and those of its gates do not pass from step to step:
    they are made for `span` steps at once.
    """
    time, batch, width = gates.size(0), gates.size(2), gates.size(3)
    now = 0 if back else 1
    factors = torch.empty([span, 4, batch, width], dtype=gates.dtype)
    doubled = torch.empty([span, batch, width], dtype=gates.dtype)
    squashed, to_cell = torch.empty_like(doubled), torch.empty_like(doubled)
    from_output, from_cell = torch.zeros_like(doubled[0]), torch.zeros_like(doubled[0])
    passed = torch.zeros_like(from_output)
    done = 0
    while done < time:
        steps = min(span, time - done)
        first = done if back else time - done - steps
        i, f, s, o = gates[first : first + steps].unbind(1)
        before = cells[first + 1 - now : first + 1 - now + steps]
        to_i, to_f, to_s, to_o = factors[:steps].unbind(1)
        new, squash = doubled[:steps], squashed[:steps]
        torch.mul(s, 4.0, out=new).sub_(2.0)
        torch.ops.aten.sigmoid_backward(new, i, grad_input=to_i)
        torch.ops.aten.sigmoid_backward(before, f, grad_input=to_f)
        torch.ops.aten.sigmoid_backward(i, s, grad_input=to_s).mul_(8.0)
        torch.sigmoid(cells[first + now : first + now + steps], out=squash)
        torch.ops.aten.sigmoid_backward(o, squash, grad_input=to_cell[:steps])
        torch.ops.aten.sigmoid_backward(squash.mul_(2.0).sub_(1.0), o, grad_input=to_o)
        for step in range(steps):
            at = step if back else steps - 1 - step
            torch.add(grad.select(1, first + at), passed, out=from_output)
            from_cell.addcmul_(from_output, to_cell[at], value=2.0)
            factor = factors[at]
            factor[:3].mul_(from_cell)
            factor[3].mul_(from_output)
            from_cell.mul_(f[at])
            slope = slopes[first + at]
            slope.view(batch, 4, width).copy_(factor.transpose(0, 1))
            passed = packed_product(slope, weight, packed)
        done += steps


def pack(weight: Tensor, batch: int) -> tuple[Tensor, bool]:
    """A weight (out, in) as products with few rows read it fastest, and whether that is oneDNN's own layout."""
    if weight.device.type == "cpu" and torch.backends.mkldnn.is_available():
        bfloat16 = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        if bfloat16 or weight.dtype == torch.float32:
            return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), batch), True
    return weight.t().contiguous(), False


def packed_product(rows: Tensor, weight: Tensor, packed: bool) -> Tensor:
    """Rows (B, in) and what `pack` made of a weight (out, in) -> (B, out)."""
    if packed:
        return torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")
    return torch.mm(rows, weight)


with warnings.catch_warnings():
    # As TorchScript the loops hold no Python lock: only so can two threads run them side by side. Compiled at import,
    # because compiling reads this file. TorchScript is deprecated; its replacement needs a C++ compiler at run time.
    warnings.simplefilter("ignore", DeprecationWarning)
    if torch.backends.mkldnn.is_available():
        forward_loop, backward_loop = torch.jit.script(forward_loop), torch.jit.script(backward_loop)


def double_new(weight: Tensor) -> Tensor:
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


def in_two_threads(task: Callable[[int], Result]) -> list[Result]:
    """Do task(0) and task(1) side by side, without gradients, each with one core for its tensor operations."""

    def run(direction: int) -> Result:
        with torch.no_grad():
            return task(direction)

    return [future.result() for future in [_threads().submit(run, direction) for direction in (0, 1)]]


@functools.cache
def _threads() -> ThreadPoolExecutor:
    both_started = threading.Barrier(2)

    def start() -> None:
        torch.get_num_threads()  # first: the first call gives a thread the number of all threads
        torch.set_num_threads(1)
        both_started.wait()

    cores = torch.get_num_threads()
    threads = ThreadPoolExecutor(2, "las-lstm", initializer=start)
    for future in [threads.submit(torch.get_num_threads) for _ in range(2)]:
        assert future.result() == 1
    torch.set_num_threads(cores)  # what threads that start later get
    return threads


os.register_at_fork(after_in_child=_threads.cache_clear)  # a forked process has none of its parent's threads
