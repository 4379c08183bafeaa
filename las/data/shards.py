"""WebDataset tar shards with an index -> utterances, one sample at a time or a shard in a row.

    FOLDER/shard-000000.tar   members KEY.txt (transcript), KEY.json (id, seconds, speaker, rate), KEY.flac (audio)
    FOLDER/index.json         {"format": 1, "shards": [...], "utterances": [...]}: the fields of `Shard` and `Entry`

KEY is a running number of eight digits and the id stands in the JSON member, so that an id may hold dots, slashes,
spaces or Hangul: WebDataset cuts member names at the first dot. `las/data/sharding.py` writes them.

Formats: tar as POSIX.1-1988 ustar; samples as in https://github.com/webdataset/webdataset.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from webdataset.tariterators import group_by_keys, tar_file_expander

from las.data import store
from las.errors import UserError

FORMAT = 1  # of index.json and of the shards
BLOCK = 512  # bytes, of which a tar is made
INDEX = "index.json"


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
    except NotADirectoryError:
        raise UserError(
            f"{root}: a file; wanted a folder of shards, which `las shard MANIFEST -o FOLDER` makes"
        ) from None
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
        if not (0 < entry.seconds < math.inf and entry.characters >= 0):
            raise UserError(f"{path}: {entry.id!r} has {entry.seconds} s and {entry.characters} characters; {_ANEW}")
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
                if not member.isreg() or member.issparse() or member.size > size:  # a sparse one may unpack to anything
                    break
                content = tar.extractfile(member)
                assert content is not None
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
