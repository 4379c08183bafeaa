"""A file of references or hypotheses -> texts by id, with speakers and lengths where it tells them.

The suffix names the format, .jsonl .trn .stm .ctm .csv; else the content does: lines that begin with `{` are JSON, a
head with the columns id and text is csv, a file whose every line ends in `(id)` is trn, and all else is Kaldi's `text`.
A ctm holds words with times and no utterances: against an stm a word belongs to the segment that its middle lies in.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from las.errors import UserError
from las.evaluate.formats import (
    TRN,
    Line,
    Segment,
    TimedWord,
    named_line,
    parse_ctm,
    parse_json,
    parse_kaldi,
    parse_stm,
    parse_trn,
)

PARSERS: dict[str, Callable[[str, str], Line]] = {
    "jsonl": parse_json, "trn": parse_trn, "stm": parse_stm, "kaldi": parse_kaldi,
}  # fmt: skip
SUFFIXES = {".jsonl": "jsonl", ".trn": "trn", ".stm": "stm", ".ctm": "ctm", ".csv": "csv"}
COMMENTED = ("trn", "stm", "ctm")  # formats in which ;; begins a comment
SEPARATORS = ",;\t"


@dataclass(frozen=True)
class Texts:
    """What a file holds, by id, in its order."""

    texts: dict[str, str]
    speakers: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)  # where hypotheses come with them
    segments: dict[str, Segment] = field(default_factory=dict)  # of an stm
    ignored: tuple[Segment, ...] = ()  # of an stm: where words are not scored


def read_texts(path: str | Path) -> Texts:
    """Read one file: UTF-8, empty lines passed over, texts as they stand, white space at their ends apart.

    Raises UserError naming file and line: unreadable file, bad encoding, a line that is not of the format, an
    id that stands twice. A ctm is taken to have one utterance a file.
    """
    path = Path(path)
    lines = _lines(path)
    kind = _kind(path, lines)
    if kind == "ctm":
        return _joined(path, _words(lines))
    if kind == "csv":
        return _collected(_csv_lines(path, lines))
    return _collected((where, PARSERS[kind](where, line)) for where, line in _filled(lines, kind))


def read_pair(reference: str | Path, hypothesis: str | Path) -> tuple[Texts, Texts]:
    """References and hypotheses; the words of a ctm are given to the segments of an stm. Raises as `read_texts`."""
    references = read_texts(reference)
    path = Path(hypothesis)
    if references.segments and path.suffix.lower() == ".ctm":
        return references, _cut(path, _words(_lines(path)), references)
    return references, read_texts(path)


def _lines(path: Path) -> list[tuple[str, str]]:
    """`path, line N` and the line. Only a line feed ends a line."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the texts: {error.strerror}") from None
    lines = []
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        where = f"{path}, line {number}"
        try:
            lines.append((where, raw.decode("utf-8")))
        except UnicodeDecodeError as error:
            raise UserError(
                f"{where}: byte {error.start + 1} is not UTF-8 (0x{raw[error.start]:02x}); convert the file to UTF-8"
            ) from None
    return lines


def _filled(lines: list[tuple[str, str]], kind: str) -> Iterator[tuple[str, str]]:
    for where, line in lines:
        if line.strip() and not (kind in COMMENTED and line.startswith(";;")):
            yield where, line


def _kind(path: Path, lines: list[tuple[str, str]]) -> str:
    if kind := SUFFIXES.get(path.suffix.lower()):
        return kind
    filled = [line for _, line in lines if line.strip()]
    if filled and filled[0].startswith("{"):
        return "jsonl"
    if filled and _separator(filled[0]):
        return "csv"
    if filled and all(line.startswith(";;") or TRN.fullmatch(line) for line in filled):
        return "trn"
    return "kaldi"


def _separator(head: str) -> str:
    """What parts the columns of a table whose head names `id` and `text`; empty where it does not."""
    for sign in SEPARATORS:
        names = {name.strip(' "\r').lower() for name in head.split(sign)}
        if {"id", "text"} <= names:
            return sign
    return ""


def _csv_lines(path: Path, lines: list[tuple[str, str]]) -> Iterator[tuple[str, Line]]:
    sign = _separator(lines[0][1])
    if not sign:
        raise UserError(f"{path}, line 1: wanted a head with the columns id and text, found {lines[0][1][:60]!r}")
    rows = csv.reader((line + "\n" for _, line in lines), delimiter=sign, strict=True)
    begin = 1
    try:
        names = [name.strip().lower() for name in next(rows)]
        begin = rows.line_num + 1
        for row in rows:
            where, begin = f"{path}, line {begin}", rows.line_num + 1  # a quoted cell may go over several lines
            if len(row) == len(names):
                yield where, named_line(where, dict(zip(names, row, strict=True)))
            elif any(cell.strip() for cell in row):
                raise UserError(f"{where}: {len(row)} cells; the head has {len(names)}")
    except csv.Error as error:
        raise UserError(f"{path}, line {begin}: not csv ({error})") from None


def _collected(lines: Iterator[tuple[str, Line]]) -> Texts:
    found = Texts({})
    ignored: list[Segment] = []
    for where, line in lines:
        if line.segment is not None and not line.segment.counted:
            ignored.append(line.segment)
            continue
        if line.id in found.texts:
            raise UserError(f"{where}: id {line.id!r} stands here a second time; every id must stand once")
        found.texts[line.id] = line.text
        if line.speaker is not None:
            found.speakers[line.id] = line.speaker
        if line.seconds is not None:
            found.seconds[line.id] = line.seconds
        if line.reference is not None:
            found.references[line.id] = line.reference
        if line.segment is not None:
            found.segments[line.id] = line.segment
    return replace(found, ignored=tuple(ignored))


def _words(lines: list[tuple[str, str]]) -> list[TimedWord]:
    return sorted((parse_ctm(*line) for line in _filled(lines, "ctm")), key=lambda word: word.middle)


def _joined(path: Path, words: list[TimedWord]) -> Texts:
    """A ctm without segments: the words of each file in the order of their times."""
    texts: dict[str, list[str]] = {}
    channels: dict[str, str] = {}
    for word in words:
        if channels.setdefault(word.file, word.channel) != word.channel:
            raise UserError(
                f"{path}: {word.file} has the channels {channels[word.file]} and {word.channel}; "
                "score it against an stm"
            )
        texts.setdefault(word.file, []).append(word.word)
    return Texts({file: " ".join(said) for file, said in texts.items()})


def _cut(path: Path, words: list[TimedWord], references: Texts) -> Texts:
    """Words of a ctm to the segment their middle lies in, or else the nearest; those of ignored segments go."""
    places: dict[tuple[str, str], list[tuple[str | None, Segment]]] = {}
    for id, segment in [*references.segments.items(), *((None, segment) for segment in references.ignored)]:
        places.setdefault((segment.file, segment.channel), []).append((id, segment))
    times = {key: np.array([(one.begin, one.end) for _, one in found]) for key, found in places.items()}
    texts: dict[str, list[str]] = {id: [] for id in references.texts}
    for word in words:
        key = (word.file, word.channel)
        if key not in places:
            raise UserError(
                f"{path}: words of {word.file}, channel {word.channel}, of which the references hold nothing"
            )
        begins, ends = times[key].T
        distances = np.maximum(begins - word.middle, word.middle - ends)
        nearest = places[key][int(np.maximum(distances, 0).argmin())]
        if nearest[0] is not None:
            texts[nearest[0]].append(word.word)
    return Texts({id: " ".join(said) for id, said in texts.items()})
