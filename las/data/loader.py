"""Shards -> batches of like length, each utterance exactly once an epoch.

The index is enough to plan an epoch: which utterances go together and in which order follows from the seed and the
epoch's number alone. Worker processes read and decode planned batches, so their number changes nothing, and a run
resumes at any batch by leaving out those before it.
"""

from __future__ import annotations

import math
import os
import random
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from las import audio
from las.batch import Batch, pad
from las.data import store
from las.data.augment import AugmentConfig, Augmenter
from las.data.shards import Entry, Index, Sample, read_sample, read_text
from las.errors import UserError
from las.ledger import Ledger
from las.text.tokenizer import Tokenizer

Leaving = tuple[str, str, str]  # cause, id, detail
_Sent = tuple[tuple[list[str], Tensor, np.ndarray, np.ndarray, np.ndarray] | None, list[Leaving]]  # a batch, by parts

REMOTE_TEXTS = 300  # transcripts that are looked through where each is a request to a server
NEARLY = (0.98, 1.02)  # factors of the lengths that utterances are sorted by, drawn anew in every epoch: by the lengths
#                       alone a corpus of one pool would fall into the same batches in each
ASTRAY = 0.5  # s that a recording may be longer or shorter than its index says; decoders differ at the ends
WAY_OUT = "mend the data and run `las shard` again, or raise data.leave_out"


@dataclass(frozen=True)
class LoaderConfig:
    """Where the data is and how it becomes batches."""

    train: str = ""  # folder of training shards, made by `las shard`, or the address of one: https://, s3://, ...
    valid: str = ""  # folder of shards to validate on, or its address
    cache: str = ""  # folder that keeps copies of remote shards; empty: each utterance is asked for when it is needed
    tokenizer: str = ""  # model file of the tokens, made by `las tokenizer`
    batch_seconds: float = 160.0  # s of padded audio in a batch, at most; as recorded, before a change of speed
    batch_utterances: int = 64  # utterances in a batch, at most
    batch_grid: float = 0.0  # padded s x characters of the longest transcript in a batch, at most: what attention that
    #                          looks at every frame for every token takes memory for (`las plan`); 0: not bounded
    longest: float = 35.0  # s; longer utterances are left out of training, and counted
    neighbours: int = 2000  # utterances sorted by about their length together; more: less padding, less chance
    sorted_first: bool = False  # the first epoch goes from short to long
    workers: int = 1  # processes that read and decode; 0: the training process does it itself
    leave_out: float = 0.01  # share of utterances that may be left out before the run stops

    def __post_init__(self) -> None:
        if min(self.batch_seconds, self.batch_utterances, self.longest, self.neighbours) <= 0:
            raise UserError("data: batch_seconds, batch_utterances, longest and neighbours must be above 0")
        if self.batch_grid < 0:
            raise UserError(f"data.batch_grid {self.batch_grid:g} must be 0 or more")
        if self.workers < 0 or not 0 <= self.leave_out <= 1:
            raise UserError("data: workers must be 0 or more, leave_out between 0 and 1")


NOTHING_CHANGED = AugmentConfig()


class Loader:
    """Batches of an index, epoch after epoch. `ledger` tells what was left out and why."""

    def __init__(
        self,
        index: Index,
        tokenizer: Tokenizer,
        rate: int,
        config: LoaderConfig,
        *,
        shuffle: bool,
        seed: int,
        augment: AugmentConfig = NOTHING_CHANGED,
        keep_unknown: bool = False,
    ):
        """With `keep_unknown` a text that the tokenizer cannot write is kept, with UNK in it, and else left out."""
        self.index = index
        self.config = config
        self.shuffle = shuffle
        self.seed = seed
        self.ledger = Ledger()
        if augment.token_alpha and not tokenizer.can_sample:
            raise UserError(
                "augment.token_alpha: this tokenizer writes a text in one way only; use unigram or bpe, or 0"
            )
        self.reader = _Reader(index, tokenizer, rate, Augmenter(augment, rate), seed, keep_unknown)
        self.entries = []
        for entry in index.entries:
            if entry.seconds > config.longest:
                self.ledger.leave("longer than data.longest", entry.id, f"{entry.seconds:.1f} s")
            else:
                self.entries.append(entry)
        self.planned: tuple[tuple[int, int], list[list[Entry]]] = ((-1, 0), [])  # epoch and ranks; the last plan
        self.ledger.check(len(index), config.leave_out, "raise data.longest, or cut the recordings")
        if not self.entries:
            raise UserError(f"{index.root}: no utterance to load ({self.ledger or 'the index is empty'})")

    @property
    def seconds(self) -> float:
        """Seconds of audio in an epoch."""
        return sum(entry.seconds for entry in self.entries)

    def plan(self, epoch: int, ranks: int = 1) -> list[list[Entry]]:
        """The batches of an epoch, every utterance in exactly one of them; they hang on seed and epoch alone.

        Each `ranks` neighbours, which as many processes train on at the same time, are of like length, so that none
        waits for long. The last plan is kept: the training loop asks for it, and so does `batches`.
        """
        if self.planned[0] != (epoch, ranks):
            self.planned = (epoch, ranks), self._plan(epoch, ranks)
        return self.planned[1]

    def _plan(self, epoch: int, ranks: int) -> list[list[Entry]]:
        order = list(self.entries)
        chance = random.Random(f"{self.seed} {epoch}")
        if not self.shuffle or (self.config.sorted_first and epoch == 0):
            return _cut(sorted(order, key=lambda entry: (entry.seconds, entry.id)), self.config)
        chance.shuffle(order)
        batches = []
        for start in range(0, len(order), self.config.neighbours):
            pool = order[start : start + self.config.neighbours]
            batches += _cut(sorted(pool, key=lambda entry: entry.seconds * chance.uniform(*NEARLY)), self.config)
        together = [batches[start : start + ranks] for start in range(0, len(batches), ranks)]
        last = [together.pop()] if len(together[-1]) < ranks else []
        chance.shuffle(together)
        return [batch for neighbours in together + last for batch in neighbours]

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, without the first `skip` of its plan."""
        return (batch for _, batch in self.batches(number, skip) if batch is not None)

    def batches(
        self, number: int, skip: int = 0, rank: int = 0, ranks: int = 1, planned_for: int | None = None
    ) -> Iterator[tuple[int, Batch | None]]:
        """Every batch of the plan from place `skip` on, with its place; None where nothing is left of one.

        Of `ranks` processes that share an epoch, each gets every so manyeth batch. `planned_for` names the number of
        ranks whose plan it is, where an epoch is gone on with by others than began it.
        """
        plan = self.plan(number, planned_for or ranks)
        places = range(skip + rank, len(plan), ranks)
        workers = min(self.config.workers, len(places))
        batches = DataLoader(
            _Planned(self.reader, [plan[place] for place in places], number),
            batch_size=None,
            num_workers=workers,
            collate_fn=_sent,  # type: ignore[arg-type]  # of one, because batch_size is None
            prefetch_factor=4 if workers else None,
            generator=torch.Generator(),  # else starting workers draws from the global generator
            worker_init_fn=_leave_signals_to_parent,
        )
        running = iter(batches)  # held here, since workers end where it is let go of or asked for more than there is
        received = map(_received, islice(running, len(places)))
        for place, (batch, leavings) in zip(places, _ahead(received) if workers else received, strict=True):
            for leaving in leavings:
                self.ledger.leave(*leaving)
            self.ledger.check(len(self.index), self.config.leave_out, WAY_OUT)
            yield place, batch

    def text(self, id: str) -> str:
        """The transcript of an utterance, read from its shard."""
        return read_text(self.index, next(entry for entry in self.entries if entry.id == id))

    def texts(self, at_most: int) -> Iterator[tuple[Entry, str]]:
        """Transcripts with their entries, without reading audio; of more than `at_most` every n-th.

        Of shards elsewhere no more than REMOTE_TEXTS: each is asked for alone.
        """
        if store.is_remote(self.index.root) and not self.index.cache:
            at_most = min(at_most, REMOTE_TEXTS)
        stride = max(1, math.ceil(len(self.entries) / at_most))
        for entry in self.entries[::stride]:
            yield entry, read_text(self.index, entry)


def _cut(entries: list[Entry], config: LoaderConfig) -> list[list[Entry]]:
    """Cut a list in its order into batches within the budget of padded seconds and of these times characters."""
    batches: list[list[Entry]] = []
    longest, characters = 0.0, 0  # s, of the longest recording in the last batch; of its longest transcript
    for entry in entries:
        full = not batches or len(batches[-1]) >= config.batch_utterances
        longest, characters = max(longest, entry.seconds), max(characters, entry.characters)
        seconds = 0.0 if full else (len(batches[-1]) + 1) * longest
        if full or seconds > config.batch_seconds or 0 < config.batch_grid < seconds * characters:
            batches.append([])
            longest, characters = entry.seconds, entry.characters
        batches[-1].append(entry)
    return batches


@dataclass(frozen=True)
class _Reader:
    """Reads the samples of a batch, decodes and tokenises them."""

    index: Index
    tokenizer: Tokenizer
    rate: int  # Hz
    augment: Augmenter
    seed: int
    keep_unknown: bool = False

    def batch(self, entries: list[Entry], epoch: int) -> tuple[Batch | None, list[Leaving]]:
        ids: list[str] = []
        waves: list[Tensor] = []
        tokens: list[Tensor] = []
        leavings: list[Leaving] = []
        for entry in entries:
            try:
                sample = read_sample(self.index, entry)
                written = self._tokens(sample, epoch)
                wave = self._wave(sample)
                waves.append(self.augment(wave, self.seed, epoch, entry.id))
            except _Left as left:
                leavings.append((left.args[0], entry.id, left.args[1]))
                continue
            except UserError as error:
                leavings.append(("cannot be read", entry.id, str(error)))
                continue
            tokens.append(written)
            ids.append(entry.id)
        if not ids:
            return None, leavings
        padded_waves, samples = pad(waves)
        padded_tokens, lengths = pad(tokens)
        return Batch(ids, padded_waves, samples, padded_tokens, lengths), leavings

    def _wave(self, sample: Sample) -> Tensor:
        blocks, read = [], 0
        for block in audio.stream(sample.audio_bytes, self.rate):
            blocks.append(block)
            read += len(block)
            if read > (sample.seconds + ASTRAY) * self.rate:
                break
        if abs(read / self.rate - sample.seconds) > ASTRAY:  # batches are budgeted by what the index says
            found = f"{read / self.rate:.2f} s{' or more' * (read > sample.seconds * self.rate)}"
            raise _Left("not as long as the index says", f"{found}, {sample.seconds:.2f} s in the index")
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)

    def _tokens(self, sample: Sample, epoch: int) -> Tensor:
        if not self.keep_unknown and (unknown := self.tokenizer.unknown(sample.text)):
            raise _Left("characters that the tokenizer cannot write", unknown)
        config = self.augment.config
        if config.token_alpha:
            seed = config.token_seed(self.seed, epoch, sample.id)
            ids = self.tokenizer.sample(sample.text, config.token_alpha, config.token_nbest, seed)
        else:
            ids = self.tokenizer.encode(sample.text)
        return torch.tensor(ids, dtype=torch.int64)


class _Left(Exception):
    """An utterance is left out: cause, detail."""


class _Planned(Dataset):
    """Planned batches by number, for torch's worker processes."""

    def __init__(self, reader: _Reader, plan: list[list[Entry]], epoch: int):
        self.reader = reader
        self.plan = plan
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, number: int) -> tuple[Batch | None, list[Leaving]]:
        return self.reader.batch(self.plan[number], self.epoch)


def _sent(found: tuple[Batch | None, list[Leaving]]) -> _Sent:
    """A batch by its parts: torch takes a millisecond to hand over a tensor, however small; only the waves are one."""
    batch, leavings = found
    if batch is None:
        return None, leavings
    small = (batch.samples.numpy(), batch.tokens.numpy(), batch.lengths.numpy())
    return (batch.ids, batch.waves, *small), leavings


def _received(sent: _Sent) -> tuple[Batch | None, list[Leaving]]:
    parts, leavings = sent
    if parts is None:
        return None, leavings
    ids, waves, *small = parts
    return Batch(ids, waves, *map(torch.from_numpy, small)), leavings


Item = TypeVar("Item")


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, fetched by a thread: to take a batch over from a worker means to wait until the worker has its
    turn on a core, which on a busy machine takes longer than a step of a small model."""
    thread = ThreadPoolExecutor(1)
    try:
        waiting = deque(thread.submit(next, items, None) for _ in range(2))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, items, None))
            yield item
    finally:
        thread.shutdown(cancel_futures=True)


def _leave_signals_to_parent(worker: int) -> None:
    """Ctrl-C and SIGTERM often reach all processes of a run; what happens then is for the training process to say.

    A SIGTERM that it sends itself ends the worker: torch and Python send one to workers that are left over at the end.
    """
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def listen() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
