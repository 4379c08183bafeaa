"""Several processes that train one model: sums over all of them, by torch.distributed.

Each process, a rank, has its own batches of an update; gradients are added up over the ranks, so all take the same
step (`las/train/gradients.py`). torchrun starts the ranks and names them in the environment; a process that it did not
start is alone.

On CPUs each rank keeps to cores of its own: ranks that wake each other several times an update are otherwise put on
one core while another is idle.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as ranks
from torch import Tensor

from las.errors import Interrupted, UserError
from las.model.device import choose_device


@dataclass(frozen=True)
class World:
    """All ranks of a run, seen from one of them."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this rank writes the run's files and speaks to the user."""
        return self.rank == 0

    def add(self, figures: Sequence[float], device: torch.device) -> list[float]:
        """Figures, each summed over the ranks."""
        if self.size == 1:
            return list(figures)
        summed = torch.tensor(figures, dtype=torch.float64, device=device)
        self.reduce(summed)
        return summed.tolist()

    def meet(self) -> None:
        """Wait until every rank is here."""
        self.add([0.0], torch.device("cpu"))

    def gather(self, state: Tensor, device: torch.device) -> list[Tensor]:
        """A tensor of every rank, all of one shape, by rank."""
        if self.size == 1:
            return [state]
        sent = state.to(device)
        found = [torch.empty_like(sent) for _ in range(self.size)]
        with _told(self):
            ranks.all_gather(found, sent)
        return [one.to(state.device) for one in found]

    def gather_text(self, text: str, device: torch.device) -> list[str]:
        """A text of every rank, by rank."""
        if self.size == 1:
            return [text]
        data = torch.frombuffer(bytearray(text.encode() + b"\n"), dtype=torch.uint8)  # never empty
        lengths = [int(length) for length in self.gather(torch.tensor([len(data)]), device)]
        padded = torch.nn.functional.pad(data, (0, max(lengths) - len(data)))
        every = zip(self.gather(padded, device), lengths, strict=True)
        return [bytes(one[: length - 1].tolist()).decode() for one, length in every]

    def reduce(self, tensor: Tensor) -> None:
        """Put into a tensor its sum over the ranks."""
        with _told(self):
            ranks.all_reduce(tensor)


@contextmanager
def joined(backend: str, minutes: float) -> Iterator[World]:
    """The world that torchrun started this process in; alone where it did not.

    `backend` is nccl or gloo; a rank that does not answer for `minutes` counts as lost, which ends the others with a
    `UserError`.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UserError(f"WORLD_SIZE is {size} but {', '.join(missing)} is not set; start the ranks with torchrun")
    world = World(int(os.environ["RANK"]), size)
    patience = timedelta(minutes=minutes)
    with _told(world):
        store, _, _ = next(ranks.rendezvous("env://", timeout=patience))
        if backend == "gloo":  # before there are threads, which get the cores of the one that starts them
            _keep_to_own_cores(store, world)
        ranks.init_process_group(backend, store=store, rank=world.rank, world_size=size, timeout=patience)
    try:
        yield world
        _part(store, world)
    except Interrupted:
        _part(store, world)
        raise
    finally:
        ranks.destroy_process_group()


@contextmanager
def world_on(device: str, lost_minutes: float = 60.0) -> Iterator[tuple[torch.device, World]]:
    """This rank's device, by the name that the user gave it, and its world, for as long as the ranks work together."""
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    with joined("nccl" if chosen.type == "cuda" else "gloo", lost_minutes) as world:
        yield chosen, world


def _keep_to_own_cores(store: Any, world: World) -> None:
    """Ranks of one machine that may all use the same cores divide them; one that was given its own keeps them."""
    if not hasattr(os, "sched_setaffinity"):
        return  # not on Linux
    cores = sorted(os.sched_getaffinity(0))
    store.set(f"cores of {world.rank}", f"{platform.node()} {cores}")
    every = [store.get(f"cores of {rank}") for rank in range(world.size)]
    alike = [rank for rank, found in enumerate(every) if found == every[world.rank]]
    place = alike.index(world.rank)
    first, end = (len(cores) * number // len(alike) for number in (place, place + 1))
    if len(alike) <= len(cores):
        with suppress(OSError):  # a sandbox may forbid it; slower then, no worse
            os.sched_setaffinity(0, cores[first:end])
            torch.set_num_threads(min(torch.get_num_threads(), end - first))  # more would wait for each other's turns


def _part(store: Any, world: World) -> None:
    """Wait until every rank has all it asked of the others: one that leaves early cuts off what is under way."""
    with suppress(RuntimeError):  # the store goes with the rank that keeps it, which has seen all others here
        store.add("leaving", 1)
        while store.add("leaving", 0) < world.size:
            time.sleep(0.01)


@contextmanager
def _told(world: World) -> Iterator[None]:
    """Within: what torch.distributed raises when a rank is gone becomes a message to the user."""
    try:
        yield
    except RuntimeError as error:
        raise gone(world, str(error).splitlines()[0]) from None


def gone(world: World, cause: str) -> UserError:
    """What to tell the user of this rank where another does not answer."""
    return UserError(
        f"rank {world.rank} of {world.size}: another rank is gone or does not answer ({cause}); "
        "its own message says why; start again, a training with --resume"
    )
