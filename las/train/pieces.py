"""A batch that does not fit into memory -> its halves, theirs, and so on, whose gradients add up to its own.

What training makes small is a sum over utterances (`las/train/objectives.py`), so a batch may be worked through in
pieces: the micro-batches of gradient accumulation, cut only where memory runs out. An attempt that fails leaves no
trace: gradients and random generators are put back as they were, so that nothing hangs on how far it came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

SIGNS = (
    "DefaultCPUAllocator",  # torch on a CPU
    "could not create a ",  # oneDNN: a primitive, a memory object; seen where little is left (RLIMIT_AS)
    "out of memory",  # CUDA
    "ALLOC_FAILED",  # cuBLAS, cuDNN to version 8
    "ALLOCATION_FAILED",  # cuDNN 9
)


class Rows(Protocol):
    """A batch: what it holds, utterances or sentences, can be counted and taken apart."""

    def __len__(self) -> int: ...

    def rows(self, start: int, end: int) -> Self:
        """Those from `start` to before `end`, padded only as far as the longest of these."""


Cut = TypeVar("Cut", bound=Rows)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Pieces(Generic[Cut, Result]):
    """How a batch was worked through."""

    done: list[tuple[Cut, Result]] = field(default_factory=list)
    split: list[Cut] = field(default_factory=list)  # those that did not fit, each before its halves
    left: list[Cut] = field(default_factory=list)  # single utterances that do not fit


def in_pieces(
    batch: Cut, work: Callable[[Cut], Result], parameters: Sequence[Tensor], device: torch.device
) -> Pieces[Cut, Result]:
    """Do `work`, which adds to the gradients of `parameters`, on a batch or, where memory runs out, on pieces of it."""
    found: Pieces[Cut, Result] = Pieces()
    waiting = [batch]
    while waiting:
        one = waiting.pop()
        results = _attempt(one, work, parameters, device)
        if results:
            found.done.append((one, results[0]))
        elif len(one) == 1:
            found.left.append(one)
        else:
            found.split.append(one)
            middle = len(one) // 2
            waiting += [one.rows(middle, len(one)), one.rows(0, middle)]
    return found


def _attempt(
    batch: Cut, work: Callable[[Cut], Result], parameters: Sequence[Tensor], device: torch.device
) -> list[Result]:
    """What `work` returns, or nothing where memory ran out; then all is as it was before."""
    chance = torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    before = [one.grad for one in parameters]
    for one in parameters:
        one.grad = None
    try:
        result = work(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        for one, sum_so_far in zip(parameters, before, strict=True):
            if sum_so_far is not None:
                one.grad = sum_so_far if one.grad is None else sum_so_far.add_(one.grad)
        return [result]
    for one, sum_so_far in zip(parameters, before, strict=True):
        one.grad = sum_so_far
    torch.set_rng_state(chance[0])
    if chance[1] is not None:
        torch.cuda.set_rng_state(chance[1], device)
    torch.cuda.empty_cache()  # the error is gone, and with it the frames that held activations
    return []


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device.

    >>> is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory")), is_out_of_memory(RuntimeError("a bug"))
    (True, False)
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
