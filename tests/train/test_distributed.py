"""Sums over two processes; the ranks are forked, which spares them importing torch."""

import multiprocessing
import os
import socket

import pytest
import torch

from las.errors import UserError
from las.train.distributed import World, joined


def ranks(work, size=2):
    """What `work(world)` returns on every rank, or the error's text, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()

    def rank(number):
        torch.set_num_threads(1)
        os.environ.update(RANK=str(number), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        try:
            with joined("gloo", 1.0) as world:
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


def test_gradients_become_their_sum_and_a_rank_without_them_adds_nothing():
    def work(world):
        shared, one, nobodys = (torch.nn.Parameter(torch.zeros(size)) for size in (2, 3, 1))
        shared.grad = torch.full((2,), 1.0 + world.rank)
        if world.leads:
            one.grad = torch.arange(3.0)
        world.add_gradients([shared, one, nobodys])
        return [None if grad is None else grad.tolist() for grad in (shared.grad, one.grad, nobodys.grad)]

    assert ranks(work) == {rank: [[3.0, 3.0], [0.0, 1.0, 2.0], None] for rank in (0, 1)}


def test_more_than_one_message(monkeypatch):
    monkeypatch.setattr("las.train.distributed.BUCKET", 2)

    def work(world):
        weights = [torch.nn.Parameter(torch.zeros(size)) for size in (1, 1, 5)]
        for number, weight in enumerate(weights):
            weight.grad = torch.full_like(weight, number + world.rank)
        world.add_gradients(weights)
        return [weight.grad.tolist() for weight in weights]

    assert ranks(work)[1] == [[1.0], [3.0], [5.0] * 5]


def test_figures_and_states_of_all_ranks():
    def work(world):
        states = world.gather(torch.tensor([world.rank, 7], dtype=torch.uint8), torch.device("cpu"))
        return world.add([0.5, world.rank], torch.device("cpu")), [state.tolist() for state in states]

    assert ranks(work) == {rank: ([1.0, 1.0], [[0, 7], [1, 7]]) for rank in (0, 1)}


def test_a_lost_rank_ends_the_others_with_a_message():
    def work(world):
        if world.rank == 1:
            os._exit(1)
        return world.add([1.0], torch.device("cpu"))

    assert "rank 0 of 2: another rank is gone or does not answer" in ranks(work)[0]


def test_alone_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("gloo", 1.0) as world:
        assert world == World(0, 1)
    weight = torch.nn.Parameter(torch.zeros(1))
    world.add_gradients([weight])
    assert weight.grad is None
    assert world.add([2.0], torch.device("cpu")) == [2.0]
    assert world.gather(torch.zeros(1), torch.device("cpu")) == [torch.zeros(1)]


def test_half_an_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with (
        pytest.raises(UserError, match=r"WORLD_SIZE is 2 but RANK, MASTER_ADDR, MASTER_PORT is not set; .* torchrun"),
        joined("gloo", 1.0),
    ):
        pass
