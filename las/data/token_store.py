"""Sentences -> token ids in files, and back in batches: a text of any size is tokenized once and never held whole.

STORE/tokens.bin    ids one after another, EOS at the end of each sentence; 2 bytes each, 4 above 65,536 tokens
STORE/ends.bin      where each sentence ends (int64)
STORE/store.json    what is in there; written last, so that a store without it is none
"""

from __future__ import annotations

import hashlib
import json
import shutil
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from las.errors import UserError
from las.files import write_text
from las.text.tokenizer import BLANK, BOS, EOS, UNK, Tokenizer

CHUNK = 256  # neighbouring sentences that stay together when the order is drawn
UNKNOWN_LIMIT = 0.01  # share of unknown tokens above which a text is not taken


@dataclass(frozen=True)
class TextConfig:
    """Where the text is and how it becomes batches."""

    train: tuple[str, ...] = ()  # text files, such as [novels.txt.xz,train.jsonl]: .txt, .gz, .xz with a sentence a
    #                              line, or manifests
    valid: tuple[str, ...] = ()  # the same, to validate on
    tokenizer: str = ""  # model file of the tokens, or the model folder of the recogniser
    batch_tokens: int = 4096  # tokens in a batch, padding included, at most
    longest: int = 400  # tokens; a longer sentence is cut into parts
    pool: int = 100_000  # sentences drawn from the whole text that are sorted by length together

    def __post_init__(self) -> None:
        if min(self.batch_tokens, self.longest, self.pool) < 1:
            raise UserError("data: batch_tokens, longest and pool must be at least 1")


@dataclass(frozen=True)
class Contents:
    """What a store holds."""

    sentences: int
    parts: int  # sentences after those that are too long were cut
    tokens: int  # ends of sentences included
    words: int
    unknown: int  # tokens that stand for what the tokenizer cannot write
    first_unknown: str  # the first sentence with one
    width: int  # bytes a token
    tokenizer: str  # SHA-256 of its model


@dataclass(frozen=True)
class TokenBatch:
    """Some sentences: what is read and what follows it, both (B, L), BLANK past their ends."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def rows(self, start: int, end: int) -> TokenBatch:
        """The sentences from `start` to before `end`, padded only as far as the longest of these."""
        longest = int((self.targets[start:end] != BLANK).sum(1).max())
        return TokenBatch(self.inputs[start:end, :longest], self.targets[start:end, :longest])

    def to(self, device: torch.device) -> TokenBatch:
        return TokenBatch(self.inputs.to(device, non_blocking=True), self.targets.to(device, non_blocking=True))


def write_store(folder: Path, sentences: Iterable[str], tokenizer: Tokenizer, longest: int) -> TokenStore:
    """Tokenize sentences into a new store. One of more than `longest` tokens is cut into parts, of which only the last
    ends with EOS. Raises `UserError` where there is no sentence, or too much that the tokenizer cannot write."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kind = np.uint16 if tokenizer.size <= 1 << 16 else np.uint32
    words = tokens = unknown = count = 0
    first_unknown = ""
    ends = array("q")
    with (folder / "tokens.bin").open("wb") as file, (folder / "ends.bin").open("wb") as ends_file:
        for sentence in sentences:
            ids = [*tokenizer.encode(sentence), EOS]
            count, words = count + 1, words + len(sentence.split())
            if UNK in ids:
                unknown, first_unknown = unknown + ids.count(UNK), first_unknown or sentence
            ends.extend(range(tokens + longest, tokens + len(ids), longest))
            tokens += len(ids)
            ends.append(tokens)
            file.write(np.array(ids, dtype=kind).tobytes())
            if len(ends) > 100_000:
                ends.tofile(ends_file)
                ends = array("q")
        ends.tofile(ends_file)
        parts = ends_file.tell() // ends.itemsize
    contents = Contents(count, parts, tokens, words, unknown, first_unknown, kind().itemsize, fingerprint(tokenizer))
    write_text(folder / "store.json", json.dumps(asdict(contents), ensure_ascii=False))
    if not count:
        raise UserError("no text to read: no sentence with a character in it")
    check_unknown(unknown, tokens, first_unknown, tokenizer)
    return TokenStore(folder)


def fingerprint(tokenizer: Tokenizer) -> str:
    """Tells tokens from others, of which ids would mean something else."""
    return hashlib.sha256(tokenizer.to_bytes()).hexdigest()


def check_unknown(unknown: int, tokens: int, first: str, tokenizer: Tokenizer) -> None:
    """Raise `UserError` where too many tokens are unknown; `first` is the first sentence with one."""
    if unknown > UNKNOWN_LIMIT * tokens:
        raise UserError(
            f"{unknown} of {tokens} tokens are unknown to the tokenizer, more than {UNKNOWN_LIMIT:.0%} (first: "
            f"{tokenizer.unknown(first)[:20]!r} in {first[:60]!r}); is the text in another style or language than the "
            "transcripts? See style"
        )


class TokenStore:
    """A store, read as it is asked for."""

    def __init__(self, folder: Path):
        self.contents = Contents(**json.loads((folder / "store.json").read_text(encoding="utf-8")))
        kind = np.uint16 if self.contents.width == 2 else np.uint32
        self.tokens = np.memmap(folder / "tokens.bin", dtype=kind, mode="r")
        self.ends = np.memmap(folder / "ends.bin", dtype=np.int64, mode="r")

    def __len__(self) -> int:
        return len(self.ends)

    def batches(self, size: int, first: int = 0, pool: int = 0, seed: tuple[int, int] = (0, 0)) -> Iterator[TokenBatch]:
        """Batches of up to `size` tokens, padding included, without the first so many. See `groups`."""
        for number, group in enumerate(self.groups(size, pool, seed)):
            if number >= first:
                yield self.batch(group)

    def groups(self, size: int, pool: int = 0, seed: tuple[int, int] = (0, 0)) -> Iterator[np.ndarray]:
        """The numbers of the sentences of each batch, of like lengths; a sentence too long for `size` is alone.

        Shuffled: chunks of neighbours in an order drawn with `seed`, `pool` sentences of them at a time are sorted by
        length (equal ones in an order that is drawn too) and cut into batches, and their order is drawn. With a pool
        of 0 the sentences stay in their order, sorted within every 16,384.
        """
        chance = np.random.default_rng(seed)
        chunks = -(-len(self) // CHUNK)
        order = chance.permutation(chunks) if pool else np.arange(chunks)
        together = max(1, (pool or 16_384) // CHUNK)
        for first in range(0, chunks, together):
            starts = order[first : first + together, None] * CHUNK
            numbers = (starts + np.arange(CHUNK)).ravel()
            numbers = numbers[numbers < len(self)]
            lengths = self.ends[numbers] - np.where(numbers > 0, self.ends[numbers - 1], 0)
            drawn = chance.permutation(len(numbers)) if pool else np.arange(len(numbers))
            drawn = drawn[np.argsort(lengths[drawn], kind="stable")]
            cuts = _cuts(lengths[drawn], size)
            groups = np.split(numbers[drawn], cuts)
            for place in chance.permutation(len(groups)) if pool else range(len(groups)):
                yield groups[place]

    def batch(self, group: np.ndarray) -> TokenBatch:
        sentences = [self.tokens[self.ends[number - 1] if number else 0 : self.ends[number]] for number in group]
        shape = (len(sentences), max(map(len, sentences)))
        inputs, targets = np.full(shape, BLANK, dtype=np.int64), np.full(shape, BLANK, dtype=np.int64)
        inputs[:, 0] = BOS
        for row, sentence in enumerate(sentences):
            inputs[row, 1 : len(sentence)] = sentence[:-1]
            targets[row, : len(sentence)] = sentence
        return TokenBatch(torch.from_numpy(inputs), torch.from_numpy(targets))


def _cuts(lengths: np.ndarray, size: int) -> list[int]:
    """Where batches begin, but the first, so that (sentences * greatest length) stays within `size`; rising lengths.

    >>> _cuts(np.array([1, 2, 2, 5, 9]), 6)
    [3, 4]
    """
    cuts, start = [], 0
    for place, length in enumerate(lengths.tolist()):
        if place > start and (place + 1 - start) * length > size:
            cuts.append(place)
            start = place
    return cuts
