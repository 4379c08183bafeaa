"""References and hypotheses by utterance id -> error counts of the set and of each utterance.

Pairs are made by id, never by line number; both sides go through the same text style; an empty hypothesis is a
hypothesis. Also reads the texts: Kaldi's `text` files (kaldi-asr.org/doc/data_prep.html) and JSONL.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from las.errors import UserError
from las.text.alignment import Alignment, ErrorCounts, Unit, align
from las.text.normalize import style_named

SHOWN_IDS = 3  # how many missing ids an error names


@dataclass(frozen=True)
class UtteranceScore:
    id: str
    reference: str  # in the style it was scored in
    hypothesis: str
    alignment: Alignment


@dataclass(frozen=True)
class SetScore:
    """What `score` found: the summed counts, and the utterances in the order of the references."""

    counts: ErrorCounts
    utterances: tuple[UtteranceScore, ...]
    style: str
    unit: Unit


def score(
    references: Mapping[str, str], hypotheses: Mapping[str, str], style: str = "basic", unit: Unit = "word"
) -> SetScore:
    """Score id -> text against id -> text. A text that is empty in this style is scored like any other.

    Raises UserError where an id is on one side only, where there is no utterance, for an unknown style or unit.

    >>> format_counts(score({"a": "One, two.", "b": "Three"}, {"a": "one too", "b": ""}).counts)
    '66.67% (S 1 D 1 I 0 / N 3)'
    """
    normalized = style_named(style)
    _check_ids(references.keys(), hypotheses.keys())
    utterances = []
    for id, reference in references.items():
        reference, hypothesis = normalized(reference), normalized(hypotheses[id])
        utterances.append(UtteranceScore(id, reference, hypothesis, align(reference, hypothesis, unit)))
    counts = sum((utterance.alignment.counts for utterance in utterances), ErrorCounts())
    return SetScore(counts, tuple(utterances), style, unit)


def _check_ids(references: Collection[str], hypotheses: Collection[str]) -> None:
    unheard = [id for id in references if id not in hypotheses]
    unasked = [id for id in hypotheses if id not in references]
    complaints = []
    if unheard:
        complaints.append(f"{len(unheard)} of {len(references)} references have no hypothesis ({_first(unheard)})")
    if unasked:
        complaints.append(f"{len(unasked)} of {len(hypotheses)} hypotheses have no reference ({_first(unasked)})")
    if complaints:
        raise UserError(f"{' and '.join(complaints)}; to be scored, an id must stand on both sides")
    if not references:
        raise UserError("nothing to score: no utterance on either side")


def _first(ids: list[str]) -> str:
    return ", ".join(ids[:SHOWN_IDS]) + (", ..." if len(ids) > SHOWN_IDS else "")


def format_counts(counts: ErrorCounts) -> str:
    """The rate with what it is made of, as a table shows it.

    >>> format_counts(ErrorCounts(substitutions=10, deletions=2, insertions=1, reference=106))
    '12.26% (S 10 D 2 I 1 / N 106)'
    """
    rate = "undefined" if counts.rate is None else f"{counts.rate:.2%}"
    return f"{rate} (S {counts.substitutions} D {counts.deletions} I {counts.insertions} / N {counts.reference})"


def read_texts(path: str | Path) -> dict[str, str]:
    """Read id -> text, in the order of the file: UTF-8, one utterance a line, empty lines passed over.

    The first sign tells the format. `{`: JSONL with the strings "id" and "text", other keys are passed over. Else
    `id TAB text`, where the id may hold spaces, or, on a line without TAB, `id SPACE text` as Kaldi
    writes it; an id alone has the empty text. Texts come as they stand, white space at their ends apart.

    Raises UserError naming file and line: unreadable file, bad encoding, line without id, duplicate id, bad JSON.
    """
    lines = list(_lines(path))
    parse: Callable[[str, str], tuple[str, str]] = _parse_line
    if lines and lines[0][1].startswith("{"):
        parse = _parse_json
    texts: dict[str, str] = {}
    for where, line in lines:
        id, text = parse(where, line)
        if id in texts:
            raise UserError(f"{where}: id {id!r} stands here a second time; every id must stand once")
        texts[id] = text
    return texts


def _lines(path: str | Path) -> Iterator[tuple[str, str]]:
    """`path, line N` and the line, for every line with something on it. Only a line feed ends a line."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the texts: {error.strerror}") from None
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        where = f"{path}, line {number}"
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{where}: byte {error.start + 1} is not UTF-8 (0x{raw[error.start]:02x}); convert the file to UTF-8"
            ) from None
        if line.strip():
            yield where, line


def _parse_line(where: str, line: str) -> tuple[str, str]:
    id, _, text = line.partition("\t" if "\t" in line else " ")
    id = id.rstrip()
    if not id or id[0].isspace():
        raise UserError(f"{where}: begins with white space; wanted was an id, then a TAB or a space, then the text")
    return id, text.strip()


def _parse_json(where: str, line: str) -> tuple[str, str]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: not JSON ({error.msg} at column {error.colno}), but the file begins as JSONL"
        ) from None
    for key in ("id", "text"):
        if not isinstance(record, dict) or not isinstance(record.get(key), str):
            raise UserError(f'{where}: no string {key!r}; wanted was {{"id": "...", "text": "..."}}, got {line[:60]}')
    if not record["id"].strip():
        raise UserError(f"{where}: the id is empty")
    return record["id"], record["text"].strip()
