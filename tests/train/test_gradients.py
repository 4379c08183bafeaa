"""Sums that one sees by eye, by shared memory and by messages; ranks that come late, cannot share, or are killed."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch

from las.train import gradients
from las.train.distributed import World
from las.train.gradients import GradientSum

if not hasattr(os, "memfd_create"):
    pytest.skip("memory is shared on Linux only", allow_module_level=True)


@pytest.fixture(params=[True, False], ids=["shared", "messages"])
def shared(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(gradients, "SHARERS", 1)
    return request.param


def parameters(*sizes):
    return [torch.nn.Parameter(torch.zeros(size)) for size in sizes]


def test_gradients_become_their_sum_and_a_rank_without_them_adds_nothing(ranks, shared):
    def work(world):
        both, one, _ = weights = parameters(2, (1, 3), 1)
        together = GradientSum(weights, world)
        both.grad = torch.full((2,), 1.0 + world.rank)
        if world.leads:
            one.grad = torch.arange(3.0).view(1, 3)
        figures = together.add([0.5, world.rank])
        assert (together.shared is not None) == shared
        return figures, [None if weight.grad is None else weight.grad.tolist() for weight in weights]

    assert ranks(work) == dict.fromkeys((0, 1), ([1.0, 1.0], [[3.0, 3.0], [[0.0, 1.0, 2.0]], None]))


def test_ranks_of_which_one_cannot_share_agree_on_messages(ranks, monkeypatch):
    def work(world):
        if world.rank == 1:
            monkeypatch.setattr(gradients.platform, "machine", lambda: "aarch64")
        [weight] = weights = parameters(2)
        weight.grad = torch.full((2,), 1.0 + world.rank)
        together = GradientSum(weights, world)
        figures = together.add([1.0])
        return together.shared, figures, weight.grad.tolist()

    assert ranks(work) == dict.fromkeys((0, 1), (None, [2.0], [3.0, 3.0]))


def test_more_than_one_message(ranks, monkeypatch):
    monkeypatch.setattr(gradients, "BUCKET", 2)
    monkeypatch.setattr(gradients, "SHARERS", 1)

    def work(world):
        weights = parameters(1, 1, 5)
        for number, weight in enumerate(weights):
            weight.grad = torch.full_like(weight, number + world.rank)
        GradientSum(weights, world).add([])
        return [weight.grad.tolist() for weight in weights]

    assert ranks(work)[1] == [[1.0], [3.0], [5.0] * 5]


def gradient_of(rank, update):
    return torch.randn(1000, generator=torch.Generator().manual_seed(100 * update + rank))


def test_ranks_that_come_late_all_have_the_same_sum_to_the_bit(ranks):
    """Each rank sleeps before it writes, or before it reads, in another update than the others."""

    def work(world):
        [weight] = weights = parameters(1000)
        together, found = GradientSum(weights, world), []
        wait = gradients._Shared._wait

        def late(*given):
            wait(*given)
            time.sleep(0.02 * (update % 3 == world.rank))

        gradients._Shared._wait = late
        for update in range(12):
            weight.grad = gradient_of(world.rank, update)
            time.sleep(0.02 * (update % 4 == world.rank))
            together.add([])
            wanted = gradient_of(0, update) + gradient_of(1, update) + gradient_of(2, update)
            found.append(torch.equal(weight.grad, wanted))
        return found

    assert ranks(work, 3) == dict.fromkeys(range(3), [True] * 12)


def test_where_one_rank_has_no_memory_to_share_all_send_messages(ranks):
    def work(world):
        if world.rank == 1:
            os.posix_fallocate = lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        [weight] = weights = parameters(2)
        together = GradientSum(weights, world)
        weight.grad = torch.ones(2)
        together.add([])
        return together.shared is None, weight.grad.tolist()

    assert ranks(work) == dict.fromkeys((0, 1), (True, [2.0, 2.0]))


@pytest.mark.parametrize("name", ["/proc/1/fd/0", "other mark", "other size", "/nowhere"])
def test_memory_of_another_program_is_not_taken_for_a_ranks(ranks, name):
    """As where two machines, or two containers, give their processes the same numbers."""

    def work(world):
        other = os.memfd_create(gradients.NAME)
        os.ftruncate(other, 1 << 16 if name == "other mark" else 1)
        os.pwrite(other, bytes(15) + b"\1", 0) if name == "other size" else None
        path = f"/proc/{os.getpid()}/fd/{other}" if name.startswith("other") else name
        gather = World.gather_text
        World.gather_text = lambda *given: [gather(*given)[0], f"{path} {'00' * 15}01"]
        together = GradientSum(parameters(2), world)
        return together.add([1.0]), together.shared

    assert ranks(work) == dict.fromkeys((0, 1), ([2.0], None))


def test_a_rank_that_is_killed_stops_the_others(ranks, shared):
    def work(world):
        [weight] = weights = parameters(2)
        together = GradientSum(weights, world)
        for update in range(3):
            if world.rank == 1 and update == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            weight.grad = torch.ones(2)
            together.add([])
        return "went on"

    found = ranks(work)
    assert list(found) == [0]
    assert "rank 0 of 2: another rank is gone or does not answer" in found[0]


def test_alone_nothing_is_sent():
    [weight] = weights = parameters(1)
    assert GradientSum(weights, World()).add([2.0]) == [2.0]
    assert weight.grad is None


def test_a_rank_that_does_not_come_counts_as_lost(ranks):
    def work(world):
        together = GradientSum(parameters(2), world)
        together.add([])
        together.minutes = 0.005
        if world.rank == 0:
            together.add([])
        time.sleep(1)
        return "slept"

    assert "rank 0 of 2: another rank is gone or does not answer (rank 1 has not come for 0.0" in ranks(work)[0]
