"""One line of a file of transcripts -> id, text, and what else it tells.

Kaldi's `text` (kaldi-asr.org/doc/data_prep.html), JSON lines, and NIST's trn, stm and ctm as sclite's manual describes
them (SCTK, doc/infmts.htm). A parser gets `FILE, line N` for its complaints, and the line.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from las.errors import UserError

IGNORED = "IGNORE_TIME_SEGMENT_IN_SCORING"  # an stm segment whose words are not counted
TRN = re.compile(r"(?P<text>.*?)\s*\((?P<id>[^()]+)\)\s*")
STM_LABEL = re.compile(r"<[^<>\s]*,[^<>\s]*>(\s+|$)")  # <O,F0,M> before a transcript: which part of the set this is


@dataclass(frozen=True)
class Segment:
    """A stretch of one channel of a recording."""

    file: str
    channel: str
    begin: float  # s
    end: float  # s
    counted: bool = True  # False: words said here are not scored


@dataclass(frozen=True)
class Line:
    """One utterance as a file tells of it; None where it does not."""

    id: str
    text: str
    speaker: str | None = None
    seconds: float | None = None
    reference: str | None = None  # beside the hypothesis, as `las evaluate` writes it
    segment: Segment | None = None


@dataclass(frozen=True)
class TimedWord:
    """A word of a ctm."""

    file: str
    channel: str
    middle: float  # s
    word: str


def parse_kaldi(where: str, line: str) -> Line:
    """`id TAB text`, where the id may hold spaces, or on a line without TAB `id SPACE text`."""
    id, _, text = line.partition("\t" if "\t" in line else " ")
    id = id.rstrip()
    if not id or id[0].isspace():
        raise UserError(f"{where}: begins with white space; wanted was an id, then a TAB or a space, then the text")
    return Line(id, text.strip())


def parse_json(where: str, line: str) -> Line:
    """A JSON object with the strings "id" and "text", perhaps "speaker", "seconds" and "reference"."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        what = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise UserError(f"{where}: not JSON ({what}), but the file begins as JSONL") from None
    for key in ("id", "text"):
        if not isinstance(record, dict) or not isinstance(record.get(key), str):
            raise UserError(f'{where}: no string {key!r}; wanted was {{"id": "...", "text": "..."}}, got {line[:60]}')
    for key in ("speaker", "reference"):
        if not isinstance(record.get(key), (str, type(None))):
            raise UserError(f"{where}: {key!r} is {record[key]!r}; wanted a string, or leave it out")
    return named_line(where, record)


def named_line(where: str, record: dict[str, Any]) -> Line:
    """An utterance from fields by name, all strings but "seconds"."""
    if not record["id"].strip():
        raise UserError(f"{where}: the id is empty")
    for key in ("id", "text", "speaker", "reference"):
        if re.search("[\ud800-\udc7f\udd00-\udfff]", record.get(key) or ""):
            raise UserError(f"{where}: {key!r} holds half a character (a lone surrogate); correct it")
    speaker, seconds = record.get("speaker"), record.get("seconds")
    if seconds in (None, ""):
        seconds = None
    else:
        seconds = _number(where, "'seconds'", seconds)
        if seconds <= 0:
            raise UserError(f"{where}: 'seconds' is {seconds:g}; wanted a number above 0, or leave it out")
    return Line(record["id"], record["text"].strip(), speaker or None, seconds, record.get("reference"))


def parse_trn(where: str, line: str) -> Line:
    """`text (id)`; the speaker is the id up to its first - or _, as sclite takes it.

    >>> parse_trn("a.trn, line 1", "one two (george-007)")
    Line(id='george-007', text='one two', speaker='george', seconds=None, reference=None, segment=None)
    """
    found = TRN.fullmatch(line)
    if found is None or not found["id"].strip():
        raise UserError(f"{where}: no id in parentheses at the end; wanted was `text (speaker-utterance)`")
    _refuse_choices(where, found["text"])
    id = found["id"].strip()
    speaker = re.split(r"[-_]", id, maxsplit=1)[0]
    return Line(id, found["text"], speaker if speaker and speaker != id else None)


def parse_stm(where: str, line: str) -> Line:
    """`file channel speaker begin end [<label>] text`, times in seconds; the id is file, channel and times.

    >>> parse_stm("a.stm, line 1", "show 1 anna 0.5 2 <O,F0,F> good morning").id
    'show-1-0.50-2.00'
    """
    fields = line.split(maxsplit=5)
    if len(fields) < 5:
        raise UserError(f"{where}: {len(fields)} fields; wanted was `file channel speaker begin end text`")
    file, channel, speaker = fields[:3]
    begin, end = (
        _number(where, f"the {what}", field) for what, field in zip(("begin", "end"), fields[3:5], strict=True)
    )
    if end <= begin:
        raise UserError(f"{where}: the segment ends at {end:g} s, not after its begin at {begin:g} s")
    text = (
        STM_LABEL.sub("", fields[5], count=1)
        if len(fields) == 6 and STM_LABEL.match(fields[5])
        else "".join(fields[5:])
    )
    _refuse_choices(where, text)
    segment = Segment(file, channel, begin, end, counted=text.strip().upper() != IGNORED)
    return Line(f"{file}-{channel}-{begin:.2f}-{end:.2f}", text.strip(), speaker, end - begin, segment=segment)


def parse_ctm(where: str, line: str) -> TimedWord:
    """`file channel begin duration word [confidence]`, times in seconds."""
    fields = line.split()
    if len(fields) < 5:
        raise UserError(f"{where}: {len(fields)} fields; wanted was `file channel begin duration word`")
    if fields[4].startswith("<ALT"):
        raise UserError(f"{where}: alternatives ({fields[4]}) cannot be scored; write one of them")
    begin, duration = (
        _number(where, f"the {what}", field) for what, field in zip(("begin", "duration"), fields[2:4], strict=True)
    )
    return TimedWord(fields[0], fields[1], begin + duration / 2, fields[4])


def _refuse_choices(where: str, text: str) -> None:
    if found := re.search(r"(?<!\S)\([^()\s]+\)(?!\S)", text):
        raise UserError(
            f"{where}: {found[0]} is a word that may be left out, which cannot be scored; write it without "
            "parentheses, or leave it out"
        )
    if found := re.search(r"\{[^{}]* / [^{}]*\}", text):
        raise UserError(f"{where}: alternatives ({found[0]}) cannot be scored; write one of them")


def _number(where: str, what: str, value: object) -> float:
    try:
        number = math.nan if isinstance(value, (bool, dict, list)) else float(value)  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: {what} is {value!r}; wanted a number of seconds")
    return number
