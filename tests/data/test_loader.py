from __future__ import annotations

import itertools
import multiprocessing.util
import os
import random
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from las.data import loader as module
from las.data.loader import Loader, LoaderConfig, _ahead, _leave_signals_to_parent
from las.data.manifest import Utterance
from las.data.sharding import _write_index, write_shards
from las.data.shards import Entry, Shard, read_index, read_sample
from las.errors import UserError
from las.text.tokenizer import Tokenizer

RATE = 8_000  # Hz
SECONDS = [0.3, 0.9, 0.5, 0.4, 1.1, 0.6, 0.2, 0.7, 0.35, 0.8, 0.45, 1.0]
SMALL = LoaderConfig(batch_seconds=2.0, neighbours=5, workers=0)


def write(tools, folder, texts=None):
    """Shards of noise with the seconds above; number 3 says `ab` unless `texts` says otherwise."""
    utterances = []
    for number, seconds in enumerate(SECONDS):
        wave = 0.1 * torch.randn(int(seconds * RATE), generator=torch.Generator().manual_seed(number))
        path = tools.write_wav(folder / "wav" / f"{number}.wav", wave)
        utterances.append(Utterance(f"발화/{number}", str(path), (texts or {}).get(number, "ab"), seconds))
    return write_shards(utterances, folder / "shards")


@pytest.fixture(scope="module")
def index(tools, tmp_path_factory):
    return write(tools, tmp_path_factory.mktemp("loader"))


@pytest.fixture(scope="module")
def tokenizer(corpus):
    return Tokenizer.load(corpus / "tokenizer.model")


@pytest.fixture
def make(index, tokenizer):
    """A function from settings to a loader."""

    def loader(index=index, shuffle=True, seed=0, **changes):
        return Loader(index, tokenizer, RATE, replace(SMALL, **changes), shuffle=shuffle, seed=seed)

    return loader


def ids(batches):
    return [batch.ids for batch in batches]


def test_every_utterance_comes_exactly_once_an_epoch(make, index):
    for epoch in range(3):
        found = [id for batch in make().epoch(epoch) for id in batch.ids]
        assert sorted(found) == sorted(entry.id for entry in index.entries)


def test_a_batch_holds_what_was_recorded(make, index, tokenizer):
    seconds = {entry.id: entry.seconds for entry in index.entries}
    for batch in make().epoch(0):
        assert batch.samples.tolist() == [round(seconds[id] * RATE) for id in batch.ids]
        assert batch.waves.shape == (len(batch.ids), int(batch.samples.max()))
        assert batch.waves.dtype == torch.float32
        for wave, samples in zip(batch.waves, batch.samples.tolist(), strict=True):
            assert 0.05 < wave[:samples].std() < 0.15
            assert not wave[samples:].any()
        assert batch.tokens.tolist() == [tokenizer.encode("ab")] * len(batch)
        assert batch.lengths.tolist() == [2] * len(batch)


def test_audio_is_resampled_to_the_asked_rate(index, tokenizer):
    batch = next(Loader(index, tokenizer, 16_000, SMALL, shuffle=False, seed=0).epoch(0))
    assert batch.samples[0] == 0.2 * 16_000


def test_the_plan_hangs_on_seed_and_epoch_alone(make):
    assert make().plan(3) == make(workers=2).plan(3)
    assert make().plan(3) != make().plan(4)
    assert make().plan(3) != make(seed=1).plan(3)
    torch.manual_seed(7)
    loader = make()
    loader.plan(0)
    assert loader.plan(3) == make().plan(3)


def test_without_shuffling_the_order_is_from_short_to_long(make):
    loader = make(shuffle=False)
    seconds = [entry.seconds for batch in loader.plan(0) for entry in batch]
    assert seconds == sorted(SECONDS)
    assert loader.plan(0) == loader.plan(1)


def test_the_first_epoch_may_be_sorted(make):
    loader = make(sorted_first=True)
    assert [entry.seconds for batch in loader.plan(0) for entry in batch] == sorted(SECONDS)
    assert loader.plan(1) == make().plan(1)


@pytest.mark.parametrize("budget", [0.1, 1.0, 1.2, 2.0, 5.0, 100.0])
@pytest.mark.parametrize("most", [1, 3, 64])
def test_the_budget_of_padded_seconds_is_kept(make, budget, most):
    for epoch in range(3):
        for batch in make(batch_seconds=budget, batch_utterances=most).plan(epoch):
            padded = len(batch) * max(entry.seconds for entry in batch)
            assert len(batch) == 1 or (padded <= budget and len(batch) <= most)


def test_the_budget_of_seconds_times_characters_is_kept(tools, make, tmp_path):
    """Number 3 has a long text: with its 40 characters half a second a batch are 20."""
    index = write(tools, tmp_path, {3: "ab" * 20})
    for grid in (4.0, 20.0, 100.0):
        for epoch in range(3):
            plan = make(index, batch_grid=grid).plan(epoch)
            for batch in plan:
                padded = len(batch) * max(entry.seconds for entry in batch)
                assert len(batch) == 1 or padded * max(entry.characters for entry in batch) <= grid
            assert sorted(entry.id for batch in plan for entry in batch) == sorted(entry.id for entry in index.entries)
    for free in (0.0, 1e9):
        assert make(index, batch_grid=free).plan(1) == make(index).plan(1)
    assert len(make(index, batch_grid=4.0).plan(1)) > len(make(index).plan(1))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(make, workers):
    alone, together = list(make().epoch(1)), list(make(workers=workers).epoch(1))
    assert ids(alone) == ids(together)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.waves, other.waves)
        assert torch.equal(one.tokens, other.tokens)


def test_starting_an_epoch_takes_nothing_from_the_global_generator(make):
    before = torch.get_rng_state()
    next(make(workers=1).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_skip_goes_on_in_the_middle_of_an_epoch(make):
    whole = ids(make().epoch(2))
    for skip in range(len(whole) + 1):
        assert ids(make().epoch(2, skip)) == whole[skip:]
    assert [place for place, _ in make().batches(2, 3)] == list(range(3, len(whole)))


def synthetic(folder, utterances):
    """An index of so many utterances, in shards that hold nothing."""
    chance, most = random.Random(0), 10_000
    shards, entries = [], []
    for number in range(-(-utterances // most)):
        first, offset = number * most, 0
        for place in range(first, min(utterances, first + most)):
            seconds = min(34.9, round(chance.lognormvariate(2.3, 0.5), 3))
            size = 512 * (4 + round(32 * seconds))
            entries.append(Entry(f"speaker-{place % 99}-{place:07d}", number, offset, size, 0, seconds, 12))
            offset += size
        name = f"shard-{number:06d}.tar"
        with (folder / name).open("wb") as file:
            file.truncate(offset)
        shards.append(Shard(name, offset, "0" * 64, min(utterances, first + most) - first))
    _write_index(folder, shards, entries)
    return folder


def test_a_position_deep_in_an_epoch_costs_one_plan_and_nothing_read_before_it(make, tmp_path, monkeypatch):
    index = read_index(synthetic(tmp_path, 3000))
    made = make(index, batch_seconds=160.0, leave_out=1.0)
    plans, reads, plan = [], [], made._plan
    made._plan = lambda *asked: (plans.append(asked), plan(*asked))[1]
    monkeypatch.setattr("las.data.loader.read_sample", lambda *asked: (reads.append(asked[1]), read_sample(*asked))[1])
    place = len(made.plan(7)) - 3
    assert next(made.batches(7, place)) == (place, None)  # there is nothing in the shards
    assert plans == [(7, 1)]
    assert reads == made.plan(7)[place]
    made.plan(8)
    assert plans == [(7, 1), (8, 1)]


def test_a_small_corpus_falls_into_other_batches_in_every_epoch(make, tmp_path):
    """With little padding, within the budgets, each utterance once; without chance from short to long as ever."""
    made = make(read_index(synthetic(tmp_path, 1500)), batch_seconds=160.0, batch_grid=1900.0, neighbours=2000)
    before: set[frozenset[str]] = set()
    for epoch in range(4):
        plan = made.plan(epoch)
        padded = [len(batch) * max(entry.seconds for entry in batch) for batch in plan]
        assert max(padded) <= 1900 / 12  # each text has twelve characters
        assert made.seconds / sum(padded) > 0.96
        assert sorted(entry.id for batch in plan for entry in batch) == sorted(entry.id for entry in made.entries)
        batches = {frozenset(entry.id for entry in batch) for batch in plan}
        assert len(batches & before) < len(batches) / 20
        assert {frozenset(entry.id for entry in batch) for batch in made.plan(epoch, 3)} == batches
        before = batches
    seconds = [entry.seconds for batch in make(made.index, shuffle=False).plan(1) for entry in batch]
    assert seconds == sorted(seconds)


@pytest.mark.slow
def test_a_position_deep_in_an_index_of_300_000_utterances_is_there_in_three_seconds(make, tmp_path):
    """Of this process' own, so that a busy machine does not count."""
    folder = synthetic(tmp_path, 300_000)
    started = time.process_time()
    made = make(read_index(folder), batch_seconds=160.0, neighbours=2000, leave_out=1.0)
    place = len(made.plan(7)) - 3
    assert next(made.batches(7, place))[0] == place
    seconds = time.process_time() - started
    print(f"{seconds:.2f} s")
    assert seconds < 3


def test_skip_counts_planned_batches_where_nothing_is_left_of_one(tools, make, tmp_path):
    index = write(tools, tmp_path, {3: "aXb"})
    loader = make(index, batch_utterances=1, leave_out=0.2)
    found = list(loader.batches(0))
    [gone] = [place for place, batch in found if batch is None]
    assert loader.plan(0)[gone][0].id == "발화/3"
    assert [place for place, _ in found] == list(range(len(SECONDS)))
    for skip in range(len(SECONDS)):
        rest = make(index, batch_utterances=1, leave_out=0.2).epoch(0, skip)
        assert ids(rest) == [batch.ids for place, batch in found if place >= skip and batch is not None]


@pytest.mark.parametrize("ranks", [1, 2, 3, 20])
@pytest.mark.parametrize("skip", [0, 2])
def test_ranks_share_an_epoch(make, ranks, skip):
    plan = [[entry.id for entry in batch] for batch in make().plan(1, ranks)]
    assert sorted(plan) == sorted([entry.id for entry in batch] for batch in make().plan(1))
    shares = [list(make().batches(1, skip, rank, ranks)) for rank in range(ranks)]
    assert sorted(place for share in shares for place, _ in share) == list(range(skip, len(plan)))
    for rank, share in enumerate(shares):
        assert [batch.ids for _, batch in share] == plan[skip:][rank::ranks]


def test_batches_of_one_update_are_of_like_length(make):
    """With two ranks neighbours in the order of lengths go together, and only the last may be alone."""
    lengths = [max(entry.seconds for entry in batch) for batch in make(batch_utterances=1, neighbours=99).plan(0, 2)]
    order = sorted(lengths)
    pairs = {tuple(lengths[start : start + 2]) for start in range(0, len(lengths), 2)}
    assert pairs == {tuple(order[start : start + 2]) for start in range(0, len(order), 2)}


def test_texts_come_without_audio(make):
    found = list(make().texts(100))
    assert [text for _, text in found] == ["ab"] * len(SECONDS)
    assert [entry.id for entry, _ in make().texts(4)] == [entry.id for entry in make().entries[::3]]
    assert [entry.id for entry, _ in make().texts(11)] == [entry.id for entry in make().entries[::2]]


def test_few_texts_of_shards_elsewhere_are_looked_through(make, monkeypatch):
    """Each of them is a request."""
    loader = make()
    monkeypatch.setattr(module, "REMOTE_TEXTS", 3)
    monkeypatch.setattr(module, "read_text", lambda index, entry: entry.id)
    monkeypatch.setattr(module.store, "is_remote", lambda place: True)
    assert [text for _, text in loader.texts(100)] == [entry.id for entry in loader.entries[::4]]


def test_unknown_characters_are_counted_and_named(tools, make, tmp_path):
    index = write(tools, tmp_path, {3: "a한b글"})
    loader = make(index, leave_out=0.1)
    found = [id for batch in loader.epoch(0) for id in batch.ids]
    assert len(found) == len(SECONDS) - 1
    assert str(loader.ledger) == "characters that the tokenizer cannot write: 1 (first: 발화/3: 한글)"
    list(loader.epoch(1))
    assert len(loader.ledger) == 1  # the same case, not a second one


@pytest.mark.parametrize("workers", [0, 1])
def test_above_the_share_a_run_stops(tools, make, tmp_path, workers):
    index = write(tools, tmp_path, {3: "aXb", 5: "Y"})
    with pytest.raises(UserError, match=r"2 of 12 utterances left out, more than 10.0% \(characters that the .*mend"):
        list(make(index, leave_out=0.1, workers=workers).epoch(0))
    assert len(list(make(index, leave_out=0.2, workers=workers).epoch(0))) > 1


def test_a_broken_recording_is_counted_and_named(tools, make, tmp_path):
    index = write(tools, tmp_path)
    entry = index.entries[4]
    path = Path(index.place(entry.shard))
    content = bytearray(path.read_bytes())
    content[entry.offset + entry.size - 1500] ^= 255  # in the audio, the sample's last member
    path.write_bytes(content)
    with pytest.raises(UserError, match="1 of 12 utterances left out"):
        list(make(read_index(index.root)).epoch(0))
    loader = make(read_index(index.root), leave_out=0.1)
    found = list(loader.epoch(0))
    assert sorted(id for batch in found for id in batch.ids) == sorted(one.id for one in index.entries if one != entry)
    assert all(len(batch) == len(batch.waves) == len(batch.tokens) == len(batch.lengths) for batch in found)
    ((cause, cases),) = loader.ledger.cases.items()
    assert cause == "cannot be read"
    assert "the audio is damaged" in cases[entry.id]


def test_a_recording_that_is_not_as_long_as_its_index_says_is_counted_and_named(make, index):
    entries = tuple(replace(one, seconds=9.0) if one.id == "발화/4" else one for one in index.entries)
    loader = make(replace(index, entries=entries), leave_out=0.1)
    assert sum(len(batch.tokens) for batch in loader.epoch(0)) == 11
    assert str(loader.ledger) == "not as long as the index says: 1 (first: 발화/4: 1.10 s, 9.00 s in the index)"


def test_what_is_longer_than_its_index_says_is_not_decoded_to_its_end(make, monkeypatch):
    """A few kilobytes of FLAC may hold an hour of silence."""
    monkeypatch.setattr(module.audio, "stream", lambda *_: (torch.zeros(4000) for _ in itertools.count()))
    loader = make(leave_out=1.0)
    assert list(loader.epoch(0)) == []
    assert loader.ledger.cases["not as long as the index says"]["발화/4"] == "2.00 s or more, 1.10 s in the index"


def test_a_recording_too_long_is_counted_and_named(make, index):
    loader = make(longest=1.05, leave_out=0.1)
    assert str(loader.ledger) == "longer than data.longest: 1 (first: 발화/4: 1.1 s)"
    assert loader.seconds == pytest.approx(sum(SECONDS) - 1.1)
    assert len(loader.entries) == len(index) - 1
    with pytest.raises(UserError, match=r"1 of 12 utterances left out, more than 1.0%.*; raise data.longest"):
        make(longest=1.05)


def test_a_set_of_which_nothing_is_left_is_refused(make):
    with pytest.raises(UserError, match=r"shards: no utterance to load \(longer than data.longest: 12 "):
        make(longest=0.1, leave_out=1.0)


@pytest.mark.parametrize("taken", [0, 1, 4, 5])
def test_items_fetched_ahead_are_the_same_and_no_thread_is_left(taken):
    before = threading.active_count()
    items = _ahead(iter("abcde"))
    assert [next(items) for _ in range(taken)] == list("abcde"[:taken])
    if taken == 5:
        assert next(items, None) is None
    items.close()
    assert threading.active_count() == before


def test_what_goes_wrong_ahead_is_raised_in_its_place():
    items = _ahead(1 // (2 - number) for number in range(9))
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_workers_end_in_the_thread_that_started_them(make, monkeypatch):
    kind, ended = torch.utils.data.dataloader._MultiProcessingDataLoaderIter, []
    end = kind._shutdown_workers

    def told(workers):
        ended.append(threading.current_thread())
        end(workers)

    monkeypatch.setattr(kind, "_shutdown_workers", told)
    for taken in (1, 10**9):
        batches = make(workers=1).batches(0)
        assert [place for place, _ in zip(range(taken), batches, strict=False)]
        batches.close()
        assert set(ended) == {threading.main_thread()}


def test_workers_leave_signals_to_the_training_process():
    """Any Ctrl-C does nothing, nor does a SIGTERM of others; one of the parent ends the worker."""
    for ended in (False, True):
        ready, told = os.pipe()
        child = os.fork()
        if child == 0:
            _leave_signals_to_parent(0)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                os.kill(os.getpid(), number)
            while signal.sigpending():
                time.sleep(0.01)
            os.write(told, b"x")
            time.sleep(60 if ended else 0.1)
            os._exit(7)
        os.read(ready, 1)
        if ended:
            os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (0 if ended else 7)


def test_a_process_that_ends_amid_an_epoch_does_not_wait_for_its_workers(make):
    child = os.fork()
    if child == 0:
        batches = make(workers=1).epoch(0)
        next(batches)
        multiprocessing.util._exit_function()  # what Python does at exit, while `batches` is still held
        os._exit(3)
    ended = time.monotonic() + 20
    while (found := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < ended:
        time.sleep(0.02)
    if found == (0, 0):
        os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(found[1]) == 3
