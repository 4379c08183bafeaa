"""Ranks are threads here, that meet at a barrier; processes: tests/train/test_distributed.py."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch

from las.data.manifest import Utterance
from las.data.sharding import write_shards
from las.data.shards import read_index, verify
from las.errors import UserError
from las.ledger import Ledger

RATE = 8_000  # Hz


@dataclass(frozen=True)
class Rank:
    rank: int
    size: int
    barrier: threading.Barrier

    def meet(self):
        try:
            self.barrier.wait(20)
        except threading.BrokenBarrierError:
            raise UserError("another rank is gone") from None


def together(size, write):
    """What `write(rank)` returns or raises on each rank."""
    barrier = threading.Barrier(size)

    def one(number):
        try:
            return write(Rank(number, size, barrier))
        except UserError as error:
            barrier.abort()
            return str(error)

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


@pytest.fixture
def eleven(tools, tmp_path):
    """Utterances of many lengths; of number 4 the recording is missing, number 7 has no text."""
    utterances = []
    for number in range(11):
        wave = 0.1 * torch.randn(500 + 137 * number, generator=torch.Generator().manual_seed(number))
        path = tools.write_wav(tmp_path / f"{number}.wav", wave) if number != 4 else tmp_path / "gone.wav"
        text = "" if number == 7 else "말 " * (number + 1)
        utterances.append(Utterance(f"발화/{number}", str(path), text, speaker=f"s{number % 2}"))
    return utterances


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("size", "limits"),
    [
        (2, {"shard_utterances": 2}),
        (3, {"shard_utterances": 4, "workers": 2}),
        (2, {}),
        (4, {"shard_bytes": 9_000, "encode": "original"}),
        (13, {"shard_utterances": 1}),
    ],
)
def test_ranks_write_what_one_process_writes(eleven, tmp_path, size, limits):
    ledger, ledgers = Ledger(), [Ledger() for _ in range(size)]
    index = write_shards(eleven, tmp_path / "one", ledger=ledger, limit=0.5, **limits)
    found = together(
        size,
        lambda rank: write_shards(
            eleven, tmp_path / "many", ledger=ledgers[rank.rank], limit=0.5, ranks=rank, **limits
        ),
    )
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert all(one.entries == index.entries and one.shards == index.shards for one in found)
    assert all(one.lines() == ledger.lines() for one in ledgers)
    assert not (tmp_path / "many.part").exists()
    verify(read_index(tmp_path / "many"))


def test_one_rank_is_one_process(eleven, tmp_path):
    write_shards(eleven, tmp_path / "one", limit=0.5)
    write_shards(eleven, tmp_path / "other", limit=0.5, ranks=Rank(0, 1, threading.Barrier(1)))
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_too_much_left_out_over_all_ranks_is_refused_by_each(eleven, tmp_path):
    found = together(2, lambda rank: write_shards(eleven, tmp_path / "s", limit=0.1, ranks=rank))
    assert all("2 of 11 utterances left out" in one or one.endswith("another rank is gone") for one in found), found
    assert "2 of 11 utterances left out" in "".join(found)
    assert not list(tmp_path.glob("s*"))


@pytest.mark.parametrize("dead", [0, 1])
def test_a_rank_that_fails_leaves_no_shards(eleven, tmp_path, dead):
    def write(rank):
        def fail(done, total):
            if rank.rank == dead and done == 2:
                raise UserError("struck down")

        return write_shards(eleven, tmp_path / "s", limit=0.5, progress=fail, ranks=rank)

    found = together(2, write)
    assert found[dead] == "struck down"
    assert found[1 - dead].endswith("another rank is gone")
    assert not list(tmp_path.glob("s*"))


def test_a_folder_in_use_is_refused_by_all(eleven, tmp_path):
    (tmp_path / "s.part").mkdir()
    found = together(2, lambda rank: write_shards(eleven, tmp_path / "s", ranks=rank))
    assert "another run is writing it" in found[0]
    assert found[1] == "another rank is gone"
    assert (tmp_path / "s.part").exists()
