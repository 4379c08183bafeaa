"""Several processes on one machine; the ranks are forked, which spares them importing torch."""

from __future__ import annotations

import multiprocessing
import os
import socket
from contextlib import nullcontext

import pytest
import torch

from las.errors import UserError
from las.train.distributed import World, joined


def run_ranks(work, size=2, inside=True, threads=1):
    """What `work(world)` returns on every rank, or the error's text, by rank; `inside`: the world is joined already."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()

    def rank(number):
        torch.set_num_threads(threads)
        os.environ.update(RANK=str(number), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        try:
            with joined("gloo", 1.0) if inside else nullcontext(World(number, size)) as world:
                answers.put((number, work(world)))
        except UserError as error:
            answers.put((number, str(error)))
        os._exit(0)

    processes = [fork.Process(target=rank, args=(number,)) for number in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert not any(process.is_alive() for process in processes)
    found = []
    while not answers.empty():
        found.append(answers.get())
    return dict(sorted(found))


@pytest.fixture
def ranks():
    return run_ranks
