"""Evaluated sets -> a folder: NAME.jsonl (hypotheses), report.json, report.txt and report.html, each for all sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from las.evaluate.breakdown import Record, facts, format_interval, format_rate
from las.evaluate.media import Media
from las.evaluate.page import page
from las.evaluate.report import SetResult, command, commit, hardware
from las.evaluate.score import CHARACTER
from las.evaluate.significance import DRAWS, LEVEL
from las.files import write_json, write_text
from las.text.alignment import Alignment

FORMAT = 1  # of report.json
TOP = 20  # confusions of a kind in report.txt


def write_folder(folder: Path, results: Sequence[SetResult], media: Mapping[str, Mapping[str, Media]]) -> None:
    """Write all files; `media` are by set and utterance id. Raises OSError where the folder cannot be written."""
    record = report_record(results)
    for result in results:
        write_text(folder / f"{result.name}.jsonl", result.lines())
    write_json(folder / "report.json", record)
    write_text(folder / "report.txt", "".join(f"{line}\n" for line in text_lines(record, results)))
    write_text(folder / "report.html", page(record, media))


def report_record(results: Sequence[SetResult]) -> Record:
    """All that report.json holds."""
    return {
        "format": FORMAT,
        "command": command(),
        "commit": commit(),
        "hardware": hardware(),
        "character": CHARACTER,
        "interval": {"level": LEVEL, "draws": DRAWS, "method": "bootstrap, percentiles"},
        "sets": [result.record for result in results],
    }


def text_lines(record: Record, results: Sequence[SetResult]) -> Iterator[str]:
    """report.txt, line by line: the figures of each set, then every utterance aligned, as sclite shows them."""
    for name in ("command", "commit", "hardware"):
        yield f"{name}: {record[name]}"
    yield f"intervals: {record['interval']['level']:.0%}, bootstrap of {record['interval']['draws']} draws, percentiles"
    yield f"characters of CER: {record['character']}"
    for one, result in zip(record["sets"], results, strict=True):
        yield from ("", f"== {one['name']}", "")
        yield from (f"{name}: {value}" for name, value in facts(one))
        yield from _tables(one)
        yield from _alignments(result)


def _tables(one: Record) -> Iterator[str]:
    groups = [("verdict", one["verdicts"]), ("speaker", one["speakers"]), *one["buckets"].items()]
    for title, rows in groups:
        if rows:
            yield from ("", f"-- by {title}")
        for row in rows:
            many = "s" * (row["utterances"] != 1)
            interval = f"\t95% {format_interval(row['wer'])}" if row["wer"]["interval"] else ""
            yield (
                f"{row['name']}\t{row['utterances']} utterance{many}\tWER {format_rate(row['wer'])}{interval}"
                f"\tCER {format_rate(row['cer'])}"
            )
    for kind, rows in one["confusions"].items():
        if rows:
            yield from ("", f"-- {kind}, most frequent first")
        for reference, hypothesis, times in rows[:TOP]:
            yield f"{times}\t{' -> '.join(word for word in (reference, hypothesis) if word)}"


def _alignments(result: SetResult) -> Iterator[str]:
    yield from ("", "-- utterances")
    for one in result.score.utterances:
        yield from ("", f"id: {one.id}")
        if one.id in result.speakers:
            yield f"speaker: {result.speakers[one.id]}"
        yield f"Scores: {sclite_scores(one.alignment)}"
        yield str(one.alignment)


def sclite_scores(alignment: Alignment) -> str:
    """Correct, substituted, deleted and put in, under sclite's head."""
    counts = alignment.counts
    right = counts.reference - counts.substitutions - counts.deletions
    return f"(#C #S #D #I) {right} {counts.substitutions} {counts.deletions} {counts.insertions}"
