"""Utterances -> WebDataset tar shards with an index, and back, one sample at a time or a shard in a row.

    FOLDER/shard-000000.tar   members KEY.txt (transcript), KEY.json (id, seconds, speaker, rate), KEY.flac (audio)
    FOLDER/index.json         {"format": 1, "shards": [...], "utterances": [...]}: the fields of `Shard` and `Entry`

KEY is a running number of eight digits and the id stands in the JSON member, so that an id may hold dots, slashes,
spaces or Hangul: WebDataset cuts member names at the first dot. The same utterances, recordings and seed give the same
bytes. Shards are written into FOLDER.part, which gets its name when it is whole.

Formats: tar as POSIX.1-1988 ustar; samples as in https://github.com/webdataset/webdataset.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import re
import shutil
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from webdataset import TarWriter
from webdataset.tariterators import group_by_keys, tar_file_expander

from las.audio import load, probe, write_flac
from las.data import store
from las.data.manifest import Utterance
from las.errors import UserError
from las.ledger import Ledger
from las.text.normalize import nfc

FORMAT = 1  # of index.json and of the shards
BLOCK = 512  # bytes, of which a tar is made
INDEX = "index.json"
ENCODINGS = ("flac", "original")
EARLY = 20  # leavings from which on a hopeless run stops before its end
WAY_OUT = "correct the recordings or the manifest, remove those lines, or raise the limit"


@dataclass(frozen=True, slots=True)
class Shard:
    name: str  # file name in the index's folder
    bytes: int
    sha256: str  # hexadecimal, of the whole file
    utterances: int


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one utterance lies: a ranged read of `size` bytes from `offset` is a tar fragment with the whole sample."""

    id: str
    shard: int  # place in Index.shards
    offset: int  # bytes, of the first member's header
    size: int  # bytes, up to the end of the last member's padding
    crc32: int  # of the audio member's bytes
    seconds: float  # as decoded
    characters: int  # of the NFC text


@dataclass(frozen=True)
class Index:
    """What a folder of shards holds, in the order in which it lies there."""

    root: str  # folder or address
    shards: tuple[Shard, ...]
    entries: tuple[Entry, ...] = field(repr=False)
    cache: str = ""  # folder that keeps copies of remote shards; empty: every sample is asked for by itself

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def seconds(self) -> float:
        return sum(entry.seconds for entry in self.entries)

    @property
    def name(self) -> str:
        return self.root.rstrip("/").rpartition("/")[2]

    def place(self, shard: int) -> str:
        """The path or address of a shard."""
        return store.join(self.root, self.shards[shard].name)


@dataclass(frozen=True)
class Sample:
    id: str
    text: str  # NFC
    audio_bytes: bytes = field(repr=False)  # an audio file
    seconds: float
    speaker: str | None


# ---------------------------------------------------------------------------------------------------------- writing


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
) -> Index:
    """Store recordings and transcripts in `folder`, which must not exist or be empty.

    encode: "flac" decodes to mono at `rate` Hz (None: each recording's own) and stores 16 bits, "original" keeps the
    file's bytes; either way each recording is decoded once, which tells its seconds and that it can be read.
    A shard ends with the utterance that takes it to `shard_bytes` or `shard_utterances`. `seed` shuffles first, so that
    each shard is a fair sample; None keeps the order. `workers` threads decode (most of the work is done in C,
    without Python's lock); the result does not depend on them. `progress(done, total)` is called after each utterance.

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
    temporary = folder.with_name(folder.name + ".part")
    try:
        _make(temporary)
        try:
            writer = _ShardsWriter(temporary, shard_bytes, shard_utterances)
            with writer, closing(_prepare_all(utterances, encode, rate, workers)) as prepared:
                for done, (utterance, result) in enumerate(zip(utterances, prepared, strict=True), start=1):
                    if isinstance(result, _Prepared):
                        writer.write(utterance, result)
                    else:
                        ledger.leave(result.cause, utterance.id, result.detail)
                        if len(ledger) >= EARLY:
                            ledger.check(len(utterances), limit, WAY_OUT)
                    if progress is not None:
                        progress(done, len(utterances))
            ledger.check(len(utterances), limit, WAY_OUT)
            if not writer.entries:
                raise UserError(f"{folder}: no utterance is left to write ({ledger}); {WAY_OUT}")
            _write_index(temporary, writer.shards, writer.entries)
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)  # after os.replace there is nothing left to remove
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{folder}: the disk is full; free some space there or name another folder") from error
        raise UserError(f"{error.filename or folder}: cannot write shards: {error.strerror}") from error
    return Index(str(folder), tuple(writer.shards), tuple(writer.entries))


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
    return _Prepared(text, write_flac(wave, rate), "flac", seconds, rate)


def _suffix(path: str) -> str:
    """A member suffix for a recording: its own where that is plain and does not mean text.

    >>> [_suffix(name) for name in ("a.b/c.d.OPUS", "no suffix", "odd.txt", "곡.노래")]
    ['opus', 'audio', 'audio', 'audio']
    """
    suffix = Path(path).suffix[1:].lower()
    return suffix if re.fullmatch(r"[a-z0-9]{1,8}", suffix) and suffix not in ("txt", "json") else "audio"


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
    """Writes samples into shard after shard of a folder, and keeps what the index will say of them."""

    def __init__(self, folder: Path, shard_bytes: int, shard_utterances: int):
        self.folder, self.shard_bytes, self.shard_utterances = folder, shard_bytes, shard_utterances
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

    def write(self, utterance: Utterance, prepared: _Prepared) -> None:
        if self.tar is None:
            self.file = _Hashing(self.folder / f"shard-{len(self.shards):06d}.tar")
            self.tar = TarWriter(self.file, encoder=False, compress=False, user="", group="", mode=0o644, mtime=0)
        about = {"id": utterance.id, "seconds": prepared.seconds, "speaker": utterance.speaker, "rate": prepared.rate}
        members = {
            "txt": prepared.text.encode(),
            "json": json.dumps(about, ensure_ascii=False).encode(),
            prepared.suffix: prepared.audio_bytes,
        }
        key = f"{len(self.entries):08d}"
        start = self.tar.tarstream.offset
        for suffix, data in members.items():  # one at a time: TarWriter sorts the members of one call
            self.tar.write({"__key__": key, suffix: data})
        end = self.tar.tarstream.offset
        crc32 = zlib.crc32(prepared.audio_bytes)
        entry = Entry(utterance.id, len(self.shards), start, end - start, crc32, prepared.seconds, len(prepared.text))
        self.entries.append(entry)
        self.written += 1
        if end >= self.shard_bytes or self.written >= self.shard_utterances:
            self._finish()

    def _finish(self) -> None:
        if self.tar is None:
            return
        assert self.file is not None
        self.tar.close()
        self.file.close()
        name = f"shard-{len(self.shards):06d}.tar"
        self.shards.append(Shard(name, self.file.bytes, self.file.sha256.hexdigest(), self.written))
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


# ---------------------------------------------------------------------------------------------------------- reading


def holds_shards(place: str | Path) -> bool:
    """Whether a set is a folder of shards, here or at an address, and not a manifest.

    >>> holds_shards("s3://bucket/test"), holds_shards("test.jsonl")
    (True, False)
    """
    return store.is_remote(str(place)) or os.path.isdir(place)


def read_index(folder: str | Path, cache: str = "") -> Index:
    """The index of a folder of shards or of an address where such a folder lies: http(s) or what fsspec knows.

    Local shards are compared with their sizes in the index (`verify` compares contents). Of remote ones `cache`, where
    it is given, keeps the shards that were read from. Raises `UserError` for a missing or damaged index, another format
    version, and a missing local shard or one of another size.
    """
    root = str(folder) if store.is_remote(str(folder)) else os.path.abspath(folder)
    path = store.join(root, INDEX)
    try:
        record = json.loads(store.read_whole(path))
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: no index here; `las shard MANIFEST -o {root}` makes shards from a manifest"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot read the index: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); {_ANEW}") from error
    if not isinstance(record, dict) or "format" not in record:
        raise UserError(f"{path}: not an index of shards; {_ANEW}")
    if record["format"] != FORMAT:
        raise UserError(
            f"{path}: format {record['format']!r}, but this version of las reads format {FORMAT}; "
            "make the shards anew with `las shard`, or use the las that wrote them"
        )
    shards = tuple(_rows(path, record, "shards", Shard))
    entries = tuple(_rows(path, record, "utterances", Entry))
    _check_spans(path, shards, entries)
    for shard in () if store.is_remote(root) else shards:
        _check_size(store.join(root, shard.name), shard)
    return Index(root, shards, entries, cache)


def verify(index: Index, progress: Callable[[int, int], None] | None = None) -> None:
    """Read every shard and compare its SHA-256; `progress(done, total)` counts shards. Raises `UserError`."""
    for done, shard in enumerate(index.shards, start=1):
        place = index.place(done - 1)
        if not store.is_remote(place):
            _check_size(place, shard)
        found = store.digest(place, shard.bytes)
        if found != shard.sha256:
            raise UserError(f"{place}: SHA-256 {found}, but the index says {shard.sha256}: damaged; {_ANEW}")
        if progress is not None:
            progress(done, len(index.shards))


def read_sample(index: Index, entry: Entry) -> Sample:
    """One sample by one ranged read, nothing unpacked to disk.

    Raises `UserError` that names shard, offset and id where the file ends early, what lies there is not that sample,
    or the audio's CRC-32 differs.
    """
    members = _members(index, entry, entry.size, most=4)
    if [suffix for suffix, _ in members[:2]] != ["txt", "json"] or len(members) != 3:
        raise UserError(f"{_where(index, entry)}: found {[suffix for suffix, _ in members]} there; {_ANEW}")
    (_, text), (_, about), (_, audio_bytes) = members
    if zlib.crc32(audio_bytes) != entry.crc32:
        raise UserError(f"{_where(index, entry)}: the audio is damaged (its CRC-32 differs); {_ANEW}")
    try:
        record = json.loads(about)
        found, speaker = record["id"], record["speaker"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{_where(index, entry)}: the JSON member is damaged; {_ANEW}") from error
    if found != entry.id:
        raise UserError(f"{_where(index, entry)}: the sample there is {found!r}; {_ANEW}")
    return Sample(entry.id, _decode(index, entry, text), audio_bytes, entry.seconds, speaker)


def read_text(index: Index, entry: Entry) -> str:
    """The transcript alone: reads the first member, a few hundred bytes, and not the audio."""
    longest = 4 * entry.characters  # bytes, in UTF-8
    members = _members(index, entry, min(entry.size, BLOCK + -(-longest // BLOCK) * BLOCK), most=1)
    if not members or members[0][0] != "txt":
        raise UserError(f"{_where(index, entry)}: no transcript there; {_ANEW}")
    return _decode(index, entry, members[0][1])


def iterate(path: str | Path) -> Iterator[dict[str, Any]]:
    """The samples of one shard in a row, read by webdataset: dicts of `__key__`, `txt`, `json` and audio, all bytes."""
    with Path(path).open("rb") as file:
        yield from group_by_keys(tar_file_expander([{"url": str(path), "stream": file}]))


_ANEW = "fetch or make the shards anew (`las shard`)"


def _rows(path: str, record: dict[str, Any], name: str, kind: type) -> Iterator[Any]:
    """The rows of one of the index's two tables, each with exactly the fields of `kind` and their types."""
    rows = record.get(name)
    if not isinstance(rows, list):
        raise UserError(f"{path}: no list {name!r} in it; {_ANEW}")
    wanted = [column.name for column in fields(kind)]
    types = [{"str": str, "int": int, "float": float}[str(column.type)] for column in fields(kind)]
    for number, row in enumerate(rows):
        try:
            values = [row[column] for column in wanted]
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: {name}[{number}] is {row!r:.80}; wanted {', '.join(wanted)}; {_ANEW}") from error
        if list(map(type, values)) != types:
            raise UserError(f"{path}: {name}[{number}] is {row!r:.80}: a value of another type; {_ANEW}")
        yield kind(*values)


def _check_spans(path: str, shards: Sequence[Shard], entries: Sequence[Entry]) -> None:
    """Entries must lie one after another in their shards, each id once; no name of a shard or of its copy may lead
    elsewhere."""
    for shard in shards:
        if not re.fullmatch(r"shard-[0-9]{6,}\.tar", shard.name):
            raise UserError(f"{path}: the shard name {shard.name!r} is not one las writes; {_ANEW}")
        if not re.fullmatch(r"[0-9a-f]{64}", shard.sha256):
            raise UserError(f"{path}: {shard.sha256!r:.80} is no SHA-256 of {shard.name}; {_ANEW}")
    ids: set[str] = set()
    counts = [0] * len(shards)
    for entry in entries:
        if not (0 <= entry.shard < len(shards) and 0 <= entry.offset <= entry.offset + entry.size):
            raise UserError(f"{path}: {entry.id!r} lies in no shard; {_ANEW}")
        if entry.offset + entry.size > shards[entry.shard].bytes:
            raise UserError(f"{path}: {entry.id!r} lies past the end of {shards[entry.shard].name}; {_ANEW}")
        counts[entry.shard] += 1
        ids.add(entry.id)
    if len(ids) < len(entries):
        raise UserError(f"{path}: an id is there twice; {_ANEW}")
    for shard, count in zip(shards, counts, strict=True):
        if count != shard.utterances:
            raise UserError(f"{path}: {shard.name} has {shard.utterances} utterances, but {count} are listed; {_ANEW}")


def _check_size(path: str, shard: Shard) -> None:
    try:
        found = os.stat(path).st_size
    except OSError as error:
        raise UserError(
            f"{path}: the index names this shard, but it cannot be read: {error.strerror}; {_ANEW}"
        ) from error
    if found != shard.bytes:
        raise UserError(f"{path}: {found} bytes, but the index says {shard.bytes}; {_ANEW}")


def _members(index: Index, entry: Entry, size: int, most: int) -> list[tuple[str, bytes]]:
    """(suffix, bytes) of the first members, at most `most`, in the first `size` bytes of a sample's span."""
    place, shard = index.place(entry.shard), index.shards[entry.shard]
    if index.cache and store.is_remote(place):
        place = store.keep(place, shard.bytes, shard.sha256, Path(index.cache))
    fragment = store.read(place, entry.offset, size)
    if len(fragment) < size:
        raise UserError(f"{_where(index, entry)}: the file ends early; {_ANEW}")
    members: list[tuple[str, bytes]] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(fragment), mode="r:") as tar:
            while len(members) < most and (member := tar.next()) is not None:
                if (content := tar.extractfile(member)) is None:  # not a file
                    break
                members.append((member.name.partition(".")[2], content.read()))
    except (tarfile.TarError, ValueError) as error:
        raise UserError(f"{_where(index, entry)}: no sample there ({error}); {_ANEW}") from error
    return members


def _decode(index: Index, entry: Entry, text: bytes) -> str:
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{_where(index, entry)}: the transcript is damaged (not UTF-8); {_ANEW}") from error
    if len(decoded) != entry.characters:
        found = f"{len(decoded)} characters, but the index says {entry.characters}"
        raise UserError(f"{_where(index, entry)}: the transcript has {found}; {_ANEW}")
    return decoded


def _where(index: Index, entry: Entry) -> str:
    return f"{index.place(entry.shard)}, offset {entry.offset}, utterance {entry.id!r}"
