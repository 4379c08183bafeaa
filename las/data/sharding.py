"""Utterances -> WebDataset tar shards with an index, by one process or by several; the layout: las/data/shards.py.

The same utterances, recordings and seed give the same bytes, however many threads and processes write them. Shards are
written into FOLDER.part, which gets its name when it is whole.

Several processes, ranks, see one file system. Where a shard ends hangs on the bytes of all before it, so they go in two
steps: each prepares an even part of the utterances, FOLDER.part/prepared-N, and when all have done so, each knows the
layout and writes a part of the shards, which the first rank then lists in the index. A rank that dies ends the others
before there is an index.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from webdataset import TarWriter

from las.audio import load, probe, write_flac
from las.data.manifest import Utterance
from las.data.shards import BLOCK, FORMAT, INDEX, Entry, Index, Shard, read_index
from las.errors import DISK_FULL, UserError
from las.ledger import Ledger
from las.text.normalize import nfc

ENCODINGS = ("flac", "original")
EARLY = 20  # leavings from which on a hopeless run stops before its end
WAY_OUT = (
    "correct the recordings or the manifest, remove those lines (`las doctor data` names them all), or allow for more "
    "(--leave-out)"
)


class Ranks(Protocol):
    """The processes that write shards together, seen from one of them."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def meet(self) -> None:
        """Wait until all are here."""


def write_shards(
    utterances: Iterable[Utterance],
    folder: str | Path,
    *,
    encode: str = "flac",
    rate: int | None = None,
    shard_bytes: int = 256_000_000,
    shard_utterances: int = 10_000,
    seed: int | None = 0,
    workers: int = 1,
    ledger: Ledger | None = None,
    limit: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
    ranks: Ranks | None = None,
) -> Index:
    """Store recordings and transcripts in `folder`, which must not exist or be empty.

    encode: "flac" decodes to mono at `rate` Hz (None: each recording's own) and stores 16 bits, "original" keeps the
    file's bytes; either way each recording is decoded once, which tells its seconds and that it can be read.
    A shard ends with the utterance that takes it to `shard_bytes` or `shard_utterances`. `seed` shuffles first, so that
    each shard is a fair sample; None keeps the order. `workers` threads decode in each of `ranks`; the result depends
    on neither. (A thread holds Python's lock a fifth of its time: beyond four threads, ranks are what helps.)
    `progress(done, total)` is called after each utterance that this rank prepares.

    An utterance with an empty text or a recording that cannot be decoded, or that is not as long as its `seconds` say,
    is left out and noted in `ledger`. Raises `UserError` where more than the share `limit` is, where nothing is left,
    for a repeated id, a folder that is in use and a full disk; then `folder` is as it was before.
    """
    utterances = list(utterances)
    folder = Path(os.path.realpath(folder))
    ledger = Ledger() if ledger is None else ledger
    _check_request(utterances, folder, encode, rate)
    if seed is not None:
        random.Random(seed).shuffle(utterances)
    job = _Job(utterances, folder, encode, rate, shard_bytes, shard_utterances, workers, limit, progress)
    try:
        if ranks is None or ranks.size == 1:
            _make(job.part)
            with _removed_in_the_end(job.part):
                shards, entries = _write_alone(job, ledger)
                _write_index(job.part, shards, entries)
                os.replace(job.part, folder)
        else:
            shards, entries = _write_together(job, ledger, ranks)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UserError(f"{folder}: the disk is full; free some space there or name another folder") from error
        if ranks is not None and ranks.size > 1 and not job.part.exists():  # a rank that fails takes it away
            raise UserError(f"{folder}: another rank is gone") from None
        raise UserError(f"{error.filename or folder}: cannot write shards: {error.strerror}") from error
    return Index(str(folder), tuple(shards), tuple(entries))


@dataclass(frozen=True)
class _Job:
    """What is asked for; all ranks are asked for the same."""

    utterances: list[Utterance]
    folder: Path
    encode: str
    rate: int | None  # Hz
    shard_bytes: int
    shard_utterances: int
    workers: int
    limit: float
    progress: Callable[[int, int], None] | None

    @property
    def part(self) -> Path:
        """Where shards lie until all are there."""
        return self.folder.with_name(self.folder.name + ".part")

    def is_full(self, size: int, utterances: int) -> bool:
        """Whether a shard ends at this many bytes and utterances."""
        return size >= self.shard_bytes or utterances >= self.shard_utterances

    def check(self, ledger: Ledger) -> None:
        ledger.check(len(self.utterances), self.limit, WAY_OUT)

    def prepare(self, utterances: Sequence[Utterance]) -> Generator[tuple[Utterance, _Prepared | _Left], None, None]:
        """Utterances with what is to be written of them; soon after too many are left out, it raises `UserError`."""
        ledger = Ledger()
        with closing(_prepare_all(utterances, self.encode, self.rate, self.workers)) as prepared:
            for done, (utterance, result) in enumerate(zip(utterances, prepared, strict=True), start=1):
                if isinstance(result, _Left):
                    ledger.leave(result.cause, utterance.id, result.detail)
                    if len(ledger) >= EARLY:
                        self.check(ledger)
                yield utterance, result
                if self.progress is not None:
                    self.progress(done, len(utterances))


@contextmanager
def _removed_in_the_end(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # after os.replace there is nothing left to remove


def _write_alone(job: _Job, ledger: Ledger) -> tuple[list[Shard], list[Entry]]:
    with _ShardsWriter(job) as writer, closing(job.prepare(job.utterances)) as prepared:
        for utterance, result in prepared:
            if isinstance(result, _Prepared):
                writer.write(utterance, result)
            else:
                ledger.leave(result.cause, utterance.id, result.detail)
    _check_left(job, ledger, writer.entries)
    return writer.shards, writer.entries


def _check_left(job: _Job, ledger: Ledger, kept: Sequence[object]) -> None:
    job.check(ledger)
    if not kept:
        raise UserError(f"{job.folder}: no utterance is left to write ({ledger}); {WAY_OUT}")


# -------------------------------------------------------------------------------------------------- several processes


@dataclass(frozen=True)
class _Stored:
    """One utterance as a rank has prepared it: `size` bytes of audio lie at `offset` of `place`."""

    utterance: Utterance
    place: Path
    offset: int
    size: int
    text: str
    suffix: str
    seconds: float
    rate: int

    @property
    def bytes_in_shard(self) -> int:
        about = _about(self.utterance, self.seconds, self.rate)
        return sum(BLOCK + -(-size // BLOCK) * BLOCK for size in (len(self.text.encode()), len(about), self.size))

    def read(self) -> _Prepared:
        with self.place.open("rb") as file:
            file.seek(self.offset)
            return _Prepared(self.text, file.read(self.size), self.suffix, self.seconds, self.rate)


def _write_together(job: _Job, ledger: Ledger, ranks: Ranks) -> tuple[list[Shard], list[Entry]]:
    leads = ranks.rank == 0
    ranks.meet()  # all have seen that the folder is free
    if leads:
        _make(job.part)
    with _removed_in_the_end(job.part) if leads else nullcontext():
        ranks.meet()
        _store_part(job, ranks)
        ranks.meet()
        stored = list(_stored(job, ledger, ranks))
        ranks.meet()  # all have read what was left out: each refuses by itself, and then the files go
        _check_left(job, ledger, stored)
        _write_part(job, _cut(job, stored), ranks)
        ranks.meet()
        if leads:
            _write_index(job.part, *_written(job, ranks))
            for path in [*job.part.glob("prepared-*"), *job.part.glob("written-*")]:
                path.unlink()
            os.replace(job.part, job.folder)
        ranks.meet()
    index = read_index(job.folder)
    return list(index.shards), list(index.entries)


def _share(number: int, ranks: Ranks) -> slice:
    """A rank's contiguous part of so many things."""
    return slice(ranks.rank * number // ranks.size, (ranks.rank + 1) * number // ranks.size)


def _store_part(job: _Job, ranks: Ranks) -> None:
    """Prepare this rank's part of the utterances: audio into one file, a JSON line for each into another."""
    own = job.utterances[_share(len(job.utterances), ranks)]
    name = f"prepared-{ranks.rank:05d}"
    with (
        (job.part / f"{name}.audio").open("wb") as audio,
        (job.part / f"{name}.jsonl").open("w") as lines,
        closing(job.prepare(own)) as prepared,
    ):
        for _, result in prepared:
            row: dict[str, Any] = asdict(result)
            if isinstance(result, _Prepared):
                audio.write(result.audio_bytes)
                row["audio_bytes"] = len(result.audio_bytes)
            lines.write(json.dumps(row) + "\n")


def _stored(job: _Job, ledger: Ledger, ranks: Ranks) -> Iterator[_Stored]:
    """What all ranks have prepared, in the order of the utterances."""
    utterances = iter(job.utterances)
    for rank in range(ranks.size):
        place, offset = job.part / f"prepared-{rank:05d}.audio", 0
        with place.with_suffix(".jsonl").open() as lines:
            for line, utterance in zip(lines, utterances):  # noqa: B905  the utterances go on in the next rank
                row = json.loads(line)
                if "cause" in row:
                    ledger.leave(row["cause"], utterance.id, row["detail"])
                    continue
                size = row.pop("audio_bytes")
                yield _Stored(utterance, place, offset, size, **row)
                offset += size


def _cut(job: _Job, stored: Sequence[_Stored]) -> list[list[_Stored]]:
    """The utterances of each shard."""
    shards: list[list[_Stored]] = []
    full, size = True, 0
    for one in stored:
        if full:
            shards.append([])
            size = 0
        shards[-1].append(one)
        size += one.bytes_in_shard
        full = job.is_full(size, len(shards[-1]))
    return shards


def _write_part(job: _Job, shards: Sequence[Sequence[_Stored]], ranks: Ranks) -> None:
    """This rank's shards, and a file that says what they hold."""
    own = _share(len(shards), ranks)
    with _ShardsWriter(job, own.start, sum(map(len, shards[: own.start]))) as writer:
        for shard in shards[own]:
            for one in shard:
                writer.write(one.utterance, one.read())
    assert [shard.utterances for shard in writer.shards] == [len(shard) for shard in shards[own]]
    rows = {"shards": list(map(_record, writer.shards)), "utterances": list(map(_record, writer.entries))}
    (job.part / f"written-{ranks.rank:05d}.json").write_text(json.dumps(rows))


def _written(job: _Job, ranks: Ranks) -> tuple[list[Shard], list[Entry]]:
    """What all ranks have written."""
    every = [json.loads((job.part / f"written-{rank:05d}.json").read_text()) for rank in range(ranks.size)]
    shards = [Shard(**row) for one in every for row in one["shards"]]
    return shards, [Entry(**row) for one in every for row in one["utterances"]]


# ------------------------------------------------------------------------------------------------- recordings and tars


def _check_request(utterances: Sequence[Utterance], folder: Path, encode: str, rate: int | None) -> None:
    if encode not in ENCODINGS:
        raise UserError(f"encode is {encode!r}; wanted {' or '.join(ENCODINGS)}")
    if encode == "original" and rate is not None:
        raise UserError(
            f"rate is {rate}, but encode=original keeps each recording's own; leave rate out or encode=flac"
        )
    if not utterances:
        raise UserError(f"{folder}: no utterances to write")
    ids: set[str] = set()
    for utterance in utterances:
        if utterance.id in ids:
            raise UserError(f"the id {utterance.id!r} is there twice; ids must differ")
        ids.add(utterance.id)
    if os.path.ismount(folder):
        raise UserError(f"{folder} is a mount point, which cannot be renamed into place; name a folder inside it")
    if (folder / INDEX).exists():
        raise UserError(f"{folder} holds shards already; name another folder, or delete this one to write it anew")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} holds other things; name a folder that is empty or does not exist")


def _make(temporary: Path) -> None:
    temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.mkdir()
    except FileExistsError as error:
        raise UserError(
            f"{temporary} is there: another run is writing it or was killed while it did; "
            "if none is running, delete it and try again"
        ) from error


@dataclass(frozen=True)
class _Prepared:
    """What goes into the tar for one utterance."""

    text: str
    audio_bytes: bytes
    suffix: str  # of the audio member
    seconds: float
    rate: int  # Hz


@dataclass(frozen=True)
class _Left:
    cause: str
    detail: str = ""


def _prepare_all(
    utterances: Sequence[Utterance], encode: str, rate: int | None, workers: int
) -> Generator[_Prepared | _Left, None, None]:
    """`_prepare` of each in order; at most a few recordings a worker are held in memory."""
    if workers <= 1:
        yield from (_prepare(utterance, encode, rate) for utterance in utterances)
        return
    waiting: deque[Future[_Prepared | _Left]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for utterance in utterances:
                waiting.append(pool.submit(_prepare, utterance, encode, rate))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _prepare(utterance: Utterance, encode: str, rate: int | None) -> _Prepared | _Left:
    text = nfc(utterance.text)
    if not text:
        return _Left("empty text")
    try:
        data = Path(utterance.audio).read_bytes()
        rate = probe(data).rate if rate is None else rate
        wave = load(data, rate)  # (N,)
        flac = b"" if encode == "original" else write_flac(wave, rate)
    except OSError as error:
        return _Left("audio cannot be read", f"{utterance.audio}: {error.strerror}")
    except UserError as error:
        return _Left("audio cannot be decoded", f"{utterance.audio}: {str(error).removeprefix('<bytes>: ')}")
    seconds = len(wave) / rate
    if utterance.seconds is not None and abs(seconds - utterance.seconds) > max(0.5, 0.1 * utterance.seconds):
        found = f"{utterance.audio}: {seconds:.2f} s decoded, {utterance.seconds:.2f} s in the manifest"
        return _Left("audio is not as long as the manifest says", found)
    if encode == "original":
        return _Prepared(text, data, _suffix(utterance.audio), seconds, rate)
    return _Prepared(text, flac, "flac", seconds, rate)


def _suffix(path: str) -> str:
    """A member suffix for a recording: its own where that is plain and does not mean text.

    >>> [_suffix(name) for name in ("a.b/c.d.OPUS", "no suffix", "odd.txt", "곡.노래")]
    ['opus', 'audio', 'audio', 'audio']
    """
    suffix = Path(path).suffix[1:].lower()
    return suffix if re.fullmatch(r"[a-z0-9]{1,8}", suffix) and suffix not in ("txt", "json") else "audio"


def _about(utterance: Utterance, seconds: float, rate: int) -> bytes:
    """The JSON member."""
    about = {"id": utterance.id, "seconds": seconds, "speaker": utterance.speaker, "rate": rate}
    return json.dumps(about, ensure_ascii=False).encode()


class _Hashing:
    """A file being written whose bytes are counted and hashed on the way."""

    def __init__(self, path: Path):
        self.file = path.open("wb")
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.sha256.update(data)
        self.bytes += len(data)

    def close(self) -> None:
        self.file.close()


class _ShardsWriter:
    """Writes samples into shard after shard, and keeps what the index will say of them."""

    def __init__(self, job: _Job, first_shard: int = 0, first_utterance: int = 0):
        self.job, self.first_shard, self.first_utterance = job, first_shard, first_utterance
        self.shards: list[Shard] = []
        self.entries: list[Entry] = []
        self.written = 0  # utterances in the open shard
        self.file: _Hashing | None = None
        self.tar: TarWriter | None = None

    def __enter__(self) -> _ShardsWriter:
        return self

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        if kind is None:
            self._finish()
        elif self.tar is not None and self.file is not None:
            with suppress(OSError):
                self.tar.close()
            with suppress(OSError):
                self.file.close()

    @property
    def _name(self) -> str:
        return f"shard-{self.first_shard + len(self.shards):06d}.tar"

    def write(self, utterance: Utterance, prepared: _Prepared) -> None:
        if self.tar is None:
            self.file = _Hashing(self.job.part / self._name)
            self.tar = TarWriter(self.file, encoder=False, compress=False, user="", group="", mode=0o644, mtime=0)
        members = {
            "txt": prepared.text.encode(),
            "json": _about(utterance, prepared.seconds, prepared.rate),
            prepared.suffix: prepared.audio_bytes,
        }
        key = f"{self.first_utterance + len(self.entries):08d}"
        start = self.tar.tarstream.offset
        for suffix, data in members.items():  # one at a time: TarWriter sorts the members of one call
            self.tar.write({"__key__": key, suffix: data})
        end = self.tar.tarstream.offset
        crc32 = zlib.crc32(prepared.audio_bytes)
        shard = self.first_shard + len(self.shards)
        entry = Entry(utterance.id, shard, start, end - start, crc32, prepared.seconds, len(prepared.text))
        self.entries.append(entry)
        self.written += 1
        if self.job.is_full(end, self.written):
            self._finish()

    def _finish(self) -> None:
        if self.tar is None:
            return
        assert self.file is not None
        self.tar.close()
        self.file.close()
        self.shards.append(Shard(self._name, self.file.bytes, self.file.sha256.hexdigest(), self.written))
        self.file, self.tar, self.written = None, None, 0


def _write_index(folder: Path, shards: Sequence[Shard], entries: Sequence[Entry]) -> None:
    temporary = folder / (INDEX + ".part")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(f'{{"format": {FORMAT},\n"shards": [\n')
        file.write(",\n".join(json.dumps(_record(shard)) for shard in shards))
        file.write('\n],\n"utterances": [\n')
        file.write(",\n".join(json.dumps(_record(entry), ensure_ascii=False) for entry in entries))
        file.write("\n]}\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / INDEX)


def _record(row: Shard | Entry) -> dict[str, Any]:
    return {column.name: getattr(row, column.name) for column in fields(row)}
