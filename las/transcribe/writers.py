"""A transcript -> what is written of it: txt, json, srt, vtt, tsv, ctm.

    txt   the text alone, on a line
    json  an object on a line: text, seconds, score, verdict, and segments with their times; on demand words and n-best
    srt   SubRip subtitles; vtt: WebVTT (W3C), on demand with the time and confidence of each word
    tsv   whisper's: start and end in milliseconds, and the text of each cue, below a head
    ctm   NIST's (SCTK, doc/infmts.htm): recording, channel, start, duration, word, confidence; times in seconds

srt, vtt and tsv hold the same cues. Word times make them: a cue is full when its lines are, and ends where nobody
speaks for a while.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.cells import cell_len

from las.errors import UserError
from las.transcribe.recognizer import Transcript
from las.transcribe.timing import Word

LONG_PAUSE = 1.0  # s without a word, which ends a cue
SHORTEST_CUE = 0.001  # s; players leave out a cue that ends when it starts
ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})  # of WebVTT's cue text


@dataclass(frozen=True)
class Layout:
    """How transcripts are laid out."""

    line_width: int = 42  # columns of a subtitle's line, as a terminal counts them: Hangul and Han take two
    line_count: int = 2  # lines of a subtitle
    words: bool = False  # each word with its time and confidence in json and vtt

    def __post_init__(self) -> None:
        for name in ("line_width", "line_count"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} must be at least 1")


@dataclass(frozen=True)
class Cue:
    """Lines that are shown at once."""

    lines: tuple[tuple[Word, ...], ...]

    @property
    def start(self) -> float:
        return self.lines[0][0].start

    @property
    def end(self) -> float:
        return max(self.lines[-1][-1].end, self.start + SHORTEST_CUE)


def cues(words: Sequence[Word], layout: Layout) -> list[Cue]:
    """Words in lines of at most `line_width` columns; a longer word has a line of its own and is not cut."""
    found: list[Cue] = []
    lines: list[list[Word]] = []
    end = 0.0
    for word in words:
        pause = bool(lines) and word.start - end >= LONG_PAUSE
        full = bool(lines) and cell_len(_line([*lines[-1], word])) > layout.line_width
        if pause or (full and len(lines) == layout.line_count):
            found.append(Cue(tuple(map(tuple, lines))))
            lines = []
        if not lines or full:
            lines.append([])
        lines[-1].append(word)
        end = word.end
    return [*found, Cue(tuple(map(tuple, lines)))] if lines else found


def txt(transcript: Transcript, layout: Layout) -> str:
    """The text and the end of its line."""
    return transcript.text + "\n"


def json_line(transcript: Transcript, layout: Layout) -> str:
    """One line of JSON; times in seconds."""
    segments = []
    for one in transcript.segments:
        segment: dict[str, object] = {"start": round(one.start, 3), "end": round(one.end, 3), "text": one.text}
        segment |= {"score": round(one.score, 4), "complete": one.complete, "verdict": one.verdict.name}
        if layout.words:
            segment["words"] = [
                {
                    "word": word.text,
                    "start": round(word.start, 3),
                    "end": round(word.end, 3),
                    "confidence": round(word.confidence, 4),
                }
                for word in one.words
            ]
        if one.alternatives:
            segment["alternatives"] = [{"text": text, "score": round(score, 4)} for text, score in one.alternatives]
        segments.append(segment)
    record = {"file": transcript.source, "text": transcript.text, "seconds": round(transcript.seconds, 3)}
    record |= {"score": round(transcript.score, 4), "complete": transcript.complete}
    record |= {"verdict": transcript.verdict.name, "complaints": list(map(str, transcript.complaints))}
    record["segments"] = segments
    return json.dumps(record, ensure_ascii=False) + "\n"


def srt(transcript: Transcript, layout: Layout) -> str:
    """SubRip has no escapes: what could be read as a tag is written as it is."""
    return "".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n" + "\n".join(map(_line, cue.lines)) + "\n\n"
        for number, cue in enumerate(cues(transcript.words, layout), start=1)
    )


def vtt(transcript: Transcript, layout: Layout) -> str:
    """With `words` a time before each word, and its confidence in percent as a class: `<c.confidence-97>`."""
    blocks = ["WEBVTT\n"]
    for cue in cues(transcript.words, layout):
        plain = [_line(line).translate(ESCAPES) for line in cue.lines]
        lines = [_vtt_words(line, cue.start) for line in cue.lines] if layout.words else plain
        blocks.append(f"{_clock(cue.start)} --> {_clock(cue.end)}\n" + "\n".join(lines) + "\n")
    return "\n".join(blocks)


def tsv(transcript: Transcript, layout: Layout) -> str:
    """A row for each cue; no text holds a TAB."""
    rows = ["start\tend\ttext\n"]
    for cue in cues(transcript.words, layout):
        text = _line([word for line in cue.lines for word in line])
        rows.append(f"{_milliseconds(cue.start)}\t{_milliseconds(cue.end)}\t{text}\n")
    return "".join(rows)


def ctm(transcript: Transcript, layout: Layout) -> str:
    """A line for each word, with the name of its recording."""
    name = recording_name(transcript.source)
    return "".join(
        f"{name} 1 {word.start:.3f} {word.end - word.start:.3f} {word.text} {word.confidence:.4f}\n"
        for word in transcript.words
    )


def recording_name(source: str) -> str:
    """What a ctm tells recordings apart by: the stem of the file's name, with _ for white space."""
    return re.sub(r"\s+", "_", Path(source).stem)


WRITERS: dict[str, Callable[[Transcript, Layout], str]] = {
    "txt": txt,
    "json": json_line,
    "srt": srt,
    "vtt": vtt,
    "tsv": tsv,
    "ctm": ctm,
}
TIMED = ("srt", "vtt", "tsv", "ctm")  # those that cannot do without word times


def _line(words: Sequence[Word]) -> str:
    return "".join(" " * (word.spaced and place > 0) + word.text for place, word in enumerate(words))


def _vtt_words(words: Sequence[Word], begin: float) -> str:
    """Times lie inside the cue, which begins at `begin`: the word that begins it has none of its own."""
    found = ""
    for place, word in enumerate(words):
        time = f"<{_clock(word.start)}>" if _milliseconds(word.start) > _milliseconds(begin) else ""
        confidence = round(100 * word.confidence)
        found += " " * (word.spaced and place > 0)
        found += f"{time}<c.confidence-{confidence}>{word.text.translate(ESCAPES)}</c>"
    return found


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _clock(seconds: float, point: str = ".") -> str:
    """
    >>> _clock(3723.0045, ",")
    '01:02:03,004'
    """
    whole, thousandths = divmod(_milliseconds(seconds), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}{point}{thousandths:03d}"
