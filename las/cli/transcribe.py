"""`las transcribe`: audio files to transcripts; `las models`: what can transcribe them."""

from __future__ import annotations

import glob
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from las.cli.options import Device, Model, writable
from las.cli.progress import progress_bar
from las.errors import UserError
from las.files import write_text
from las.recipe import DEFAULT_MODEL

if TYPE_CHECKING:
    from las.transcribe.recognizer import Transcript

COMPANIONS = {  # files that lie beside recordings, and are not missed
    ".txt", ".lab", ".json", ".jsonl", ".srt", ".vtt", ".tsv", ".csv", ".ctm", ".trn", ".stm", ".textgrid", ".eaf",
    ".xml", ".ass", ".lrc", ".md", ".pdf", ".docx", ".jpg", ".jpeg", ".png", ".log", ".m3u", ".cue", ".nfo", ".ini",
    ".db",
}  # fmt: skip


class Format(StrEnum):
    """How transcripts are written."""

    txt = "txt"
    json = "json"
    srt = "srt"
    vtt = "vtt"
    tsv = "tsv"
    ctm = "ctm"
    all = "all"


def transcribe(
    files: Annotated[list[str], typer.Argument(help="Audio files, folders of them, or globs.")],
    model: Model = DEFAULT_MODEL,
    output_format: Annotated[
        Format, typer.Option("--output-format", "-f", help="txt, json, srt, vtt, tsv, ctm, or all of them.")
    ] = Format.txt,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help="One file for each recording and format goes here.")
    ] = None,
    word_timestamps: Annotated[
        bool, typer.Option("--word-timestamps", help="Time and confidence of each word in json and vtt; ctm has them.")
    ] = False,
    max_line_width: Annotated[int, typer.Option(min=1, help="Columns of a line in srt and vtt.")] = 42,
    max_line_count: Annotated[int, typer.Option(min=1, help="Lines shown at once in srt and vtt.")] = 2,
    n_best: Annotated[int, typer.Option(min=1, help="Transcripts of each segment in json, best first.")] = 1,
    beam_size: Annotated[int | None, typer.Option(min=1, help="Beams; 1 is greedy. Default: the model's own.")] = None,
    batch_seconds: Annotated[
        float, typer.Option(min=1, help="Audio decoded at once, in seconds: less takes less memory.")
    ] = 120.0,
    hot_words: Annotated[
        str, typer.Option(help="Words and phrases to listen for, with commas between; or a file, one on a line.")
    ] = "",
    hot_word_bonus: Annotated[
        float | None, typer.Option(min=0, help="Added to a transcript's score for each of their tokens.")
    ] = None,
    language_model: Annotated[
        str | None, typer.Option(help="A folder of `las lm train` or an ARPA file. Default: the model's own, if any.")
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Decode what has a bad verdict again, in two other ways; keep the better.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit status 1 where a verdict is not ok.")] = False,
    device: Device = "auto",
) -> None:
    """Transcribe audio files: text on stdout, or files in --output-dir. Recordings may be hours long."""
    from las.recipe.models import open_model
    from las.transcribe import writers

    places = dict(_audio_files(files))
    paths = list(places)
    formats = list(writers.WRITERS) if output_format is Format.all else [output_format.value]
    _check_outputs(places, formats, output_dir, n_best)
    recognizer, _ = open_model(model, device, _settings(hot_word_bonus, language_model))
    phrases = _phrases(hot_words)
    recognizer.phrases(phrases)  # what it cannot write should fail now
    if output_dir is not None:
        writable(output_dir)
    layout = writers.Layout(max_line_width, max_line_count, word_timestamps)
    complaints: list[str] = []
    bad = 0
    with _progress(paths) as progress:
        for transcript in recognizer.stream(
            paths,
            beam=beam_size,
            best=n_best,
            batch_seconds=batch_seconds,
            on_error=lambda source, error: complaints.append(str(error)),
            on_progress=progress,
            hot_words=phrases,
            words=word_timestamps or not set(writers.TIMED).isdisjoint(formats),
            retry=retry,
        ):
            if transcript.complaints:
                bad += 1
                _warn(transcript)
            for name in formats:
                text = writers.WRITERS[name](transcript, layout)
                if output_dir is not None:
                    _write(output_dir / f"{places[transcript.source]}.{name}", text)
                else:
                    print(f"{transcript.source}: " * (len(paths) > 1 and name == "txt"), text, sep="", end="")
    for complaint in complaints:
        print(f"las: {complaint}", file=sys.stderr)
    if complaints:
        raise UserError(f"{len(complaints)} of {len(paths)} files were not transcribed")
    if strict and bad:
        raise UserError(f"{bad} of {len(paths)} transcripts have a verdict that is not ok")


def _settings(hot_word_bonus: float | None, language_model: str | None) -> list[str]:
    """What is set of the search, as `key=value` words."""
    asked = {"hot_word_bonus": hot_word_bonus, "language_model": language_model}
    given = {name: json.dumps(value, ensure_ascii=False) for name, value in asked.items() if value is not None}
    return [f"search.{name}={value}" for name, value in given.items()]


@contextmanager
def _progress(paths: list[str]) -> Iterator[Callable[[float], None]]:
    """A progress bar for files; called with the seconds of audio that were finished since the last time."""
    done = 0.0
    with progress_bar("transcribing", _seconds_of(paths) if sys.stderr.isatty() else None, speed=True) as bar:

        def more(seconds: float) -> None:
            nonlocal done
            done += seconds
            bar(done)

        yield more


def _warn(transcript: Transcript) -> None:
    """Say on stderr what is not ok in a transcript."""
    more = len(transcript.complaints) - 1
    also = f" (and {more} more)" if more else ""
    print(f"las: {transcript.source}: {transcript.verdict}{also}", file=sys.stderr)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def _seconds_of(paths: list[str]) -> float:
    """Of all recordings together; one that cannot be read has none, and is complained of when its turn comes."""
    from las.audio import probe

    total = 0.0
    for path in paths:
        if not os.path.isfile(path):
            continue  # a pipe can be read once
        with suppress(UserError):
            total += probe(path).seconds
    return total


def _phrases(hot_words: str) -> list[str]:
    """The phrases that a word of the command line names, or the file that it names."""
    from las.data.sentences import read_sentences

    named = os.path.isfile(hot_words)  # unlike Path.is_file it takes a long list for no name
    lines = list(read_sentences([hot_words], "verbatim")) if named else hot_words.split(",")
    return [line.strip() for line in lines if line.strip()]


def _audio_files(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Files as given, the audio files of folders and the matches of globs, in order; with each where its transcripts go
    below the output folder, without suffix: by its name, from a folder by its path in it."""
    from las.audio import spelled

    for name in names:
        path = spelled(name)
        if not name:
            raise UserError("a file without a name; wanted an audio file, a folder or a pattern")
        if name == "-":
            yield "/dev/stdin", "stdin"
        elif os.path.isdir(path):
            yield from ((one, os.path.splitext(os.path.relpath(one, path))[0]) for one in _recordings(path))
        elif not os.path.exists(path) and glob.has_magic(name):
            matches = _matches(name)
            if not matches:
                raise UserError(f"{name}: matches no file")
            yield from ((one, Path(one).stem) for one in matches)
        else:
            yield path, Path(path).stem


def _recordings(folder: str) -> list[str]:
    """The audio files of a folder, by their names; says on stderr how many others there are that nobody expects."""
    from las.audio import SUFFIXES, files_below

    found, others = [], []
    for path in files_below(Path(folder)):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in SUFFIXES:
            found.append(str(path))
        elif path.suffix.lower() not in COMPANIONS and not hidden:
            others.append(str(path))
    if not found:
        raise UserError(f"{folder}: no audio files in this folder")
    if others:
        named = f"passed over {len(others)} files whose names are not those of recordings (first: {min(others)})"
        print(f"las: {folder}: {named}", file=sys.stderr)
    return sorted(found)


def _matches(pattern: str) -> list[str]:
    """The files that a pattern matches, its words in either form of Unicode."""
    from las.audio import forms, spelled

    parts = pattern.split(os.sep)
    plain = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    folder, rest = spelled(os.sep.join(parts[:plain])), os.sep.join(parts[plain:])
    patterns = [f"{folder}{os.sep}{form}" if plain else form for form in forms(rest)]
    found = {one for asked in patterns for one in glob.glob(asked, recursive=True)}
    return sorted(one for one in found if not os.path.isdir(one))


def _check_outputs(places: dict[str, str], formats: list[str], output_dir: Path | None, n_best: int) -> None:
    """Refuse what could not be told apart when it is written."""
    from las.transcribe.writers import recording_name

    paths = list(places)
    if n_best > 1 and "json" not in formats:
        raise typer.BadParameter("only json has room for more than one transcript: -f json", param_hint="--n-best")
    if output_dir is None and (len(formats) > 1 or (len(paths) > 1 and formats[0] in ("srt", "vtt", "tsv"))):
        what = "all formats" if len(formats) > 1 else f"{formats[0]} of {len(paths)} recordings"
        raise typer.BadParameter(f"{what} need files of their own: name a folder", param_hint="--output-dir")
    first: dict[str, str] = {}
    for path, place in places.items() if output_dir is not None or formats == ["ctm"] else ():
        name = place if output_dir is not None else recording_name(path)
        other = first.setdefault(name, path)
        if other != path:
            raise UserError(
                f"{other} and {path} would both be written to {name}.{formats[0]}; "
                "transcribe them into different folders"
            )
    if output_dir is not None:
        _spare_neighbours(places, formats, output_dir)


def _spare_neighbours(places: dict[str, str], formats: list[str], output_dir: Path) -> None:
    """Refuse to write over what stands beside a recording: as like as not it is the transcript made by hand."""
    for path, place in places.items():
        for name in formats:
            beside = Path(path).with_suffix(f".{name}")
            if beside.exists() and beside.resolve() == (output_dir / f"{place}.{name}").resolve():
                raise UserError(
                    f"{beside} stands beside its recording and may have been written by hand; "
                    "name another folder with -o, or take it away first"
                )


def models() -> None:
    """List the models that ship with las."""
    from las.recipe.models import pretrained

    for folder in pretrained():
        card = (folder / "README.md").read_text(encoding="utf-8")
        about = next((line for line in card.splitlines()[1:] if line.strip()), "")
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
        print(f"{folder.name}{' (default)' if folder.name == DEFAULT_MODEL else ''}\t{size:.1f} MB\t{about}")
