"""Gradients of every rank -> their sum on every rank, together with an update's figures.

Ranks of one machine that compute on its CPU read each other's from memory that they share, and wait for each other by
looking, not asleep: Gloo copies through sockets of the machine itself, by threads that must be woken, which took a
twentieth of the time of a small model's training. Such memory belongs to the processes (memfd): where they are killed
nothing is left of it. All others sum by messages.
"""

from __future__ import annotations

import mmap
import os
import platform
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from las.train.distributed import World, gone

BUCKET = 1 << 24  # numbers that are summed in one message, at least: 64 MB of float32
SHARERS = 4  # ranks that share memory, at most: each reads what all have written
ORDERED = ("x86_64", "AMD64")  # processors whose cores see what another writes in the order in which it is written
NAME = "las-gradients"  # of the memory
HEAD = 64  # bytes at its beginning: 16 by which others know that it is the right one, and how often it was written
LOOKING = 0.01  # s of waiting for another rank without sleep


class GradientSum:
    """Sums the gradients of some parameters, all of one type and on one device, over the ranks of a world.

    A rank that does not come for `minutes` counts as lost, as in the world itself.
    """

    def __init__(self, parameters: Sequence[Tensor], world: World, minutes: float = 10.0):
        self.parameters, self.world, self.minutes = parameters, world, minutes
        self.device = parameters[0].device
        self.begun = False
        self.shared: _Shared | None = None

    def add(self, figures: Sequence[float]) -> list[float]:
        """Put into every parameter's gradient the sum over the ranks; one that no rank has stays None.

        Figures, always as many, are returned, each summed over the ranks too. The ranks wait for each other once where
        they share memory. Raises `UserError` where one is gone.
        """
        if self.world.size == 1:
            return list(figures)
        numbers = [*figures, *(float(one.grad is not None) for one in self.parameters)]
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in self.parameters]
        if not self.begun:
            self.begun, self.shared = True, _share(gradients, len(numbers), self.world)
        if self.shared:
            found, gradients = self.shared.add(numbers, gradients, self.world, 60 * self.minutes)
        else:
            found = self.world.add(numbers, self.device)
            self._send(gradients)
        for one, gradient, count in zip(self.parameters, gradients, found[len(figures) :], strict=True):
            one.grad = gradient if count else None
        return found[: len(figures)]

    def _send(self, gradients: Sequence[Tensor]) -> None:
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            self.world.reduce(flat)
            for gradient, summed in zip(bucket, flat.split([one.numel() for one in bucket]), strict=True):
                gradient.copy_(summed.view_as(gradient))


class _Memory:
    """The memory of one rank, opened by this one: two places for numbers and gradients, used in turns. Who writes into
    one knows that all have read it: they have come to the update after that since."""

    def __init__(self, name: str, numbers: int, gradients: Tensor):
        """Raises `OSError` or `ValueError` where `name`, a path and the mark, is not what a rank has made."""
        self.path, mark = name.split()
        if not self.there():
            raise ValueError(name)
        with open(self.path, "r+b") as file:
            memory = mmap.mmap(file.fileno(), _size(numbers, gradients))
        if memory[:16].hex() != mark:
            raise ValueError(name)
        self.written = memoryview(memory)[16:24].cast("q")  # how often
        end = HEAD + 16 * numbers
        self.numbers = torch.frombuffer(memory, dtype=torch.float64, offset=HEAD, count=2 * numbers).view(2, -1)
        self.gradients = torch.frombuffer(memory, dtype=gradients.dtype, offset=end).view(2, -1)

    def there(self) -> bool:
        """Whether the rank that made it lives: else it has no files."""
        with suppress(OSError):
            return os.readlink(self.path).startswith(f"/memfd:{NAME}")
        return False


@dataclass
class _Shared:
    """The memory of all ranks, by rank."""

    ranks: list[_Memory]
    total: Tensor  # what the last gradients came to
    update: int = 0

    def add(
        self, numbers: Sequence[float], gradients: Sequence[Tensor], world: World, patience: float
    ) -> tuple[list[float], list[Tensor]]:
        """Both summed in the order of the ranks, so that all have the same to the bit; valid until the next sum."""
        self.update += 1
        turn, own = self.update % 2, self.ranks[world.rank]
        own.numbers[turn] = torch.tensor(numbers, dtype=torch.float64)
        torch.cat([gradient.flatten() for gradient in gradients], out=own.gradients[turn])
        own.written[0] = self.update
        self._wait(world, patience)
        first, second, *others = self.ranks
        found = torch.add(first.numbers[turn], second.numbers[turn])
        torch.add(first.gradients[turn], second.gradients[turn], out=self.total)
        for one in others:
            found += one.numbers[turn]
            self.total += one.gradients[turn]
        parts = self.total.split([one.numel() for one in gradients])
        return found.tolist(), [part.view_as(one) for part, one in zip(parts, gradients, strict=True)]

    def _wait(self, world: World, patience: float) -> None:
        started = time.perf_counter()
        for number, one in enumerate(self.ranks):
            while one.written[0] < self.update:
                waited = time.perf_counter() - started
                if waited < LOOKING:
                    os.sched_yield()
                    continue
                if waited > patience:
                    raise gone(world, f"rank {number} has not come for {waited / 60:.3g} minutes")
                if not one.there() and one.written[0] < self.update:
                    raise gone(world, f"rank {number} has ended")
                time.sleep(0.001)


def _share(gradients: Sequence[Tensor], numbers: int, world: World) -> _Shared | None:
    """Memory of all ranks; None where one cannot have it or open that of another, as on two machines."""
    if gradients[0].device.type != "cpu" or world.size > SHARERS:  # what all ranks find alike: they meet below
        return None
    total = torch.cat([one.flatten() for one in gradients])
    mark, own = secrets.token_bytes(16), -1
    if platform.machine() in ORDERED:
        with suppress(OSError, AttributeError):  # little memory; not Linux
            own = os.memfd_create(NAME)  # open until the process ends: so do others know that it lives
            os.posix_fallocate(own, 0, _size(numbers, total))  # else what does not fit ends it when it is written to
            os.pwrite(own, mark, 0)
    names = world.gather_text(f"/proc/{os.getpid()}/fd/{own} {mark.hex()}", total.device)
    ranks = []
    with suppress(OSError, ValueError):
        ranks = [_Memory(name, numbers, total) for name in names]
    [ready] = world.add([float(bool(ranks))], total.device)
    if ready == world.size:
        return _Shared(ranks, total)
    if own >= 0:
        os.close(own)
    return None


def _size(numbers: int, gradients: Tensor) -> int:
    return HEAD + 2 * (8 * numbers + gradients.numel() * gradients.element_size())


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        bucket.append(gradient)
        if sum(one.numel() for one in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
